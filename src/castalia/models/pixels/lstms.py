"""Networks of LSTMs over rows or diagonals of a picture (van den Oord et al. 2016, arXiv:1601.06759, section 3).

    [o, f, i, g] = sigma(K_ss * h_before + K_is * x),   c = f c_before + i g,   h = o tanh(c)     (eq. 3)

with sigma the logistic function for o, f, i and tanh for g.

* :class:`RowLSTM` (3.1): K_ss is a convolution over the row above, K_is one with mask B along the row. A pixel sees
  a triangle above it.
* :class:`DiagonalLSTM` (3.2): the picture is skewed, so that a diagonal is a column; K_ss sees the pixel on the left
  and the one above. A second one runs from the right; its output is moved down a row: it has seen nothing to come.
  Together they see everything before the pixel.

Each is put into a residual block (3.3): from 2h maps to h, and by a 1x1 convolution back to 2h, which are added.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.models.pixels.stacks import Cache, Head, PackedHead, PixelNetwork, added, label_table, laid_out
from castalia.models.pixels.taps import Packed, Taps, Window


def cell(gates: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """H and c from gates (..., 4h) before their functions, and the c before."""
    o, f, i, g = gates.to(before.dtype).chunk(4, dim=-1)
    c = torch.sigmoid(f) * before + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def nothing(x: Tensor, places: int, maps: int) -> Tensor:
    """No state (B, places, maps), of no less precision than float32."""
    return x.new_zeros(x.shape[0], places, maps, dtype=torch.promote_types(x.dtype, torch.float32))


class RowLSTM(nn.Module):
    """A layer that goes from row to row, all pixels of a row at once.

    Args:
        maps: h.
        kernel: of both convolutions; odd.
        channels: of the picture.
    """

    def __init__(self, maps: int, kernel: int, channels: int) -> None:
        super().__init__()
        self.maps, self.reach = maps, kernel // 2
        reach = self.reach
        self.inward = Taps(2 * maps, 4 * maps, (1, reach + 1), left=reach, mask="B", channels=channels, parts=4)
        self.state = nn.Linear(kernel * maps, 4 * maps, bias=False)
        self.up = Taps(maps, 2 * maps, mask="B", channels=channels)
        remember(self.inward, maps)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """From (B, 2h, H, W) and what the label adds to the gates (B, 4h) to the same shape."""
        gates = self.inward(x).permute(2, 0, 3, 1)  # (H, B, W, 4h)
        if condition is not None:
            gates = gates + condition[:, None].to(gates.dtype)
        width, half = x.shape[3], self.reach
        c = nothing(x, width, self.maps)
        h, rows = c, []
        for row in gates.unbind(0):
            around = F.pad(h, (0, 0, half, half))
            seen = torch.cat([around[:, i : i + width] for i in range(2 * half + 1)], dim=2)
            h, c = cell(row + self.state(seen), c)
            rows.append(h)
        return x + self.up(torch.stack(rows, dim=1).permute(0, 3, 1, 2).to(x.dtype))


class Diagonal(nn.Module):
    """An LSTM that comes from the upper left."""

    def __init__(self, maps: int, channels: int) -> None:
        super().__init__()
        self.maps = maps
        self.inward = Taps(2 * maps, 4 * maps, mask="B", channels=channels, parts=4)
        self.state = nn.Linear(2 * maps, 4 * maps, bias=False)  # of the pixel on the left, then of the one above
        remember(self.inward, maps)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """From (B, 2h, H, W) to (B, h, H, W)."""
        gates = self.inward(x)
        if condition is not None:
            gates = gates + condition[:, :, None, None].to(gates.dtype)
        height, width = x.shape[2:]
        columns = skew(gates).permute(3, 0, 2, 1)  # (H + W - 1, B, H, 4h)
        # a row of the skewed picture begins later the lower it is; before that there is no state
        begun = (
            torch.arange(len(columns), device=x.device)[:, None, None] >= torch.arange(height, device=x.device)[:, None]
        )
        c = nothing(x, height, self.maps)
        h, made = c, []
        for column, there in zip(columns.unbind(0), begun.unbind(0), strict=True):
            above = F.pad(h, (0, 0, 1, -1))
            h, c = cell(column + self.state(torch.cat([h, above], dim=2)), c)
            h, c = h * there, c * there
            made.append(h)
        return straight(torch.stack(made, dim=3).permute(0, 2, 1, 3), width)


def skew(x: Tensor) -> Tensor:
    """(..., H, W) to (..., H, H + W - 1): row r is moved r to the right, zeros come in."""
    height, width = x.shape[-2:]
    flat = F.pad(x, (0, height)).flatten(-2)[..., :-height]
    return flat.unflatten(-1, (height, width + height - 1))


def straight(x: Tensor, width: int) -> Tensor:
    """The inverse of :func:`skew`."""
    height = x.shape[-2]
    return F.pad(x.flatten(-2), (0, height)).unflatten(-1, (height, width + height))[..., :width]


class DiagonalLSTM(nn.Module):
    """Both diagonal LSTMs and the way back to 2h maps."""

    def __init__(self, maps: int, kernel: int, channels: int) -> None:
        super().__init__()
        self.maps = maps
        self.left, self.right = Diagonal(maps, channels), Diagonal(maps, channels)
        self.up = Taps(maps, 2 * maps, mask="B", channels=channels)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """From (B, 2h, H, W) and what the label adds to the gates (B, 4h) to the same shape."""
        other = self.right(x.flip(3), condition).flip(3)
        return x + self.up((self.left(x, condition) + F.pad(other, (0, 0, 1, -1))).to(x.dtype))


def remember(inward: Taps, maps: int) -> None:
    """The bias of the forget gate begins at 1, so that nothing is forgotten at first; the others at 0."""
    assert inward.bias is not None
    with torch.no_grad():
        inward.bias.zero_()[maps : 2 * maps] = 1


class Recurrent(PixelNetwork):
    """PixelRNN: a 7x7 convolution with mask A, layers of LSTMs, two 1x1 layers.

    Args:
        kind: ``row`` or ``diagonal``.
        channels: of the picture.
        maps: h; the residual path has 2h.
        layers: of LSTMs.
        first: kernel of the first convolution.
        kernel: row: of the LSTM's convolutions.
        head: maps of the layer before the outputs.
        outputs: for a pixel.
        classes: labels that are told apart, the null class among them; 0 for none.
    """

    def __init__(
        self,
        kind: Literal["row", "diagonal"],
        channels: int,
        maps: int,
        layers: int,
        first: int,
        kernel: int,
        head: int,
        outputs: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.maps = maps
        self.first = Taps(channels, 2 * maps, (first // 2 + 1, first), left=first // 2, mask="A", channels=channels)
        made = RowLSTM if kind == "row" else DiagonalLSTM
        self.layers = nn.ModuleList(made(maps, kernel, channels) for _ in range(layers))
        self.head = Head(2 * maps, head, outputs, channels)
        self.label = label_table(classes, layers * 4 * maps)

    def last(self) -> Taps:
        return self.head.out

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        x = self.first(laid_out(x))
        known = None if self.label is None or label is None else self.label(label).unflatten(1, (len(self.layers), -1))
        for i, layer in enumerate(self.layers):
            x = layer(x, None if known is None else known[:, i])
        return self.head(x)

    def cache(self, n: int, width: int, label: Tensor | None) -> Cache:
        return RecurrentCache(self, n, width, label)


# pixel by pixel


def weight_of(linear: nn.Linear, halves: np.ndarray) -> np.ndarray:
    """A state's matrix (inputs, 4h), with the halves of the logistic functions in it."""
    return np.ascontiguousarray(linear.weight.detach().double().cpu().numpy().T * halves, np.float32)


