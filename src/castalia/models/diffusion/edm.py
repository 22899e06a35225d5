"""Diffusion in continuous noise levels, preconditioned.

Papers
    Karras, Aittala, Aila & Laine 2022, "Elucidating the Design Space of Diffusion-Based Generative Models"
    (arXiv:2206.00364): preconditioning, noise distribution and weights (table 1), the rho grid (eq. 5), Heun's method
    (algorithm 1) and its stochastic form (algorithm 2).
    Ho & Salimans 2022: dropped labels.

The network F sees x = x0 + sigma eps through

    D(x, sigma) = m + c_skip (x - m) + c_out F(c_in (x - m), ln(sigma) / 4),

and is trained with ln sigma ~ N(P_mean, P_std^2) and weights 1 / c_out^2, so that its own target has variance 1 and
every level counts alike at the start. In the paper m is 0, and the deviation of the data 0.5. Where the deviation is
measured, so is the mean that it is measured about, m: dark pictures of little contrast would otherwise be far from all
that the network can reach through c_out.

The likelihood is that of its probability flow; see continuous.py.

What differs, and why
    With sinusoidal features the network is told 250 ln(sigma): features made for whole step numbers up to 1,000 would
    hardly tell ln(sigma) / 4 apart, which lies between -1.6 and 1.1. With Fourier features it is told ln(sigma) / 4.
    Without the augmentation of the paper. The state of the samplers is float32, not float64.

Expected: see ``recipes/diffusion.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from castalia.core.data import Batch, Dataset
from castalia.core.model import Logs, Model, Objective, Progress, Stage
from castalia.core.rng import Rng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.diffusion import schedules
from castalia.models.diffusion.continuous import Continuous, ContinuousConfig
from castalia.models.diffusion.drawing import Denoiser, DrawingOptions
from castalia.nn.units import Units, units_of

Call = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Scaled noisy examples (B, ...), times (B,) and labels ``int64`` (B,) or None to the network's output."""


@dataclass(frozen=True)
class EDMConfig(ContinuousConfig):
    """Configuration of preconditioned continuous diffusion.

    Attributes:
        data_std: deviation of the data in the model's units, about ``data_mean``; 0 measures it before training.
        data_mean: mean of the data in the model's units; 0, with ``data_std`` 0 as well, measures that of pictures
            (points are standardised). Runs that were made without it have 0.
        noise_mean: P_mean, mean of ln sigma in training.
        noise_std: P_std, its deviation.
    """

    data_std: float = 0.0
    data_mean: float = 0.0
    noise_mean: float = -1.2
    noise_std: float = 1.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data_std < 0 or self.noise_std <= 0:
            raise ValueError("data_std must not be negative, noise_std must be positive")


@dataclass(frozen=True)
class EDMOptions(DrawingOptions):
    """How examples are drawn; see :class:`castalia.models.diffusion.drawing.DrawingOptions`.

    Attributes:
        sampler: ``edm`` is Heun's method with added noise.
        steps: of Heun's method: 2 steps - 1 evaluations.
        grid: of the noise levels.
        rho: of the grid ``karras``.
        churn: ``edm``: S_churn.
        churn_low: ``edm``: S_tmin.
        churn_high: ``edm``: S_tmax.
        inflate: ``edm``: S_noise.
        clip: keep denoised pictures among the pictures that there are: clipped, and near the noiseless end rounded.
    """

    sampler: Literal["heun", "edm", "ddpm", "ddim", "euler", "euler-ancestral", "dpm++2m", "dpm++3m", "dpm++2m-sde"] = (
        "heun"
    )
    steps: int = 18
    grid: Literal["karras", "log", "logistic"] = "karras"
    rho: float = 7.0
    churn: float = 40.0
    churn_low: float = 0.05
    churn_high: float = 50.0
    inflate: float = 1.003
    clip: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rho <= 0 or min(self.churn, self.churn_low, self.churn_high, self.inflate) < 0:
            raise ValueError("rho must be positive; churn, churn_low, churn_high and inflate not negative")

    def own(self) -> dict[str, Any]:
        """The options that the chosen sampler takes."""
        if self.sampler != "edm":
            return super().own()
        names = ("churn", "churn_low", "churn_high", "inflate")
        return {name: getattr(self, name) for name in names}


