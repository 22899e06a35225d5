"""Convolutions that only have the taps which look back, whole for training and pixel by pixel for drawing.

van den Oord et al. 2016 (arXiv:1601.06759, section 3.4): a masked convolution sees the pixels above and to the left. Of
the pixel itself its outputs for channel g see the features of earlier channels (mask A), and of g itself (mask B). For
that, maps are cut into as many groups as the picture has channels.

What differs: taps that a mask would set to zero are left out where a whole row or column of the kernel is, so that a
3x3 kernel is one of 2x3. The rest is multiplied by the mask. Weights are kept as matrices, as an optimizer for matrices
wants them, and lie in memory as a channels-last kernel does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Mask = Literal["none", "A", "B"]


def groups_of(maps: int, channels: int, parts: int = 1) -> np.ndarray:
    """The group of each of ``maps`` maps, ``int64``; with several parts (the two halves of a gate) each is cut so."""
    part = maps // parts
    return np.tile(np.arange(part) * channels // part, parts)


class Taps(nn.Linear):
    """A convolution over what lies above and to the left, and the pixel itself.

    Output (r, c) sees rows r - above - size[0] + 1 to r - above and columns c - left to c - left + size[1] - 1.

    Args:
        inputs: maps in.
        outputs: maps out.
        size: (rows, columns) of the kernel.
        left: columns before the pixel's own.
        above: 1 leaves the pixel's own row out.
        mask: of the pixel's own row nothing after the pixel, of the pixel itself what A or B say; ``none`` sees all.
        channels: of the picture.
        parts: of the outputs, each cut into groups.
        stride: how many rows and columns further the next output is: (r, c) sees those up to (stride r, stride c).
        scale: weight normalisation (Salimans & Kingma 2016, arXiv:1602.07868), whose gains :func:`fit_gains` finds such
            that outputs begin with this deviation; 0 for none.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: tuple[int, int] = (1, 1),
        *,
        left: int = 0,
        above: int = 0,
        mask: Mask = "none",
        channels: int = 1,
        parts: int = 1,
        stride: int = 1,
        scale: float = 0.0,
    ) -> None:
        super().__init__(size[0] * size[1] * inputs, outputs)
        self.inputs, self.outputs, self.size, self.left, self.above = inputs, outputs, size, left, above
        self.stride, self.scale, self.fitting = stride, scale, False
        self.gain = nn.Parameter(torch.ones(outputs)) if scale else None
        self.channels, self.out_groups = channels, groups_of(outputs, channels, parts)
        allowed = np.ones((outputs, *size, inputs), bool)
        if mask != "none":
            mine, theirs = self.out_groups[:, None], groups_of(inputs, channels)
            allowed[:, -1, left + 1 :] = False
            allowed[:, -1, left] = theirs < mine if mask == "A" else theirs <= mine
        self.masked = not allowed.all()
        if self.masked:
            seen = torch.from_numpy(allowed.reshape(outputs, -1)).float()
            self.register_buffer("mask", seen, persistent=False)
            with torch.no_grad():
                self.weight.mul_(seen)

    def kernel(self) -> Tensor:
        """(outputs, rows * columns * inputs), masked and normalised."""
        weight = self.weight * self.get_buffer("mask") if self.masked else self.weight
        return weight if self.gain is None else weight * (self.gain / weight.norm(dim=1))[:, None]

    def forward(self, input: Tensor) -> Tensor:
        """Maps (B, inputs, H, W) to (B, outputs, H, W)."""
        x = input  # the name is torch's
        (rows, columns), left = self.size, self.left
        weight = self.kernel().view(self.outputs, rows, columns, self.inputs).permute(0, 3, 1, 2)
        right = columns - 1 - left
        if rows > 1 or columns > 1 or self.above:
            x = F.pad(x, (left, right, rows - 1 + self.above, -self.above))
        if self.fitting:
            return self.fit(F.conv2d(x, weight, None, self.stride))
        return F.conv2d(x, weight, self.bias, self.stride)

    def fit(self, made: Tensor) -> Tensor:
        """Choose gains and biases such that these outputs (B, outputs, H, W) have mean 0 and the wanted deviation."""
        assert self.gain is not None
        factor = self.scale / (made.std((0, 2, 3)) + 1e-6)
        self.gain.mul_(factor)
        self.bias.copy_(-made.mean((0, 2, 3)) * factor)
        return made * factor[:, None, None] + self.bias[:, None, None]

    def seen(self) -> int:
        """How many of its numbers matter: those that no mask hides."""
        hidden = int((self.get_buffer("mask") == 0).sum()) if self.masked else 0
        return sum(p.numel() for p in self.parameters()) - hidden


