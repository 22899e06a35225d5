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

from collections.abc import Mapping, Sequence
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


def midpoint(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
    end: float = 0.0,
) -> Tensor:
    """The midpoint method in t."""
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        t, then = time_of(sigma, end), time_of(following, end)
        state = t * x
        v, denoised = velocity(denoise, state, t, end)
        if callback is not None:
            callback(i, sigma, x, denoised)
        x = (state + (then - t) * _half_way(denoise, state, v, t, then, end)) / then
    return x


def heun(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
    end: float = 0.0,
) -> Tensor:
    """Heun's method in t; see the module for its last step."""
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        t, then = time_of(sigma, end), time_of(following, end)
        state = t * x
        v, denoised = velocity(denoise, state, t, end)
        if callback is not None:
            callback(i, sigma, x, denoised)
        if following:
            slope = 0.5 * (v + velocity(denoise, state + (then - t) * v, then, end)[0])
        else:
            slope = _half_way(denoise, state, v, t, then, end)
        x = (state + (then - t) * slope) / then
    return x


def rk4(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
    end: float = 0.0,
) -> Tensor:
    """The classic Runge-Kutta method in t."""
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        t, then = time_of(sigma, end), time_of(following, end)
        state, h = t * x, then - t
        k1, denoised = velocity(denoise, state, t, end)
        if callback is not None:
            callback(i, sigma, x, denoised)
        k2 = velocity(denoise, state + 0.5 * h * k1, t + 0.5 * h, end)[0]
        k3 = velocity(denoise, state + 0.5 * h * k2, t + 0.5 * h, end)[0]
        k4 = velocity(denoise, state + h * k3, then, end)[0]
        x = (state + (h / 6) * (k1 + 2 * (k2 + k3) + k4)) / then
    return x


STRAIGHT: Mapping[str, Sampler] = {"midpoint": midpoint, "heun": heun, "rk4": rk4}
"""By the names that people give."""


def _half_way(denoise: Denoise, state: Tensor, v: Tensor, t: float, then: float, end: float) -> Tensor:
    """Velocity in the middle of a step that starts with velocity v."""
    return velocity(denoise, state + 0.5 * (then - t) * v, 0.5 * (t + then), end)[0]


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
