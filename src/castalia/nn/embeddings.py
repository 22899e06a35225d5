"""Numbers as vectors: how a network is told the time or the noise level.

Vaswani et al. 2017 (arXiv:1706.03762, section 3.5), in the order and spacing of Ho et al. 2020 (arXiv:2006.11239);
random Fourier features: Tancik et al. 2020 (arXiv:2006.10739), as Song et al. 2021 (arXiv:2011.13456) use them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoids(
    t: Tensor, dims: int, *, cos_first: bool = False, freq_shift: float = 1.0, max_period: float = 10_000.0
) -> Tensor:
    """Sines and cosines of ``t`` at geometrically spaced frequencies.

    Frequency i of dims // 2 is ``max_period ** (-i / (dims // 2 - freq_shift))``. Always computed in float32:
    in bfloat16 the phase of t = 1000 would be off by several radians.

    Args:
        t: times (B,), any unit.
        dims: length of the result; where it is odd, the last entry is zero.
        cos_first: cosines before sines.
        freq_shift: 1 makes the lowest frequency exactly ``1 / max_period``.
        max_period: of the slowest sine, divided by 2 pi.

    Returns:
        ``float32`` (B, dims).
    """
    half = dims // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device)
    frequencies = torch.exp(-math.log(max_period) * steps / (half - freq_shift))
    phases = t.float()[:, None] * frequencies
    waves = (phases.cos(), phases.sin()) if cos_first else (phases.sin(), phases.cos())
    features = torch.cat(waves, dim=1)
    return F.pad(features, (0, 1)) if dims % 2 else features


def places(length: int, dim: int) -> Tensor:
    """Places 0 to ``length`` - 1 as sines and cosines in turn, ``float32`` (length, dim), as Vaswani et al. have it."""
    rate = torch.exp(-torch.arange(0, dim, 2) * (torch.log(torch.tensor(10_000.0)) / dim))
    angle = torch.arange(length)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :dim]


class FourierFeatures(nn.Module):
    """Sines and cosines of ``2 pi w t`` with fixed random ``w`` ~ N(0, scale^2); ``float32`` (B, 2 n) from (B,).

    The frequencies are rounded to bfloat16 when they are drawn. One draw is as good as another, and so a network
    that is later turned into bfloat16 keeps its features to the bit.
    """

    frequencies: Tensor

    def __init__(self, n: int, scale: float, *, cos_first: bool = False) -> None:
        super().__init__()
        self.cos_first = cos_first
        self.register_buffer("frequencies", (torch.randn(n) * scale).bfloat16().float())

    def forward(self, t: Tensor) -> Tensor:
        phases = t.float()[:, None] * (2 * math.pi * self.frequencies.float())
        waves = (phases.cos(), phases.sin()) if self.cos_first else (phases.sin(), phases.cos())
        return torch.cat(waves, dim=1)
