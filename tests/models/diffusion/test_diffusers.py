"""Step by step against the schedulers of diffusers 0.42.1, with the same network and noise; and where they are wrong.

Tolerance 1e-5 on variance-preserving states of order 1. Their tables are float32, in which 1 - abar of the first step has
three digits; the formulas are compared with float64 tables put into their schedulers. The golden sums are those of
diffusers' own tests (tests/schedulers).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from castalia.models.diffusion import samplers, schedules

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

T = 1000
LINEAR = {"num_train_timesteps": T, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
PROCESS = schedules.Discrete.of(schedules.linear_betas(T))
SHAPE = (2, 3, 8, 8)


def scheduler_of(name: str, **options):
    """A scheduler of theirs with our ``float64`` table."""
    scheduler = getattr(diffusers, name)(**LINEAR, **options)
    scheduler.alphas_cumprod = torch.from_numpy(PROCESS.alpha_bars)
    return scheduler


def network(x: Tensor, t: float, prediction="eps") -> Tensor:
    """A smooth stand-in for a trained network: a variance-preserving state to what is predicted."""
    sigma = PROCESS.sigma(t)
    inner = 1 / math.sqrt(1 + sigma**2)
    clean = 1.3 * torch.tanh(0.8 * x + 0.3 * torch.roll(x, 1, -1) + 0.2 * math.cos(t / 90))
    eps = (x / inner - clean) / sigma
    return schedules.target(prediction, clean, eps, torch.tensor(sigma)).to(x.dtype)


class Denoiser:
    """The network in our picture; remembers times that a scheduler rounded otherwise."""

    def __init__(self, times: dict[float, float] | None = None, *, clip: bool = False, prediction="eps") -> None:
        self.times, self.clip, self.prediction = times or {}, clip, prediction

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        t = self.times.get(sigma, PROCESS.time(sigma))
        skip, out, inner = schedules.scalings(self.prediction, torch.tensor(sigma, dtype=torch.float64))
        denoised = float(skip) * x + float(out) * network(float(inner) * x, t, self.prediction)
        return denoised.clamp(-1, 1) if self.clip else denoised


def start(sigma: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A variance-preserving state, and the same in our picture."""
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    return x, x.double() * math.sqrt(1 + sigma**2)


def ours(name: str, denoise, x: Tensor, sigmas: list[float], noise=None, **own) -> list[Tensor]:
    """Variance-preserving states after each step."""
    states: list[Tensor] = []
    record = lambda i, sigma, state, d: states.append(state / math.sqrt(1 + sigma**2))  # noqa: E731
    end = samplers.SAMPLERS[name](denoise, x, sigmas, noise=noise, callback=record, **own)
    return [*states[1:], end / math.sqrt(1 + sigmas[-1] ** 2)]


def shared_noise(count: int, seed: int = 7) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=g) for _ in range(count)]


def close(mine: list[Tensor], theirs: list[Tensor], tolerance: float = 1e-5) -> None:
    assert len(mine) == len(theirs)
    for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        assert float((a - b.double()).abs().max()) < tolerance, f"step {i}"


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddpm(variance: str, prediction: str, clip: bool, spacing: str) -> None:
    scheduler = scheduler_of(
        "DDPMScheduler", variance_type=variance, prediction_type=prediction, clip_sample=clip, timestep_spacing=spacing
    )
    steps, short = 50, {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}[prediction]
    scheduler.set_timesteps(steps)
    sigmas = schedules.grid(PROCESS, steps, spacing)  # type: ignore[arg-type]
    assert [PROCESS.time(s) for s in sigmas[:-1]] == scheduler.timesteps.tolist()
    x, mine = start(sigmas[0])
    noise = shared_noise(steps)
    theirs = []
    for i, t in enumerate(scheduler.timesteps):
        g = torch.Generator().manual_seed(7)
        for _ in range(i):
            torch.randn(SHAPE, generator=g)
        x = scheduler.step(network(x, float(t), short), t, x, generator=g).prev_sample
        theirs.append(x)
    fraction = float(variance == "fixed_large")
    denoise = Denoiser(clip=clip, prediction=short)
    found = ours("ddpm", denoise, mine, sigmas, lambda i: noise[i].double(), variance=fraction)
    if spacing == "trailing" and fraction:
        # their last step is recognised by t = 0; this grid ends at t = 19, and they leave noise on the result
        excess = theirs.pop() - found.pop()
        deviation = math.sqrt(schedules.beta_variance(sigmas[-2], 0.0))
        torch.testing.assert_close(excess, deviation * noise[-1].double(), rtol=1e-4, atol=1e-4)
    close(found, theirs)


