"""How well pictures move with what they are made from: PSNR between moving before and moving after.

Paper
    Karras et al. 2021 (arXiv:2106.12423), section 2.2 (EQ-T) and appendix E (fractional translations, EQ-R).

What differs, and why
    Each picture's error is the mean over the places where both pictures are known, and the decibels are of the mean of
    these errors. For rotations both pictures go through one and the same round low-pass filter, a windowed jinc: it
    takes away the corners of the spectrum that only one of them has, as the paper's filters in two frames do.

Places are in shorter sides of the picture, from its centre, right and down. A move is a matrix that says where what
lies at a place comes from.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Render = Callable[[Tensor], Tensor]
"""Moves ``float32`` (B, 3, 3) to pictures (B, C, H, W) of about -1 to 1, of the same things in every call."""

How = Literal["integer", "fractional", "rotation"]

REACH = 3
"""Of the filters that resample pictures, in pixels (the paper's a)."""

FURTHEST = 8
"""Pictures are moved by up to their sides divided by this."""

RANGE = 2.0
"""From the least value to the largest."""

LEAST = 1e-15
"""Smallest error told from none: 156 dB."""


def decibels(error: float) -> float:
    """Peak signal-to-noise ratio of a mean squared error between values of -1 to 1."""
    return 10 * math.log10(RANGE**2 / max(error, LEAST))


def errors(render: Render, how: How, uniform: Tensor) -> Tensor:
    """Mean squared errors ``float64`` (B,) between pictures that were moved and pictures of moved things.

    Args:
        render: makes pictures.
        how: ``integer``: moved by whole pixels; ``fractional``: by any share of them; ``rotation``: turned about the
            centre by any angle.
        uniform: (B, 2) from 0 to 1: how far.
    """
    still = torch.eye(3, device=uniform.device).expand(len(uniform), 3, 3)
    x = render(still).double()
    if how == "rotation":
        return _turned(render, x, 2 * math.pi * uniform[:, 0].double())
    h, w = x.shape[2:]
    furthest = torch.tensor([w, h], device=x.device) / FURTHEST
    pixels = (2 * uniform.double() - 1) * furthest  # right and down
    if how == "integer":
        pixels = pixels.round()
    move = still.clone()
    move[:, :2, 2] = (-pixels / min(h, w)).float()
    along, known_along = _shifts(w, pixels[:, 0])
    down, known_down = _shifts(h, pixels[:, 1])
    expected = down[:, None] @ x @ along[:, None].mT
    known = (known_down[:, :, None] & known_along[:, None, :])[:, None]
    return _mean(render(move).double() - expected, known)


def _mean(difference: Tensor, known: Tensor) -> Tensor:
    """Mean squares (B,) over the places (B, 1, H, W) that are known."""
    n = known.sum((1, 2, 3)).clamp_min(1) * difference.shape[1]
    return (difference.square() * known).sum((1, 2, 3)) / n


def _shifts(n: int, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """What shifts n samples by each of (B,) distances, (B, n, n), and whether all that is needed is there, (B, n)."""
    places = torch.arange(n, device=pixels.device, dtype=torch.float64)
    source = places - pixels[:, None]
    away = source[:, :, None] - places
    weights = torch.sinc(away) * torch.sinc(away / REACH) * (away.abs() < REACH)
    weights = weights / weights.sum(2, keepdim=True).where(weights.any(2, keepdim=True), 1)
    whole = (source - source.round()).abs() < 1e-9
    low = torch.where(whole, source.round(), source.floor() - REACH + 1)
    high = torch.where(whole, source.round(), source.floor() + REACH)
    return weights, (low >= 0) & (high <= n - 1)


def _turned(render: Render, x: Tensor, angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    # to where a place comes from: back by the angle
    back = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)
    move = torch.eye(3, device=x.device).repeat(len(x), 1, 1)
    move[:, :2, :2] = back.float()
    h, w = x.shape[2:]
    right = torch.arange(w, device=x.device, dtype=torch.float64) - (w - 1) / 2
    down = torch.arange(h, device=x.device, dtype=torch.float64) - (h - 1) / 2
    grid = torch.stack([right.expand(h, w), down[:, None].expand(h, w)], 2)
    source = (back[:, None, None] @ grid[..., None]).squeeze(4)
    expected, known = _round_low_pass(x, source)
    found, there = _round_low_pass(render(move).double(), grid.expand(len(x), h, w, 2))
    return _mean(found - expected, (known & there)[:, None])


def _round_low_pass(x: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures (B, C, H, W) at places (B, H', W', 2) in pixels from the centre, without what is finer than a pixel.

    Also whether all that is needed is there, (B, H', W').
    """
    h, w = x.shape[2:]
    column, row = places[..., 0] + (w - 1) / 2, places[..., 1] + (h - 1) / 2
    left, top = column.floor(), row.floor()
    known = (left >= REACH - 1) & (left <= w - 1 - REACH) & (top >= REACH - 1) & (top <= h - 1 - REACH)
    padded = F.pad(x, (REACH, REACH, REACH, REACH)).flatten(2)
    made = torch.zeros_like(x[:, :, :1, :1]).expand(-1, -1, *places.shape[1:3]).clone()
    total = torch.zeros_like(column)
    for dy in range(1 - REACH, REACH + 1):
        for dx in range(1 - REACH, REACH + 1):
            away = torch.hypot(left + dx - column, top + dy - row)
            weight = _jinc(away) * _jinc(away / REACH * FIRST_ZERO) * (away < REACH)
            i = (top + dy + REACH).clamp(0, h + 2 * REACH - 1) * (w + 2 * REACH)
            i = (i + (left + dx + REACH).clamp(0, w + 2 * REACH - 1)).long()
            value = padded.gather(2, i.flatten(1)[:, None].expand(-1, x.shape[1], -1)).view_as(made)
            made = made + weight[:, None] * value
            total = total + weight
    return made / total[:, None], known


FIRST_ZERO = 1.2196698912665045
"""Where the jinc first is 0."""


def _jinc(x: Tensor) -> Tensor:
    """2 J1(pi x) / (pi x): what passes all frequencies up to half a period in a pixel, in all directions."""
    y = math.pi * x.clamp_min(1e-9)
    return 2 * torch.special.bessel_j1(y) / y