class EDM(Continuous[EDMConfig]):
    """dx / dsigma = (x - D(x, sigma)) / sigma, from N(0, sigma_max^2) down to 0."""

    Config = EDMConfig
    SampleOptions = EDMOptions
    data_std: Tensor

    def __init__(self, config: EDMConfig, spec: ImageSpec | PointsSpec) -> None:
        super().__init__(config, spec, 1)
        fourier = isinstance(spec, ImageSpec) and config.unet.time == "fourier"
        self.time_scale = 0.25 if fourier else 250.0
        self.register_buffer("data_std", torch.tensor(config.data_std or 0.5))

    @classmethod
    def complete(cls, config: EDMConfig, data: Dataset) -> EDMConfig:
        """Measure the mean of pictures, where their deviation is going to be measured as well."""
        return config if config.data_std else replace(config, data_mean=measured_mean(config.data_mean, data))

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Find the values that pictures hold (or mean and deviation of points), labels' rates, and the deviation."""
        super().initialise(data, rng, parents)
        if not self.config.data_std:
            self.data_std.fill_(measured_deviation(self.units, data, self.config.data_mean))

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("diffusion", self.network, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Weighted squared error of the denoised example, which is that of F against a target of variance 1."""
        return self.denoising_loss(self.network, self.time_scale, batch, rng)

    def denoising_loss(self, network: Call, time_scale: float, batch: Batch, rng: Rng) -> tuple[Tensor, Logs]:
        """:meth:`loss` with ``network`` as F, which is told ``time_scale`` ln sigma."""
        c = self.config
        x0, eps = self.units.inward(batch.x) - c.data_mean, rng.normal("noise", *self.spec.shape)
        sigma = torch.exp(c.noise_mean + c.noise_std * rng.normal("sigma")).view(-1, *[1] * (x0.ndim - 1))
        skip, out, inner = schedules.edm_scalings(sigma, float(self.data_std))
        x = x0 + sigma * eps
        time = time_scale * sigma.flatten().log()
        output = network(inner * x, time, self.labels.for_training(batch, rng)).float()
        error = (output - (x0 - skip * x) / out).square().flatten(1).mean(1)
        mse = (out**2).flatten() * error.detach()
        return error.mean(), {"mse": mse.mean()}

    # what it can do

    @property
    def mean(self) -> float:
        return self.config.data_mean

    def denoiser(self, label: Tensor | None, clip: bool) -> Denoiser:
        std = float(self.data_std)

        def scalings(sigma: float) -> tuple[float, float, float, float]:
            total = sigma * sigma + std * std
            inner = 1 / math.sqrt(total)
            return std * std / total, sigma * std * inner, inner, self.time_scale * math.log(sigma)

        units, mean = self.units if clip else None, self.config.data_mean
        return Denoiser(self.network, scalings, label=label, units=units, mean=mean)

    def levels(self, options: EDMOptions, strength: float = 1.0) -> list[float]:
        """Of a sampling that starts at a share ``strength`` of the way up sigma^(1/rho)."""
        c, inverse = self.config, 1 / options.rho
        low, high = c.sigma_min**inverse, c.sigma_max**inverse
        high = c.sigma_max if strength == 1 else (low + strength * (high - low)) ** options.rho
        low = min(c.sigma_min, high / 2)
        if options.grid == "karras":
            return schedules.karras_sigmas(options.steps, low, high, options.rho)
        if options.grid == "log":
            return schedules.log_sigmas(options.steps, low, high)
        return schedules.logistic_sigmas(options.steps, low, high, float(self.data_std))


def measured_mean(given: float, data: Dataset) -> float:
    """Mean of all values of pictures in the model's units, unless one is given; 0 for what is standardised anyway."""
    if given or not isinstance(data.spec, ImageSpec):
        return given
    units = units_of(data.spec)
    units.fit(data)
    return round(units.moments(data)[0], 6)


def measured_deviation(units: Units, data: Dataset, about: float) -> float:
    """Deviation of all values of the data in the model's units, about a mean."""
    mean, square = units.moments(data)
    # pictures that are all alike differ by less than the step between two values
    return max(math.sqrt(max(square - 2 * about * mean + about**2, 0.0)), 1e-3)