def test_ddpm_with_learned_range() -> None:
    scheduler = scheduler_of("DDPMScheduler", variance_type="learned_range", clip_sample=False)
    steps = 100
    scheduler.set_timesteps(steps)
    sigmas = schedules.grid(PROCESS, steps, "leading")
    x, mine = start(sigmas[0])
    noise = shared_noise(steps)
    last: list[Tensor] = []

    def variance(x: Tensor) -> Tensor:
        return torch.tanh(1.5 * torch.roll(x, 1, -2))

    theirs, g = [], torch.Generator().manual_seed(7)
    for t in scheduler.timesteps:
        both = torch.cat([network(x, float(t)), variance(x)], 1)
        x = scheduler.step(both, t, x, generator=g).prev_sample
        theirs.append(x)

    class Both(Denoiser):
        def __call__(self, x: Tensor, sigma: float) -> Tensor:
            last[:] = [(variance(x / math.sqrt(1 + sigma**2)) + 1) / 2]
            return super().__call__(x, sigma)

    found = ours("ddpm", Both(), mine, sigmas, lambda i: noise[i].double(), variance=lambda: last[0])
    close(found, theirs)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddim(eta: float, clip: bool, spacing: str) -> None:
    scheduler = scheduler_of("DDIMScheduler", clip_sample=clip, timestep_spacing=spacing)
    steps = 20
    scheduler.set_timesteps(steps)
    sigmas = schedules.grid(PROCESS, steps, spacing)  # type: ignore[arg-type]
    x, mine = start(sigmas[0])
    noise = shared_noise(steps)
    theirs = []
    for i, t in enumerate(scheduler.timesteps):
        # with clipping: the noise direction from the clipped example, as in the paper's code
        x = scheduler.step(
            network(x, float(t)), t, x, eta=eta, use_clipped_model_output=clip, variance_noise=noise[i]
        ).prev_sample
        theirs.append(x)
    found = ours("ddim", Denoiser(clip=clip), mine, sigmas, lambda i: noise[i].double(), eta=eta)
    close(found, theirs)


def test_ddim_with_linspace_is_right_here_and_wrong_there() -> None:
    """diffusers takes the next step number to be t - T // N, also where the grid's next number is another.

    By the definition of DDIM (Song et al., eq. 12) the state after a step belongs to the step number that is visited
    next. For data that are a single point the truth is known at every step: x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) e.
    """
    steps, point = 10, 0.3
    times = schedules.timesteps(T, steps, "linspace")
    scheduler = scheduler_of("DDIMScheduler", clip_sample=False, timestep_spacing="linspace")
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == times
    e = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bars = PROCESS.alpha_bars
    exact = [math.sqrt(bars[t]) * point + math.sqrt(1 - bars[t]) * e for t in times]

    sigmas = schedules.grid(PROCESS, steps, "linspace")
    found = ours("ddim", lambda x, sigma: torch.full_like(x, point), exact[0] * math.sqrt(1 + sigmas[0] ** 2), sigmas)
    close(found, [*exact[1:], torch.full_like(e, point)], 1e-9)

    wrong = []
    for i, t in enumerate(times):
        step = scheduler.step(e.float(), t, exact[i].float()).prev_sample
        wrong.append(float((step.double() - (exact[i + 1] if i + 1 < steps else point)).abs().max()))
    assert max(wrong[:-1]) > 0.01, "diffusers has mended DDIM's linspace: make this a parity test"


@pytest.mark.parametrize("karras", [False, True])
@pytest.mark.parametrize(
    ("theirs_name", "name"),
    [("EulerDiscreteScheduler", "euler"), ("HeunDiscreteScheduler", "heun")],
)
def test_euler_and_heun(theirs_name: str, name: str, karras: bool) -> None:
    scheduler = scheduler_of(theirs_name, use_karras_sigmas=karras)
    steps = 15
    scheduler.set_timesteps(steps)
    sigmas = [float(s) for s in scheduler.sigmas]
    if name == "heun":  # theirs lists every level between the ends twice
        sigmas = [sigmas[0], *sigmas[1:-1:2], sigmas[-1]]
    assert len(sigmas) == steps + 1
    if karras:
        mine = schedules.karras_sigmas(steps, float(PROCESS.sigmas[0]), float(PROCESS.sigmas[-1]))
        np.testing.assert_allclose(sigmas, mine, rtol=1e-5)
    times = {float(s): float(t) for s, t in zip(scheduler.sigmas, scheduler.timesteps, strict=False)}
    vp, mine = start(sigmas[0])
    x = vp * math.sqrt(1 + sigmas[0] ** 2)  # their state is ours
    theirs, seen = [], 0
    for i, t in enumerate(scheduler.timesteps):
        level = float(scheduler.sigmas[i])
        x = scheduler.step(network(scheduler.scale_model_input(x, t), float(t)), t, x).prev_sample
        if name == "euler" or i % 2 or i == len(scheduler.timesteps) - 1:
            seen += 1
            theirs.append(x / math.sqrt(1 + sigmas[seen] ** 2))
        assert level in times
    close(ours(name, Denoiser(times), mine, sigmas), theirs)


