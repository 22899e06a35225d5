"""Couplings: one part of an example stays, and says how the other part is moved.

With x = (a, b): y = (a, T(b; net(a))), where T acts on every dimension by itself. The Jacobian is triangular, and its
determinant the product of the derivatives of T (Dinh et al. 2014, eq. 2 to 5).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.models.flows.layers import Layer, along

Kind = Literal["additive", "sigmoid", "tanh"]


class Move(nn.Module, ABC):
    """T: moves values (B, C, ...) as a network's outputs (B, ``outputs`` * C, ...) say.

    Attributes:
        outputs: numbers that it needs for each value.
    """

    outputs: int

    @abstractmethod
    def forward(self, b: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """The moved values and log |dT/db|, both of the shape of ``b``."""

    @abstractmethod
    def inverse(self, b: Tensor, h: Tensor) -> Tensor:
        """The values that ``forward`` moves to ``b``."""


@final
class Additive(Move):
    """b + t."""

    outputs = 1

    def forward(self, b: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return b + h, b.new_zeros(()).expand_as(b)

    def inverse(self, b: Tensor, h: Tensor) -> Tensor:
        return b - h


@final
class SigmoidAffine(Move):
    """(b + t) (sigmoid(s + 2) + least), as in the code of Kingma & Dhariwal, where ``least`` is 0.

    Examples are measured with scales that cannot explode. Where they are made the scale divides; ``least`` bounds it.
    """

    outputs = 2

    def __init__(self, least: float = 0.0) -> None:
        super().__init__()
        self.least = least

    def _log_scale(self, s: Tensor) -> Tensor:
        if not self.least:
            return F.logsigmoid(s + 2)
        return torch.log(torch.sigmoid(s + 2) + self.least)

    def forward(self, b: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        t, s = h.chunk(2, 1)
        log_scale = self._log_scale(s)
        return (b + t) * log_scale.exp(), log_scale

    def inverse(self, b: Tensor, h: Tensor) -> Tensor:
        t, s = h.chunk(2, 1)
        return b * torch.exp(-self._log_scale(s)) - t


@final
class TanhAffine(Move):
    """b exp(c tanh(s)) + t with a learned c for each channel (Dinh et al. 2016, section 4.1)."""

    outputs = 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.most = nn.Parameter(torch.ones(channels))

    def _log_scale(self, s: Tensor) -> Tensor:
        # a part of a vector is slow to go through; parts of pictures lie channels-last
        return along(self.most, s) * torch.tanh(s.contiguous() if s.ndim == 2 else s)

    def forward(self, b: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        t, s = h.chunk(2, 1)
        log_scale = self._log_scale(s)
        return b * log_scale.exp() + t, log_scale

    def inverse(self, b: Tensor, h: Tensor) -> Tensor:
        t, s = h.chunk(2, 1)
        return (b - t) * torch.exp(-self._log_scale(s))


def move(kind: Kind, channels: int, least: float) -> Move:
    """The map of that name for so many channels; ``least`` is that of :class:`SigmoidAffine`."""
    if kind == "sigmoid":
        return SigmoidAffine(least)
    return Additive() if kind == "additive" else TanhAffine(channels)


@final
class Halves(Layer):
    """A coupling of two halves of the channels.

    Args:
        net: from the half that stays to ``how.outputs`` numbers for each value of the other.
        how: how it is moved.
        swap: whether the second half stays; else the first.
        interleaved: the halves are even and odd dimensions (NICE, section 3.2) and not lower and upper ones.
        bent: so many channels stay, and each of them is moved as well, the same way for all examples (Durkan et al.
            2019, section 4.1); 0: they do stay.
    """

    def __init__(
        self, net: nn.Module, how: Move, *, swap: bool = False, interleaved: bool = False, bent: int = 0
    ) -> None:
        super().__init__()
        self.net, self.move = net, how
        self.swap, self.interleaved = swap, interleaved
        self.own = nn.Parameter(torch.zeros(how.outputs * bent)) if bent else None

    def _cut(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The part that stays and the part that moves."""
        if self.interleaved:
            a, b = x[:, 0::2], x[:, 1::2]
        else:
            kept = (x.shape[1] + 1) // 2
            a, b = x[:, :kept], x[:, kept:]
        return (b, a) if self.swap else (a, b)

    def _join(self, a: Tensor, b: Tensor) -> Tensor:
        first, second = (b, a) if self.swap else (a, b)
        if not self.interleaved:
            return torch.cat([first, second], 1)
        if first.shape[1] > second.shape[1]:
            pairs = torch.stack([first[:, :-1], second], 2).flatten(1, 2)
            return torch.cat([pairs, first[:, -1:]], 1)
        return torch.stack([first, second], 2).flatten(1, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self._cut(x)
        b, log_scale = self.move(b, self.net(a).to(b.dtype))
        total = log_scale.flatten(1).sum(1)
        if self.own is not None:
            a, log_scale = self.move(a, self._same_for_all(a))
            total = total + log_scale.flatten(1).sum(1)
        return self._join(a, b), total

    def _same_for_all(self, a: Tensor) -> Tensor:
        assert self.own is not None
        return along(self.own, a).expand(a.shape[0], -1, *a.shape[2:])

    def inverse(self, y: Tensor) -> Tensor:
        a, b = self._cut(y)
        if self.own is not None:
            a = self.move.inverse(a, self._same_for_all(a))
        return self._join(a, self.move.inverse(b, self.net(a).to(b.dtype)))


@final
class Checkerboard(Layer):
    """A coupling of the two colours of a checkerboard (Dinh et al. 2016, section 3.4).

    Args:
        net: from pictures of which one colour is zero to ``how.outputs`` numbers for each value.
        how: how the other colour is moved.
        size: height and width.
        swap: which colour stays.
    """

    stays: Tensor

    def __init__(self, net: nn.Module, how: Move, size: tuple[int, int], *, swap: bool = False) -> None:
        super().__init__()
        self.net, self.move = net, how
        rows, columns = torch.arange(size[0])[:, None], torch.arange(size[1])
        self.register_buffer("stays", ((rows + columns + swap) % 2 == 0)[None, None], persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        moved, log_scale = self.move(x, self.net(torch.where(self.stays, x, 0.0)).to(x.dtype))
        return torch.where(self.stays, x, moved), torch.where(self.stays, 0.0, log_scale).flatten(1).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        back = self.move.inverse(y, self.net(torch.where(self.stays, y, 0.0)).to(y.dtype))
        return torch.where(self.stays, y, back)
