"""The critic of the style-based generators: residual, or as that of the progressive GAN with filters.

Papers
    Karras et al. 2020a (arXiv:1912.04958): section 3 and figure 7 (residual critic). Karras et al. 2019
    (arXiv:1812.04948): appendix C (the progressive GAN's critic, with filters). Karras et al. 2020b
    (arXiv:2006.06676), appendix D: classes by projection (Miyato & Koyama 2018, arXiv:1802.05637) on a mapped label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from castalia.models.adversarial.styles import Mapping, Sizes, bend
from castalia.nn.equalised import EqualConv2d, EqualLinear, MinibatchDeviation
from castalia.nn.resampling import blur, filter_taps, shrink


class Fall(nn.Module):
    """One level of the critic: (B, in, H, W) -> (B, out, H/2, W/2)."""

    taps: Tensor

    def __init__(self, inputs: int, outputs: int, residual: bool, taps: Sequence[float]) -> None:
        super().__init__()
        self.first = EqualConv2d(inputs, inputs, 3)
        self.second = EqualConv2d(inputs, outputs, 3, padding=0, stride=2)
        self.shortcut = EqualConv2d(inputs, outputs, 1, bias=False) if residual else None
        self.register_buffer("taps", filter_taps(taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = bend(self.first(x))
        # filtered to one more than the convolution with every second place needs, so that nothing is cut off
        n = len(self.taps)
        around = (n + 1) // 2, n // 2
        y = blur(y, self.taps, padding=(*around, *around))
        y = bend(self.second(y))
        if self.shortcut is not None:
            y = (y + self.shortcut(shrink(x, self.taps))) * math.sqrt(0.5)
        return y


class Deviation(nn.Module):
    """Minibatch deviation of neighbours: which pictures form a group does not depend on how many share the batch.

    Nor does it depend on the number of processes and micro-batches, while the rows of each divide by the group.
    """

    def __init__(self, group: int, channels: int) -> None:
        super().__init__()
        self.group, self.inner = group, MinibatchDeviation(group, channels)

    def forward(self, x: Tensor) -> Tensor:
        group = next(g for g in range(min(self.group, len(x)), len(x) + 1) if len(x) % g == 0)
        x = x.unflatten(0, (-1, group)).transpose(0, 1).flatten(0, 1)
        return self.inner(x).unflatten(0, (group, -1)).transpose(0, 1).flatten(0, 1)


class StyleCritic(nn.Module):
    """Pictures (B, C, H, W), and labels where there are classes, to logits (B, 1).

    Without labels a critic that knows classes returns the features (B, F) that it would compare with them.

    Args:
        channels: of the pictures.
        sizes: height and width of each level, the smallest first.
        widths: channels of each level.
        residual: whether each level adds what goes in.
        classes: how many; 0: no labels.
        mapping_layers: layers of the network that maps labels.
        group: pictures whose deviation is looked at together; 0: it is not.
        deviations: channels that tell of the deviation.
        taps: filter of the levels.
    """

    def __init__(
        self,
        channels: int,
        sizes: Sizes,
        widths: Sequence[int],
        *,
        residual: bool = True,
        classes: int = 0,
        mapping_layers: int = 8,
        group: int = 4,
        deviations: int = 1,
        taps: Sequence[float] = (1.0, 3.0, 3.0, 1.0),
    ) -> None:
        super().__init__()
        top, last = widths[-1], widths[0]
        self.begin = EqualConv2d(channels, top, 1)
        self.levels = nn.ModuleList(
            Fall(inputs, outputs, residual, taps)
            for inputs, outputs in zip(reversed(widths[1:]), reversed(widths[:-1]), strict=True)
        )
        self.deviation = Deviation(group, deviations) if group else None
        self.conv = EqualConv2d(last + (deviations if group else 0), last, 3)
        self.linear = EqualLinear(last * sizes[0][0] * sizes[0][1], last)
        self.out = EqualLinear(last, last if classes else 1)
        self.mapping = Mapping(0, last, mapping_layers, classes) if classes else None

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        x = bend(self.begin(x))
        for level in self.levels:
            x = level(x)
        if self.deviation is not None:
            x = self.deviation(x)
        x = bend(self.conv(x))
        x = self.out(bend(self.linear(x.flatten(1))))
        if self.mapping is None or label is None:
            return x
        return (x * self.mapping(None, label)).sum(1, keepdim=True) / math.sqrt(x.shape[1])


def widths_of(sizes: Sizes, channels: int, most: int) -> list[int]:
    """Channels of each level: ``channels`` divided by the side that a square level would have, at most ``most``.

    The smallest level counts as 4 pixels wide, the next as 8.
    """
    return [max(1, min(channels >> (level + 2), most)) for level in range(len(sizes))]
