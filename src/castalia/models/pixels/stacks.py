"""Networks of convolutions for PixelCNN: the plain one, and the gated one of two stacks.

* :class:`Plain`: van den Oord et al. 2016a (arXiv:1601.06759), figure 5 left and table 1: a 7x7 convolution with mask
  A, residual blocks of h features (1x1, 3x3 with mask B, 1x1), two 1x1 layers. Its receptive field has a blind spot to
  the right above the pixel.
* :class:`Gated`: van den Oord et al. 2016b (arXiv:1606.05328), figure 2: a vertical stack sees all rows above, a
  horizontal one the row before the pixel and the vertical stack; gates tanh(W_f * x + V_f h) . sigmoid(W_g * x + V_g h)
  with the label h (eq. 4).

Each has a :class:`Cache` that computes one pixel after another from what it has kept of the rows above.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.models.pixels.taps import Packed, Taps, Window


class Cache(ABC):
    """Outputs of a network pixel by pixel, for n pictures, row by row from the left.

    Attributes:
        x: features of the row that is being made, (n, W, C): whoever draws a value writes it here.
    """

    x: np.ndarray

    @abstractmethod
    def next_row(self) -> None:
        """Begin a row; also the first."""

    @abstractmethod
    def look(self, column: int, group: int) -> np.ndarray:
        """Outputs (n, maps / looks) for a group of channels, given all that stands in ``x`` before; once for each."""


class PixelNetwork(nn.Module, ABC):
    """Outputs for every pixel from all pixels before it."""

    @abstractmethod
    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, maps, H, W) from features (B, C, H, W) and labels (B,)."""

    @abstractmethod
    def last(self) -> Taps:
        """The layer of the outputs."""

    @abstractmethod
    def cache(self, n: int, width: int, label: Tensor | None) -> Cache:
        """For ``n`` pictures, in float32 on the CPU."""


class Block(nn.Module):
    """A residual block: ReLU and a convolution, three times, from 2h maps over h to 2h."""

    def __init__(self, maps: int, kernel: int, channels: int) -> None:
        super().__init__()
        half = kernel // 2
        self.down = Taps(2 * maps, maps, mask="B", channels=channels)
        self.across = Taps(maps, maps, (half + 1, kernel), left=half, mask="B", channels=channels)
        self.up = Taps(maps, 2 * maps, mask="B", channels=channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(F.relu(self.across(F.relu(self.down(F.relu(x))))))


class Head(nn.Module):
    """ReLU and a 1x1 convolution, twice; the last bias begins at zero."""

    def __init__(self, inputs: int, maps: int, outputs: int, channels: int) -> None:
        super().__init__()
        self.hidden = Taps(inputs, maps, mask="B", channels=channels)
        self.out = Taps(maps, outputs, mask="B", channels=channels)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.hidden(F.relu(x))))


