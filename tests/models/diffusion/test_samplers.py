"""Samplers against closed forms, and their orders of convergence on a mixture whose score is known."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from castalia.models.diffusion import samplers, schedules
from castalia.models.diffusion.samplers import SAMPLERS, evaluations
from tests.models.diffusion.mixture import Mixture, noise_source

LOW, HIGH = 0.002, 80.0
MIXTURE = Mixture()


def grid(steps: int, make=schedules.logistic_sigmas) -> list[float]:
    return make(steps + 1, LOW, HIGH)[:-1]


@pytest.fixture(scope="module")
def start() -> Tensor:
    return HIGH * torch.randn(300, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.fixture(scope="module")
def truth(start: Tensor) -> Tensor:
    """Where the probability flow leads: 1,000 steps of fourth order."""
    return MIXTURE.flow(start, grid(1000))


def error(name: str, start: Tensor, truth: Tensor, steps: int, make=schedules.logistic_sigmas) -> float:
    """Root mean square distance of the end points from the truth."""
    ends = SAMPLERS[name](MIXTURE.denoise, start, grid(steps, make))
    return float((ends - truth).square().sum(1).mean().sqrt())


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("dpm++2m", 2), ("dpm++3m", 3)])
@pytest.mark.parametrize("make", [schedules.karras_sigmas, schedules.logistic_sigmas], ids=["karras", "logistic"])
def test_order_of_convergence(name: str, order: int, make, start: Tensor, truth: Tensor) -> None:
    """Slope of log error against log steps, over three doublings, within 0.25 of the order."""
    steps = [64, 128, 256, 512]
    errors = [error(name, start, truth, n, make) for n in steps]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.25), errors


def test_few_steps_of_high_order_replace_many_of_low_order(start: Tensor, truth: Tensor) -> None:
    """2M at 20 evaluations is as close as Euler at 256, 3M at 50 closer than Euler at 1,000."""
    calls = 0

    def counted(x: Tensor, sigma: float) -> Tensor:
        nonlocal calls
        calls += 1
        return MIXTURE.denoise(x, sigma)

    def distance(ends: Tensor) -> float:
        return float((ends - truth).square().sum(1).mean().sqrt())

    second = distance(SAMPLERS["dpm++2m"](counted, start, grid(20)))
    assert calls == 20
    third = distance(SAMPLERS["dpm++3m"](counted, start, grid(46)))
    assert calls == 20 + 50
    for make in (schedules.logistic_sigmas, schedules.karras_sigmas):
        assert second <= error("euler", start, truth, 256, make)
        assert third < error("euler", start, truth, 1000, make)


def circulating_3m(denoise, x: Tensor, sigmas: list[float]) -> Tensor:
    """DPM-Solver++(3M) with the weight of the quadratic term, and the start-up, that other libraries have."""
    history: list[tuple[Tensor, float]] = []
    for sigma, following in pairwise(sigmas):
        d, h = denoise(x, sigma), math.log(sigma / following)
        e = math.expm1(-h)
        x = following / sigma * x - e * d
        if len(history) == 1:
            x = x - 0.5 * e * (d - history[0][0]) * h / history[0][1]
        elif history:
            (one, h1), (two, h2) = history
            first, second = (d - one) * h / h1, (one - two) * h / h2
            slope = first + h1 / (h1 + h2) * (first - second)
            x = x + (e / h + 1) * slope - ((e + h) / h**2 - 0.5) * (first - second) * h / (h1 + h2)
        history = [(d, h), *history[:1]]
    return x


def test_what_circulates_as_3m_is_of_second_order(start: Tensor, truth: Tensor) -> None:
    """A divided difference is half a second derivative, but there it meets the weight of a whole one."""
    steps = [512, 1024, 2048]
    errors = [
        float((circulating_3m(MIXTURE.denoise, start, grid(n)) - truth).square().sum(1).mean().sqrt()) for n in steps
    ]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(2, abs=0.25), errors
    assert error("dpm++3m", start, truth, 512) < errors[0] / 5


def test_third_order_weights_integrate_quadratics_exactly() -> None:
    """Where the denoised example is a parabola in log sigma, the multistep step has no error at all."""

    def parabola(x: Tensor, sigma: float) -> Tensor:
        t = -math.log(sigma)
        return torch.full_like(x, 1 + 0.3 * t - 0.2 * t * t)

    def exact(x: Tensor, a: float, b: float) -> Tensor:
        t, h = -math.log(a), math.log(a / b)
        d, d1, d2 = 1 + 0.3 * t - 0.2 * t * t, 0.3 - 0.4 * t, -0.4
        e = 1 - math.exp(-h)
        return math.exp(-h) * x + e * d + (h - e) * d1 + (h * h / 2 - h + e) * d2

    sigmas = [7.0, 3.0, 2.5, 0.9, 0.2, 0.15]
    x = torch.tensor([0.3, -4.0], dtype=torch.float64)
    seen: list[Tensor] = []
    samplers.dpm_3m(parabola, x, sigmas, callback=lambda i, sigma, state, d: seen.append(state))
    ends = [*seen[1:], samplers.dpm_3m(parabola, x, sigmas)]
    for i in (2, 3, 4):
        torch.testing.assert_close(ends[i], exact(seen[i], sigmas[i], sigmas[i + 1]), rtol=1e-12, atol=1e-12)


# Gaussian data: every sampler is an affine map


MEAN, STD = 0.7, 0.6


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """Denoiser of N(MEAN, STD^2)."""
    return MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN)


def affine(name: str, sigmas: list[float], **own: float) -> tuple[float, float, list[float]]:
    """Offset, gain of the start, and gain of each step's noise: x -> offset + gain x + sum of gains z."""

    steps = len(sigmas) - 1
    x = torch.zeros(steps + 2, dtype=torch.float64)  # nothing; the start alone; each step's noise alone
    x[1] = 1.0
    noise = lambda i: torch.nn.functional.one_hot(torch.tensor(i + 2), steps + 2).double()  # noqa: E731
    ends = SAMPLERS[name](gaussian, x, sigmas, noise=noise, **own)
    return float(ends[0]), float(ends[1] - ends[0]), (ends[2:] - ends[0]).tolist()


