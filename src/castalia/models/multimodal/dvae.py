"""The discrete autoencoder of DALL-E: pictures as grids of codes, by a relaxation that anneals.

Paper
    Ramesh et al. 2021, "Zero-Shot Text-to-Image Generation" (arXiv:2102.12092): section 2.1, appendix A.1 (networks),
    A.2 (training), A.3 (the logit-Laplace distribution). Jang et al. 2016 (arXiv:1611.01144) and Maddison et al. 2016
    (arXiv:1611.00712): the Gumbel-softmax relaxation.

The encoder gives logits over K codes for each cell; in training a cell is softmax((logits + g) / tau) with Gumbel noise
g, afterwards its likeliest code. The decoder gives location and scale of a distribution over pixels,

    f(x | mu, b) = 1 / (2 b x (1 - x)) exp(-|logit(x) - mu| / b)     of     x = (1 - 2 e) pixel + e,   e = 0.1,

which lives on (0, 1), where pixels are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EDGE = 0.1
"""e: pixels keep so far from 0 and 1."""


@dataclass(frozen=True)
class CodesConfig:
    """The discrete autoencoder; the defaults are the paper's.

    Attributes:
        codes: K, different codes.
        width: channels of the first level of both networks.
        levels: of resolution; cells are 2^(levels - 1) pixels wide.
        blocks: residual blocks of each level.
        entry: channels that a code becomes first, in the decoder.
        narrowest: least logarithm of the distribution's scale b. Where large parts of pictures are of one colour, b
            falls there without end, and what is on them no longer counts; -2 keeps the balance.
    """

    codes: int = 8192
    width: int = 256
    levels: int = 4
    blocks: int = 2
    entry: int = 128
    narrowest: float = -7.0

    def __post_init__(self) -> None:
        if self.codes < 2 or min(self.width, self.levels, self.blocks, self.entry) < 1 or self.levels > 8:
            raise ValueError("codes must be at least 2, width, levels (at most 8), blocks and entry positive")
        if not -10 <= self.narrowest < 7:
            raise ValueError("narrowest lies between -10 and 7")
        if self.width % 4:
            raise ValueError("width must be divided by 4")

    @property
    def cell(self) -> int:
        """Pixels across a cell."""
        return 2 ** (self.levels - 1)


class Conv(nn.Conv2d):
    """A convolution that keeps the size, its weights from N(0, 1 / fan-in)."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        nn.init.normal_(self.weight, std=1 / math.sqrt(inputs * kernel**2))
        nn.init.zeros_(cast(Tensor, self.bias))


class Residual(nn.Module):
    """Four convolutions behind rectifiers, added with a small gain."""

    def __init__(self, inputs: int, outputs: int, kernels: tuple[int, ...], gain: float) -> None:
        super().__init__()
        inner, self.gain = outputs // 4, gain
        sizes = [inputs, inner, inner, inner, outputs]
        self.convs = nn.ModuleList(Conv(a, b, k) for a, b, k in zip(sizes, sizes[1:], kernels, strict=False))
        self.skip = Conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for conv in self.convs:
            h = conv(F.relu(h))
        return self.skip(x) + self.gain * h


@final
class Encoder(nn.Module):
    """Pictures (B, C, H, W) in [e, 1 - e] to logits (B, K, h, w)."""

    def __init__(self, config: CodesConfig, channels: int) -> None:
        super().__init__()
        c, gain = config, 1 / (config.levels * config.blocks) ** 2
        self.first = Conv(channels, c.width, 7)
        layers: list[nn.Module] = []
        inputs = c.width
        for level in range(c.levels):
            for _ in range(c.blocks):
                layers.append(Residual(inputs, c.width * 2**level, (3, 3, 3, 1), gain))
                inputs = c.width * 2**level
            if level < c.levels - 1:
                layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers)
        self.last = Conv(inputs, c.codes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.layers(self.first(x))))


@final
class Decoder(nn.Module):
    """Codes, or mixtures of them, (B, K, h, w) to location and log-scale (B, 2 C, H, W)."""

    def __init__(self, config: CodesConfig, channels: int) -> None:
        super().__init__()
        c, gain = config, 1 / (config.levels * config.blocks) ** 2
        self.first = Conv(c.codes, c.entry, 1)
        layers: list[nn.Module] = []
        inputs = c.entry
        for level in reversed(range(c.levels)):
            for _ in range(c.blocks):
                layers.append(Residual(inputs, c.width * 2**level, (1, 3, 3, 3), gain))
                inputs = c.width * 2**level
            if level:
                layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
        self.layers = nn.Sequential(*layers)
        self.last = Conv(inputs, 2 * channels, 1)

    def forward(self, z: Tensor) -> Tensor:
        return self.last(F.relu(self.layers(self.first(z))))

    def of_codes(self, codes: Tensor) -> Tensor:
        """The same of code numbers (B, h, w): a product with a one-hot vector is a row of the first matrix."""
        rows = F.embedding(codes, self.first.weight[:, :, 0, 0].T) + cast(Tensor, self.first.bias)
        return self.last(F.relu(self.layers(rows.permute(0, 3, 1, 2))))


def inward(x: Tensor) -> Tensor:
    """Pictures, 0 to 255, to [e, 1 - e]."""
    return (1 - 2 * EDGE) * (x.float() / 255) + EDGE


def outward(outputs: Tensor) -> Tensor:
    """The decoder's outputs to pictures ``uint8``: the median of the distribution, as in the authors' code."""
    location = outputs.chunk(2, 1)[0].float()
    return ((torch.sigmoid(location) - EDGE) / (1 - 2 * EDGE) * 255).round().clamp(0, 255).to(torch.uint8)


def log_prob(outputs: Tensor, x: Tensor, narrowest: float = -7.0) -> Tensor:
    """Log-density of pictures in [e, 1 - e] under the logit-Laplace distribution, nats (B,); log b >= ``narrowest``."""
    location, scale = outputs.float().chunk(2, 1)
    # softly: where it is too narrow for what is there, it must find out of there again
    scale = (narrowest + F.softplus(scale - narrowest)).clamp(max=7)
    each = -math.log(2.0) - scale - torch.log(x * (1 - x)) - (torch.logit(x) - location).abs() * torch.exp(-scale)
    return each.flatten(1).sum(1)


def relaxed(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """Gumbel-softmax over the codes, shaped like ``logits`` (B, K, h, w); ``uniform`` on [0, 1) likewise."""
    noise = -torch.log(-torch.log(uniform.clamp(1e-7, 1 - 1e-7)))
    return torch.softmax((logits.float() + noise) / temperature, 1)


def kl_to_even(logits: Tensor) -> Tensor:
    """KL of each cell's distribution to that in which all codes are equal, summed over cells, nats (B,)."""
    logs = torch.log_softmax(logits.float(), 1)
    return (logs.exp() * (logs + math.log(logits.shape[1]))).sum(1).flatten(1).sum(1)
