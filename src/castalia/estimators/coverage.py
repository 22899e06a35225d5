"""Fidelity and diversity apart: precision, recall, density and coverage of a set of feature vectors.

Papers
    Kynkäänniemi et al. 2019 (arXiv:1904.06991): precision is the share of generated examples inside the real
    manifold, recall the share of real ones inside the generated manifold; a manifold is the union of balls around
    its examples that reach to their k-th neighbour.
    Naeem et al. 2020 (arXiv:2002.09797): density counts how many real balls hold a generated example, over k;
    coverage is the share of real examples whose own ball holds a generated one. Both bear outliers better.

All four depend on the counts and on k, so compare at equal ones. Precision and recall of two sets of one distribution
are below 1, and fall with the number of dimensions; density and coverage are near 1 there (coverage at
1 - 2^-k for large equal counts).

The standard error comes from subsets without replacement: 20 random subsets of b of the n examples of both sets at
once, whose variance is scaled by b / (n - b) (the delete-d jackknife). A bootstrap repeats examples, and a
neighbour at distance 0 breaks every radius; resampling one set while the other is held fixed was found to give half
of the true error.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from castalia.core.errors import UsageError
from castalia.estimators.distances import Estimate
from castalia.estimators.metric import generator

NEIGHBOURS = 5
"""The k of Naeem et al., used for all four."""

PAIRS_AT_ONCE = 1 << 22
"""Pairs of examples whose distance is held at once; bounds the memory."""

SUBSETS, SUBSET_SIZE = 20, 1000
"""For the standard error."""


@dataclass(frozen=True)
class Coverage:
    """How two sets cover each other.

    Attributes:
        precision: share of generated examples inside the real manifold, 0 to 1.
        recall: share of real examples inside the generated manifold, 0 to 1.
        density: real balls around a generated example over k; 1 where the distributions are equal, unbounded above.
        coverage: share of real examples with a generated one inside their ball, 0 to 1.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def radii(x: Tensor, k: int = NEIGHBOURS) -> Tensor:
    """Squared distance from each example to its k-th nearest other one, ``float64`` (N,).

    Args:
        x: features (N, F), N > k.
        k: which neighbour, from 1.

    Raises:
        UsageError: there are not more than ``k`` examples.
    """
    if not 1 <= k < len(x):
        raise UsageError(f"Precision and recall with {k} neighbours need more than {k} examples, not {len(x)}.")
    x = x.double()
    x = x - x.mean(0)
    squares = (x**2).sum(1)
    out = torch.empty(len(x), dtype=torch.float64)
    for start in range(0, len(x), step := max(1, PAIRS_AT_ONCE // len(x))):
        rows = x[start : start + step]
        half = torch.addmm(squares, rows, x.T, alpha=-2)
        half[torch.arange(len(rows)), torch.arange(start, start + len(rows))] = -torch.inf  # itself comes first
        out[start : start + step] = half.topk(k + 1, dim=1, largest=False, sorted=False).values.amax(1)
    return (out + squares).clamp_(min=0)


def coverage(real: Tensor, generated: Tensor, k: int = NEIGHBOURS, *, real_radii: Tensor | None = None) -> Coverage:
    """Precision, recall, density and coverage of generated features.

    Args:
        real: features (M, F), M > k.
        generated: features (N, F), N > k.
        k: neighbours.
        real_radii: ``radii(real, k)`` where it is known already.

    Raises:
        UsageError: there are not more than ``k`` examples of each kind.
    """
    ours = radii(real, k) if real_radii is None else real_radii
    theirs = radii(generated, k)
    mean = real.double().mean(0)
    real, generated = real.double() - mean, generated.double() - mean
    squares = (generated**2).sum(1)
    inside = torch.zeros(len(generated), dtype=torch.bool)
    recalled = covered = balls = 0
    for start in range(0, len(real), step := max(1, PAIRS_AT_ONCE // len(generated))):
        rows = real[start : start + step]
        distance = torch.addmm(squares, rows, generated.T, alpha=-2).add_((rows**2).sum(1, keepdim=True))
        near = distance < ours[start : start + step, None]
        inside |= near.any(0)
        covered += int(near.any(1).sum())
        balls += int(near.count_nonzero())
        recalled += int((distance < theirs).any(1).sum())
    return Coverage(
        precision=float(inside.double().mean()),
        recall=recalled / len(real),
        density=balls / (k * len(generated)),
        coverage=covered / len(real),
    )


def coverage_estimates(
    real: Tensor,
    generated: Tensor,
    k: int = NEIGHBOURS,
    *,
    seed: int = 0,
    real_radii: Tensor | None = None,
) -> dict[str, Estimate]:
    """:func:`coverage` by name, with standard errors (None where there are fewer than 4 (k + 1) examples).

    Args:
        real: features (M, F), M > k.
        generated: features (N, F), N > k.
        k: neighbours.
        seed: of the subsets.
        real_radii: ``radii(real, k)`` where it is known already.
    """
    value = coverage(real, generated, k, real_radii=real_radii)
    names = [field.name for field in fields(Coverage)]
    least = min(len(real), len(generated))
    if least < 4 * (k + 1):
        return {name: Estimate(getattr(value, name), None) for name in names}
    random = generator(seed, "coverage")
    share = min(0.5, SUBSET_SIZE / least)
    rows = []
    for _ in range(SUBSETS):
        mine, theirs = (
            torch.from_numpy(random.permutation(len(t))[: round(share * len(t))]) for t in (real, generated)
        )
        part = coverage(real[mine], generated[theirs], k)
        rows.append([getattr(part, name) for name in names])
    variance = torch.tensor(rows, dtype=torch.float64).var(0) * share / (1 - share)
    return {name: Estimate(getattr(value, name), float(v) ** 0.5) for name, v in zip(names, variance, strict=True)}
