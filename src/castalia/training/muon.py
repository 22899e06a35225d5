"""Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"), with AdamW for the rest.

The momentum of a matrix is brought near the closest orthogonal matrix, by five steps of a polynomial, before it is
added: all directions move by about the same. What is no matrix of a hidden layer (embeddings, biases, gains) moves by
AdamW. Products of large matrices are in bfloat16, as in the original. Numbers agree with ``torch.optim.Muon`` and
``torch.optim.AdamW``, of which this is one optimizer instead of two, with matrices of one shape multiplied together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of x + x^3 + x^5: what brings singular values from (0, 1] near 1 in five steps."""

MOMENTUM = 0.95

SMALL = 1 << 14
"""Numbers of a matrix below which products are in float32: that takes hardly longer, and rounds less."""


def hidden_matrices(module: nn.Module) -> list[Tensor]:
    """The weights of linear layers that are no embedding's as well."""
    others = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    found = {id(m.weight): m.weight for m in module.modules() if isinstance(m, nn.Linear)}
    return [weight for number, weight in found.items() if number not in others]


class Muon(torch.optim.Optimizer):
    """Muon for matrices, AdamW for everything else.

    Args:
        groups: of parameters, as in any optimizer; those with ``muon=True`` hold matrices only.
        lr: of matrices; a group may have its own.
        betas: of AdamW.
        eps: of AdamW.
        weight_decay: decoupled, of all groups that have none of their own.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float = 0.02,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "muon": False})
        for group in self.param_groups:
            if group["muon"] and any(p.ndim != 2 for p in group["params"]):
                raise ValueError("Muon moves matrices only")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move all parameters that have a gradient."""
        for group in self.param_groups:
            there = [p for p in group["params"] if p.grad is not None]
            (self._matrices if group["muon"] else self._others)(there, group)

    def _matrices(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        shapes: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for p in parameters:
            state = self.state[p]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(p)
            gradient = p.grad
            assert gradient is not None
            momentum = state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
            shapes.setdefault(p.shape, []).append((p, torch.lerp(gradient, momentum, MOMENTUM)))  # Nesterov's
        for shape, pairs in shapes.items():
            updates = orthogonal(torch.stack([update for _, update in pairs]))
            rate = group["lr"] * math.sqrt(max(1.0, shape[0] / shape[1]))
            for (p, _), update in zip(pairs, updates, strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.to(p.dtype), alpha=-rate)

    def _others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        first, second = group["betas"]
        for p in parameters:
            state = self.state[p]
            if not state:
                state["step"] = torch.zeros(())
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            state["step"] += 1
            t = state["step"].item()
            state["exp_avg"].lerp_(p.grad, 1 - first)
            state["exp_avg_sq"].mul_(second).addcmul_(p.grad, p.grad, value=1 - second)
            scale = state["exp_avg_sq"].sqrt().div_(math.sqrt(1 - second**t)).add_(group["eps"])
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.addcdiv_(state["exp_avg"], scale, value=-group["lr"] / (1 - first**t))


def orthogonal(x: Tensor, steps: int = 5) -> Tensor:
    """Matrices (k, n, m) with the singular vectors of ``x`` and singular values near 1."""
    tall = x.shape[1] > x.shape[2]
    y = x if x.shape[1] * x.shape[2] < SMALL else x.bfloat16()
    y = y.mT if tall else y
    y = y / y.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = y @ y.mT
        y = torch.baddbmm(y, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
    return y.mT if tall else y
