"""Residual blocks of generators and critics (Gulrajani et al. 2017, appendix F; He et al. 2016, arXiv:1603.05027).

A block is two 3x3 convolutions beside a shortcut. On the way up the picture is doubled by repeating pixels before the
first convolution, on the way down it is halved by averaging after the second. A shortcut that has nothing to change is
the identity, else a 1x1 convolution, always computed at the smaller of its two sizes, which gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from castalia.models.adversarial.layers import Chain, Labelled

Norm = Callable[[int], nn.Module]
"""Makes a normalisation of so many channels; ``nn.Identity`` where there is none."""


class UpBlock(Labelled):
    """(B, inputs, h, w) -> (B, outputs, height, width), where height is 2h or 2h - 1, width likewise."""

    def __init__(
        self, inputs: int, outputs: int, size: tuple[int, int], norm: Norm, act: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self.size = size
        self.first = Chain([norm(inputs), act()])
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = Chain([norm(outputs), act()])
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def up(self, x: Tensor) -> Tensor:
        """Each pixel four times, cut to size."""
        return F.interpolate(x, scale_factor=2, mode="nearest")[:, :, : self.size[0], : self.size[1]]

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        y = self.conv1(self.up(self.first(x, label)))
        y = self.conv2(self.second(y, label))
        return y + self.up(self.shortcut(x))


class DownBlock(nn.Module):
    """(B, inputs, h, w) -> (B, outputs, ceil(h/2), ceil(w/2)), or the same size without ``halve``.

    ``start``: the first block of a critic, which sees the picture itself: no normalisation, and no activation before
    the first convolution.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        norm: Norm,
        act: Callable[[], nn.Module],
        *,
        halve: bool = True,
        start: bool = False,
    ) -> None:
        super().__init__()
        self.halve = halve
        hidden = outputs if start else inputs
        layers = [] if start else [norm(inputs), act()]
        layers += [nn.Conv2d(inputs, hidden, 3, padding=1)]
        layers += [act()] if start else [norm(hidden), act()]
        self.body = nn.Sequential(*layers, nn.Conv2d(hidden, outputs, 3, padding=1))
        same = inputs == outputs and not halve
        self.shortcut: nn.Module = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1)

    def down(self, x: Tensor) -> Tensor:
        """Means of two by two pixels; at an odd edge, of the pixels that there are."""
        return F.avg_pool2d(x, 2, ceil_mode=True) if self.halve else x

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.body(x)) + self.shortcut(self.down(x))
