"""Mixtures fitted by expectation maximisation, for baselines.

Each takes the training targets when constructed, ``float64`` (N, D), and scores targets under a smoothing
``strength`` that is chosen afterwards on held-out examples, so one fit serves the whole grid of strengths.

* :class:`Bernoullis`: binary targets.
* :class:`DiagonalGaussians`: targets are levels 0 ... levels - 1, scored by the exact mass of their bins.
* :class:`FullGaussians`: targets are uniformly dequantised levels x + u, scored by density, which bounds the
  probability of the level from below in expectation over u.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from castalia.estimators.metric import generator

LLOYD_STEPS = 10
EM_STEPS = 30
EM_TOLERANCE = 1e-4
"""Relative gain of the log-likelihood below which fitting ends."""

DIMS_AT_ONCE = 4096
"""Dimensions whose table of bin masses is held at once; bounds the memory."""


class Mixture(ABC):
    """A mixture of ``k`` components.

    Attributes:
        title: what it is called in reports.
        components: numbers of components worth trying.
        strengths: smoothing strengths worth trying.
        k: components.
        levels: number of values that a pixel can take.
    """

    title: ClassVar[str]
    components: ClassVar[tuple[int, ...]]
    strengths: ClassVar[tuple[float, ...]]
    k: int
    levels: int

    @abstractmethod
    def __init__(self, x: Tensor, k: int, levels: int, seed: int) -> None: ...

    @abstractmethod
    def log_prob(self, x: Tensor, strength: float) -> Tensor:
        """Log-probability of targets (N, D) in nats, ``float64`` (N,)."""


def cluster(x: Tensor, k: int, seed: int) -> Tensor:
    """Lloyd's k-means from ``k`` random examples; cluster numbers ``int64`` (N,)."""
    random = generator(seed, "cluster", k)
    centres = x[torch.from_numpy(random.permutation(len(x))[:k])]
    label = torch.zeros(len(x), dtype=torch.int64)
    for _ in range(LLOYD_STEPS if k > 1 else 0):
        label = ((centres**2).sum(1) - 2 * x @ centres.T).argmin(1)
        one_hot = torch.nn.functional.one_hot(label, k).double()
        size = one_hot.sum(0)
        centres = (one_hot.T @ x) / size.clamp(min=1)[:, None]
        for empty in (size == 0).nonzero()[:, 0].tolist():
            centres[empty] = x[int(random.integers(len(x)))]
    return label


class Bernoullis(Mixture):
    """Independent binary pixels per component; ``strength`` counts pseudo-examples of the overall rates."""

    title = "Bernoulli mixture"
    components = (1, 10, 30, 100)
    strengths = (0.1, 0.5, 2.0, 8.0)

    def __init__(self, x: Tensor, k: int, levels: int, seed: int) -> None:
        self.k, self.levels = k, levels
        # never 0 or 1: half a pseudo-example of each value
        self.overall = (x.sum(0) + 0.5) / (len(x) + 1)
        share = torch.nn.functional.one_hot(cluster(x, k, seed), k).double()
        before = -math.inf
        for _ in range(EM_STEPS if k > 1 else 1):
            self.size, self.sums = share.sum(0), share.T @ x
            joint = self._joint(x, 0.5)
            share = torch.softmax(joint, 1)
            now = float(torch.logsumexp(joint, 1).mean())
            if now - before < EM_TOLERANCE * abs(now):
                break
            before = now

    def _joint(self, x: Tensor, strength: float) -> Tensor:
        rate = (self.sums + strength * self.overall) / (self.size[:, None] + strength)
        rate = rate.clamp(1e-12, 1 - 1e-12)
        weight = ((self.size + 1) / (self.size + 1).sum()).log()
        return x @ torch.logit(rate).T + torch.log1p(-rate).sum(1) + weight

    def log_prob(self, x: Tensor, strength: float) -> Tensor:
        return torch.logsumexp(self._joint(x, strength), 1)


