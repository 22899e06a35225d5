"""Probabilities of whole numbers under a Gaussian around them: masses of bins, without cancellation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Decoder = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x0, mean, deviation) -> log-probability of every value of x0."""


def uniform_bins(levels: int) -> Decoder:
    """The discretised Gaussian over ``levels`` values evenly spaced on [-1, 1] (Ho et al., eq. 13)."""
    half = 1 / (levels - 1)

    def log_prob(x0: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        x0, mean, deviation = x0.double(), mean.double(), deviation.double()
        lower = torch.where(x0 < -1 + half, -torch.inf, (x0 - half - mean) / deviation)
        upper = torch.where(x0 > 1 - half, torch.inf, (x0 + half - mean) / deviation)
        return log_normal_bin(lower, upper)

    return log_prob


def log_normal_bin(lower: Tensor, upper: Tensor) -> Tensor:
    """log(Phi(upper) - Phi(lower)) for lower < upper, which may be infinite; exact in either tail.

    Phi(b) - Phi(a) cancels where both are near 1, so such bins are mirrored to the other side of 0. There
    log Phi(b) + log(1 - exp(log Phi(a) - log Phi(b))) loses nothing. Computed in ``float64``.
    """
    lower, upper = lower.double(), upper.double()
    mirror = lower + upper > 0
    a, b = torch.where(mirror, -upper, lower), torch.where(mirror, -lower, upper)
    log_a, log_b = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    ratio = torch.where(torch.isinf(a), -torch.inf, log_a - log_b)
    return log_b + torch.log(-torch.expm1(ratio))
