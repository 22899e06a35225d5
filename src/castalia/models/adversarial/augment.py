"""Differentiable augmentation: random changes of real and made pictures alike, through which gradients flow.

Zhao et al. 2020 (arXiv:2006.10738). The critic never sees a picture unchanged, so it cannot learn a small set of
pictures by heart; and as made pictures are changed in the same way, the changes do not leak into the generator.

Each picture is changed by its own numbers. Pictures are (B, C, H, W) in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from castalia.core.rng import Rng

Change = Literal["colour", "translation", "cutout"]

SHIFT = 1 / 8
"""Largest translation, as a share of the side."""

HOLE = 1 / 2
"""Side of the hole that cutout makes, as a share of the picture's."""


def augment(x: Tensor, changes: Sequence[Change], rng: Rng) -> Tensor:
    """Apply changes in the order colour, translation, cutout; without changes return ``x`` itself.

    Args:
        x: pictures ``float`` (B, C, H, W).
        changes: which.
        rng: one row per picture.
    """
    if "colour" in changes:
        x = colour(x, rng)
    if "translation" in changes:
        x = translation(x, rng)
    if "cutout" in changes:
        x = cutout(x, rng)
    return x


def colour(x: Tensor, rng: Rng) -> Tensor:
    """Random brightness, saturation and contrast of the colours; alpha stays."""
    numbers = rng.uniform("colour", 3, 1, 1, 1).to(x.dtype)
    brightness, saturation, contrast = numbers[:, 0] - 0.5, numbers[:, 1] * 2, numbers[:, 2] + 0.5
    colours, rest = x[:, :3], x[:, 3:]
    colours = colours + brightness
    if colours.shape[1] > 1:
        grey = colours.mean(1, keepdim=True)
        colours = (colours - grey) * saturation + grey
    middle = colours.mean((1, 2, 3), keepdim=True)
    colours = (colours - middle) * contrast + middle
    return torch.cat([colours, rest], 1) if rest.shape[1] else colours


def translation(x: Tensor, rng: Rng) -> Tensor:
    """Random shift by up to an eighth of each side; what comes in from outside is zero."""
    for axis, name in ((2, "down"), (3, "right")):
        size = x.shape[axis]
        most = int(size * SHIFT + 0.5)
        shift = rng.integers(name, 2 * most + 1).view(-1, 1, 1, 1)
        position = torch.arange(size, device=x.device).view([-1 if a == axis else 1 for a in range(4)])
        padded = F.pad(x, (0, 0, most, most) if axis == 2 else (most, most))
        x = padded.gather(axis, (position + shift).expand(x.shape))
    return x


def cutout(x: Tensor, rng: Rng) -> Tensor:
    """Set a square at a random place, half as wide as the picture and cut off at its edges, to zero."""
    inside = torch.ones(len(x), 1, 1, 1, dtype=torch.bool, device=x.device)
    for axis, name in ((2, "hole-down"), (3, "hole-right")):
        size = x.shape[axis]
        side = int(size * HOLE + 0.5)
        centre = rng.integers(name, size + (1 - side % 2)).view(-1, 1, 1, 1)
        position = torch.arange(size, device=x.device).view([-1 if a == axis else 1 for a in range(4)])
        start = centre - side // 2
        inside = inside & (position >= start) & (position < start + side)
    return x.masked_fill(inside, 0.0)