class DiagonalGaussians(Mixture):
    """Independent Gaussian pixels per component; ``strength`` is the least deviation, in levels of 256."""

    title = "mixture of diagonal Gaussians, discretised"
    components = (1, 5, 20, 50)
    strengths = (2.0, 8.0, 32.0, 80.0)

    def __init__(self, x: Tensor, k: int, levels: int, seed: int) -> None:
        self.k, self.levels = k, levels
        floor = (self._scale(self.strengths[0])) ** 2
        squares = x**2
        share = torch.nn.functional.one_hot(cluster(x, k, seed), k).double()
        before = -math.inf
        for _ in range(EM_STEPS if k > 1 else 1):
            # an empty component keeps a little weight and the overall mean, so that nothing divides by zero
            size = share.sum(0) + 1e-6
            self.weight = (size / size.sum()).log()
            self.mean = (share.T @ x + 1e-6 * x.mean(0)) / size[:, None]
            second = (share.T @ squares + 1e-6 * squares.mean(0)) / size[:, None]
            variance = (second - self.mean**2).clamp(min=floor)
            self.std = variance.sqrt()
            precision = 1 / variance
            square = squares @ precision.T - 2 * x @ (self.mean * precision).T + (self.mean**2 * precision).sum(1)
            joint = self.weight - 0.5 * (square + variance.log().sum(1) + x.shape[1] * math.log(2 * math.pi))
            share = torch.softmax(joint, 1)
            now = float(torch.logsumexp(joint, 1).mean())
            if now - before < EM_TOLERANCE * abs(now):
                break
            before = now

    def _scale(self, strength: float) -> float:
        return strength * self.levels / 256

    def log_prob(self, x: Tensor, strength: float) -> Tensor:
        std = self.std.clamp(min=self._scale(strength))
        joint = self.weight.expand(len(x), -1).clone()
        for start in range(0, x.shape[1], DIMS_AT_ONCE):
            part = slice(start, start + DIMS_AT_ONCE)
            for c in range(self.k):
                mean, deviation = self.mean[c, part], std[c, part]
                if len(x) <= self.levels:
                    mass = log_bin_mass(x[:, part], mean, deviation, self.levels)
                else:
                    # many examples: fewer masses are computed by tabulating every level once
                    level = torch.arange(self.levels, dtype=torch.float64)[:, None]
                    mass = log_bin_mass(level, mean, deviation, self.levels).gather(0, x[:, part].long())
                joint[:, c] += mass.sum(1)
        return torch.logsumexp(joint, 1)


def log_bin_mass(x: Tensor, mean: Tensor, std: Tensor, levels: int) -> Tensor:
    """Log-mass of the unit bin around level ``x`` under a Gaussian; the outer bins reach to infinity.

    Args:
        x: levels 0 ... levels - 1, ``float64``.
        mean: in levels, ``float64``.
        std: in levels, ``float64``, positive.
        levels: how many there are.

    Returns:
        ``float64`` of the broadcast shape; finite far out in the tails, and summing to 1 over all levels.
    """
    lower = torch.where(x == 0, -math.inf, (x - 0.5 - mean) / std)
    upper = torch.where(x == levels - 1, math.inf, (x + 0.5 - mean) / std)
    # mirror bins right of the mean: differences of upper-tail probabilities lose no digits there
    mirrored = x > mean
    low, high = torch.where(mirrored, -upper, lower), torch.where(mirrored, -lower, upper)
    log_high = torch.special.log_ndtr(high)
    return log_high + torch.log(-torch.expm1(torch.special.log_ndtr(low) - log_high))


class FullGaussians(Mixture):
    """Correlated Gaussian pixels in each k-means cluster; ``strength`` is a deviation, in levels of 256.

    The covariance of a cluster is its own plus strength^2 I, so that directions in which few or no
    examples vary stay possible. Clusters are not refined by EM: with far more pixels than examples,
    responsibilities are 0 or 1 anyway.
    """

    title = "mixture of full-covariance Gaussians, dequantised"
    components = (1, 4, 16)
    strengths = (1.0, 4.0, 8.0, 16.0, 32.0, 64.0)

    def __init__(self, x: Tensor, k: int, levels: int, seed: int) -> None:
        self.k, self.levels = k, levels
        label = cluster(x, k, seed)
        self.parts: list[tuple[float, Tensor, Tensor, Tensor]] = []
        for c in range(k):
            mine = x[label == c]
            if len(mine):
                mean = mine.mean(0)
                values, basis = _principal((mine - mean) / math.sqrt(len(mine)))
                self.parts.append((math.log(len(mine) / len(x)), mean, values, basis))

    def log_prob(self, x: Tensor, strength: float) -> Tensor:
        noise, joint = (strength * self.levels / 256) ** 2, []
        for weight, mean, values, basis in self.parts:
            z = x - mean
            along = (z @ basis) ** 2
            spread = values + noise
            square = (along / spread).sum(1) + ((z**2).sum(1) - along.sum(1)).clamp(min=0) / noise
            log_det = spread.log().sum() + (len(mean) - len(values)) * math.log(noise)
            joint.append(weight - 0.5 * (square + log_det + len(mean) * math.log(2 * math.pi)))
        return torch.logsumexp(torch.stack(joint, 1), 1)


def _principal(z: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (r,) and eigenvectors (D, r) of z^T z for z (N, D), from the smaller of its products."""
    small = z @ z.T if len(z) < z.shape[1] else z.T @ z
    values, vectors = torch.linalg.eigh(small)
    keep = values > 1e-9 * values[-1].clamp(min=1e-30)
    values, vectors = values[keep], vectors[:, keep]
    return (values, z.T @ vectors / values.sqrt()) if len(z) < z.shape[1] else (values, vectors)
