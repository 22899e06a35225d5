"""Distributions of one sample of sound given a network's outputs, for models that make sound sample by sample.

* :class:`MuLaw`: 256 codes and a softmax (van den Oord et al. 2016, arXiv:1609.03499, section 2.2).
* :class:`Logistics`: 16-bit values and a mixture of discretised logistics (Salimans et al. 2017, arXiv:1701.05517, as
  Parallel WaveNet uses it, arXiv:1711.10433). As in ``nn/likelihoods.py`` the mass of every bin is exact.

Both draw by inversion from uniform numbers, in NumPy: one number after another is what torch is slow at.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from itertools import accumulate
from typing import Literal, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from castalia.nn import mulaw

LEVELS = 32768
"""16-bit values run from -LEVELS to LEVELS - 1, and stand for value / LEVELS."""

NARROWEST = -12.0
"""Smallest log-scale of a logistic: a third of the width of a bin."""


class SampleDistribution(ABC):
    """p(value | outputs) for outputs (B, maps, T).

    Attributes:
        maps: numbers that it needs for a sample.
        draws: uniform numbers that drawing takes.
        preprocessing: what is done to the sound first, in words.
    """

    maps: int
    draws: int
    preprocessing: str

    @abstractmethod
    def values(self, x: Tensor) -> Tensor:
        """What is modelled, of the shape of ``x``, from samples in [-1, 1]."""

    @abstractmethod
    def sound(self, values: Tensor) -> Tensor:
        """Samples ``float32`` in [-1, 1]."""

    @abstractmethod
    def log_prob(self, outputs: Tensor, values: Tensor) -> Tensor:
        """Nats (..., T) of values (..., T) under outputs (..., maps, T)."""

    @abstractmethod
    def draw(self, outputs: np.ndarray, uniform: np.ndarray, temperature: float) -> np.ndarray:
        """Values (n,) from outputs ``float32`` (n, maps) and numbers (n, draws) in [0, 1)."""

    @abstractmethod
    def draw_one(self, outputs: np.ndarray, uniform: list[float], temperature: float) -> float:
        """:meth:`draw` for a single stream, from outputs (maps,), in fewer and faster calls."""

    @abstractmethod
    def base(self, values: Tensor) -> Tensor:
        """Outputs (maps,) that fit independent samples like these."""


@final
class MuLaw(SampleDistribution):
    """A softmax over the 256 codes of mu-law; values are codes, ``int64``."""

    maps, draws = mulaw.CODES, 1
    preprocessing = "mu-law, 256 codes"

    def values(self, x: Tensor) -> Tensor:
        return mulaw.encode(x)

    def sound(self, values: Tensor) -> Tensor:
        return mulaw.decode(values)

    def log_prob(self, outputs: Tensor, values: Tensor) -> Tensor:
        rows = outputs.movedim(-2, -1).reshape(-1, self.maps).float()
        return -F.cross_entropy(rows, values.reshape(-1), reduction="none").view(values.shape)

    def draw(self, outputs: np.ndarray, uniform: np.ndarray, temperature: float) -> np.ndarray:
        if temperature == 0:
            return outputs.argmax(1)
        outputs = outputs if temperature == 1 else outputs / np.float32(temperature)
        mass = np.exp(outputs - outputs.max(1, keepdims=True)).cumsum(1)
        return np.minimum((mass <= uniform[:, :1] * mass[:, -1:]).sum(1), self.maps - 1)

    def draw_one(self, outputs: np.ndarray, uniform: list[float], temperature: float) -> int:
        best = int(outputs.argmax())
        if temperature == 0:
            return best
        if temperature != 1:
            outputs = outputs / np.float32(temperature)
        mass = np.add.accumulate(np.exp(outputs - outputs[best]))
        return min(int(mass.searchsorted(np.float32(uniform[0]) * mass[-1], "right")), self.maps - 1)

    def base(self, values: Tensor) -> Tensor:
        counts = torch.bincount(values.flatten(), minlength=self.maps) + 1.0
        return (counts / counts.sum()).log()


@final
class Logistics(SampleDistribution):
    """A mixture of ``mixtures`` discretised logistics; values are ``float32`` multiples of 1 / 32768."""

    draws = 2
    preprocessing = "none (16-bit values)"

    def __init__(self, mixtures: int) -> None:
        self.mixtures, self.maps = mixtures, 3 * mixtures

    def values(self, x: Tensor) -> Tensor:
        return (x.float() * LEVELS).round().clamp(-LEVELS, LEVELS - 1) / LEVELS

    def sound(self, values: Tensor) -> Tensor:
        return values

    def log_prob(self, outputs: Tensor, values: Tensor) -> Tensor:
        weights, means, scales = outputs.float().chunk(3, dim=-2)
        value = values.unsqueeze(-2)
        inverse = torch.exp(-scales.clamp(min=NARROWEST))
        upper = inverse * (value - means + 0.5 / LEVELS)
        lower = inverse * (value - means - 0.5 / LEVELS)
        above, below = F.logsigmoid(upper), F.logsigmoid(-lower)
        inside = above + below + torch.log(-torch.expm1(-inverse / LEVELS))
        # the outermost bins reach to infinity
        first, last = (0.5 - LEVELS) / LEVELS, (LEVELS - 1.5) / LEVELS
        bins = torch.where(value < first, above, torch.where(value > last, below, inside))
        return torch.logsumexp(bins + torch.log_softmax(weights, dim=-2), dim=-2)

    def draw(self, outputs: np.ndarray, uniform: np.ndarray, temperature: float) -> np.ndarray:
        """The temperature flattens or sharpens the weights, and multiplies the scales."""
        weights, means, scales = np.split(outputs.astype(np.float64), 3, axis=1)
        if temperature == 0:
            chosen = weights.argmax(1)
        else:
            mass = np.exp((weights - weights.max(1, keepdims=True)) / temperature).cumsum(1)
            chosen = np.minimum((mass <= uniform[:, :1] * mass[:, -1:]).sum(1), self.mixtures - 1)
        rows = np.arange(len(outputs))
        u = np.clip(uniform[:, 1].astype(np.float64), 1e-9, 1 - 1e-9)
        spread = temperature * np.exp(np.maximum(scales[rows, chosen], NARROWEST))
        drawn = means[rows, chosen] + spread * (np.log(u) - np.log1p(-u))
        return (np.clip(np.rint(drawn * LEVELS), -LEVELS, LEVELS - 1) / LEVELS).astype(np.float32)

    def draw_one(self, outputs: np.ndarray, uniform: list[float], temperature: float) -> float:
        numbers, k = outputs.tolist(), self.mixtures
        weights = numbers[:k]
        best = max(weights)
        if temperature == 0:
            chosen = weights.index(best)
        else:
            mass = list(accumulate(math.exp((w - best) / temperature) for w in weights))
            chosen = min(bisect_right(mass, uniform[0] * mass[-1]), k - 1)
        u = min(max(uniform[1], 1e-9), 1 - 1e-9)
        spread = temperature * math.exp(max(numbers[2 * k + chosen], NARROWEST))
        drawn = numbers[k + chosen] + spread * (math.log(u) - math.log1p(-u))
        return min(max(round(drawn * LEVELS), -LEVELS), LEVELS - 1) / LEVELS

    def base(self, values: Tensor) -> Tensor:
        k = self.mixtures
        flat = values.flatten().double()
        flat = flat[:: max(1, len(flat) // 1_000_000)]  # quantiles of more are slow, and refused by torch
        means = torch.quantile(flat, (torch.arange(k) + 0.5).double() / k)
        scale = math.log(max(0.5 * flat.std(correction=0).item(), 2 / LEVELS))
        return torch.cat([torch.zeros(k), means.float(), torch.full((k,), scale)])


def sample_distribution(name: Literal["softmax", "mixture"], mixtures: int) -> SampleDistribution:
    """The distribution of that name."""
    return MuLaw() if name == "softmax" else Logistics(mixtures)