def step(gates: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """H and c in NumPy, from gates (n, 4h) with the halves in them: sigmoid(x) is (1 + tanh(x / 2)) / 2."""
    np.tanh(gates, gates)
    o, f, i, g = np.split(gates, 4, axis=1)
    c = 0.5 * ((1 + f) * before + (1 + i) * g)
    return 0.5 * (1 + o) * np.tanh(c), c


class Lines:
    """States of a layer for two rows of n pictures.

    Attributes:
        h: of the row that is being made, (n, W, h).
        c: the same.
        h_above: of the row above.
        c_above: the same.
    """

    def __init__(self, n: int, width: int, maps: int) -> None:
        self.h, self.c, self.h_above, self.c_above = (np.zeros((n, width, maps), np.float32) for _ in range(4))

    def next(self) -> None:
        """Begin a row."""
        self.h, self.h_above = self.h_above, self.h
        self.c, self.c_above = self.c_above, self.c


class RowSteps:
    """A :class:`RowLSTM` pixel by pixel."""

    def __init__(self, layer: RowLSTM, n: int, width: int, condition: np.ndarray | None) -> None:
        maps, self.reach, self.width = layer.maps, layer.reach, width
        self.halves = np.repeat([0.5, 0.5, 0.5, 1.0], maps)
        self.inward, self.up = Packed(layer.inward, n, self.halves), Packed(layer.up, n)
        self.window = Window(n, width, 2 * maps, 1, layer.reach, 0)
        self.state, self.lines = weight_of(layer.state, self.halves), Lines(n, width, maps)
        self.condition = None if condition is None else condition * self.halves.astype(np.float32)
        self.from_above: list[np.ndarray] = []

    def next_row(self) -> None:
        self.window.next()
        self.lines.next()
        around = np.pad(self.lines.h_above, ((0, 0), (self.reach, self.reach), (0, 0)))
        seen = np.concatenate([around[:, i : i + self.width] for i in range(2 * self.reach + 1)], axis=2)
        found = seen @ self.state
        if self.condition is not None:
            found += self.condition[:, None]
        self.from_above = [np.ascontiguousarray(found[:, :, mine].swapaxes(0, 1)) for mine in self.inward.order]

    def look(self, x: np.ndarray, column: int, group: int) -> np.ndarray:
        """Output (n, maps of the group) of the block; ``x`` (n, 2h) are its inputs at the pixel, as far as known."""
        mine, lines = self.up.order[group], self.lines
        self.window.row[:, column, mine] = x[:, mine]
        gates = self.inward.at(self.window, column, group) + self.from_above[group][column]
        own = self.inward.order[group][: gates.shape[1] // 4]
        lines.h[:, column, own], lines.c[:, column, own] = step(gates, lines.c_above[:, column, own])
        return x[:, mine] + self.up.of(lines.h[:, column], group)


class DiagonalSteps:
    """A :class:`DiagonalLSTM`: from the left pixel by pixel, from the right a row behind."""

    def __init__(self, layer: DiagonalLSTM, n: int, width: int, condition: np.ndarray | None) -> None:
        maps, self.width, self.maps = layer.maps, width, layer.maps
        self.halves = np.repeat([0.5, 0.5, 0.5, 1.0], maps)
        self.left, self.right = (Packed(side.inward, n, self.halves) for side in (layer.left, layer.right))
        self.up = Packed(layer.up, n)
        self.window = Window(n, width, 2 * maps, 1, 0, 0)
        self.states = [weight_of(side.state, self.halves) for side in (layer.left, layer.right)]
        self.lines, self.others = Lines(n, width, maps), Lines(n, width, maps)
        self.condition = np.float32(0) if condition is None else (condition * self.halves.astype(np.float32))[:, None]
        self.nothing = np.zeros((n, maps), np.float32)
        self.from_above: list[np.ndarray] = []
        self.beside = [np.ascontiguousarray(self.states[0][:maps, mine]) for mine in self.left.order]
        self.begun = False

    def next_row(self) -> None:
        if self.begun:  # the one from the right runs over the row that has been made
            self.others.next()
            gates = self.right.rows(self.window) + self.others.h_above @ self.states[1][self.maps :] + self.condition
            h = c = self.nothing
            for column in reversed(range(self.width)):
                h, c = step(gates[:, column] + h @ self.states[1][: self.maps], c)
                self.others.h[:, column] = h
        self.begun = True
        self.window.next()
        self.lines.next()
        found = self.lines.h_above @ self.states[0][self.maps :] + self.condition
        self.from_above = [np.ascontiguousarray(found[:, :, mine].swapaxes(0, 1)) for mine in self.left.order]

    def look(self, x: np.ndarray, column: int, group: int) -> np.ndarray:
        """As :meth:`RowSteps.look`."""
        mine, lines = self.up.order[group], self.lines
        self.window.row[:, column, mine] = x[:, mine]
        gates = self.left.at(self.window, column, group) + self.from_above[group][column]
        own = self.left.order[group][: gates.shape[1] // 4]
        before = self.nothing[:, own]
        if column:
            gates += lines.h[:, column - 1] @ self.beside[group]
            before = lines.c[:, column - 1, own]
        lines.h[:, column, own], lines.c[:, column, own] = step(gates, before)
        # the state from the right is that of the row above
        return x[:, mine] + self.up.of(lines.h[:, column] + self.others.h[:, column], group)


class RecurrentCache(Cache):
    """A recurrent network, pixel by pixel."""

    def __init__(self, net: Recurrent, n: int, width: int, label: Tensor | None) -> None:
        self.first = Packed(net.first, n)
        (rows, columns), left = net.first.size, net.first.left
        self.window = Window(n, width, net.first.inputs, rows, left, columns - 1 - left)
        self.x, table = self.window.row, added(net.label, label, n)
        known = None if table is None else table.reshape(n, len(net.layers), -1)
        self.layers: list[RowSteps | DiagonalSteps] = []
        for i, layer in enumerate(net.layers):
            condition = None if known is None else known[:, i]
            if isinstance(layer, RowLSTM):
                self.layers.append(RowSteps(layer, n, width, condition))
            else:
                assert isinstance(layer, DiagonalLSTM)
                self.layers.append(DiagonalSteps(layer, n, width, condition))
        self.head = PackedHead(net.head, n)
        self.path = [np.zeros((n, 2 * net.maps), np.float32) for _ in range(len(self.layers) + 1)]

    def next_row(self) -> None:
        self.window.next()
        for layer in self.layers:
            layer.next_row()

    def look(self, column: int, group: int) -> np.ndarray:
        mine = self.first.order[group]
        self.path[0][:, mine] = self.first.at(self.window, column, group)
        for i, layer in enumerate(self.layers):
            self.path[i + 1][:, mine] = layer.look(self.path[i], column, group)
        return self.head.at(self.path[-1], group)
