"""Annealed importance sampling of a partition function, forwards and in reverse.

Papers
    Neal 2001, "Annealed importance sampling" (Statistics and Computing 11).
    Salakhutdinov & Murray 2008, "On the quantitative analysis of deep belief networks" (ICML): the schedule, the
    base-rate model to start from.
    Burda, Grosse & Salakhutdinov 2015, "Accurate and conservative estimates of MRF log-likelihood using reverse
    annealing" (AISTATS); Grosse et al. 2015 (arXiv:1511.02543): from both sides.

A path leads from a distribution p_0 = f_0 / Z_0 whose Z_0 is known to p_1 = f_1 / Z_1. A chain that starts from p_0 has

    w = prod_k f_{b_k}(x_{k-1}) / f_{b_{k-1}}(x_{k-1}),      E[w] = Z_1 / Z_0,

so that log mean w is, in expectation, at most log Z_1 / Z_0. The same chain backwards, from exact examples of p_1, has
E[1 / w] = Z_0 / Z_1, and minus log mean 1 / w is at least that. Exact examples there are only of models that can be
enumerated; here they come from long chains, so the upper side is one as far as these have reached the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from castalia.core.rng import Rng

APART = 1.0
"""Nats between the two sides above which an estimate is not to be trusted."""


class Path(Protocol):
    """A family of distributions between one that is known (0) and one that is asked for (1), and chains along it."""

    def base(self) -> float:
        """Log Z_0."""
        ...

    def start(self, rng: Rng) -> Tensor:
        """Exact examples of p_0, one for each row of ``rng``."""
        ...

    def move(self, x: Tensor, at: float, rng: Rng) -> Tensor:
        """A transition that leaves the distribution at ``at`` in place, and is reversible or symmetric."""
        ...

    def rise(self, x: Tensor, before: float, after: float) -> Tensor:
        """Log f_after(x) - log f_before(x), (n,)."""
        ...


@dataclass(frozen=True)
class Partition:
    """A partition function.

    Attributes:
        log: log Z, nats.
        kind: ``exact`` or ``estimate``.
        detail: how it was obtained.
        low: three standard errors of the mean weight below the forward estimate; ``log`` itself where it is exact.
        high: the same above.
        reverse: from the other side; None where that was not asked for.
    """

    log: float
    kind: str
    detail: str
    low: float
    high: float
    reverse: float | None = None

    @property
    def gap(self) -> float:
        """Nats by which the reverse estimate lies above the forward one; 0 where there is none."""
        return 0.0 if self.reverse is None else self.reverse - self.log

    @property
    def trusted(self) -> bool:
        """Whether the two sides agree."""
        return abs(self.gap) <= APART


def schedule(count: int) -> Tensor:
    """``count`` + 1 inverse temperatures from 0 to 1, ``float64``: dense where the model begins to have modes.

    The proportions are those of Salakhutdinov & Murray: 500 up to 0.5, 4,000 up to 0.9, 10,000 up to 1.
    """
    if count < 1:
        raise ValueError("there must be at least one temperature")
    knots = torch.tensor([0.0, 500 / 14_500, 4_500 / 14_500, 1.0], dtype=torch.float64)
    betas = torch.tensor([0.0, 0.5, 0.9, 1.0], dtype=torch.float64)
    at = torch.linspace(0, 1, count + 1, dtype=torch.float64)
    left = torch.searchsorted(knots, at, right=True).sub(1).clamp(0, 2)
    share = (at - knots[left]) / (knots[left + 1] - knots[left])
    return betas[left] + share * (betas[left + 1] - betas[left])


@torch.no_grad()
def forward(path: Path, betas: Sequence[float], rng: Rng) -> tuple[Tensor, Tensor]:
    """Logarithms of the weights, ``float64`` (rows,), of chains from the known distribution; and where they end."""
    x = path.start(rng.at("start"))
    weights = torch.zeros(rng.rows, dtype=torch.float64, device=rng.device)
    last = len(betas) - 1
    for k in range(1, last + 1):
        weights += path.rise(x, betas[k - 1], betas[k])
        if k < last:
            x = path.move(x, betas[k], rng.at(k))
    return weights, x


@torch.no_grad()
def reverse(path: Path, betas: Sequence[float], x: Tensor, rng: Rng) -> Tensor:
    """Logarithms of the weights, ``float64`` (rows,), of chains from examples of the model back to what is known."""
    weights = torch.zeros(rng.rows, dtype=torch.float64, device=rng.device)
    for k in range(len(betas) - 1, 0, -1):
        x = path.move(x, betas[k], rng.at(k)) if k < len(betas) - 1 else x
        weights += path.rise(x, betas[k - 1], betas[k])
    return weights


def log_mean(weights: Tensor) -> tuple[float, float, float]:
    """Logarithm of the mean of exp(``weights``), and three standard errors of the mean below and above it."""
    top = weights.max()
    plain = (weights - top).exp()
    mean, error = float(plain.mean()), float(plain.std() / math.sqrt(len(plain))) if len(plain) > 1 else math.inf
    low = math.log(mean - 3 * error) if mean > 3 * error else -math.inf
    return float(top) + math.log(mean), float(top) + low, float(top) + math.log(mean + 3 * error)


def anneal(path: Path, rng: Rng, temperatures: int, examples: Tensor | None = None, moves: int = 0) -> Partition:
    """Estimate log Z_1 from both sides.

    Args:
        path: from the known distribution to the one asked for.
        rng: a chain for each row.
        temperatures: steps along the path.
        examples: of the model, one for each row, from which the reverse chains start; None takes where the forward
            chains end, after more moves.
        moves: at the end of the path, before the reverse chains start: of ``examples`` or of the forward chains.
    """
    betas = [float(b) for b in schedule(temperatures)]
    weights, ends = forward(path, betas, rng.at("forward"))
    log, low, high = log_mean(weights)
    x = ends if examples is None else examples
    with torch.no_grad():
        for k in range(moves):
            x = path.move(x, 1.0, rng.at("settle", k))
    back = reverse(path, betas, x, rng.at("reverse"))
    other, base = -log_mean(-back)[0], path.base()
    gap = other - log
    detail = (
        f"annealed importance sampling, {temperatures:,} temperatures, {rng.rows} chains each way: "
        f"log Z = {base + log:.2f} forwards ({base + low:.2f} to {base + high:.2f}), {base + other:.2f} in reverse"
    )
    if abs(gap) > APART:
        detail += f"; THE TWO DISAGREE BY {abs(gap):.1f} NATS, so neither is to be trusted: take more temperatures"
    return Partition(base + log, "estimate", detail, base + low, base + high, base + other)