class Plain(PixelNetwork):
    """PixelCNN with masked convolutions.

    Args:
        channels: of the picture.
        maps: h; the residual path has 2h.
        layers: residual blocks.
        first: kernel of the first convolution.
        kernel: of the blocks.
        head: maps of the layer before the outputs.
        outputs: for a pixel.
        classes: labels that are told apart, the null class among them; 0 for none.
        size: (height, width) of the picture where the network is to know its places; else None.
    """

    undecayed = ("place",)

    def __init__(
        self,
        channels: int,
        maps: int,
        layers: int,
        first: int,
        kernel: int,
        head: int,
        outputs: int,
        classes: int,
        size: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        self.maps = maps
        self.place = None if size is None else nn.Parameter(torch.zeros(2 * maps, *size))
        self.first = Taps(channels, 2 * maps, (first // 2 + 1, first), left=first // 2, mask="A", channels=channels)
        self.blocks = nn.ModuleList(Block(maps, kernel, channels) for _ in range(layers))
        self.head = Head(2 * maps, head, outputs, channels)
        self.label = label_table(classes, 2 * maps)

    def last(self) -> Taps:
        return self.head.out

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        x = self.first(laid_out(x))
        if self.label is not None and label is not None:
            x = x + self.label(label)[:, :, None, None].to(x.dtype)
        if self.place is not None:
            x = x + self.place.to(x.dtype)
        for block in self.blocks:
            x = block(x)
        return self.head(x)

    def cache(self, n: int, width: int, label: Tensor | None) -> Cache:
        return PlainCache(self, n, width, label)


def laid_out(x: Tensor) -> Tensor:
    """Maps of pictures as they are fastest: channels last."""
    return x.contiguous(memory_format=torch.channels_last)


def label_table(classes: int, maps: int) -> nn.Embedding | None:
    """What labels add to ``maps`` maps; at first nothing."""
    if not classes:
        return None
    table = nn.Embedding(classes, maps)
    nn.init.zeros_(table.weight)
    return table


def added(table: nn.Embedding | None, label: Tensor | None, n: int) -> np.ndarray | None:
    """The same for drawing: (n, maps), or None."""
    if table is None or label is None:
        return None
    return table(label).detach().float().cpu().numpy().reshape(n, -1)


class PackedHead:
    """A :class:`Head` of single pixels."""

    def __init__(self, head: Head, n: int) -> None:
        self.hidden, self.out = Packed(head.hidden, n), Packed(head.out, n)
        self.one = np.empty((n, head.hidden.inputs), np.float32)
        self.two = np.zeros((n, head.hidden.outputs), np.float32)

    def at(self, x: np.ndarray, group: int) -> np.ndarray:
        np.maximum(x, 0, out=self.one)
        hidden = self.hidden.of(self.one, group)
        self.two[:, self.hidden.order[group]] = np.maximum(hidden, 0)
        return self.out.of(self.two, group)


class PlainCache(Cache):
    """A plain network, pixel by pixel."""

    def __init__(self, net: Plain, n: int, width: int, label: Tensor | None) -> None:
        self.first = Packed(net.first, n)
        rows, columns = net.first.size
        self.window = Window(n, width, net.first.inputs, rows, net.first.left, columns - 1 - net.first.left)
        self.x, self.label = self.window.row, added(net.label, label, n)
        self.place = None if net.place is None else net.place.detach().float().cpu().numpy()
        self.number = -1
        self.layers: list[tuple[Packed, Packed, Packed, Window, np.ndarray]] = []
        for block in net.blocks:
            assert isinstance(block, Block)
            rows, columns = block.across.size
            window = Window(n, width, net.maps, rows, block.across.left, columns - 1 - block.across.left)
            parts = Packed(block.down, n), Packed(block.across, n), Packed(block.up, n)
            self.layers.append((*parts, window, np.zeros((n, net.maps), np.float32)))
        self.head = PackedHead(net.head, n)
        self.path = [np.zeros((n, 2 * net.maps), np.float32) for _ in range(len(self.layers) + 1)]

    def next_row(self) -> None:
        self.number += 1
        self.window.next()
        for *_, window, _ in self.layers:
            window.next()

    def look(self, column: int, group: int) -> np.ndarray:
        mine = self.first.order[group]
        self.path[0][:, mine] = self.first.at(self.window, column, group)
        if self.label is not None:
            self.path[0][:, mine] += self.label[:, mine]
        if self.place is not None:
            self.path[0][:, mine] += self.place[mine, self.number, column]
        for i, (down, across, up, window, between) in enumerate(self.layers):
            narrow = down.of(np.maximum(self.path[i], 0), group)
            window.row[:, column, down.order[group]] = np.maximum(narrow, 0)
            middle = across.at(window, column, group)
            between[:, across.order[group]] = np.maximum(middle, 0)
            self.path[i + 1][:, mine] = self.path[i][:, mine] + up.of(between, group)
        return self.head.at(self.path[-1], group)


class GatedLayer(nn.Module):
    """A layer of both stacks (figure 2).

    Args:
        vertical: maps of the vertical stack that come in.
        horizontal: maps of the horizontal stack that come in.
        maps: p, of both that go out.
        kernel: of the convolutions.
        channels: of the picture.
        first: whether it is the first: of its own pixel it sees nothing.
        last: whether nobody needs its vertical stack.
    """

    def __init__(
        self, vertical: int, horizontal: int, maps: int, kernel: int, channels: int, first: bool, last: bool
    ) -> None:
        super().__init__()
        half = kernel // 2
        self.first = first
        # the first leaves the pixel's own row out, and so no later one can see it
        size = (half if first else half + 1, kernel)
        self.vertical = Taps(vertical, 2 * maps, size, left=half, above=int(first))
        self.link = Taps(2 * maps, 2 * maps)
        self.horizontal = Taps(
            horizontal, 2 * maps, (1, half + 1), left=half, mask="A" if first else "B", channels=channels, parts=2
        )
        self.out = Taps(maps, maps, mask="B", channels=channels)
        self.last = last

    def forward(self, v: Tensor, h: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both stacks (B, p, H, W) after it; ``condition`` (B or 1, 4p, ...) is added to the gates of either."""
        above = self.vertical(v)
        beside = self.horizontal(h) + self.link(above)
        if condition is not None:
            mine, theirs = condition.to(above.dtype).chunk(2, dim=1)
            above, beside = above + mine, beside + theirs
        made = self.out(gate(beside))
        return (v if self.last else gate(above)), (made if self.first else h + made)


def gate(x: Tensor) -> Tensor:
    """Tanh of one half of the maps times sigmoid of the other."""
    f, g = x.chunk(2, dim=1)
    return torch.tanh(f) * torch.sigmoid(g)


class Gated(PixelNetwork):
    """Gated PixelCNN; the arguments are those of :class:`Plain`."""

    undecayed = ("place",)

    def __init__(
        self,
        channels: int,
        maps: int,
        layers: int,
        first: int,
        kernel: int,
        head: int,
        outputs: int,
        classes: int,
        size: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        self.maps, self.channels = maps, channels
        self.place = None if size is None else nn.Parameter(torch.zeros(4 * maps, *size))
        self.layers = nn.ModuleList(
            GatedLayer(maps if i else channels, maps if i else channels, maps, kernel if i else first, channels, not i,
                       i == layers - 1)
            for i in range(layers)
        )  # fmt: skip
        self.head = Head(maps, head, outputs, channels)
        self.label = label_table(classes, layers * 4 * maps)

    def last(self) -> Taps:
        return self.head.out

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        v = h = laid_out(x)
        conditions = self.conditions(label)
        for i, layer in enumerate(self.layers):
            known = None if conditions is None else conditions[:, i]
            if i == 0 and self.place is not None:
                known = self.place[None] if known is None else known + self.place
            v, h = layer(v, h, known)
        return self.head(h)

    def conditions(self, label: Tensor | None) -> Tensor | None:
        """What a label adds before the gates of all layers, (B, layers, 4p, 1, 1)."""
        if self.label is None or label is None:
            return None
        return self.label(label).unflatten(1, (len(self.layers), -1, 1, 1))

    def cache(self, n: int, width: int, label: Tensor | None) -> Cache:
        return GatedCache(self, n, width, label)


class GatedCache(Cache):
    """A gated network, the vertical stack row by row, the horizontal one pixel by pixel.

    sigmoid(g) is (1 + tanh(g / 2)) / 2: the halves are in the weights, so that a gate takes one call of tanh.
    """

    def __init__(self, net: Gated, n: int, width: int, label: Tensor | None) -> None:
        self.net, self.p = net, net.maps
        layers: Sequence[GatedLayer] = [layer for layer in net.layers if isinstance(layer, GatedLayer)]
        half = np.repeat([1.0, 0.5], net.maps)
        self.vertical = [Packed(layer.vertical, n, half) for layer in layers]
        self.horizontal = [Packed(layer.horizontal, n, half) for layer in layers]
        self.out = [Packed(layer.out, n, inner=0.5) for layer in layers]
        # a link reads the vertical convolution before its halves
        self.link = [Packed(layer.link, n, half) for layer in layers]
        self.above: list[Window] = []
        self.beside: list[Window] = []
        for layer in layers:
            (rows, columns), left = layer.vertical.size, layer.vertical.left
            kept = rows + layer.vertical.above
            self.above.append(Window(n, width, layer.vertical.inputs, kept, left, columns - 1 - left))
            self.beside.append(Window(n, width, layer.horizontal.inputs, 1, layer.horizontal.left, 0))
        self.x = self.beside[0].row
        self.head = PackedHead(net.head, n)
        self.links: list[list[np.ndarray]] = [[] for _ in layers]
        self.gated = [np.zeros((n, net.maps), np.float32) for _ in layers]
        self.end = np.zeros((n, net.maps), np.float32)
        table = added(net.label, label, n)
        self.labels = (
            None if table is None else table.reshape(n, len(layers), 2, 2 * net.maps) * half.astype(np.float32)
        )
        self.unhalf = np.repeat([1.0, 2.0], net.maps).astype(np.float32)
        self.places: np.ndarray | None = None
        if net.place is not None:  # (2 stacks, H, W, 2p)
            place = net.place.detach().double().cpu().numpy().reshape(2, 2 * net.maps, *net.place.shape[1:])
            self.places = (place.transpose(0, 2, 3, 1) * half).astype(np.float32)
        self.number = -1

    def next_row(self) -> None:
        self.number += 1
        # the row that has been made is what the first vertical convolution sees now
        self.above[0].row[...] = self.x
        self.above[0].next()
        for window in self.beside:
            window.next()
        made = np.empty(0, np.float32)
        for i, window in enumerate(self.above):
            if i:
                window.next()
                window.row[...] = made
            pre = self.vertical[i].rows(window)
            link = self.link[i].whole
            found = (pre * self.unhalf) @ link[0] + link[1]
            if self.labels is not None:
                pre += self.labels[:, None, i, 0]
                found += self.labels[:, None, i, 1]
            if self.places is not None and i == 0:
                pre += self.places[0, self.number]
                found += self.places[1, self.number]
            # by group and column, so that a look adds one piece of memory
            self.links[i] = [
                np.ascontiguousarray(found[:, :, mine].swapaxes(0, 1)) for mine in self.horizontal[i].order
            ]
            np.tanh(pre, pre)
            made = 0.5 * pre[..., : self.p] * (1 + pre[..., self.p :])

    def look(self, column: int, group: int) -> np.ndarray:
        for i, gated in enumerate(self.gated):
            pre = self.horizontal[i].at(self.beside[i], column, group)
            pre += self.links[i][group][column]
            np.tanh(pre, pre)
            wide = pre.shape[1] // 2
            mine = self.out[i].order[group]
            pre[:, wide:] += 1
            gated[:, mine] = pre[:, :wide] * pre[:, wide:]
            made = self.out[i].of(gated, group)
            if i:
                made += self.beside[i].row[:, column, mine]
            if i + 1 < len(self.gated):
                self.beside[i + 1].row[:, column, mine] = made
            else:
                self.end[:, mine] = made
        return self.head.at(self.end, group)