@torch.no_grad()
def fit_gains(network: nn.Module, x: Tensor) -> None:
    """Run a network once on features ``x``; its normalised layers choose gains and biases one after another."""
    layers = [part for part in network.modules() if isinstance(part, Taps) and part.scale]
    if not layers:
        return
    training = network.training
    network.eval()
    for layer in layers:
        layer.fitting = True
    network(x)
    for layer in layers:
        layer.fitting = False
    network.train(training)


# pixel by pixel


class Window:
    """The last rows of a feature map of n pictures, with zeros around, in NumPy.

    Attributes:
        kept: ``float32`` (n, rows, left + W + right, maps); the last row is the one that is being made.
        left: columns of zeros before the first.
    """

    def __init__(self, n: int, width: int, maps: int, rows: int, left: int, right: int) -> None:
        self.kept = np.zeros((n, rows, left + width + right, maps), np.float32)
        self.left, self.width = left, width
        self.row = self.kept[:, -1, left : left + width]

    def next(self) -> None:
        """Begin another row."""
        self.kept[:, :-1] = self.kept[:, 1:]
        self.kept[:, -1] = 0


@dataclass
class _Group:
    weight: np.ndarray
    bias: np.ndarray
    out: np.ndarray


class Packed:
    """A convolution for n pictures, ready for one pixel or one row at a time.

    Args:
        taps: the convolution.
        n: pictures.
        scale: what its outputs are multiplied by, (outputs,).
        inner: what its inputs are multiplied by.
    """

    def __init__(self, taps: Taps, n: int, scale: np.ndarray | None = None, inner: float = 1.0) -> None:
        factor = np.ones(taps.outputs) if scale is None else scale
        weight = taps.kernel().detach().double().cpu().numpy().T * factor * inner
        bias = taps.bias.detach().double().cpu().numpy() * factor
        self.taps, self.n, (rows, columns) = taps, n, taps.size
        self.order = [np.flatnonzero(taps.out_groups == g) for g in range(taps.channels)]
        self.groups = [
            _Group(
                np.ascontiguousarray(weight[:, mine], np.float32),
                bias[mine].astype(np.float32),
                np.empty((n, len(mine)), np.float32),
            )
            for mine in self.order
        ]
        self.whole = np.ascontiguousarray(weight, np.float32), bias.astype(np.float32)
        self.scratch = np.empty((n, rows, columns, taps.inputs), np.float32)
        self.flat = self.scratch.reshape(n, -1)

    def at(self, window: Window, column: int, group: int) -> np.ndarray:
        """Outputs (n, maps of the group) at a column of the row that is being made, in memory that is used again."""
        (rows, columns), found = self.taps.size, self.groups[group]
        first = window.left + column * self.taps.stride - self.taps.left
        if rows == columns == 1:
            np.dot(window.kept[:, -1, first], found.weight, found.out)
        else:
            self.scratch[...] = window.kept[:, -rows:, first : first + columns]
            np.dot(self.flat, found.weight, found.out)
        found.out += found.bias
        return found.out

    def of(self, x: np.ndarray, group: int) -> np.ndarray:
        """The same of single points (n, inputs), for kernels of one tap."""
        found = self.groups[group]
        np.dot(x, found.weight, found.out)
        found.out += found.bias
        return found.out

    def rows(self, window: Window) -> np.ndarray:
        """Outputs (n, W, outputs) for the whole row that is being made."""
        (rows, columns), above, stride = self.taps.size, self.taps.above, self.taps.stride
        last, width = window.kept.shape[1] - above, -(-window.width // stride)
        seen = window.kept[:, last - rows : last]
        first = window.left - self.taps.left
        views = [seen[:, :, first + i : first + i + (width - 1) * stride + 1 : stride] for i in range(columns)]
        taken = np.stack(views, axis=3).transpose(0, 2, 1, 3, 4)  # (n, W, rows, columns, inputs)
        made = taken.reshape(self.n * width, -1) @ self.whole[0]
        made += self.whole[1]
        return made.reshape(self.n, width, -1)
