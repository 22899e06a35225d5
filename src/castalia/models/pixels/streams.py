"""The network of PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517, figure 2).

Two streams: one sees the rows above (u: kernels of 2x3, moved down a row), the other what is above and on the left (ul:
kernels of 2x2). Gated residual layers with concat_elu; twice the pictures are halved, and enlarged again, with skip
connections from every layer of the way down to its mirror on the way up. All convolutions are weight-normalised.

:class:`StreamsCache` computes it pixel by pixel: u for a whole row at a time, ul for a pixel, and smaller pictures only
where a row or a column of them begins (Ramachandran et al. 2017, arXiv:1704.06001).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.models.pixels.stacks import Cache, PixelNetwork, added, label_table, laid_out
from castalia.models.pixels.taps import Packed, Taps, Window

DOWN = {"size": (2, 3), "left": 1}
"""Kernels of the stream that sees the rows above: those of its own row are above already."""

RIGHT = {"size": (2, 2), "left": 1}
"""Kernels of the stream that sees what is above and on the left."""


def both_ways(x: Tensor) -> Tensor:
    """Elu of x and of -x, one below the other: concat_elu."""
    return F.elu(torch.cat([x, -x], dim=1))


class Resnet(nn.Module):
    """A gated residual layer: two convolutions, and what comes from aside before the second.

    Args:
        maps: in and out.
        aside: maps that come from aside; 0 for none.
        right: whether it is of the stream that sees what is on the left.
        dropout: share that is dropped between the convolutions.
        classes: labels that are told apart; 0 for none.
    """

    def __init__(self, maps: int, aside: int, right: bool, dropout: float, classes: int) -> None:
        super().__init__()
        kind = RIGHT if right else DOWN
        self.maps, self.dropout = maps, dropout
        self.one = Taps(2 * maps, maps, scale=1.0, **kind)
        self.aside = Taps(2 * aside, maps, scale=1.0) if aside else None
        self.two = Taps(2 * maps, 2 * maps, scale=0.1, **kind)
        self.label = label_table(classes, 2 * maps)

    def forward(self, x: Tensor, beside: Tensor | None, label: Tensor | None) -> Tensor:
        """(B, maps, H, W) from the same, (B, aside, H, W) and labels (B,)."""
        y = self.one(both_ways(x))
        if self.aside is not None and beside is not None:
            y = y + self.aside(both_ways(beside))
        y = self.two(F.dropout(both_ways(y), self.dropout, self.training))
        if self.label is not None and label is not None:
            y = y + self.label(label)[:, :, None, None].to(y.dtype)
        a, b = y.chunk(2, dim=1)
        return x + a * torch.sigmoid(b)


class Spread(nn.Module):
    """A transposed convolution of stride 2: pixel (r, c) reaches rows 2r and 2r + 1, of columns those around 2c.

    Args:
        maps: in and out.
        right: whether it is of the stream that sees what is on the left: columns 2c and 2c + 1, else one more before.
    """

    def __init__(self, maps: int, right: bool) -> None:
        super().__init__()
        self.columns, self.before = (2, 0) if right else (3, 1)
        self.maps = maps
        self.taps = Taps(2 * self.columns * maps, maps, scale=1.0)  # its matrix: a kernel of one tap for all of them

    def kernel(self) -> Tensor:
        """(maps out, 2, columns, maps in)."""
        return self.taps.kernel().view(self.maps, 2, self.columns, self.maps)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, maps, H, W) to (B, maps, *size)."""
        weight = self.kernel().permute(3, 0, 1, 2)
        made = F.conv_transpose2d(x, weight, None, stride=2)[:, :, : size[0], self.before : self.before + size[1]]
        if self.taps.fitting:
            return self.taps.fit(made)
        return made + self.taps.bias[:, None, None].to(made.dtype)


