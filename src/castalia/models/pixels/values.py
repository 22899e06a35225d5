"""What a pixel can be, and how likely, given a network's outputs for it.

* :class:`Softmax`: a probability for every value (van den Oord et al. 2016, arXiv:1601.06759, section 2.2), each
  channel given those before it. Where data hold few values (the 17 greys of the 8x8 digits), only these have outputs.
* :class:`Binary`: pictures are binarised as the VAE binarises them, one logit for a value.
* :class:`Logistics`: mixtures of discretised logistics (Salimans et al. 2017, arXiv:1701.05517), all channels from the
  same outputs; see :class:`castalia.nn.likelihoods.LogisticMixture`.

Drawing is by inversion of uniform numbers, in NumPy: one pixel after another is what torch is slow at.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.data import Dataset, some_of
from castalia.core.errors import UsageError
from castalia.core.rng import Rng
from castalia.nn.likelihoods import Bernoulli, LogisticMixture

FEW = 64
"""More different values than this count as all 256."""

LOOKED_AT = 20_000
"""Pictures looked at, evenly spaced in the data, for the values that there are, and how often."""


def counts_of(data: Dataset) -> Tensor:
    """How often each of the 256 values occurs in each channel, ``int64`` (C, 256)."""
    ids, seen = some_of(data, LOOKED_AT), torch.zeros(0)
    for first in range(0, len(ids), 500):
        x = data.batch(ids[first : first + 500]).x.cpu()
        found = torch.stack([torch.bincount(x[:, c].flatten().long(), minlength=256) for c in range(x.shape[1])])
        seen = found if first == 0 else seen + found
    return seen


def few_values(data: Dataset) -> tuple[int, ...]:
    """The values that the pictures hold, least first; () where there are more than 64, or a single one."""
    seen = counts_of(data).sum(0).nonzero()[:, 0].tolist()
    return tuple(seen) if 2 <= len(seen) <= FEW else ()


class Values(nn.Module, ABC):
    """p(pixel | outputs) for outputs (B, maps, H, W). Codes are the values' numbers, from 0.

    Attributes:
        maps: outputs for a pixel.
        looks: how often the network is asked for a pixel: once, or once for each channel.
        draws: uniform numbers that a pixel takes.
        preprocessing: what is done to the pictures first, in words.
        natural: the natural values where they are not all 256 (and pictures are not binarised).
    """

    maps: int
    looks: int
    draws: int
    preprocessing: str
    natural: tuple[int, ...] | None = None

    @abstractmethod
    def codes(self, x: Tensor, rng: Rng | None) -> Tensor:
        """``int64`` (B, C, H, W) from pixels ``uint8``; what is no value of the model takes the nearest one."""

    @abstractmethod
    def features(self, codes: Tensor) -> Tensor:
        """The codes on the scale [-1, 1], ``float32``, as a network sees them."""

    @abstractmethod
    def pixels(self, codes: Tensor) -> Tensor:
        """``uint8``."""

    @abstractmethod
    def log_prob(self, outputs: Tensor, codes: Tensor) -> Tensor:
        """Nats (B,) of codes (B, C, H, W)."""

    @abstractmethod
    def draw(self, outputs: np.ndarray, uniform: np.ndarray, temperature: float) -> np.ndarray:
        """Codes ``int64`` (n, C / looks) from outputs (n, maps / looks) and numbers (n, draws / looks) in [0, 1)."""

    @abstractmethod
    def base(self, counts: Tensor) -> Tensor:
        """Outputs (maps,) that fit independent values as often as ``counts`` (C, 256) say."""

    def check(self, x: Tensor) -> None:
        """Refuse pictures with values that have no probability.

        Raises:
            UsageError: the text names one.
        """


def refuse_unknown(x: Tensor, natural: tuple[int, ...] | None) -> None:
    """Refuse pictures whose values are not all among ``natural``."""
    if natural is None:
        return
    known = torch.isin(x, torch.tensor(natural, dtype=torch.uint8, device=x.device))
    if not known.all():
        raise UsageError(
            f"This model knows pictures of {len(natural)} values ({', '.join(map(str, natural[:3]))}, ...), those of "
            f"its training data. A picture with the value {int(x[~known][0])} has probability 0. Train on data that "
            "hold such values to measure it, or with config.few=false."
        )


def nearest(natural: tuple[int, ...]) -> Tensor:
    """The code of each of the 256 values, ``int64`` (256,)."""
    return (torch.arange(256)[:, None] - torch.tensor(natural)).abs().argmin(1)


def _said(natural: tuple[int, ...] | None) -> str:
    return "none (8-bit values)" if natural is None else f"none ({len(natural)} values, those of the training data)"


@final
class Softmax(Values):
    """One output for each value of each channel."""

    draws: int

    def __init__(self, channels: int, natural: tuple[int, ...]) -> None:
        super().__init__()
        self.natural = natural or None
        values = natural or tuple(range(256))
        self.levels, self.looks, self.draws = len(values), channels, channels
        self.maps = channels * self.levels
        self.preprocessing = _said(self.natural)
        table = torch.tensor(values, dtype=torch.uint8)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("code", nearest(values), persistent=False)

    def codes(self, x: Tensor, rng: Rng | None) -> Tensor:
        return self.get_buffer("code")[x.long()]

    def features(self, codes: Tensor) -> Tensor:
        return self.get_buffer("table")[codes].float() / 127.5 - 1

    def pixels(self, codes: Tensor) -> Tensor:
        return self.get_buffer("table")[codes]

    def log_prob(self, outputs: Tensor, codes: Tensor) -> Tensor:
        scores = outputs.float().unflatten(1, (self.looks, self.levels)).movedim(2, -1)  # (B, C, H, W, levels)
        nats = F.cross_entropy(scores.reshape(-1, self.levels), codes.reshape(-1), reduction="none")
        return -nats.view(len(codes), -1).sum(1)

    def draw(self, outputs: np.ndarray, uniform: np.ndarray, temperature: float) -> np.ndarray:
        if temperature == 0:
            return outputs.argmax(1)[:, None]
        outputs = outputs if temperature == 1 else outputs / np.float32(temperature)
        mass = np.exp(outputs - outputs.max(1, keepdims=True)).cumsum(1)
        return np.minimum((mass <= uniform * mass[:, -1:]).sum(1, keepdims=True), self.levels - 1)

    def base(self, counts: Tensor) -> Tensor:
        shares = counts[:, self.get_buffer("table").long()] + 1.0
        return (shares / shares.sum(1, keepdim=True)).log().flatten()

    def check(self, x: Tensor) -> None:
        refuse_unknown(x, self.natural)


@final
class Binary(Values):
    """Binary pixels and one logit for each."""

    def __init__(self, channels: int, binarise: Literal["dynamic", "threshold"], looks: int) -> None:
        super().__init__()
        self.bernoulli = Bernoulli(channels, binarise)
        self.looks, self.draws, self.maps = looks, channels, channels
        self.preprocessing = self.bernoulli.preprocessing

    def codes(self, x: Tensor, rng: Rng | None) -> Tensor:
        """Drawn with ``rng``, where binarisation is dynamic; without, cut at one half."""
        return (self.bernoulli.target(x, rng) > 0.5).long()

    def features(self, codes: Tensor) -> Tensor:
        return codes.float().mul_(2).sub_(1)

    def pixels(self, codes: Tensor) -> Tensor:
        return codes.to(torch.uint8) * 255

    def log_prob(self, outputs: Tensor, codes: Tensor) -> Tensor:
        logits = outputs.float()
        return -F.binary_cross_entropy_with_logits(logits, codes.to(logits.dtype), reduction="none").sum((1, 2, 3))

    def draw(self, outputs: np.ndarray, uniform: np.ndarray, temperature: float) -> np.ndarray:
        if temperature == 0:
            return (outputs > 0).astype(np.int64)
        logits = outputs if temperature == 1 else outputs / np.float32(temperature)
        # p(1) > u; the logit of u overflows nowhere that matters, and exp would
        return (np.tanh(0.5 * logits) > 2 * uniform - 1).astype(np.int64)

    def base(self, counts: Tensor) -> Tensor:
        grey = counts.double() * torch.linspace(0, 1, 256, dtype=torch.float64)
        if self.bernoulli.binarise == "threshold":
            grey = counts.double() * (torch.arange(256) > 127)
        return torch.logit((grey.sum(1) / counts.sum(1)).clamp(0.01, 0.99)).float()


@final
class Logistics(Values):
    """A mixture of discretised logistics over evenly spaced values, for all channels of a pixel together."""

    looks = 1

    def __init__(self, channels: int, natural: tuple[int, ...], mixtures: int) -> None:
        super().__init__()
        self.natural = natural or None
        values = natural or tuple(range(256))
        self.channels, self.levels, self.draws = channels, len(values), 1 + channels
        self.mixture = LogisticMixture(channels, mixtures, self.levels)
        self.maps = self.mixture.maps
        self.preprocessing = _said(self.natural)
        self.register_buffer("table", torch.tensor(values, dtype=torch.uint8), persistent=False)
        self.register_buffer("code", nearest(values), persistent=False)

    def codes(self, x: Tensor, rng: Rng | None) -> Tensor:
        return self.get_buffer("code")[x.long()]

    def features(self, codes: Tensor) -> Tensor:
        return codes.float() * (2 / (self.levels - 1)) - 1

    def pixels(self, codes: Tensor) -> Tensor:
        return self.get_buffer("table")[codes]

    def log_prob(self, outputs: Tensor, codes: Tensor) -> Tensor:
        return self.mixture.log_prob(outputs, self.features(codes))

    def draw(self, outputs: np.ndarray, uniform: np.ndarray, temperature: float) -> np.ndarray:
        """The temperature flattens or sharpens the weights, and multiplies the scales."""
        k, c, rows = self.mixture.mixtures, self.channels, np.arange(len(outputs))
        weights, means, scales, rest = np.split(outputs.astype(np.float64), [k, k + c * k, k + 2 * c * k], axis=1)
        if temperature == 0:
            chosen = weights.argmax(1)
        else:
            mass = np.exp((weights - weights.max(1, keepdims=True)) / temperature).cumsum(1)
            chosen = np.minimum((mass <= uniform[:, :1] * mass[:, -1:]).sum(1), k - 1)
        u = np.clip(uniform[:, 1:].astype(np.float64), 1e-9, 1 - 1e-9)
        noise = temperature * (np.log(u) - np.log1p(-u))
        drawn = np.empty((len(outputs), c), np.int64)
        for channel in range(c):
            centre = means[rows, channel * k + chosen]
            for pair, (to, of) in enumerate(self.mixture.pairs):
                if to == channel:  # a channel is rounded before the next depends on it
                    value = drawn[:, of] * (2 / (self.levels - 1)) - 1
                    centre = centre + np.tanh(rest[rows, pair * k + chosen]) * value
            scale = np.exp(np.maximum(scales[rows, channel * k + chosen], -7.0))
            value = (centre + scale * noise[:, channel] + 1) * (0.5 * (self.levels - 1))
            drawn[:, channel] = np.clip(np.rint(value), 0, self.levels - 1)
        return drawn

    def base(self, counts: Tensor) -> Tensor:
        """Components at the quantiles of each channel, each as wide as lets neighbours touch."""
        k = self.mixture.mixtures
        position = self.features(torch.arange(self.levels))
        shares = counts[:, self.get_buffer("table").long()].double()
        below = (shares.cumsum(1) / shares.sum(1, keepdim=True)).contiguous()
        quantiles = ((torch.arange(k) + 0.5) / k).double().expand(len(counts), k).contiguous()
        means = position[torch.searchsorted(below, quantiles).clamp(max=self.levels - 1)]
        mean = (shares * position).sum(1) / shares.sum(1)
        spread = ((shares * (position - mean[:, None]) ** 2).sum(1) / shares.sum(1)).sqrt().clamp(min=0.02)
        scales = (spread.float() * 0.5).log()[:, None].expand(-1, k)
        rest = torch.zeros(len(self.mixture.pairs) * k)
        return torch.cat([torch.zeros(k), means.float().flatten(), scales.flatten(), rest])

    def check(self, x: Tensor) -> None:
        refuse_unknown(x, self.natural)


def values_of(
    likelihood: Literal["softmax", "bernoulli", "logistic"],
    channels: int,
    natural: tuple[int, ...],
    binarise: Literal["dynamic", "threshold"],
    mixtures: int = 10,
    looks: int = 0,
) -> Values:
    """The distribution of that name; binary pixels are asked for channel by channel unless ``looks`` says otherwise."""
    if likelihood == "softmax":
        return Softmax(channels, natural)
    if likelihood == "bernoulli":
        return Binary(channels, binarise, looks or channels)
    return Logistics(channels, natural, mixtures)


def check_values(natural: tuple[int, ...], *, even: bool = False) -> None:
    """Whether values of a configuration are some of 0 to 255, rising, and (``even``) evenly spaced.

    Raises:
        ValueError: they are not.
    """
    if not natural:
        return
    if len(natural) < 2 or list(natural) != sorted(set(natural)) or natural[0] < 0 or natural[-1] > 255:
        raise ValueError("values are at least two of 0 to 255, least first")
    if even and not evenly(natural):
        raise ValueError("values must be evenly spaced")


def evenly(natural: tuple[int, ...]) -> bool:
    """Whether values are evenly spaced, up to rounding."""
    low, step = natural[0], (natural[-1] - natural[0]) / max(1, len(natural) - 1)
    return all(math.isclose(value, low + i * step, abs_tol=0.51) for i, value in enumerate(natural))
