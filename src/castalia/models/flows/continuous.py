"""A flow whose map is the solution of a differential equation, dx/dt = f(x, t).

Papers
    Chen et al. 2018 (arXiv:1806.07366): d log p(x(t)) / dt = -tr df/dx (eq. 8), gradients by the adjoint equation.
    Grathwohl et al. 2019, FFJORD (arXiv:1810.01367): any network for f, the trace by one random probe e along the whole
    path, tr df/dx = E e' (df/dx) e (eq. 7); layers that see the time by a gate and a bias (appendix B.1,
    "concatsquash").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from castalia.models.flows.layers import Layer, exact

MOST = 2_000
"""Steps of the solver, after which an equation counts as one that cannot be followed."""


@final
class TimedLayer(nn.Module):
    """``layer(x) * sigmoid(gate(t)) + bias(t)`` for vectors or pictures.

    Args:
        layer: linear, or a convolution.
        outputs: channels out.
    """

    def __init__(self, layer: nn.Module, outputs: int) -> None:
        super().__init__()
        self.layer = layer
        self.gate = nn.Linear(1, outputs)
        self.bias = nn.Linear(1, outputs, bias=False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        t = t.to(x.dtype).view(1, 1)
        shape = (1, -1, *[1] * (x.ndim - 2))
        return self.layer(x) * torch.sigmoid(self.gate(t)).view(shape) + self.bias(t).view(shape)


@final
class Velocity(nn.Module):
    """f: a network of timed layers with softplus between them, for vectors (B, C) or pictures (B, C, H, W).

    Args:
        channels: C.
        widths: of the hidden layers.
        pictures: whether layers are 3x3 convolutions.
    """

    def __init__(self, channels: int, widths: Sequence[int], *, pictures: bool) -> None:
        super().__init__()
        sizes = [channels, *widths, channels]

        def made(a: int, b: int) -> TimedLayer:
            return TimedLayer(nn.Conv2d(a, b, 3, padding=1) if pictures else nn.Linear(a, b), b)

        self.layers = nn.ModuleList(made(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        for number, layer in enumerate(self.layers):
            x = layer(F.softplus(x) if number else x, t)
        return x


@final
class Continuous(Layer):
    """The map from x(0) to x(T).

    Args:
        velocity: f.
        rtol: relative tolerance of the solver (Dormand & Prince 1980, fifth order).
        atol: absolute one.
        steps: so many steps of the classic Runge-Kutta method in its place; 0 for none.

    Attributes:
        probe: of the shape of the examples, of unit covariance, for the trace; None computes it exactly.
        traced: whether the log-determinant is wanted; else it is given as 0.
        evaluations: of f in the last call.
    """

    def __init__(self, velocity: Velocity, rtol: float, atol: float, steps: int = 0) -> None:
        super().__init__()
        self.velocity = velocity
        self.how: dict[str, Any] = {"rtol": rtol, "atol": atol, "method": "dopri5"}
        self.how["options"] = {"max_num_steps": MOST}
        if steps:
            self.how = {"method": "rk4", "options": {"step_size": 1 / steps}}
        self.root_of_end = nn.Parameter(torch.ones(()))  # T is its square (code of Grathwohl et al.)
        self.probe: Tensor | None = None
        self.traced, self.evaluations = True, 0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with exact(x):
            return self._solve(x, (0.0, 1.0), with_trace=self.traced)

    def inverse(self, y: Tensor) -> Tensor:
        with exact(y):
            return self._solve(y, (1.0, 0.0), with_trace=False)[0]

    def _solve(self, x: Tensor, between: tuple[float, float], *, with_trace: bool) -> tuple[Tensor, Tensor]:
        # in units of T, so that its gradient is that of a factor of f
        span = torch.tensor(between, dtype=x.dtype, device=x.device)
        field = _Field(self.velocity, self.root_of_end, self.probe if with_trace else None, with_trace)
        state = (x, x.new_zeros(x.shape[0])) if with_trace else (x,)
        # through few known steps gradients are exact, and cheaper than an equation of their own
        adjoint = torch.is_grad_enabled() and with_trace and self.training and self.how["method"] == "dopri5"

        def solved(*state: Tensor) -> tuple[Tensor, ...]:
            path = (odeint_adjoint if adjoint else odeint)(field, state, span, **self.how)
            return tuple(part[-1] for part in cast("tuple[Tensor, ...]", path))

        try:
            end = _Adjoint.apply(solved, len(state), *state, *field.parameters()) if adjoint else solved(*state)
        except AssertionError:  # torchdiffeq's: steps of no length, or no end of them
            # nothing that is finite: a training refuses the step, and a measurement counts a failure
            lost = x * self.root_of_end * math.nan
            return lost, lost.flatten(1).sum(1)
        self.evaluations = field.evaluations
        return end[0], end[1] if with_trace else x.new_zeros(x.shape[0])


@final
class _Adjoint(torch.autograd.Function):
    """A solution whose gradients are nothing finite where the equation cannot be followed back (``AssertionError``)."""

    @staticmethod
    def forward(ctx: Any, solved: Callable[..., tuple[Tensor, ...]], states: int, *inputs: Tensor) -> Any:
        with torch.enable_grad():
            state = tuple(part.detach().requires_grad_(True) for part in inputs[:states])
            end = solved(*state)
        # parameters are leaves of the inner graph as of the outer one
        ctx.inner = end, (*state, *inputs[states:])
        return tuple(part.detach() for part in end)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        end, inputs = ctx.inner
        wanted = [part for part in inputs if part.requires_grad]
        try:
            found = iter(torch.autograd.grad(end, wanted, gradients, allow_unused=True))
        except AssertionError:  # as on the way there
            found = iter(torch.full_like(part, math.nan) for part in wanted)
        return (None, None, *(next(found) if part.requires_grad else None for part in inputs))


@final
class _Field(nn.Module):
    """d/ds of x and of the log-determinant, with t = s T."""

    def __init__(self, velocity: Velocity, root: nn.Parameter, probe: Tensor | None, with_trace: bool) -> None:
        super().__init__()
        self.velocity, self.root, self.probe, self.with_trace = velocity, root, probe, with_trace
        self.evaluations = 0

    def forward(self, s: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self.evaluations += 1
        length = self.root.square().to(s.dtype)
        x = state[0]
        if not self.with_trace:
            return (length * self.velocity(x, s * length),)
        outer = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x if outer and x.requires_grad else x.detach().requires_grad_(True)
            v = length * self.velocity(x, s * length)
            trace = _trace(v, x, self.probe, keep=outer)
        return (v, trace) if outer else (v.detach(), trace.detach())


def _trace(v: Tensor, x: Tensor, probe: Tensor | None, *, keep: bool) -> Tensor:
    """Tr dv/dx (B,): exactly, by one backward pass for each dimension, or by a random probe."""
    if probe is not None:
        (gradient,) = torch.autograd.grad(v, x, probe.to(v.dtype), create_graph=keep)
        return (gradient * probe).flatten(1).sum(1)
    flat, total = v.flatten(1), v.new_zeros(len(v))
    for d in range(flat.shape[1]):
        last = d == flat.shape[1] - 1
        (gradient,) = torch.autograd.grad(flat[:, d].sum(), x, create_graph=keep, retain_graph=keep or not last)
        total = total + gradient.flatten(1)[:, d]
    return total
