"""What a step of a sampler costs besides the network, beside the schedulers of diffusers.

The network is replaced by a constant prediction of the noise. Ours includes the scaling of its input and the way from
its prediction to the denoised example; theirs is ``scale_model_input`` and ``step``. Noise is not counted on either
side: ours gets a tensor that is there, and the time of drawing one is taken off theirs.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.harness import Options, Row, Timing, alternate
from castalia.models.diffusion import samplers, schedules

PAIRS = (
    ("ddpm", "DDPMScheduler", {}),
    ("ddim", "DDIMScheduler", {"clip_sample": False}),
    ("euler", "EulerDiscreteScheduler", {}),
    ("heun", "HeunDiscreteScheduler", {}),
    ("dpm++2m", "DPMSolverMultistepScheduler", {}),
    ("dpm++3m", "DPMSolverMultistepScheduler", {"solver_order": 3}),
    ("dpm++2m-sde", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    ("euler-ancestral", "EulerAncestralDiscreteScheduler", {}),
)
STOCHASTIC = {"ddpm", "dpm++2m-sde", "euler-ancestral"}

REPEATS = 20
"""Samplings of one timing: a single one takes a millisecond, of which the start of the clock would be a part."""


def repeated(run: Callable[[], object]) -> Callable[[], object]:
    """The same, :data:`REPEATS` times."""

    def runs() -> None:
        for _ in range(REPEATS):
            run()

    return runs


def ours(name: str, x: Tensor, eps: Tensor, steps: int) -> tuple[Callable[[], object], int]:
    """A run of our sampler, and how many evaluations it makes."""
    process = schedules.Discrete.of(schedules.linear_betas(1000))
    sigmas = schedules.grid(process, steps, "leading")
    start = x * math.sqrt(1 + sigmas[0] ** 2)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        _ = x * (1 / math.sqrt(1 + sigma * sigma))  # what the network would see
        return torch.add(x, eps, alpha=-sigma)

    def run() -> None:
        with torch.inference_mode():
            samplers.SAMPLERS[name](denoise, start, sigmas, noise=lambda step: eps)

    return run, samplers.evaluations(name, steps)


def theirs(
    name: str, options: dict[str, object], x: Tensor, eps: Tensor, steps: int
) -> tuple[Callable[[], object], int]:
    """The same with a scheduler of diffusers, which draws its own random numbers."""
    import diffusers

    scheduler = getattr(diffusers, name)(**options)

    def run() -> None:
        with torch.inference_mode():
            scheduler.set_timesteps(steps)
            state = x * float(scheduler.init_noise_sigma)
            for t in scheduler.timesteps:
                scheduler.scale_model_input(state, t)
                state = scheduler.step(eps, t, state).prev_sample

    scheduler.set_timesteps(steps)
    return run, len(scheduler.timesteps)


def noise_cost(x: Tensor) -> float:
    """Seconds of drawing one tensor of noise."""
    times = []
    for _ in range(200):
        started = time.perf_counter()
        torch.randn(x.shape)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def rows(options: Options) -> Iterator[Row]:
    """Each sampler at 16 pictures of 3 x 32 x 32 and at one of 4 x 64 x 64."""
    steps = 10 if options.quick else 50
    for shape in ((16, 3, 32, 32), (1, 4, 64, 64)):
        x, eps = torch.randn(shape), 0.1 * torch.randn(shape)
        noise = noise_cost(x)
        for name, scheduler, settings in PAIRS:
            (mine, evaluations), (other, calls) = ours(name, x, eps, steps), theirs(scheduler, settings, x, eps, steps)
            timing = alternate(repeated(mine), repeated(other), options.rounds)
            drawn = REPEATS * noise * steps if name in STOCHASTIC else 0.0
            # per evaluation, since the two may need different numbers of them
            less = Timing(timing.ours, tuple(_scaled(b, evaluations / calls, drawn) for b in timing.theirs))
            row = less.row(
                "samplers",
                f"{name}, {shape[0]} of {shape[1]}x{shape[2]}x{shape[3]}, {steps} steps",
                f"diffusers {scheduler}",
                target=0.25,
                direction="at most",
                inverse=True,
                per=REPEATS * evaluations,
                unit="us",
            )
            yield replace(row, note="share of their cost of an evaluation")


def _scaled(times: tuple[float, float], factor: float, less: float) -> tuple[float, float]:
    wall, cpu = times
    return (wall - less) * factor, (cpu - less) * factor
