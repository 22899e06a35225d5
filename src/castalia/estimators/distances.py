"""Distances between two sets of feature vectors: Fréchet, kernel, energy, sliced Wasserstein.

Papers
    Heusel et al. 2017 (arXiv:1706.08500): Fréchet distance between Gaussians fitted to features.
    Bińkowski et al. 2018 (arXiv:1801.01401): kernel distance, the unbiased MMD^2 (Gretton et al. 2012) with the
    cubic kernel. Székely & Rizzo 2013: energy distance, the same statistic with the kernel -|x - y|.
    Rabin et al. 2012: sliced Wasserstein distance; on a line the optimal transport is sorting.

All arithmetic is float64. Every estimate carries a standard error over the examples of *both* sets. It is not a
bootstrap: resampling with replacement repeats examples, and a repeated example makes the Fréchet distance larger and
a nearest neighbour trivial. Instead it comes from the first-order expansion of the statistic,

    value = truth + mean_i a(x_i) + mean_j b(y_j) + smaller terms,    error^2 = var(a) / m + var(b) / n,

with the influence a(x) of one example in closed form (for an unbiased U-statistic this is Hájek's projection; for the
others, the potential of the transport). Where both sets have one distribution the influence vanishes in theory, and
what is left makes the error too large rather than too small. It says nothing of a statistic's bias: the Fréchet and
the sliced distance of n examples lie above the true ones by about 1/n, so compare them at equal counts only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from castalia.core.errors import UsageError
from castalia.estimators.metric import Interval, generator

PAIRS_AT_ONCE = 1 << 22
"""Pairs of examples whose kernel is held at once; bounds the memory."""

INFLUENCES = 2000
"""Examples whose influence on the Fréchet distance is computed: enough for its variance."""

PROJECTIONS = 256
"""Directions of the sliced distance."""


@dataclass(frozen=True)
class Estimate:
    """A number and how far it may be off.

    Attributes:
        value: the number.
        error: its standard error over the examples; None where there is no sound one.
    """

    value: float
    error: float | None

    def interval(self, low: float = -math.inf, high: float = math.inf) -> Interval | None:
        """95% interval by the normal approximation, cut to the values [low, high] that are possible."""
        if self.error is None:
            return None
        half = 1.96 * self.error
        return max(self.value - half, min(low, self.value)), min(self.value + half, max(high, self.value))


def _two(x: Tensor, y: Tensor, least: int = 2) -> tuple[Tensor, Tensor]:
    """Both sets in float64 with their common mean removed, which no distance here but the cubic one can see."""
    x, y = _doubles(x, y, least)
    mean = (x.mean(0) + y.mean(0)) / 2
    return x - mean, y - mean


def _check(x: Tensor, y: Tensor, least: int = 2) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"two sets of vectors of one length are needed, not {tuple(x.shape)} and {tuple(y.shape)}")
    if min(len(x), len(y)) < least:
        raise UsageError(f"A distance needs at least {least} examples of each kind, not {len(x)} and {len(y)}.")


def _doubles(x: Tensor, y: Tensor, least: int = 2) -> tuple[Tensor, Tensor]:
    _check(x, y, least)
    return x.double(), y.double()


def _error(a: Tensor, b: Tensor) -> float:
    """Standard error from the influences of the examples of both sets."""
    return math.sqrt(float(a.var() / len(a) + b.var() / len(b)))


# Fréchet


def frechet_gaussians(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """Squared Fréchet (2-Wasserstein) distance between two Gaussians.

        |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1^1/2 S2 S1^1/2)^1/2)

    The last trace is the sum of the roots of the eigenvalues of the symmetrised product, which is positive
    semidefinite however singular the covariances are, so nothing turns imaginary.

    Args:
        mean1: (F,).
        cov1: (F, F), symmetric, positive semidefinite.
        mean2: (F,).
        cov2: (F, F).
    """
    cov1, cov2 = cov1.double(), cov2.double()
    roots = _product(cov1, cov2, vectors=False)[2]
    gap = ((mean1.double() - mean2.double()) ** 2).sum()
    return max(float(gap + cov1.trace() + cov2.trace() - 2 * roots.sum()), 0.0)


def _product(cov1: Tensor, cov2: Tensor, vectors: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Spectrum of the symmetrised product.

    Returns:
        Roots of the eigenvalues of S1 (F,) and its eigenvectors U (F, F); with A = U diag(roots), so that
        S1 = A A^T, roots of the eigenvalues of A^T S2 A (F,) and, with ``vectors``, its eigenvectors (F, F).
    """
    values, outer = torch.linalg.eigh(cov1)
    root1 = _root(values)
    factor = outer * root1
    product = factor.T @ cov2 @ factor
    if not vectors:
        return root1, outer, _root(torch.linalg.eigvalsh(product)), product
    values, inner = torch.linalg.eigh(product)
    return root1, outer, _root(values), inner


