"""Pictures as visible vectors of a Boltzmann machine, and back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal, final

import torch
from torch import Tensor, nn

from castalia.core.data import Dataset, some_of
from castalia.core.rng import Rng
from castalia.core.specs.image import ImageSpec
from castalia.models.energy import units
from castalia.nn.likelihoods import Bernoulli

FIT_EXAMPLES = 10_000
"""At most this many examples, evenly spaced in the data, are read to find means."""

LEAST_DEVIATION = 0.02
"""Of a pixel, on the scale [0, 1]: one that never changes still has a density."""


class Coding(nn.Module, ABC):
    """Pictures ``uint8`` (n, C, H, W) to vectors ``float32`` (n, size) and back.

    Attributes:
        units: what holds them.
        preprocessing: what a likelihood has to say about it.
        values: see :class:`castalia.core.capabilities.Likelihood`.
        per_pixel: visible units of each value of the picture.
    """

    units: units.Units
    preprocessing: str
    values: tuple[int, ...] | None = None
    per_pixel = 1

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.shape, self.dims = spec.shape, spec.dims

    @abstractmethod
    def encode(self, x: Tensor, rng: Rng | None) -> Tensor:
        """Visible vectors; their means where ``rng`` is None and something is drawn."""

    @abstractmethod
    def decode(self, v: Tensor) -> Tensor:
        """Pictures of visible vectors or of their means."""

    def log_volume(self) -> float:
        """Log of the factor by which :meth:`encode` changes volumes, of a whole picture."""
        return 0.0

    def fit(self, data: Dataset, rng: Rng) -> Tensor:
        """Set what depends on the training data; returns the means (size,) of the vectors."""
        blocks = data.batch(some_of(data, FIT_EXAMPLES)).x.split(500)
        self.look(blocks)
        count = sum(map(len, blocks))
        return torch.stack([self.encode(b, None).sum(0) for b in blocks]).sum(0) / count

    def look(self, blocks: tuple[Tensor, ...]) -> None:
        """Set buffers from pictures in blocks."""


@final
class BinaryCoding(Coding):
    """Black and white: grey values are probabilities, or are cut at one half."""

    def __init__(self, spec: ImageSpec, binarise: Literal["dynamic", "threshold"]) -> None:
        super().__init__(spec)
        self.pixels = Bernoulli(spec.channels, binarise)
        self.units, self.preprocessing = units.Binary(spec.dims), self.pixels.preprocessing

    def encode(self, x: Tensor, rng: Rng | None) -> Tensor:
        return self.pixels.target(x, rng).flatten(1)

    def decode(self, v: Tensor) -> Tensor:
        return (v * 255).round().to(torch.uint8).unflatten(1, self.shape)


@final
class GaussianCoding(Coding):
    """Dequantised pixels (x + u) / 256, each with mean 0 and a deviation of 1 / ``noise`` over the data.

    The units have variance 1, so ``noise`` is the deviation that the machine leaves to each pixel, as a share of that
    of the data.
    """

    preprocessing = "uniform dequantisation, (x + u) / 256"
    mean: Tensor
    scale: Tensor

    def __init__(self, spec: ImageSpec, noise: float) -> None:
        super().__init__(spec)
        self.units, self.noise = units.Gaussian(spec.dims), noise
        self.register_buffer("mean", torch.full((spec.dims,), 0.5))
        self.register_buffer("scale", torch.full((spec.dims,), noise))

    def look(self, blocks: tuple[Tensor, ...]) -> None:
        count = sum(map(len, blocks))
        scaled = [(b.flatten(1).float() + 0.5) / 256 for b in blocks]
        mean = torch.stack([b.sum(0) for b in scaled]).sum(0) / count
        variance = torch.stack([(b - mean).square().sum(0) for b in scaled]).sum(0) / count
        self.mean.copy_(mean)
        self.scale.copy_(self.noise * variance.sqrt().clamp(min=LEAST_DEVIATION))

    def encode(self, x: Tensor, rng: Rng | None) -> Tensor:
        flat = x.flatten(1).float()
        noise = 0.5 if rng is None else rng.uniform("dequantise", self.dims)
        return ((flat + noise) / 256 - self.mean) / self.scale

    def decode(self, v: Tensor) -> Tensor:
        pixels = (v * self.scale + self.mean) * 256
        return pixels.floor().clamp(0, 255).to(torch.uint8).unflatten(1, self.shape)

    def log_volume(self) -> float:
        return -float(self.scale.double().log().sum()) - self.dims * math.log(256)


@final
class LevelCoding(Coding):
    """Every pixel rounded to one of a few evenly spaced levels: a group of units of which one is on."""

    def __init__(self, spec: ImageSpec, levels: int) -> None:
        super().__init__(spec)
        self.kind = units.Categorical(spec.dims, levels)
        self.units, self.per_pixel, self.levels = self.kind, levels, levels
        self.values = tuple(round(255 * i / (levels - 1)) for i in range(levels))
        self.preprocessing = f"rounded to {levels} evenly spaced values"

    def encode(self, x: Tensor, rng: Rng | None) -> Tensor:
        return self.kind.one_hot((x.flatten(1).float() * ((self.levels - 1) / 255)).round().long())

    def decode(self, v: Tensor) -> Tensor:
        place = torch.linspace(0, 255, self.levels, device=v.device)
        mean = (v.unflatten(-1, (self.dims, self.levels)) * place).sum(-1)
        return mean.round().clamp(0, 255).to(torch.uint8).unflatten(1, self.shape)
