"""Solvers of flows along straight lines, in the coordinates in which those are straight.

    sampler(denoise, x, sigmas, *, noise=None, callback=None, end=0.0) -> x

as in samplers.py. There the state is x = x1 + sigma z. A straight line from noise to an example is

    x_t = a z + t x1,     a = 1 - (1 - s) t,     sigma = a / t,     t = 1 / (sigma + 1 - s),

the same divided by t, so x_t = t x; its velocity is v = (D - (1 - s) x_t) / a with D the denoised example (``end`` is
s, the noise that is left at t = 1; Lipman et al. 2023, eq. 20 and 23). A denoised example that does not change makes
Euler's steps here and in samplers.py the same; higher orders are not, since they are of another function of time.

    function    evaluations for N steps     order
    midpoint    2N                          2
    heun        2N                          2, its last step is a midpoint step
    rk4         4N                          4

At t = 1 with s = 0 the velocity cannot be told from the denoised example, which is x itself, whatever the velocity.
Heun's method therefore ends with a midpoint step of equal order and cost, and the last evaluation of ``rk4`` stays
:data:`NEAREST` below t = 1, which leaves an error of that size times the width of the last step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from torch import Tensor

from castalia.models.diffusion.samplers import Callback, Denoise, Noise, Sampler

NEAREST = 1e-4
"""The least noise at which a velocity is asked for."""


def time_of(sigma: float, end: float = 0.0) -> float:
    """T of a noise level."""
    return 1 / (sigma + 1 - end)


def level_of(t: float, end: float = 0.0) -> float:
    """Noise level of a time in (0, 1]."""
    return (1 - (1 - end) * t) / t


def velocity(denoise: Denoise, state: Tensor, t: float, end: float = 0.0) -> tuple[Tensor, Tensor]:
    """Velocity of a state x_t, and the denoised example that it leads to, both shaped like it."""
    t = min(t, (1 - NEAREST) / (1 - end))
    denoised = denoise(state / t, level_of(t, end))
    return (denoised - (1 - end) * state) / (1 - (1 - end) * t), denoised


Field = Callable[[Tensor, float], Tensor]
"""Velocity of a state at a time."""

Slope = Callable[[Field, Tensor, Tensor, float, float, bool], Tensor]
"""Slope of a step from the field, the state, its velocity, the time, the width and whether it ends at no noise."""


def midpoint(field: Field, state: Tensor, v: Tensor, t: float, h: float, last: bool) -> Tensor:
    """The velocity in the middle of the step."""
    return field(state + 0.5 * h * v, t + 0.5 * h)


def heun(field: Field, state: Tensor, v: Tensor, t: float, h: float, last: bool) -> Tensor:
    """The mean of the velocities at both ends; see the module for its last step."""
    return midpoint(field, state, v, t, h, last) if last else 0.5 * (v + field(state + h * v, t + h))


def rk4(field: Field, state: Tensor, v: Tensor, t: float, h: float, last: bool) -> Tensor:
    """The classic Runge-Kutta method."""
    k2 = field(state + 0.5 * h * v, t + 0.5 * h)
    k3 = field(state + 0.5 * h * k2, t + 0.5 * h)
    return (v + 2 * (k2 + k3) + field(state + h * k3, t + h)) / 6


def solver(slope: Slope) -> Sampler:
    """The sampler that takes steps of a slope."""

    def sample(
        denoise: Denoise,
        x: Tensor,
        sigmas: Sequence[float],
        *,
        noise: Noise | None = None,
        callback: Callback | None = None,
        end: float = 0.0,
    ) -> Tensor:
        def field(state: Tensor, t: float) -> Tensor:
            return velocity(denoise, state, t, end)[0]

        for i, (sigma, following) in enumerate(pairwise(sigmas)):
            t, then = time_of(sigma, end), time_of(following, end)
            state, h = t * x, then - t
            v, denoised = velocity(denoise, state, t, end)
            if callback is not None:
                callback(i, sigma, x, denoised)
            x = (state + h * slope(field, state, v, t, h, not following)) / then
        return x

    return sample


STRAIGHT: Mapping[str, Sampler] = {slope.__name__: solver(slope) for slope in (midpoint, heun, rk4)}
"""By the names that people give."""


def straightness(denoise: Denoise, x: Tensor, sigmas: Sequence[float], end: float = 0.0) -> Tensor:
    """How far paths are from straight lines: the mean over t of |(x1 - x0) - v|^2 per value, ``float64`` (B,).

    0 means that one step of Euler's method is exact (Liu et al. 2023, eq. 6).

    Args:
        denoise: the model.
        x: noise at the first level.
        sigmas: levels of Euler's method, with 0 or ``end`` last.
        end: see the module.
    """
    start = time_of(sigmas[0], end) * x
    state, slopes, widths = start, [], []
    for sigma, following in pairwise(sigmas):
        t, then = time_of(sigma, end), time_of(following, end)
        v = velocity(denoise, state, t, end)[0]
        state = state + (then - t) * v
        slopes.append(v)
        widths.append(then - t)
    whole = (state - start) / sum(widths)
    return sum(w * (whole - v).double().square().flatten(1).mean(1) for v, w in zip(slopes, widths, strict=True))  # type: ignore[return-value]
