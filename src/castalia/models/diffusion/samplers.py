"""Samplers: plain functions from noise to examples, all over ``denoise(x, sigma)``.

    sampler(denoise, x, sigmas, *, noise=None, callback=None, **its own parameters) -> x

``denoise`` estimates the clean example in x = x0 + sigma * eps. ``sigmas`` are noise levels, decreasing, usually with 0
at the end; x is at the first of them, and what is returned at the last. Every step from one level to the next calls
``denoise`` once, except where the table below says otherwise. Randomness comes from ``noise(step)``, standard normal
and shaped like x, so each example can have a stream of its own. ``callback(step, sigma, x, denoised)`` is called after
the (first) evaluation of each step; what it raises ends the sampling.

    function            evaluations for N steps         order   noise   paper
    ddpm                N                               -       yes     Ho et al. 2020; Nichol & Dhariwal 2021
    ddim                N                               1       eta > 0 Song et al. 2021 (arXiv:2010.02502)
    euler               N                               1       no      the same as ddim with eta = 0
    euler_ancestral     N                               -       yes     the same as ddim with eta = 1, and as ddpm
                                                                        with the posterior's variance
    heun                2N - 1 (2N if the end is not 0) 2       no      Karras et al. 2022, algorithm 1
    edm                 2N - 1                          -       yes     Karras et al. 2022, algorithm 2
    dpm_2m              N                               2       no      Lu et al. 2022 (arXiv:2211.01095), 2M
    dpm_3m              N + 4 (at most N + 2 (N - 1))   3       no      the same, third order; see below
    dpm_2m_sde          N                               -       yes     the same, SDE form of 2M
    renoise             N                               -       yes     Song et al. 2023 (arXiv:2303.01469), algo-
                                                                        rithm 1: for what jumps to the example

In the variance-exploding picture, with r = sigma' / sigma, Euler's step is x' = D + r (x - D); the posterior of a
variance-preserving process is D + r^2 (x - D) plus noise of variance sigma'^2 (1 - r^2), whatever its alphas.

``dpm_3m`` differs from what circulates as DPM-Solver++(3M) in two ways. The quadratic term there is half of what the
integral of the interpolating polynomial gives (D2 is a divided difference, which is half of the second derivative, but
meets the weight of the full one). That alone makes it a method of second order. And the first two steps, which have no
history yet, are here single steps of third order (Hochbruck & Ostermann 2005, eq. 5.8), of three evaluations each: with
steps of lower order there, the whole was measured to have order 2.2 on the logistic grid (on the rho grid it hardly
matters).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from castalia.models.diffusion.schedules import step_deviation

Denoise = Callable[[Tensor, float], Tensor]
"""(x, sigma) -> estimate of the clean example, shaped like x."""

Noise = Callable[[int], Tensor]
"""Step number -> standard normal, shaped like x."""

Callback = Callable[[int, float, Tensor, Tensor], None]
"""(step number, sigma, x, denoised), once per step."""

Sampler = Callable[..., Tensor]


def ddpm(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
    variance: float | Callable[[], Tensor] = 0.0,
) -> Tensor:
    """Ancestral sampling.

    Args:
        denoise: see the module.
        x: at the first level.
        sigmas: levels.
        noise: required.
        callback: see the module.
        variance: 0 is the posterior's ("fixed small"), 1 is beta ("fixed large"), between them the logarithm is
            interpolated. A function is called after each evaluation for the network's own choice, a tensor that
            broadcasts against x (learned variance). The last step to 0 adds no noise.
    """
    noise = _required(noise, "ddpm")
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        denoised = _evaluate(denoise, x, i, sigma, callback)
        x = torch.lerp(denoised, x, (following / sigma) ** 2)
        if following:
            deviation = step_deviation(sigma, following, variance() if callable(variance) else variance)
            if isinstance(deviation, Tensor):
                x = x.addcmul_(noise(i), deviation.to(x.dtype))
            else:
                x = x.add_(noise(i), alpha=deviation)
    return x


def ddim(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
    eta: float = 0.0,
) -> Tensor:
    """Denoising diffusion implicit models, eq. 12 and 16: ``eta`` 0 is deterministic, 1 ancestral.

    The noise direction is taken from ``denoised`` (also where that was clipped), so it always leads from it to x.
    """
    stochastic = _required(noise, "ddim with eta > 0") if eta else None
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        denoised = _evaluate(denoise, x, i, sigma, callback)
        fresh = eta * following * math.sqrt(1 - (following / sigma) ** 2)
        x = torch.lerp(denoised, x, math.sqrt(following**2 - fresh**2) / sigma)
        if stochastic is not None and following:
            x = x.add_(stochastic(i), alpha=fresh)
    return x


def euler(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Euler's method for the probability-flow equation dx/dsigma = (x - denoised) / sigma."""
    return ddim(denoise, x, sigmas, noise=noise, callback=callback, eta=0.0)


def euler_ancestral(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
    eta: float = 1.0,
) -> Tensor:
    """Euler's method down to a lower level, then fresh noise up to the next."""
    return ddim(denoise, x, sigmas, noise=noise, callback=callback, eta=eta)


