"""Between natural units and those that networks like (values of order 1).

Pictures go to [-1, 1]. Where the training data hold only a few evenly spaced values (the 17 greys of the 8x8 digits,
the two of a drawing in black and white), those are the values that a picture can have: samples are rounded to them,
and a likelihood is a probability over them. Otherwise there are 256. Points are standardised.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from castalia.core.data import Dataset, some_of
from castalia.core.errors import UsageError
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.nn.bins import Decoder, uniform_bins

FIT_EXAMPLES = 10_000
"""At most this many examples, evenly spaced in the data, are read to find values and means."""

FEW_LEVELS = 128
"""More different values than this count as all 256."""


class Units(nn.Module, ABC):
    """Natural units to the process's and back.

    Attributes:
        preprocessing: what a likelihood has to say about it.
    """

    @property
    @abstractmethod
    def preprocessing(self) -> str: ...

    @property
    @abstractmethod
    def values(self) -> tuple[int, ...] | None:
        """See :class:`castalia.core.capabilities.Likelihood`."""

    @abstractmethod
    def fit(self, data: Dataset) -> None:
        """Set its buffers from the training data."""

    @abstractmethod
    def inward(self, x: Tensor) -> Tensor:
        """Natural units to ``float32`` of order 1, same shape."""

    @abstractmethod
    def outward(self, u: Tensor) -> Tensor:
        """The inverse; where natural units are whole numbers, rounded and clipped."""

    def moments(self, data: Dataset) -> tuple[float, float]:
        """Mean and mean square of all values of the data, in the process's units."""
        u = torch.cat([self.inward(data.batch(ids).x.to(next(self.buffers()).device)).flatten() for ids in _some(data)])
        return float(u.double().mean()), float(u.double().square().mean())

    @abstractmethod
    def check(self, x: Tensor) -> None:
        """Refuse examples that have no likelihood (UsageError)."""

    @abstractmethod
    def settle(self, denoised: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoised examples as far as the medium allows them; ``sigma`` may broadcast against them."""

    @abstractmethod
    def decoder(self) -> Decoder:
        """Log-probability (pictures) or log-density (points) of values given a Gaussian around them."""

    @abstractmethod
    def log_volume(self) -> float:
        """Log of the factor by which :meth:`inward` changes volumes; 0 where there are probabilities instead."""


@final
class PictureUnits(Units):
    """``uint8`` to [-1, 1], over the values that the data hold."""

    table: Tensor
    position: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        # the values, least first (only the first `count` entries are used), and where each of the 256 goes
        self.register_buffer("table", torch.arange(256, dtype=torch.uint8))
        self.register_buffer("position", torch.arange(256, dtype=torch.float32) / 127.5 - 1)
        self.register_buffer("count", torch.tensor(256))

    @property
    def levels(self) -> int:
        """How many values a pixel can have."""
        return int(self.count)

    @property
    def preprocessing(self) -> str:
        n = self.levels
        return "none (8-bit values)" if n == 256 else f"none ({n} evenly spaced values, those of the training data)"

    @property
    def values(self) -> tuple[int, ...] | None:
        return None if self.levels == 256 else tuple(self.table[: self.levels].tolist())

    def fit(self, data: Dataset) -> None:
        seen = torch.zeros(256, dtype=torch.int64)
        for ids in _some(data):
            seen += torch.bincount(data.batch(ids).x.flatten().long().cpu(), minlength=256)
            if int((seen > 0).sum()) > FEW_LEVELS:
                return
        values = seen.nonzero()[:, 0]
        if len(values) < 2:
            return
        even = torch.linspace(float(values[0]), float(values[-1]), len(values), dtype=torch.float64)
        if (values - even).abs().max() > 0.51:
            return
        # every value goes to its nearest level, so that pictures with others can still be redrawn
        nearest = (torch.arange(256)[:, None] - even).abs().argmin(1)
        self.table[: len(values)] = values.to(torch.uint8)
        self.position.copy_(2 * nearest.float() / (len(values) - 1) - 1)
        self.count.fill_(len(values))

    def inward(self, x: Tensor) -> Tensor:
        return self.position[x.long()]

    def outward(self, u: Tensor) -> Tensor:
        steps = (u + 1) * (0.5 * (self.levels - 1))
        return self.table[steps.round().clamp(0, self.levels - 1).long()]

    def check(self, x: Tensor) -> None:
        if self.levels == 256:
            return
        known = torch.isin(x, self.table[: self.levels])
        if not known.all():
            raise UsageError(
                f"This model knows pictures of {self.levels} values ({', '.join(map(str, self.table[:3].tolist()))}, "
                f"...), those of its training data. A picture with the value {int(x[~known][0])} has probability 0. "
                "Train on data that hold such values to measure it."
            )

    def settle(self, denoised: Tensor, sigma: float | Tensor) -> Tensor:
        """Clip, and pull towards the values that pixels can have where noise hardly hides them.

        If nothing were known of a pixel but x = denoised with noise of deviation sigma, its mean given x would be the
        average of the evenly spaced values weighted with exp(-(x - value)^2 / (2 sigma^2)). That is x itself where
        sigma is about their distance or more, and the nearest one where sigma is small. A network would have to learn
        this staircase, at a precision that it does not need for anything else.
        """
        gap = 2 / (self.levels - 1)
        denoised = denoised.clamp(-1, 1)
        least = float(sigma.min()) if isinstance(sigma, Tensor) else sigma
        if least > gap:
            return denoised
        steps = (denoised + 1) / gap
        nearest = steps.round()
        near = torch.arange(-4, 5, dtype=steps.dtype, device=steps.device)
        narrow = torch.as_tensor(sigma, dtype=steps.dtype, device=steps.device)[..., None] / gap
        weights = torch.softmax(-0.5 * (((steps - nearest)[..., None] - near) / narrow) ** 2, -1)
        settled = ((nearest + (weights * near).sum(-1)) * gap - 1).clamp(-1, 1)
        # up to here 9 values stand for all of them; from here on the mean differs from x by less than 1e-4 of the gap
        return torch.where(narrow[..., 0] < 0.8, settled, denoised)

    def decoder(self) -> Decoder:
        return uniform_bins(self.levels)

    def log_volume(self) -> float:
        return 0.0


@final
class PointUnits(Units):
    """Coordinates with mean 0 and deviation 1."""

    bounded = False
    mean: Tensor
    std: Tensor

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dims))
        self.register_buffer("std", torch.ones(dims))

    @property
    def preprocessing(self) -> str:
        return "none (a density in the units of the data)"

    @property
    def values(self) -> tuple[int, ...] | None:
        return None

    def fit(self, data: Dataset) -> None:
        x = torch.cat([data.batch(ids).x for ids in _some(data)]).double()
        std = x.std(0, correction=0)
        self.mean.copy_(x.mean(0))
        self.std.copy_(torch.where(std > 0, std, 1.0))

    def inward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def outward(self, u: Tensor) -> Tensor:
        return u * self.std + self.mean

    def check(self, x: Tensor) -> None:
        pass

    def settle(self, denoised: Tensor, sigma: float | Tensor) -> Tensor:
        return denoised

    def decoder(self) -> Decoder:
        def log_density(x0: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
            x0, mean, deviation = x0.double(), mean.double(), deviation.double()
            return -0.5 * ((x0 - mean) / deviation) ** 2 - torch.log(deviation) - 0.5 * math.log(2 * math.pi)

        return log_density

    def log_volume(self) -> float:
        return -float(self.std.double().log().sum())


def units_of(spec: ImageSpec | PointsSpec) -> Units:
    """Those of a medium."""
    return PictureUnits() if isinstance(spec, ImageSpec) else PointUnits(spec.dims)


def _some(data: Dataset) -> list[np.ndarray]:
    """Ids of at most :data:`FIT_EXAMPLES` examples, in pieces."""
    ids = some_of(data, FIT_EXAMPLES)
    return np.array_split(ids, math.ceil(len(ids) / 1000))
