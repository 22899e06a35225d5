"""A layer that moves every value as those before it say: y_i = T(x_i; net(x_1 ... x_i-1)).

Papers
    Kingma et al. 2016 (arXiv:1606.04934); Papamakarios, Pavlakou & Murray 2017 (arXiv:1705.07057). The Jacobian is
    triangular. All of y are found at once; x one value after another.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from castalia.models.flows.couplings import Move
from castalia.models.flows.layers import Sequential, exact
from castalia.nn.made import MADE


@final
class Autoregressive(Sequential):
    """Vectors (B, D), each value moved as a network of those before it, and of the class, says.

    Args:
        net: gives ``how.outputs`` numbers for each value.
        how: how it is moved.
        classes: of the labels that the network sees as its context; 0 for none. Label ``classes`` is none of them.
    """

    def __init__(self, net: MADE, how: Move, classes: int = 0) -> None:
        super().__init__()
        self.net, self.move, self.classes = net, how, classes

    def _context(self, x: Tensor, label: Tensor | None) -> Tensor | None:
        if not self.classes:
            return None
        label = torch.full((x.shape[0],), self.classes, device=x.device) if label is None else label
        return torch.nn.functional.one_hot(label, self.classes + 1)[:, : self.classes].to(x.dtype)

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        h = self.net(x, self._context(x, label))
        y, log_slope = self.move(x, h.to(x.dtype))
        return y, log_slope.sum(1)

    def inverse(self, y: Tensor, label: Tensor | None = None) -> Tensor:
        with exact(y):
            state = self.net.begin(len(y), y, self._context(y, label))
            for number, place in enumerate(self.net.places):
                h = self.net.next(state, number)
                self.net.put(state, number, self.move.inverse(y[:, place : place + 1], h)[:, 0])
        return state.x