def heun(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Heun's method; a last step to 0 is Euler's."""
    return edm(denoise, x, sigmas, callback=callback, churn=0.0)


def edm(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
    churn: float = 40.0,
    churn_low: float = 0.05,
    churn_high: float = 50.0,
    inflate: float = 1.003,
) -> Tensor:
    """Heun's method with noise added before each step (Karras et al., algorithm 2).

    Args:
        denoise: see the module.
        x: at the first level.
        sigmas: levels.
        noise: required where ``churn`` is not 0.
        callback: see the module.
        churn: S_churn; the level rises by a share churn / N of itself, at most sqrt(2) - 1.
        churn_low: S_tmin, the lowest level that is raised.
        churn_high: S_tmax, the highest.
        inflate: S_noise, the deviation of the added noise.
    """
    stochastic = _required(noise, "edm with churn") if churn else None
    share = min(churn / max(len(sigmas) - 1, 1), math.sqrt(2) - 1)
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        if stochastic is not None and churn_low <= sigma <= churn_high:
            raised = sigma * (1 + share)
            x = torch.add(x, stochastic(i), alpha=inflate * math.sqrt(raised**2 - sigma**2))
            sigma = raised
        denoised = _evaluate(denoise, x, i, sigma, callback)
        ratio = following / sigma
        step = torch.lerp(denoised, x, ratio)
        if following:
            # x + (s' - s) (d + d') / 2, with d = (x - D) / s and d' = (x' - D') / s', is an Euler step with D moved
            # by half of (D' - D) / ratio
            weight = 0.5 * (1 - ratio) / ratio
            again = denoise(step, following)
            step = torch.add(step, again, alpha=weight).sub_(denoised, alpha=weight)
        x = step
    return x


def dpm_2m(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2M): the denoised example is extrapolated linearly in log sigma to the middle of each step."""
    old, old_h = None, 0.0
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        denoised = _evaluate(denoise, x, i, sigma, callback)
        ahead, h = denoised, _width(sigma, following)
        if old is not None and following:
            ahead = torch.lerp(denoised, old, -h / (2 * old_h))
        x = torch.lerp(ahead, x, following / sigma)
        old, old_h = denoised, h
    return x


def dpm_3m(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Exponential multistep method of third order in log sigma; see the module for what differs from others."""
    history: list[tuple[Tensor, float]] = []  # denoised examples and the widths of the steps after them, newest first
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        denoised = _evaluate(denoise, x, i, sigma, callback)
        h = _width(sigma, following)
        if not following:
            x = torch.lerp(denoised, x, 0.0)
        elif len(history) < 2:
            x = _third_order_step(denoise, x, denoised, sigma, h)
        else:
            (one, h1), (two, h2) = history
            # D(t) = denoised + t D' + t^2 D''/2 by divided differences, integrated against exp(-(h - t))
            level = -math.expm1(-h)
            slope = h - level
            bend = h * h / 2 - slope  # of D''
            slope_two = bend * 2 / (h1 + h2) + slope * h1 / (h1 + h2)  # of (f01 - f12)
            first, second = (slope + slope_two) / h1, slope_two / h2
            x = x * (following / sigma)
            x.add_(denoised, alpha=level + first).add_(one, alpha=-first - second).add_(two, alpha=second)
        history = [(denoised, h), *history[:1]]
    return x


def _third_order_step(denoise: Denoise, x: Tensor, denoised: Tensor, sigma: float, h: float) -> Tensor:
    """One step of width h in log sigma with two more evaluations, at a third and at two thirds of it."""
    third, two_thirds = sigma * math.exp(-h / 3), sigma * math.exp(-2 * h / 3)
    inner = torch.lerp(denoised, x, third / sigma)
    at_third = denoise(inner, third)
    weight = 3 * (math.expm1(-2 * h / 3) + 2 * h / 3) / h
    inner = torch.lerp(denoised, x, two_thirds / sigma).add_(at_third - denoised, alpha=weight)
    at_two_thirds = denoise(inner, two_thirds)
    weight = 1.5 * (math.expm1(-h) + h) / h
    return torch.lerp(denoised, x, math.exp(-h)).add_(at_two_thirds - denoised, alpha=weight)


def dpm_2m_sde(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
    eta: float = 1.0,
) -> Tensor:
    """The SDE form of 2M; ``eta`` scales the noise, 0 gives :func:`dpm_2m`. Linear data: as ancestral sampling."""
    stochastic = _required(noise, "dpm_2m_sde") if eta else None
    old, old_h = None, 0.0
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        denoised = _evaluate(denoise, x, i, sigma, callback)
        ahead, h = denoised, _width(sigma, following)
        if old is not None and following:
            ahead = torch.lerp(denoised, old, -h / (2 * old_h))
        x = torch.lerp(ahead, x, (following / sigma) ** (1 + eta))
        if stochastic is not None and following:
            x = x.add_(stochastic(i), alpha=following * math.sqrt(-math.expm1(-2 * eta * h)))
        old, old_h = denoised, h
    return x


def renoise(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """All noise is removed, and fresh noise of the next level added."""
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        x = _evaluate(denoise, x, i, sigma, callback)
        if following:
            x = torch.add(x, _required(noise, "renoise")(i), alpha=following)
    return x


SAMPLERS: Mapping[str, Sampler] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "euler": euler,
    "euler-ancestral": euler_ancestral,
    "heun": heun,
    "edm": edm,
    "dpm++2m": dpm_2m,
    "dpm++3m": dpm_3m,
    "dpm++2m-sde": dpm_2m_sde,
    "renoise": renoise,
}


def evaluations(name: str, steps: int) -> int:
    """Calls of ``denoise`` for ``steps`` steps that end at 0."""
    if name in ("heun", "edm"):
        return 2 * steps - 1
    return steps + 2 * min(2, steps - 1) if name == "dpm++3m" else steps


def _evaluate(denoise: Denoise, x: Tensor, step: int, sigma: float, callback: Callback | None) -> Tensor:
    denoised = denoise(x, sigma)
    if callback is not None:
        callback(step, sigma, x, denoised)
    return denoised


def _width(sigma: float, following: float) -> float:
    """Width of a step in log sigma."""
    return math.log(sigma / following) if following else math.inf


def _required(noise: Noise | None, who: str) -> Noise:
    if noise is None:
        raise ValueError(f"{who} needs noise")
    return noise
