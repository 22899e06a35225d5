"""Noise that makes values continuous, and what it does to a likelihood (Kingma et al. 2021, arXiv:2107.00630)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gaussian_dequantisation(x0: Tensor, z: Tensor, sigma: float, levels: int) -> tuple[Tensor, Tensor]:
    """Values with noise added, and what that means for a likelihood.

        log p(x) >= E_q[log p(y) + log P(x | y) - log q(y | x)],   q(y | x) = N(x, sigma^2),

    where P(x | y) is q(y | x) normalised over the values that a pixel can have (Kingma et al. 2021, eq. 12).

    Args:
        x0: examples whose values are some of ``levels`` evenly spaced on [-1, 1].
        z: standard normal, shaped like x0.
        sigma: deviation of the noise.
        levels: number of values.

    Returns:
        y, and log P(x | y) - log q(y | x) in nats per example, ``float64`` (B,).
    """
    gap = 2 / (levels - 1)
    start = ((x0.double() + 1) / gap).round()  # number of the true level
    # levels further away than 9 deviations and the noise itself weigh less than exp(-40)
    reach = min(levels - 1, math.ceil((9 + float(z.abs().max())) * sigma / gap) + 1)
    others = torch.arange(-reach, reach + 1, dtype=torch.float64, device=x0.device)
    distance = z.double()[..., None] - others * (gap / sigma)
    log_weights = -0.5 * distance**2
    there = start[..., None] + others
    log_weights = log_weights.masked_fill((there < 0) | (there > levels - 1), -torch.inf)
    # log q cancels against its own part of P, but for its constant
    log_ratio = math.log(sigma) + 0.5 * math.log(2 * math.pi) - torch.logsumexp(log_weights, -1)
    return x0 + sigma * z, log_ratio.flatten(1).sum(1)
