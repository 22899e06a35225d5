"""A mixture of Gaussians for each value, as a map to a standard normal one: its quantile.

T(x) = Phi^-1(F(x)) with F the mixture's distribution function, so that a flow that ends in T has the mixture's density
where it had a normal one: log N(T(x)) + log T'(x) = log f(x).
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from castalia.models.flows.couplings import Move

ROUNDS = 60
"""Halvings of the interval in which an inverse is looked for, in float64."""

SPREAD = 5.0
"""Bound on the logarithms of deviations: what was never seen must not become infinite."""


@final
class Mixture(Move):
    """``components`` Gaussians for each value: weights, means, logarithms of deviations.

    With all of a network's outputs zero the means are spread over -2 to 2, so that the components are told apart.
    """

    def __init__(self, components: int) -> None:
        super().__init__()
        self.components, self.outputs = components, 3 * components

    def _parts(self, b: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and deviations, each (K, B, C, ...), in float64."""
        raw = h.double().unflatten(1, (self.outputs, b.shape[1])).movedim(1, 0)
        weights, means, spreads = raw.split(self.components)
        start = torch.linspace(-2, 2, self.components, dtype=means.dtype, device=means.device)
        start = torch.zeros_like(start) if self.components == 1 else start
        means = means + start.view(-1, *[1] * b.ndim)
        return torch.log_softmax(weights, 0), means, torch.exp(SPREAD * torch.tanh(spreads / SPREAD))

    @staticmethod
    def _quantile(x: Tensor, weights: Tensor, means: Tensor, stds: Tensor) -> Tensor:
        """Phi^-1(F(x)), from the smaller of the two tails, in which float64 has room."""
        z = (x - means) / stds
        below = torch.logsumexp(weights + torch.special.log_ndtr(z), 0)
        above = torch.logsumexp(weights + torch.special.log_ndtr(-z), 0)
        upper = below > above
        tail = torch.where(upper, above, below).clamp(min=-700.0)
        eps = torch.special.ndtri(tail.exp())
        return torch.where(upper, -eps, eps)

    def forward(self, b: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        weights, means, stds = self._parts(b, h)
        x = b.double()
        eps = _Quantile.apply(x, weights, means, stds)
        log_f = torch.logsumexp(weights - 0.5 * ((x - means) / stds).square() - stds.log(), 0)
        # log f - log N(eps); both have the same constant
        return eps.to(b.dtype), (log_f + 0.5 * eps.square()).to(b.dtype)

    @torch.no_grad()
    def inverse(self, b: Tensor, h: Tensor) -> Tensor:
        weights, means, stds = self._parts(b, h)
        eps = b.double()
        reach = (eps.abs() + 1) * stds.amax(0)
        low, high = means.amin(0) - reach, means.amax(0) + reach
        for _ in range(ROUNDS):
            middle = 0.5 * (low + high)
            less = self._quantile(middle, weights, means, stds) < eps
            low, high = torch.where(less, middle, low), torch.where(less, high, middle)
        return (0.5 * (low + high)).to(b.dtype)


class _Quantile(torch.autograd.Function):
    """The quantile with its derivatives by the implicit function theorem: those of a tail would be 0 / 0 far out."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, w: Tensor, means: Tensor, stds: Tensor) -> Tensor:  # type: ignore[override]
        eps = Mixture._quantile(x, w, means, stds)
        ctx.save_for_backward(x, w, means, stds, eps)
        return eps

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        x, weights, means, stds, eps = ctx.saved_tensors  # type: ignore[attr-defined]
        z = (x - means) / stds
        normal = 0.5 * math.log(2 * math.pi)
        log_phi = -0.5 * eps.square() - normal
        log_parts = weights - 0.5 * z.square() - stds.log() - normal
        parts = torch.exp(log_parts - log_phi)  # of dF / dx, over phi(eps)
        g = grad * parts
        by_weight = grad * torch.exp(weights + torch.special.log_ndtr(z) - log_phi)
        # weights are logarithms of shares that add up to 1: far above, what is left of F is measured from 1
        above = grad * -torch.exp(weights + torch.special.log_ndtr(-z) - log_phi)
        by_weight = torch.where(eps > 0, above, by_weight)
        return g.sum(0), by_weight, -g, -g * z
