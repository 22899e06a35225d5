"""Langevin dynamics down an energy, as Du & Mordatch 2019 (arXiv:1903.08689) run it.

    x' = bounds(x + noise * n),    x <- bounds(x' - step * clip(dE / dx'))

With step = noise^2 / 2 and no clipping it samples exp(-E), as far as its steps are small. For pictures the paper takes
steps that are larger by far than the noise: a sampler of exp(-E / T) at a low temperature T, that nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from castalia.core.rng import Rng


def langevin(
    energy: Callable[[Tensor], Tensor],
    x: Tensor,
    rng: Rng,
    *,
    steps: int,
    step: float,
    noise: float,
    clip: float = 0.0,
    bounds: tuple[float, float] | None = None,
    settle: Callable[[Tensor], Tensor] | None = None,
    watch: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Examples (n, ...) after ``steps`` steps from ``x``.

    Args:
        energy: (n, ...) to (n,).
        x: where the chains are.
        rng: noise.
        steps: how many.
        step: multiplies the gradient.
        noise: deviation of what is added before it.
        clip: no part of a gradient is larger; 0: any.
        bounds: of every value.
        settle: applied after every step (what is held is put back).
        watch: told of every step, from 1.
    """
    shape = x.shape[1:]
    x = x.detach()
    for i in range(steps):
        moved = x + noise * rng.at("langevin", i).normal("noise", *shape) if noise else x
        if bounds:
            moved = moved.clamp(*bounds)
        with torch.enable_grad():
            moved = moved.detach().requires_grad_()
            (slope,) = torch.autograd.grad(energy(moved).sum(), moved)
        slope = slope.clamp(-clip, clip) if clip else slope
        x = moved.detach() - step * slope
        if bounds:
            x = x.clamp(*bounds)
        x = settle(x) if settle else x
        if watch:
            watch(i + 1, x)
    return x
