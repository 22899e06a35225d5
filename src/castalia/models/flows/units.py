"""From natural units to the continuous ones of a flow, and back, with the logarithm of what that does to volumes.

Pictures are numbers of levels k = 0 ... n - 1: the 256 values, or fewer where the training data hold only a few evenly
spaced ones, or where ``bits`` says so. Uniform dequantisation makes them continuous, v = k + u with u uniform on [0, 1)
(Uria et al. 2013, arXiv:1306.0186). A density of v, integrated over the unit cube of a picture, is a probability of
that picture; its logarithm at a random u is in expectation not above that of the probability. So likelihoods of
pictures are bounds, and are exact as densities of dequantised pictures only. After that one of

    linear      y = v / n - 1/2                                            (Kingma & Dhariwal 2018)
    logit       y = log p - log(1 - p), p = a + (1 - 2a) v / n             (Dinh et al. 2016, with a = 0.05)
    gaussian    y = Phi^-1(F(v)), F the distribution of all dequantised pixels of the training data

The last is no paper's: where most pixels are black, as in pictures of digits, it is a large part of the cost of uniform
dequantisation that a Gaussian is far from a uniform box (0.25 bits for each pixel whose value is known). F is piecewise
linear, so the map is exact and invertible, and a pixel for itself begins as a Gaussian. Gaussianisation by margins:
Chen & Gopinath 2000.

Points are standardised.
"""

from __future__ import annotations

import math
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor, nn

from castalia.core.data import Dataset, some_of
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.nn.units import PictureUnits, PointUnits

Scale = Literal["linear", "logit", "gaussian"]

FIT_EXAMPLES = 10_000
"""At most this many examples, evenly spaced in the data, are read to find distributions of values."""