@pytest.mark.parametrize("variance", [0.0, 0.4, 1.0])
def test_ddpm_recursion_for_gaussian_data(variance: float) -> None:
    """Mean and variance of the samples, by Ho et al.'s equations in variance-preserving units, within 1e-10."""
    process = schedules.Discrete.of(schedules.linear_betas(60, 1e-3, 0.2))
    mean, spread = 0.0, 1.0
    for t in reversed(range(len(process))):
        bar, beta = process.alpha_bars[t], process.betas[t]
        before = process.alpha_bars[t - 1] if t else 1.0
        # E[x0 | x_t] of Gaussian data, then eq. 7
        pull = math.sqrt(bar) * STD**2 / (bar * STD**2 + 1 - bar)
        of_x0 = math.sqrt(before) * beta / (1 - bar)
        of_xt = math.sqrt(1 - beta) * (1 - before) / (1 - bar)
        mean = of_x0 * (MEAN + pull * (mean - math.sqrt(bar) * MEAN)) + of_xt * mean
        small = (1 - before) / (1 - bar) * beta
        fresh = small ** (1 - variance) * beta**variance if t else 0.0
        spread = (of_x0 * pull + of_xt) ** 2 * spread + fresh
    sigmas = [float(s) for s in process.sigmas[::-1]] + [0.0]
    offset, gain, gains = affine("ddpm", sigmas, variance=variance)
    width = math.sqrt(1 + sigmas[0] ** 2)  # of N(0, I) in the variance-exploding picture
    assert offset == pytest.approx(mean, abs=1e-10)
    assert (gain * width) ** 2 + sum(g * g for g in gains) == pytest.approx(spread, rel=1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_recursion_for_gaussian_data(eta: float) -> None:
    """Song et al., eq. 12 and 16, in variance-preserving units, within 1e-10."""
    process = schedules.Discrete.of(schedules.cosine_betas(200))
    times = schedules.timesteps(200, 20, "trailing")
    mean, spread = 0.0, 1.0
    for t, after in zip(times, [*times[1:], None], strict=True):
        bar = process.alpha_bars[t]
        before = 1.0 if after is None else process.alpha_bars[after]
        pull = math.sqrt(bar) * STD**2 / (bar * STD**2 + 1 - bar)
        fresh = eta * math.sqrt((1 - before) / (1 - bar) * (1 - bar / before))
        along = math.sqrt(1 - before - fresh**2)
        x0 = (MEAN * (1 - math.sqrt(bar) * pull), pull)
        eps = (-math.sqrt(bar) * x0[0] / math.sqrt(1 - bar), (1 - math.sqrt(bar) * pull) / math.sqrt(1 - bar))
        mean = math.sqrt(before) * (x0[0] + x0[1] * mean) + along * (eps[0] + eps[1] * mean)
        spread = (math.sqrt(before) * x0[1] + along * eps[1]) ** 2 * spread + fresh**2
    sigmas = schedules.grid(process, 20, "trailing")
    offset, gain, gains = affine("ddim", sigmas, eta=eta)
    assert offset == pytest.approx(mean, abs=1e-10)
    width = math.sqrt(1 + sigmas[0] ** 2)
    assert (gain * width) ** 2 + sum(g * g for g in gains) == pytest.approx(spread, rel=1e-10)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "euler", "euler-ancestral", "heun", "edm", "dpm++2m", "dpm++2m-sde"])
def test_gaussian_data_come_out_right_with_many_steps(name: str) -> None:
    """Mean and variance within 2 % at 1,000 steps, whatever the sampler."""
    offset, gain, gains = affine(
        name, schedules.karras_sigmas(1000, LOW, HIGH), **({"inflate": 1.0} if name == "edm" else {})
    )
    assert offset == pytest.approx(MEAN, abs=0.01)
    assert (gain * HIGH) ** 2 + sum(g * g for g in gains) == pytest.approx(STD**2, rel=0.02)


# relations between samplers