class Streams(PixelNetwork):
    """PixelCNN++.

    Args:
        channels: of the picture.
        maps: of both streams.
        resnets: of a level, on the way down.
        levels: sizes of the picture, each half the one before.
        dropout: share that is dropped in every residual layer.
        outputs: for a pixel.
        classes: labels that are told apart, the null class among them; 0 for none.
    """

    def __init__(
        self, channels: int, maps: int, resnets: int, levels: int, dropout: float, outputs: int, classes: int
    ) -> None:
        super().__init__()
        self.maps, self.levels = maps, levels
        one = channels + 1  # a map of ones tells where the picture ends
        self.first_u = Taps(one, maps, (2, 3), left=1, above=1, scale=1.0)
        self.first_above = Taps(one, maps, (1, 3), left=1, above=1, scale=1.0)
        self.first_left = Taps(one, maps, (2, 1), left=1, scale=1.0)

        def layers(count: int, aside: int, right: bool) -> nn.ModuleList:
            return nn.ModuleList(Resnet(maps, aside, right, dropout, classes) for _ in range(count))

        counts = [resnets + (level < levels - 1) for level in range(levels)]
        self.u_down = nn.ModuleList(layers(resnets, 0, False) for _ in range(levels))
        self.ul_down = nn.ModuleList(layers(resnets, maps, True) for _ in range(levels))
        self.u_up = nn.ModuleList(layers(count, maps, False) for count in counts)
        self.ul_up = nn.ModuleList(layers(count, 2 * maps, True) for count in counts)
        between = range(levels - 1)
        self.u_halve = nn.ModuleList(Taps(maps, maps, stride=2, scale=1.0, **DOWN) for _ in between)
        self.ul_halve = nn.ModuleList(Taps(maps, maps, stride=2, scale=1.0, **RIGHT) for _ in between)
        self.u_spread = nn.ModuleList(Spread(maps, False) for _ in between)
        self.ul_spread = nn.ModuleList(Spread(maps, True) for _ in between)
        self.out = Taps(maps, outputs, scale=0.1)

    def last(self) -> Taps:
        return self.out

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        x = laid_out(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))
        u, ul = [self.first_u(x)], [self.first_above(x) + self.first_left(x)]
        for level in range(self.levels):
            if level:
                u.append(self.u_halve[level - 1](u[-1]))
                ul.append(self.ul_halve[level - 1](ul[-1]))
            for one, other in zip(_of(self.u_down, level), _of(self.ul_down, level), strict=True):
                u.append(one(u[-1], None, label))
                ul.append(other(ul[-1], u[-1], label))
        top, made = u.pop(), ul.pop()
        for level in reversed(range(self.levels)):
            for one, other in zip(_of(self.u_up, level), _of(self.ul_up, level), strict=True):
                top = one(top, u.pop(), label)
                made = other(made, torch.cat([top, ul.pop()], dim=1), label)
            if level:
                size = u[-1].shape[-2:]
                top, made = self.u_spread[level - 1](top, size), self.ul_spread[level - 1](made, size)
        return self.out(F.elu(made))

    def cache(self, n: int, width: int, label: Tensor | None) -> Cache:
        return StreamsCache(self, n, width, label)


def _of(layers: nn.ModuleList, level: int) -> list[Resnet]:
    """The residual layers of a level."""
    found = layers[level]
    assert isinstance(found, nn.ModuleList)
    return [layer for layer in found if isinstance(layer, Resnet)]


# pixel by pixel


def elu(x: np.ndarray) -> np.ndarray:
    """In NumPy."""
    return np.maximum(x, 0) + np.expm1(np.minimum(x, 0))


def concat_elu(x: np.ndarray) -> np.ndarray:
    """In NumPy, along the last axis."""
    return elu(np.concatenate([x, -x], axis=-1))