def _root(values: Tensor) -> Tensor:
    """Roots of eigenvalues; those that rounding cannot tell from 0 are 0, for a root would make them large."""
    floor = values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    return torch.where(values > floor, values, 0.0).sqrt()


def frechet(x: Tensor, y: Tensor, *, error: bool = True) -> Estimate:
    """Squared Fréchet distance between Gaussians with the means and (n - 1) covariances of two sets.

    Also with fewer examples than dimensions. The influence of an example is the potential of the optimal map
    between the two Gaussians (T the symmetric matrix with T S1 T = S2; for y its inverse and the other mean):

        a(x) = 2 (m1 - m2) . (x - m1) + (x - m1)^T (1 - T) (x - m1).

    Args:
        x: features (M, F), M >= 2.
        y: features (N, F), N >= 2.
        error: also find the standard error.
    """
    _check(x, y)
    (m1, cov1), (m2, cov2) = _moments(x), _moments(y)
    root1, vectors, roots, inner = _product(cov1, cov2, vectors=error)
    gap = m1 - m2
    value = max(float((gap**2).sum() + cov1.trace() + cov2.trace() - 2 * roots.sum()), 0.0)
    if not error:
        return Estimate(value, None)
    # T = S1^-1/2 (S1^1/2 S2 S1^1/2)^1/2 S1^-1/2 = half half^T, and its inverse likewise
    forward = vectors @ (_inverse(root1)[:, None] * inner * roots.sqrt())
    back = vectors @ (root1[:, None] * inner * _inverse(roots).sqrt())
    a, b = _influence(x, m1, gap, forward), _influence(y, m2, -gap, back)
    return Estimate(value, math.sqrt(float(a.var() / len(x) + b.var() / len(y))))


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (F,) and covariance (F, F), float64, in one pass over rows converted a few at a time."""
    near = x[:1024].double().mean(0)  # taken off first, so that a large mean costs no digits
    total = torch.zeros_like(near)
    cov = torch.zeros(len(near), len(near), dtype=torch.float64)
    room = torch.empty(512, len(near), dtype=torch.float64)
    for rows in x.split(len(room)):
        centred = room[: len(rows)].copy_(rows).sub_(near)  # faster than a difference of two types
        total += centred.sum(0)
        cov.addmm_(centred.T, centred)
    off = total / len(x)
    return near + off, (cov - len(x) * torch.outer(off, off)) / (len(x) - 1)


def _inverse(root: Tensor) -> Tensor:
    """1 / root, and 0 where the root is."""
    return torch.where(root > 0, 1 / root, 0.0)


def _influence(x: Tensor, mean: Tensor, gap: Tensor, half: Tensor) -> Tensor:
    """The influence on the Fréchet distance of (at most 2,000 of) the examples."""
    x = x[:: math.ceil(len(x) / INFLUENCES)] - mean  # float64, as the mean is
    return 2 * x @ gap + (x**2).sum(1) - ((x @ half) ** 2).sum(1)


# Kernel and energy


def kernel_distance(x: Tensor, y: Tensor) -> Estimate:
    """Unbiased squared maximum mean discrepancy with the kernel (x . y / F + 1)^3, over all pairs.

    It is 0 on average where both sets have one distribution, so a single one may be negative.

    Args:
        x: features (M, F), M >= 2.
        y: features (N, F), N >= 2.
    """
    return _discrepancy(*_doubles(x, y), _cubic)


def energy_distance(x: Tensor, y: Tensor) -> Estimate:
    """Unbiased energy distance 2 E|x - y| - E|x - x'| - E|y - y'| (x' and y' independent copies), over all pairs.

    In the units of the coordinates; 0 only between equal distributions, whatever their scale.

    Args:
        x: points (M, D), M >= 2.
        y: points (N, D), N >= 2.
    """
    return _discrepancy(*_two(x, y), _negative_distance)


def kernel_distance_subsets(
    x: Tensor, y: Tensor, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Mean and deviation of :func:`kernel_distance` over random subsets, as most published numbers are made.

    The mean estimates what :func:`kernel_distance` does, less precisely; the deviation is that between subsets of
    ``size`` examples and no error of the mean.

    Args:
        x: features (M, F).
        y: features (N, F).
        subsets: how many, at least 2.
        size: examples of each set in one, at most M and N.
        seed: of the choice.
    """
    x, y = _doubles(x, y, size)
    random = generator(seed, "kernel subsets")
    found = []
    for _ in range(subsets):
        i, j = (torch.from_numpy(random.permutation(len(t))[:size]) for t in (x, y))
        found.append(_discrepancy(x[i], y[j], _cubic).value)
    return float(np.mean(found)), float(np.std(found, ddof=1))


