"""A generator and a critic that grow: layers for one resolution after another.

Both are called with a level (0: the smallest maps) and, while the layers of that level fade in, with their share alpha.
Pictures are those of the level. At ``alpha`` 0 they are those of the level below, enlarged; at 1 the new layers' own.

Paper
    Karras et al. 2018 (arXiv:1710.10196): figure 2 (fading in), table 2 (layers), sections 3, 4.1 and 4.2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.models.adversarial.layers import one_hot
from castalia.nn.equalised import EqualConv2d, EqualLinear, MinibatchDeviation, pixel_norm

HE = math.sqrt(2)
"""Gain of layers that a rectifier follows."""


def act(x: Tensor) -> Tensor:
    """The leaky rectifier of both networks."""
    return F.leaky_relu(x, 0.2)


def enlarge(x: Tensor) -> Tensor:
    """Each pixel four times."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def reduce(x: Tensor) -> Tensor:
    """Means of two by two pixels."""
    return F.avg_pool2d(x, 2)


def fade(old: Tensor, new: Tensor, alpha: Tensor) -> Tensor:
    """``alpha`` (no dimensions) of the new, the rest of the old; exactly one of them at 0 and 1."""
    return torch.lerp(old, new, alpha.to(new.dtype))


class Start(nn.Module):
    """Latents to the smallest maps: (B, inputs) -> (B, channels, h, w), then a convolution."""

    def __init__(self, inputs: int, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        # the paper's layer is a transposed convolution, whose fan-in counts every place it feeds
        self.linear = EqualLinear(inputs, channels * size[0] * size[1], None, HE / math.sqrt(size[0] * size[1]))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.conv = EqualConv2d(channels, channels, 3, gain=HE)

    def forward(self, z: Tensor) -> Tensor:
        x = self.linear(z).unflatten(1, (-1, *self.size))
        x = pixel_norm(act(x + self.bias.to(x.dtype)[:, None, None]))
        return pixel_norm(act(self.conv(x)))


class Up(nn.Module):
    """Enlarges maps and convolves them twice: (B, inputs, h, w) -> (B, outputs, 2h, 2w)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = EqualConv2d(inputs, outputs, 3, gain=HE)
        self.conv2 = EqualConv2d(outputs, outputs, 3, gain=HE)

    def forward(self, x: Tensor) -> Tensor:
        x = pixel_norm(act(self.conv1(enlarge(x))))
        return pixel_norm(act(self.conv2(x)))


class Down(nn.Module):
    """Convolves maps twice and halves them: (B, inputs, 2h, 2w) -> (B, outputs, h, w)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = EqualConv2d(inputs, inputs, 3, gain=HE)
        self.conv2 = EqualConv2d(inputs, outputs, 3, gain=HE)

    def forward(self, x: Tensor) -> Tensor:
        return reduce(act(self.conv2(act(self.conv1(x)))))


class End(nn.Module):
    """The smallest maps, beside the deviation of each group, to outputs: (B, channels, h, w) -> (B, outputs)."""

    def __init__(self, channels: int, size: tuple[int, int], outputs: int, group: int) -> None:
        super().__init__()
        self.group = group
        self.deviation = MinibatchDeviation(group) if group else None
        self.conv = EqualConv2d(channels + bool(group), channels, 3, gain=HE)
        self.linear = EqualLinear(channels * size[0] * size[1], channels, gain=HE)
        self.out = EqualLinear(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        if self.deviation is not None:
            # groups of neighbours: which pictures form one does not depend on how many processes share the batch
            group = next(g for g in range(min(self.group, len(x)), len(x) + 1) if len(x) % g == 0)
            x = x.unflatten(0, (-1, group)).transpose(0, 1).flatten(0, 1)
            x = self.deviation(x).unflatten(0, (group, -1)).transpose(0, 1).flatten(0, 1)
        x = act(self.conv(x))
        return self.out(act(self.linear(x.flatten(1))))


class GrowingGenerator(nn.Module):
    """Standard normal latents (B, z), and labels (B,) where there are classes, to pictures of a level.

    Args:
        latents: length of the latent vector.
        classes: number of classes, 0 for none.
        widths: channels of each level, the smallest first.
        size: the smallest maps.
        channels: of the pictures.
    """

    def __init__(self, latents: int, classes: int, widths: Sequence[int], size: tuple[int, int], channels: int) -> None:
        super().__init__()
        self.classes = classes
        self.start = Start(latents + classes, widths[0], size)
        self.blocks = nn.ModuleList(Up(a, b) for a, b in itertools.pairwise(widths))
        self.to_picture = nn.ModuleList(EqualConv2d(c, channels, 1) for c in widths)

    def used(self, level: int) -> nn.ModuleList:
        """The layers that pictures of a level, also those that fade in, go through."""
        return nn.ModuleList(
            [self.start, *self.blocks[:level], *self.to_picture[max(0, level - 1) : level + 1]]  # pyright: ignore[reportGeneralTypeIssues]
        )

    def forward(
        self, z: Tensor, label: Tensor | None = None, level: int | None = None, alpha: Tensor | None = None
    ) -> Tensor:
        """Pictures (B, C, h, w), about -1 to 1.

        Args:
            z: latents.
            label: classes.
            level: which; None: the last.
            alpha: share of the level's own layers while they fade in; None: all.
        """
        level = len(self.blocks) if level is None else level
        x = pixel_norm(z)
        if label is not None:  # as large as the latents: mean square 1 where classes are equally frequent
            x = torch.cat([x, math.sqrt(self.classes) * one_hot(label, self.classes, x.dtype)], 1)
        x = before = self.start(x)
        for block in self.blocks[:level]:
            before, x = x, block(x)
        y = self.to_picture[level](x)
        if level and alpha is not None:
            y = fade(enlarge(self.to_picture[level - 1](before)), y, alpha)
        return y


class GrowingCritic(nn.Module):
    """Pictures of a level to outputs (B, outputs); the mirror image of the generator.

    Args:
        outputs: one, and one for each class.
        widths: channels of each level, the smallest first.
        size: the smallest maps.
        channels: of the pictures.
        group: pictures whose deviation is looked at together; 0: that is not looked at.
    """

    def __init__(self, outputs: int, widths: Sequence[int], size: tuple[int, int], channels: int, group: int) -> None:
        super().__init__()
        self.end = End(widths[0], size, outputs, group)
        self.blocks = nn.ModuleList(Down(b, a) for a, b in itertools.pairwise(widths))
        self.from_picture = nn.ModuleList(EqualConv2d(channels, c, 1, gain=HE) for c in widths)

    def used(self, level: int) -> nn.ModuleList:
        """As of the generator."""
        return nn.ModuleList(
            [self.end, *self.blocks[:level], *self.from_picture[max(0, level - 1) : level + 1]]  # pyright: ignore[reportGeneralTypeIssues]
        )

    def forward(self, x: Tensor, level: int | None = None, alpha: Tensor | None = None) -> Tensor:
        level = len(self.blocks) if level is None else level
        y = act(self.from_picture[level](x))
        if level:
            y = self.blocks[level - 1](y)
            if alpha is not None:
                y = fade(act(self.from_picture[level - 1](reduce(x))), y, alpha)
        for number in range(level - 2, -1, -1):
            y = self.blocks[number](y)
        return self.end(y)


def widths_of(levels: int, channels: int, most: int) -> tuple[int, ...]:
    """Channels of each level, the smallest maps first: ``channels`` / 2, / 4, / 8, ..., at most ``most``."""
    return tuple(min(max(1, channels >> number), most) for number in range(1, levels + 1))