def test_edm_euler() -> None:
    """Their Euler with Karras preconditioning, on Karras' grid."""
    scheduler = diffusers.EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, rho=7.0)
    steps = 18
    scheduler.set_timesteps(steps)
    sigmas = schedules.karras_sigmas(steps, 0.002, 80.0)
    np.testing.assert_allclose(scheduler.sigmas.numpy(), sigmas, rtol=2e-6)
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))

    def inner_network(x: Tensor, log_sigma: float) -> Tensor:
        return torch.tanh(0.8 * x + 0.3 * torch.roll(x, 1, -1) + 0.2 * math.cos(3 * log_sigma))

    x, theirs = noise * 80.0, []
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(inner_network(scheduler.scale_model_input(x, t), 4 * float(t)), t, x).prev_sample
        theirs.append(x / math.sqrt(1 + sigmas[i + 1] ** 2))

    def denoise(x: Tensor, sigma: float) -> Tensor:
        skip, out, inner = schedules.edm_scalings(torch.tensor(sigma, dtype=torch.float64), 0.5)
        return skip * x + out * inner_network(inner * x, math.log(sigma))

    close(ours("euler", denoise, noise.double() * 80.0, sigmas), theirs)


@pytest.mark.parametrize("end", ["zero", "sigma_min"])
@pytest.mark.parametrize("karras", [False, True])
@pytest.mark.parametrize("kind", ["dpmsolver++", "sde-dpmsolver++"])
def test_dpm_2m(kind: str, karras: bool, end: str) -> None:
    scheduler = scheduler_of(
        "DPMSolverMultistepScheduler",
        algorithm_type=kind,
        use_karras_sigmas=karras,
        final_sigmas_type=end,
        lower_order_final=end == "zero",  # a last step to 0 is of first order everywhere
    )
    steps = 20
    scheduler.set_timesteps(steps)
    sigmas = [float(s) for s in scheduler.sigmas]
    times = dict(zip(sigmas, map(float, scheduler.timesteps), strict=False))
    x, mine = start(sigmas[0])
    noise, theirs = shared_noise(steps), []
    for i, t in enumerate(scheduler.timesteps):
        given = {"variance_noise": noise[i]} if kind.startswith("sde") else {}
        x = scheduler.step(network(x, float(t)), t, x, **given).prev_sample
        theirs.append(x)
    if len(set(sigmas)) < len(sigmas):  # Karras' grid already ends at sigma_min: their last step goes nowhere
        sigmas, theirs = sigmas[:-1], theirs[:-1]
    name = "dpm++2m" if kind == "dpmsolver++" else "dpm++2m-sde"
    close(ours(name, Denoiser(times), mine, sigmas, lambda i: noise[i].double()), theirs)


def test_what_circulates_as_3m_is_that_of_diffusers() -> None:
    """So that what test_samplers.py proves about its order is about the real thing."""
    from tests.models.diffusion.test_samplers import circulating_3m

    scheduler = scheduler_of(
        "DPMSolverMultistepScheduler", lower_order_final=False, solver_order=3, final_sigmas_type="sigma_min"
    )
    steps = 20
    scheduler.set_timesteps(steps)
    sigmas = [float(s) for s in scheduler.sigmas]
    times = dict(zip(sigmas, map(float, scheduler.timesteps), strict=False))
    x, mine = start(sigmas[0])
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, float(t)), t, x).prev_sample
    found = circulating_3m(Denoiser(times), mine, sigmas) / math.sqrt(1 + sigmas[-1] ** 2)
    assert float((found - x.double()).abs().max()) < 1e-5


# golden sums of diffusers' own tests, which need no diffusers


def golden_start() -> Tensor:
    x = torch.arange(4 * 3 * 8 * 8).reshape(3, 8, 8, 4) / (4 * 3 * 8 * 8)
    return x.permute(3, 0, 1, 2)


def golden_network(x: Tensor, t: float) -> Tensor:
    return x * t / (t + 1)


def golden(name: str, sigmas: list[float], prediction, clip: bool, noise=None, **own) -> tuple[float, float]:
    def denoise(x: Tensor, sigma: float) -> Tensor:
        skip, out, inner = (float(v) for v in schedules.scalings(prediction, torch.tensor(sigma, dtype=torch.float64)))
        denoised = skip * x + out * golden_network(inner * x, PROCESS.time(sigma))
        return denoised.clamp(-1, 1) if clip else denoised

    x = golden_start().double() * math.sqrt(1 + sigmas[0] ** 2)
    end = samplers.SAMPLERS[name](denoise, x, sigmas, noise=noise, **own)
    return float(end.abs().sum()), float(end.abs().mean())


@pytest.mark.parametrize(("prediction", "total", "mean"), [("eps", 258.9606, 0.3372), ("v", 202.0296, 0.2631)])
def test_golden_ddpm(prediction, total: float, mean: float) -> None:
    g = torch.Generator().manual_seed(0)
    found = golden(
        "ddpm",
        schedules.grid(PROCESS, T, "leading"),
        prediction,
        clip=True,
        noise=lambda i: torch.randn(4, 3, 8, 8, generator=g),
    )
    assert found[0] == pytest.approx(total, abs=1e-2)
    assert found[1] == pytest.approx(mean, abs=1e-3)


def test_golden_ddim() -> None:
    found = golden("ddim", schedules.grid(PROCESS, 10, "leading"), "v", clip=True)
    assert found[0] == pytest.approx(52.5302, abs=1e-2)
    assert found[1] == pytest.approx(0.0684, abs=1e-3)