def test_ancestral_samplers_are_one_family(start: Tensor) -> None:
    """DDPM with the posterior's variance, DDIM with eta = 1 and Euler ancestral agree step by step (1e-12)."""
    x, sigmas = start[:20], schedules.karras_sigmas(15, LOW, HIGH)
    noise = noise_source(3, x)
    one = samplers.ddpm(MIXTURE.denoise, x, sigmas, noise=noise)
    for other in (
        samplers.ddim(MIXTURE.denoise, x, sigmas, noise=noise, eta=1.0),
        samplers.euler_ancestral(MIXTURE.denoise, x, sigmas, noise=noise),
    ):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)
    deterministic = samplers.dpm_2m_sde(MIXTURE.denoise, x, sigmas, eta=0.0)
    torch.testing.assert_close(deterministic, samplers.dpm_2m(MIXTURE.denoise, x, sigmas), rtol=1e-12, atol=1e-12)
    quiet = samplers.edm(MIXTURE.denoise, x, sigmas, churn=0.0)
    torch.testing.assert_close(quiet, samplers.heun(MIXTURE.denoise, x, sigmas), rtol=0, atol=0)


def test_learned_variance_is_asked_for_after_each_evaluation(start: Tensor) -> None:
    x, sigmas = start[:20], schedules.karras_sigmas(8, LOW, HIGH)
    order: list[str] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        order.append("denoise")
        return MIXTURE.denoise(x, sigma)

    def fraction() -> Tensor:
        order.append("fraction")
        return torch.full((20, 1), 0.3, dtype=torch.float64)

    learned = samplers.ddpm(denoise, x, sigmas, noise=noise_source(3, x), variance=fraction)
    assert order == ["denoise", "fraction"] * 7 + ["denoise"], "the last step adds no noise"
    fixed = samplers.ddpm(MIXTURE.denoise, x, sigmas, noise=noise_source(3, x), variance=0.3)
    torch.testing.assert_close(learned, fixed, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["ddpm", "edm", "dpm++2m-sde"])
def test_stochastic_samplers_reproduce_the_moments_of_the_mixture(name: str) -> None:
    """Mean and covariance of 20,000 samples within about 4 standard errors (0.03 and 0.04)."""
    n = 20_000
    x = HIGH * torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own = {"inflate": 1.0, "churn": 10.0} if name == "edm" else {}
    steps = {"ddpm": 400, "edm": 50, "dpm++2m-sde": 100}[name]
    ends = SAMPLERS[name](
        MIXTURE.denoise, x, schedules.logistic_sigmas(steps, LOW, HIGH), noise=noise_source(1, x), **own
    )
    mean, covariance = MIXTURE.moments()
    assert (ends.mean(0) - mean).abs().max() < 0.03
    assert (ends.T.cov() - covariance).abs().max() < 0.04


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_batch_equals_its_singles_and_counts_its_evaluations(name: str, start: Tensor) -> None:
    """Eight with streams of their own equal eight alone (1e-12); callbacks and evaluations are as documented."""
    x, sigmas = start[:8], schedules.karras_sigmas(12, LOW, HIGH)
    z = noise_source(2, x)
    steps: list[int] = []
    calls = 0

    def denoise(x: Tensor, sigma: float) -> Tensor:
        nonlocal calls
        calls += 1
        return MIXTURE.denoise(x, sigma)

    whole = SAMPLERS[name](denoise, x, sigmas, noise=z, callback=lambda i, sigma, state, d: steps.append(i))
    assert steps == list(range(12))
    assert calls == evaluations(name, 12)
    for i in range(8):
        alone = SAMPLERS[name](MIXTURE.denoise, x[i : i + 1], sigmas, noise=lambda step, i=i: z(step)[i : i + 1])
        torch.testing.assert_close(alone, whole[i : i + 1], rtol=1e-12, atol=1e-12)
    for few in (1, 2, 3):
        calls = 0
        SAMPLERS[name](denoise, x, schedules.karras_sigmas(few, LOW, HIGH), noise=z)
        assert calls == evaluations(name, few)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_last_step_to_zero_returns_the_denoised_example(name: str, start: Tensor) -> None:
    """And the given x is not changed in place; a callback that raises ends the sampling."""
    x = start[:8].clone()
    kept: list[Tensor] = []
    z = noise_source(2, x)
    out = SAMPLERS[name](MIXTURE.denoise, x, [5.0, 0.4, 0.0], noise=z, callback=lambda i, s, y, d: kept.append(d))
    assert torch.equal(out, kept[-1])
    assert torch.equal(x, start[:8])

    def stop(step: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SAMPLERS[name](MIXTURE.denoise, x, [5.0, 0.4, 0.0], noise=z, callback=stop)


def test_noise_is_required_where_it_is_used(start: Tensor) -> None:
    for name, own in (("ddpm", {}), ("ddim", {"eta": 0.5}), ("edm", {}), ("dpm++2m-sde", {})):
        with pytest.raises(ValueError, match="needs noise"):
            SAMPLERS[name](MIXTURE.denoise, start, [5.0, 0.0], **own)
