"""Noise for the stages of systems that are more than one diffusion: a process, its loss, and sampling from it.

The schedules, samplers and variables are those of the diffusion family (``models/diffusion``): x = x0 + sigma eps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from castalia.core.data import Batch
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Preview, Watch
from castalia.models.diffusion import schedules
from castalia.models.diffusion.drawing import DrawingOptions
from castalia.models.diffusion.samplers import SAMPLERS, Denoise
from castalia.models.diffusion.schedules import Prediction, Schedule

Call = Callable[[Tensor, Tensor], Tensor]
"""(scaled noisy x (B, ...), times (B,)) -> what is predicted, shaped like x."""


@dataclass(frozen=True)
class ProcessConfig:
    """A process in discrete time.

    Attributes:
        timesteps: T.
        schedule: of the betas.
        prediction: what the network predicts.
    """

    timesteps: int = 1000
    schedule: Schedule = "cosine"
    prediction: Prediction = "eps"

    def __post_init__(self) -> None:
        if not 2 <= self.timesteps <= 100_000:
            raise ValueError("timesteps must be 2 to 100,000")


class Process:
    """Noise levels, and what follows from them."""

    def __init__(self, config: ProcessConfig) -> None:
        self.config, self.table = config, schedules.process_of(config.schedule, config.timesteps)
        self.sigmas = torch.from_numpy(self.table.sigmas).float()

    def loss(self, call: Call, x0: Tensor, rng: Rng) -> Tensor:
        """Mean squared error of the prediction per value, (B,), at evenly drawn times."""
        eps, times = rng.normal("noise", *x0.shape[1:]), rng.integers("time", len(self.table))
        sigma = self.sigmas.to(x0.device)[times].view(-1, *[1] * (x0.ndim - 1))
        inner = schedules.scalings(self.config.prediction, sigma)[2]
        output = call(inner * (x0 + sigma * eps), times.float()).float()
        return (output - schedules.target(self.config.prediction, x0, eps, sigma)).square().flatten(1).mean(1)

    def denoise(self, call: Call, settle: Callable[[Tensor], Tensor] | None = None) -> Denoise:
        """The network as a denoise function; ``settle`` is applied to what it returns."""

        def denoise(x: Tensor, sigma: float) -> Tensor:
            wide = torch.tensor(sigma, dtype=torch.float64)
            skip, out, inner = (float(v) for v in schedules.scalings(self.config.prediction, wide))
            time = torch.full((len(x),), self.table.time(sigma), device=x.device)
            denoised = skip * x + out * call((inner * x).float(), time).to(x.dtype)
            return denoised if settle is None else settle(denoised)

        return denoise

    def levels(self, options: DrawingOptions, strength: float = 1.0) -> list[float]:
        """Noise levels of a sampling that starts at a share ``strength`` of the steps."""
        return schedules.levels(self.table, options.steps, options.grid, strength)

    def draw(
        self,
        denoise: Denoise,
        start: Tensor,
        levels: list[float],
        options: Any,
        rng: SampleRng,
        *,
        show: Callable[[Tensor], Batch] | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Run the options' sampler from ``start``, which has the noise of the first level."""

        def noise(step: int) -> Tensor:
            return options.temperature * rng.at("step", step).normal("noise", *start.shape[1:])

        def callback(step: int, sigma: float, state: Tensor, denoised: Tensor) -> None:
            if watch is not None and show is not None:
                shown = show
                watch(Preview(step + 1, len(levels) - 1, lambda: shown(denoised)))

        own = options.own()
        if options.sampler == "ddpm":
            own["variance"] = 0.0
        return SAMPLERS[options.sampler](denoise, start, levels, noise=noise, callback=callback, **own)


def guided(call: Call, plain: Call, scale: float) -> Call:
    """The mix of two predictions (Ho & Salimans 2022); a scale of 1 asks the first one alone."""
    if scale == 1:
        return call

    def both(x: Tensor, time: Tensor) -> Tensor:
        without = plain(x, time)
        return without + scale * (call(x, time) - without)

    return both


@dataclass(frozen=True)
class WordsDrawing(DrawingOptions):
    """How pictures are drawn; see :class:`castalia.models.diffusion.drawing.DrawingOptions`.

    Attributes:
        sampler: of the diffusion family.
        steps: of the sampler.
        grid: of the noise levels.
        guidance: scale of classifier-free guidance by caption or class; 1 is the plain conditional model.
    """

    sampler: Literal["ddpm", "ddim", "euler", "euler-ancestral", "heun", "dpm++2m", "dpm++3m", "dpm++2m-sde"] = (
        "dpm++2m"
    )
    steps: int = 16
    grid: Literal["leading", "trailing", "linspace", "karras", "log", "logistic"] = "logistic"
    guidance: float = 2.0
