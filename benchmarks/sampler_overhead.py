"""What a sampler costs besides the network: microseconds per step, beside the schedulers of diffusers.

    python benchmarks/sampler_overhead.py [--batch 16] [--size 32] [--steps 50]

The network is replaced by a constant prediction of the noise. Ours includes the scaling of its input and the way from
its prediction to the denoised example; theirs is ``scale_model_input`` and ``step``. Both run in turn on one thread,
and the fastest of several rounds is printed. diffusers has to be installed.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

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


def ours(name: str, x: Tensor, eps: Tensor, steps: int) -> tuple[Callable[[], object], int]:
    """A run of our sampler, and how many evaluations it makes."""
    process = schedules.Discrete.of(schedules.linear_betas(1000))
    sigmas = schedules.grid(process, steps, "leading")
    start = x * math.sqrt(1 + sigmas[0] ** 2)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        _ = x * (1 / math.sqrt(1 + sigma * sigma))  # what the network would see
        return torch.add(x, eps, alpha=-sigma)

    noise = lambda step: eps  # noqa: E731
    return lambda: samplers.SAMPLERS[name](denoise, start, sigmas, noise=noise), samplers.evaluations(name, steps)


def theirs(
    name: str, options: dict[str, object], x: Tensor, eps: Tensor, steps: int
) -> tuple[Callable[[], object], int]:
    """The same with a scheduler of diffusers, which draws its own random numbers."""
    import diffusers

    scheduler = getattr(diffusers, name)(**options)

    def run() -> None:
        scheduler.set_timesteps(steps)
        state = x * float(scheduler.init_noise_sigma)
        for t in scheduler.timesteps:
            scheduler.scale_model_input(state, t)
            state = scheduler.step(eps, t, state).prev_sample

    scheduler.set_timesteps(steps)
    return run, len(scheduler.timesteps)


def noise_cost(x: Tensor) -> float:
    """Microseconds of drawing one tensor of noise, which theirs does inside."""
    times = []
    for _ in range(50):
        started = time.perf_counter()
        torch.randn(x.shape)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    shape = (options.batch, 3, options.size, options.size)
    x, eps = torch.randn(shape), 0.1 * torch.randn(shape)
    stochastic = {"ddpm", "dpm++2m-sde", "euler-ancestral"}
    noise = noise_cost(x)
    print(f"{tuple(shape)}, {options.steps} steps, one thread; microseconds per evaluation, best of {options.rounds}")
    print(f"{'sampler':18}{'castalia':>10}{'diffusers':>11}{'share':>8}   (their noise, {noise:.0f} us, left out)")
    with torch.inference_mode():
        for name, scheduler, settings in PAIRS:
            runs = ours(name, x, eps, options.steps), theirs(scheduler, settings, x, eps, options.steps)
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(options.rounds + 1):
                for (run, evaluations), kept in zip(runs, times, strict=True):
                    started = time.perf_counter()
                    run()
                    kept.append((time.perf_counter() - started) / evaluations * 1e6)
            mine, other = (min(t[1:]) for t in times)
            other -= noise if name in stochastic else 0
            print(f"{name:18}{mine:10.1f}{other:11.1f}{mine / other:8.2f}")


if __name__ == "__main__":
    main()