class ResnetSteps:
    """A :class:`Resnet` by rows or by pixels of one size of the picture."""

    def __init__(self, layer: Resnet, n: int, width: int, label: Tensor | None) -> None:
        self.maps = layer.maps
        half = np.repeat([1.0, 0.5], layer.maps)  # sigmoid(b) is (1 + tanh(b / 2)) / 2
        self.one, self.two = Packed(layer.one, n), Packed(layer.two, n, half)
        self.aside = None if layer.aside is None else Packed(layer.aside, n)
        (rows, columns), left = layer.one.size, layer.one.left
        self.windows = [Window(n, width, 2 * layer.maps, rows, left, columns - 1 - left) for _ in range(2)]
        table = added(layer.label, label, n)
        self.label = None if table is None else table * half.astype(np.float32)

    def next(self) -> None:
        """Begin a row."""
        for window in self.windows:
            window.next()

    def row(self, x: np.ndarray, beside: np.ndarray | None) -> np.ndarray:
        """(n, W, maps) of a whole row, which begins with it."""
        self.next()
        self.windows[0].row[...] = concat_elu(x)
        y = self.one.rows(self.windows[0])
        if self.aside is not None and beside is not None:
            weight, bias = self.aside.whole
            y += concat_elu(beside) @ weight + bias
        self.windows[1].row[...] = concat_elu(y)
        y = self.two.rows(self.windows[1])
        return x + self._gate(y if self.label is None else y + self.label[:, None])

    def point(self, x: np.ndarray, beside: np.ndarray, column: int) -> np.ndarray:
        """(n, maps) of a single pixel."""
        self.windows[0].row[:, column] = concat_elu(x)
        y = self.one.at(self.windows[0], column, 0)
        assert self.aside is not None
        y += self.aside.of(concat_elu(beside), 0)
        self.windows[1].row[:, column] = concat_elu(y)
        y = self.two.at(self.windows[1], column, 0)
        return x + self._gate(y if self.label is None else y + self.label)

    def _gate(self, y: np.ndarray) -> np.ndarray:
        return 0.5 * y[..., : self.maps] * (1 + np.tanh(y[..., self.maps :]))


class SpreadSteps:
    """A :class:`Spread` by rows or by pixels."""

    def __init__(self, layer: Spread) -> None:
        weight = layer.kernel().detach().float().cpu().numpy()
        self.weight = np.ascontiguousarray(weight.transpose(1, 2, 3, 0))  # (2, columns, in, out)
        self.bias, self.before = layer.taps.bias.detach().float().cpu().numpy(), layer.before

    def row(self, x: np.ndarray, number: int, width: int) -> np.ndarray:
        """Row ``number`` (n, width, maps) of the larger picture from that of the smaller one."""
        n, few, maps = x.shape
        whole = np.zeros((n, 2 * few + 2, maps), np.float32)
        for i, weight in enumerate(self.weight[number % 2]):
            whole[:, i : i + 2 * few : 2] += x @ weight
        return whole[:, self.before : self.before + width] + self.bias

    def point(self, x: np.ndarray, row: int, column: int) -> np.ndarray:
        """Pixel (n, maps) of the larger picture from that of the smaller one, without columns before."""
        return x @ self.weight[row % 2, column % 2] + self.bias