Kernel = Callable[[Tensor, Tensor], Tensor]


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    inner = torch.addmm(torch.ones(1, dtype=x.dtype), x, y.T, alpha=1 / x.shape[1])
    return (inner * inner).mul_(inner)


def _negative_distance(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y).neg_()


def _discrepancy(x: Tensor, y: Tensor, kernel: Kernel) -> Estimate:
    """Unbiased MMD^2 over all pairs, from the kernel's row sums; memory for a block of rows at a time."""
    within_x, within_y = _within(x, kernel), _within(y, kernel)
    across_x, across_y = torch.zeros(len(x), dtype=x.dtype), torch.zeros(len(y), dtype=x.dtype)
    for rows in range(0, len(x), step := max(1, PAIRS_AT_ONCE // len(y))):
        block = kernel(x[rows : rows + step], y)
        across_x[rows : rows + step] = block.sum(1)
        across_y += block.sum(0)
    within_x, within_y = within_x / (len(x) - 1), within_y / (len(y) - 1)
    across_x, across_y = across_x / len(y), across_y / len(x)
    value = within_x.mean() + within_y.mean() - 2 * across_x.mean()
    return Estimate(float(value), _error(2 * (within_x - across_x), 2 * (within_y - across_y)))


def _within(x: Tensor, kernel: Kernel) -> Tensor:
    """For each example, the sum of the kernel with all others (M,); each pair is computed once."""
    sums = torch.zeros(len(x), dtype=x.dtype)
    start = 0
    while start < len(x):
        end = min(len(x), start + max(1, PAIRS_AT_ONCE // (len(x) - start)))
        block = kernel(x[start:end], x[start:])
        block.diagonal().zero_()
        sums[start:end] += block.sum(1)
        sums[end:] += block[:, end - start :].sum(0)
        start = end
    return sums


# Sliced Wasserstein


def sliced_wasserstein(x: Tensor, y: Tensor, *, projections: int = PROJECTIONS, seed: int = 0) -> Estimate:
    """Mean 1-Wasserstein distance between projections of two sets on random directions.

    On a line the distance is the area between the two distribution functions, so the counts may differ:

        W1 = integral |F(t) - G(t)| dt,    a(x) = integral sign(F - G) (1[t >= x] - F(t)) dt.

    Args:
        x: features (M, F), M >= 2.
        y: features (N, F), N >= 2.
        projections: directions, uniform on the sphere; the error is that over examples with these fixed. On a line
            there is one.
        seed: of the directions.
    """
    x, y = _two(x, y)
    m, n, dims = len(x), len(y), x.shape[1]
    if dims == 1:
        directions = torch.ones(1, 1, dtype=x.dtype)
    else:
        normal = torch.from_numpy(generator(seed, "projections").standard_normal((projections, dims)))
        directions = normal / normal.norm(dim=1, keepdim=True)
    total = 0.0
    influence = torch.zeros(m + n, dtype=x.dtype)
    # F - G times m n: whole numbers, so that equal heights differ by exactly 0 and have no sign
    step = torch.cat([torch.full((m,), n, dtype=x.dtype), torch.full((n,), -m, dtype=x.dtype)])
    both = torch.cat([x, y])
    for rows in directions.split(max(1, PAIRS_AT_ONCE // (m + n))):
        places, order = (rows @ both.T).sort(dim=1)
        difference = step[order].cumsum(1)[:, :-1]
        gaps = places.diff(dim=1)
        total += float((gaps * difference.abs()).sum()) / (m * n)
        signed = gaps * difference.sign()
        # what lies to the right of each place
        right = torch.zeros_like(places)
        right[:, :-1] = signed.flip(1).cumsum(1).flip(1)
        influence.index_add_(0, order.flatten(), right.flatten())
    influence /= len(directions)
    return Estimate(total / len(directions), _error(influence[:m], influence[m:]))