@final
class Dequantised(nn.Module):
    """Pictures ``uint8`` (B, C, H, W) to y ``float32`` of the same shape.

    Args:
        scale: see the module.
        alpha: of ``logit``.
        bits: of a value; 8 keeps all.
    """

    edges: Tensor

    def __init__(self, scale: Scale, alpha: float, bits: int) -> None:
        super().__init__()
        self.scale, self.alpha, self.bits = scale, alpha, bits
        self.pictures = PictureUnits()
        # distribution function of levels: level k has the mass between edges k and k + 1
        self.register_buffer("edges", torch.linspace(0, 1, 257, dtype=torch.float64))

    @property
    def reduced(self) -> bool:
        """Whether values are cut to fewer bits; where there are no more levels than that anyway, they are not."""
        return self.pictures.levels > 1 << self.bits

    @property
    def levels(self) -> int:
        """N."""
        return min(self.pictures.levels, 1 << self.bits)

    @property
    def preprocessing(self) -> str:
        """What a likelihood has to say about it."""
        n = self.levels
        what = "uniform dequantisation" + ("" if n == 256 else f" of {n} values")
        if self.reduced:
            return f"{what} ({self.bits} of 8 bits), {self.scale}"
        return f"{what}, {self.scale}" if n == 256 else f"{what} (those of the training data), {self.scale}"

    @property
    def values(self) -> tuple[int, ...] | None:
        """See :class:`castalia.core.capabilities.Likelihood`; cut ones are named by that nearest to all of theirs."""
        if not self.reduced:
            return self.pictures.values
        step = 256 >> self.bits
        return tuple(step * k + (step - 1) // 2 for k in range(self.levels))

    def fit(self, data: Dataset) -> None:
        """Find the levels, and how often each occurs."""
        self.pictures.fit(data)
        n, counts = self.levels, torch.zeros(self.levels, dtype=torch.float64)
        ids = some_of(data, FIT_EXAMPLES)
        for part in np.array_split(ids, math.ceil(len(ids) / 1000)):
            counts += torch.bincount(self.numbers(data.batch(part).x.cpu()).flatten(), minlength=n)
        shares = (counts + 0.5) / (counts + 0.5).sum()  # a level that was not seen is rare, not impossible
        self.edges[1 : n + 1] = shares.cumsum(0)
        self.edges[n:] = 1.0

    def check(self, x: Tensor) -> None:
        """Refuse pictures that have no likelihood (UsageError)."""
        self.pictures.check(x)

    def numbers(self, x: Tensor) -> Tensor:
        """Levels k, ``int64``."""
        if self.reduced:
            return x.long() >> (8 - self.bits)
        return ((self.pictures.inward(x) + 1) * (0.5 * (self.levels - 1))).round().long()

    def inward(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """The y of pictures and noise in [0, 1), and log |dy/dv| (B,).

        Noise in ``float64`` gives ``float64``.
        """
        k, n = self.numbers(x), self.levels
        if self.scale == "gaussian":
            low, high = self.edges[k], self.edges[k + 1]
            # the lowest u that the generator of float32 draws beside 0, at which the lowest level would be at -infinity
            y = torch.special.ndtri(low + (high - low) * u.double().clamp(min=2.0**-25))
            log_det = torch.log(high - low) + 0.5 * (y.square() + math.log(2 * math.pi))
            return y.to(u.dtype), log_det.flatten(1).sum(1).to(u.dtype)
        v = (k + u) / n
        if self.scale == "linear":
            return v - 0.5, v.new_full((len(x),), -math.log(n) * x[0].numel())
        p = self.alpha + (1 - 2 * self.alpha) * v
        each = math.log((1 - 2 * self.alpha) / n) - p.log() - torch.log1p(-p)
        return p.log() - torch.log1p(-p), each.flatten(1).sum(1)

    def continuous(self, y: Tensor) -> Tensor:
        """The v of y, in [0, n) for what comes from a picture."""
        n = self.levels
        if self.scale == "linear":
            return (y + 0.5) * n
        if self.scale == "logit":
            return (torch.sigmoid(y) - self.alpha) * (n / (1 - 2 * self.alpha))
        edges = self.edges[: n + 1]
        share = torch.special.ndtr(y.double())
        k = (torch.searchsorted(edges, share, right=True) - 1).clamp(0, n - 1)
        return (k + (share - edges[k]) / (edges[k + 1] - edges[k])).to(y.dtype)

    def cuts(self) -> Tensor:
        """The y at which each level but the first begins, ``float64`` (n - 1,)."""
        v = torch.arange(1, self.levels, dtype=torch.float64) / self.levels
        if self.scale == "linear":
            return v - 0.5
        if self.scale == "logit":
            return torch.logit(self.alpha + (1 - 2 * self.alpha) * v)
        return torch.special.ndtri(self.edges[1 : self.levels].cpu())

    def table(self) -> Tensor:
        """The value of each level, ``uint8`` (n,)."""
        k = torch.arange(self.levels)
        if not self.reduced:
            return self.pictures.table[k.to(self.pictures.table.device)]
        step = 256 >> self.bits
        return (step * k + (step - 1) // 2).to(torch.uint8)

    def outward(self, y: Tensor) -> Tensor:
        """Pictures of y; what is no number becomes the lowest level, and what is beyond the last the last."""
        k = torch.nan_to_num(self.continuous(y), nan=0.0).floor().clamp(0, self.levels - 1).long()
        return self.table().to(k.device)[k]


@final
class Standardised(nn.Module):
    """Points with mean 0 and deviation 1 in each coordinate."""

    preprocessing = "none (a density in the units of the data)"
    values = None

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.points = PointUnits(dims)

    def fit(self, data: Dataset) -> None:
        """Find mean and deviation."""
        self.points.fit(data)

    def check(self, x: Tensor) -> None:
        """Every point has a likelihood."""

    def inward(self, x: Tensor, u: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The y of points, and log |dy/dx| (B,)."""
        y = self.points.inward(x)
        return y, y.new_full((len(x),), self.points.log_volume())

    def outward(self, y: Tensor) -> Tensor:
        """The inverse."""
        return self.points.outward(y)


def units_of(spec: ImageSpec | PointsSpec, scale: Scale, alpha: float, bits: int) -> Dequantised | Standardised:
    """Those of a medium."""
    return Dequantised(scale, alpha, bits) if isinstance(spec, ImageSpec) else Standardised(spec.dims)
