"""What a flow ends in: distributions of its last variables, each also as a map to standard normal latents."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.models.flows.conditioners import NormedConv
from castalia.models.flows.layers import LOG_SCALE_FACTOR, along

MOST = 5.0
"""Bound on the logarithm of a deviation that a network computes: what was never seen must not become infinite."""


def normal_log_density(eps: Tensor) -> Tensor:
    """Log N(eps; 0, I) summed over all but the first dimension, (B,)."""
    return -0.5 * (eps.square() + math.log(2 * math.pi)).flatten(1).sum(1)


class Prior(nn.Module, ABC):
    """A distribution over x (B, ...)."""

    @abstractmethod
    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Standard normal latents of the shape of ``x``, and log p(x), (B,)."""

    @abstractmethod
    def inverse(self, eps: Tensor, label: Tensor | None = None) -> Tensor:
        """The x of latents."""


@final
class StandardNormal(Prior):
    """N(0, I): its own latents."""

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x, normal_log_density(x)

    def inverse(self, eps: Tensor, label: Tensor | None = None) -> Tensor:
        return eps


@final
class Logistic(Prior):
    """Independent standard logistics (NICE, section 3.4): log p = -softplus(x) - softplus(-x).

    A latent is the normal quantile at which the logistic has x, computed from the tail on the side of x, where float64
    has room: as far as values go, nothing is cut off.
    """

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        far = x.double().abs().clamp(max=600.0)
        eps = -torch.special.ndtri(torch.sigmoid(-far)) * x.double().sign()
        return eps.to(x.dtype), -(F.softplus(x) + F.softplus(-x)).flatten(1).sum(1)

    def inverse(self, eps: Tensor, label: Tensor | None = None) -> Tensor:
        wide = eps.double()
        return (torch.special.log_ndtr(wide) - torch.special.log_ndtr(-wide)).to(eps.dtype)


@final
class LearnedNormal(Prior):
    """A Gaussian with learned mean and deviation for each channel, and for each class (code of Kingma & Dhariwal).

    Args:
        channels: of x.
        classes: 0 for none; the label ``classes`` is the null class.
    """

    def __init__(self, channels: int, classes: int = 0) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(channels))
        self.log_std = nn.Parameter(torch.zeros(channels))
        self.classes = classes
        self.of_class = nn.Embedding(classes + 1, 2 * channels) if classes else None
        if self.of_class is not None:
            nn.init.zeros_(self.of_class.weight)

    def _moments_of(self, x: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the deviation, which broadcast against x."""
        mean, log_std = along(self.mean, x), along(LOG_SCALE_FACTOR * self.log_std, x)
        if self.of_class is not None:
            label = torch.full((x.shape[0],), self.classes, device=x.device) if label is None else label
            shift, log_change = self.of_class(label).view(x.shape[0], -1, *[1] * (x.ndim - 2)).chunk(2, 1)
            mean, log_std = mean + shift, log_std + LOG_SCALE_FACTOR * log_change
        return mean, log_std

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, log_std = self._moments_of(x, label)
        eps = (x - mean) * torch.exp(-log_std)
        return eps, normal_log_density(eps) - log_std.expand_as(x).flatten(1).sum(1)

    def inverse(self, eps: Tensor, label: Tensor | None = None) -> Tensor:
        mean, log_std = self._moments_of(eps, label)
        return eps * log_std.exp() + mean


@final
class Factor(nn.Module):
    """The upper half of the channels leaves the flow, Gaussian given the lower half (Glow) or not (RealNVP).

    Args:
        channels: of x, an even number.
        learned: whether a convolution that starts at zero computes mean and deviation from what stays.
    """

    def __init__(self, channels: int, *, learned: bool) -> None:
        super().__init__()
        self.net = NormedConv(channels // 2, channels, 3, zero=True) if learned else None

    def _moments_of(self, kept: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.net is None:
            return None
        mean, raw = self.net(kept).to(kept.dtype).chunk(2, 1)
        return mean, MOST * torch.tanh(raw / MOST)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What stays, the latents of what leaves, and its log-density (B,)."""
        kept, out = x.chunk(2, 1)
        found = self._moments_of(kept)
        if found is None:
            return kept, out, normal_log_density(out)
        mean, log_std = found
        eps = (out - mean) * torch.exp(-log_std)
        return kept, eps, normal_log_density(eps) - log_std.flatten(1).sum(1)

    def inverse(self, kept: Tensor, eps: Tensor) -> Tensor:
        """The x of what stayed and the latents of what left."""
        found = self._moments_of(kept)
        out = eps if found is None else eps * found[1].exp() + found[0]
        return torch.cat([kept, out], 1)