class StreamsCache(Cache):
    """PixelCNN++, pixel by pixel."""

    def __init__(self, net: Streams, n: int, width: int, label: Tensor | None) -> None:
        self.levels, channels = net.levels, net.first_u.inputs - 1
        self.widths = [-(-width // 2**level) for level in range(net.levels)]
        self.window = Window(n, width, channels + 1, 3, 1, 1)
        self.x, self.ones = self.window.row[..., :channels], self.window.row[..., channels]
        self.first_u, self.first_above, self.first_left = (
            Packed(taps, n) for taps in (net.first_u, net.first_above, net.first_left)
        )

        def steps(layers: nn.ModuleList) -> list[list[ResnetSteps]]:
            return [[ResnetSteps(r, n, self.widths[l], label) for r in _of(layers, l)] for l in range(net.levels)]

        self.u_down, self.ul_down, self.u_up, self.ul_up = map(steps, (net.u_down, net.ul_down, net.u_up, net.ul_up))
        halves = list(zip(net.u_halve, net.ul_halve, strict=True))
        self.u_halve = [Packed(u, n) for u, _ in halves if isinstance(u, Taps)]
        self.ul_halve = [Packed(ul, n) for _, ul in halves if isinstance(ul, Taps)]
        self.u_spread = [SpreadSteps(layer) for layer in net.u_spread if isinstance(layer, Spread)]
        self.ul_spread = [SpreadSteps(layer) for layer in net.ul_spread if isinstance(layer, Spread)]
        # what is halved, and the end of the way up, of each size
        self.u_ends = [Window(n, w, net.maps, 2, 1, 1) for w in self.widths]
        self.ul_ends = [Window(n, w, net.maps, 2, 1, 1) for w in self.widths]
        self.made = [np.zeros((n, w, net.maps), np.float32) for w in self.widths]
        self.u_rows: list[list[np.ndarray]] = [[] for _ in self.widths]
        self.tops: list[list[np.ndarray]] = [[] for _ in self.widths]
        self.above = self.made[0]
        self.out, self.number = Packed(net.out, n), -1

    def _sizes(self, number: int) -> int:
        """Of how many sizes a row or a column begins with this one."""
        return next((level for level in range(1, self.levels) if number % 2**level), self.levels)

    def next_row(self) -> None:
        self.number += 1
        self.window.next()
        self.ones[...] = 1
        self.above = self.first_above.rows(self.window)
        sizes = self._sizes(self.number)
        for level in range(sizes):
            self._u_down(level)
        for level in reversed(range(sizes)):
            self._u_up(level)
            self.ul_ends[level].next()
            for layer in (*self.ul_down[level], *self.ul_up[level]):
                layer.next()

    def _u_down(self, level: int) -> None:
        row = self.u_halve[level - 1].rows(self.u_ends[level - 1]) if level else self.first_u.rows(self.window)
        rows = [row]
        for layer in self.u_down[level]:
            rows.append(layer.row(rows[-1], None))
        self.u_ends[level].next()
        self.u_ends[level].row[...] = rows[-1]
        self.u_rows[level] = rows

    def _u_up(self, level: int) -> None:
        rows = list(self.u_rows[level])
        if level == self.levels - 1:
            top = rows.pop()
        else:
            number = self.number >> level
            top = self.u_spread[level].row(self.tops[level + 1][-1], number, self.widths[level])
        self.tops[level] = []
        for layer in self.u_up[level]:
            top = layer.row(top, rows.pop())
            self.tops[level].append(top)

    def look(self, column: int, group: int) -> np.ndarray:
        sizes = min(self._sizes(self.number), self._sizes(column))
        kept: list[list[np.ndarray]] = []
        for level in range(sizes):
            c = column >> level
            if level:
                points = [self.ul_halve[level - 1].at(self.ul_ends[level - 1], c, 0).copy()]
            else:
                points = [self.above[:, c] + self.first_left.at(self.window, c, 0)]
            for layer, beside in zip(self.ul_down[level], self.u_rows[level][1:], strict=True):
                points.append(layer.point(points[-1], beside[:, c], c))
            self.ul_ends[level].row[:, c] = points[-1]
            kept.append(points)
        for level in reversed(range(sizes)):
            c, points = column >> level, kept[level]
            if level == self.levels - 1:
                made = points.pop()
            else:
                made = self.ul_spread[level].point(self.made[level + 1][:, c >> 1], self.number >> level, c)
            for layer, top in zip(self.ul_up[level], self.tops[level], strict=True):
                made = layer.point(made, np.concatenate([top[:, c], points.pop()], axis=1), c)
            self.made[level][:, c] = made
        return self.out.of(elu(self.made[0][:, column]), group)
