"""Adapters of low rank beside linear layers (Hu et al. 2021, arXiv:2106.09685, equation 3).

    h = W x + (alpha / r) B A x,   A of r rows from U(-sqrt(1 / n), sqrt(1 / n)) for n columns, B = 0 at first

So what is adapted is at first the network that it was. A starts as in the authors' code (Kaiming's uniform with a =
sqrt 5), where the paper says Gaussian.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Adapter(nn.Module):
    """(alpha / r) B A x.

    Args:
        inputs: numbers of x.
        outputs: of what is added.
        rank: r.
        alpha: over r it multiplies what is added.
        drop: share that is dropped of x in training.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, alpha: float, drop: float = 0.0) -> None:
        super().__init__()
        self.scale, self.drop = alpha / rank, drop
        self.a, self.b = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)
        nn.init.kaiming_uniform_(self.a.weight, math.sqrt(5))
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        """What is added for (..., inputs)."""
        return self.scale * self.b(self.a(F.dropout(x, self.drop, self.training)))

    def matrix(self) -> Tensor:
        """The matrix (outputs, inputs) that is added."""
        return self.scale * self.b.weight @ self.a.weight


class AdaptedLinear(nn.Linear):
    """A linear layer beside an adapter, which is no part of it: so the one can be frozen and the other not.

    Args:
        inputs: numbers that it reads.
        outputs: that it gives.
        adapter: what is added.
        bias: whether it has one.

    Attributes:
        merged: whether it has been put into the matrix.
        off: whether it is left out for now.
    """

    def __init__(self, inputs: int, outputs: int, adapter: Adapter, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias)
        self.beside = (adapter,)
        self.merged = self.off = False

    @classmethod
    def of(cls, old: nn.Linear, adapter: Adapter) -> AdaptedLinear:
        """A layer with the weights of another one, to stand in its place."""
        new = cls(old.in_features, old.out_features, adapter, old.bias is not None)
        new.load_state_dict(old.state_dict())
        return new

    def forward(self, input: Tensor) -> Tensor:
        y = super().forward(input)
        return y if self.merged or self.off else y + self.beside[0](input)


@torch.no_grad()
def merge(net: nn.Module, sign: int = 1) -> None:
    """Put what is added into the matrices of all adapted layers of ``net``, or take it out again (``sign`` -1)."""
    for module in net.modules():
        if isinstance(module, AdaptedLinear) and module.merged == (sign < 0):
            module.weight += sign * module.beside[0].matrix().to(module.weight.dtype)
            module.merged = sign > 0


@torch.no_grad()
def plain_state(net: nn.Module, added: str) -> dict[str, Tensor]:
    """Weights of a network without adapters that is the same function.

    Args:
        net: the network with adapters.
        added: prefix of their own tensors in its state dict, which are left out.
    """
    state = {key: value.clone() for key, value in net.state_dict().items() if not key.startswith(added)}
    for name, module in net.named_modules():
        if isinstance(module, AdaptedLinear) and not module.merged:
            state[f"{name}.weight"] += module.beside[0].matrix()
    return state
