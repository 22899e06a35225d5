"""Diffusion in continuous noise levels, preconditioned.

Papers
    Karras, Aittala, Aila & Laine 2022, "Elucidating the Design Space of Diffusion-Based Generative Models"
    (arXiv:2206.00364): preconditioning, noise distribution and weights (table 1), the rho grid (eq. 5), Heun's method
    (algorithm 1) and its stochastic form (algorithm 2).
    Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations" (arXiv:2011.13456):
    the probability flow and its likelihood. Kingma et al. 2021, "Variational Diffusion Models" (arXiv:2107.00630): the
    decoder of noisy pictures. Ho & Salimans 2022: dropped labels.

The network F sees x = x0 + sigma eps through

    D(x, sigma) = m + c_skip (x - m) + c_out F(c_in (x - m), ln(sigma) / 4),

and is trained with ln sigma ~ N(P_mean, P_std^2) and weights 1 / c_out^2, so that its own target has variance 1 and
every level counts alike at the start. In the paper m is 0, and the deviation of the data 0.5. Where the deviation is
measured, so is the mean that it is measured about, m: dark pictures of little contrast would otherwise be far from all
that the network can reach through c_out.

The likelihood of a picture. The flow gives a density of noisy pictures y at the lowest level. With q(y | x) a Gaussian
around x of deviation ``dequantise_sigma``, at which the flow then starts,

    log p(x) >= E_q[log p(y) + log P(x | y) - log q(y | x)],   P(x | y) ~ q(y | x) over all values of a pixel,

a bound. Noise of that kind is what the model was trained on. P(x | y) knows nothing of what the model knows about the
values. At the default, 0.4 of the distance between values, that costs 0.002 nat per value where the density is smooth,
and the more the surer the model is of a value, up to 0.50 nat where it leaves no doubt (0.25 at the ends of the scale).
``dequantise="uniform"`` is what is usual instead: x + u with u uniform on the bin, of which the model knows nothing
where pictures hold few values.
The trace is estimated (Hutchinson), the equation solved in finitely many steps and the density at the highest level
taken to be N(m, sigma_max^2): so the number is called an estimate and not a bound. What twice as many steps of the
solver change is measured on a few examples, and said with the number: at the default of 25 it can be 0.4 nat.

What differs, and why
    With sinusoidal features the network is told 250 ln(sigma): features made for whole step numbers up to 1,000 would
    hardly tell ln(sigma) / 4 apart, which lies between -1.6 and 1.1. With Fourier features it is told ln(sigma) / 4.
    Without the augmentation of the paper. The state of the samplers is float32, not float64.

Expected: see ``recipes/diffusion.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from castalia.core.capabilities import Likelihood
from castalia.core.data import Batch, Dataset
from castalia.core.model import Logs, Model, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Watch
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.diffusion import schedules
from castalia.models.diffusion.base import Diffusion, DiffusionConfig
from castalia.models.diffusion.drawing import Denoiser, DrawingOptions, Job
from castalia.models.diffusion.likelihood import flow_log_density
from castalia.nn.dequantisation import gaussian_dequantisation
from castalia.nn.units import PictureUnits, units_of

CHECKED = 4
"""Examples of a batch whose likelihood is computed with twice the steps as well, to know the error of the solver."""


@dataclass(frozen=True)
class EDMConfig(DiffusionConfig):
    """Configuration of preconditioned continuous diffusion.

    Attributes:
        data_std: deviation of the data in the model's units, about ``data_mean``; 0 measures it before training.
        data_mean: mean of the data in the model's units; 0, with ``data_std`` 0 as well, measures that of pictures
            (points are standardised). Runs that were made without it have 0.
        noise_mean: P_mean, mean of ln sigma in training.
        noise_std: P_std, its deviation.
        sigma_min: lowest noise level of sampling.
        sigma_max: highest noise level.
        flow_steps: likelihood: steps of fourth order, of four evaluations and gradients each.
        probes: likelihood: random vectors for the trace; 0 computes it exactly, for few dimensions.
        dequantise: likelihood of pictures: how values become continuous.
        dequantise_sigma: ``gaussian``: deviation, as a share of the distance between neighbouring values.
    """

    data_std: float = 0.0
    data_mean: float = 0.0
    noise_mean: float = -1.2
    noise_std: float = 1.2
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    flow_steps: int = 25
    probes: int = 1
    dequantise: Literal["gaussian", "uniform"] = "gaussian"
    dequantise_sigma: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data_std < 0 or self.noise_std <= 0:
            raise ValueError("data_std must not be negative, noise_std must be positive")
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError("0 < sigma_min < sigma_max")
        if self.flow_steps < 1 or self.probes < 0 or self.dequantise_sigma <= 0:
            raise ValueError("flow_steps and dequantise_sigma must be positive, probes not negative")


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


class EDM(Diffusion[EDMConfig]):
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
        if config.data_std or config.data_mean or not isinstance(data.spec, ImageSpec):
            return config
        units = units_of(data.spec)
        units.fit(data)
        return replace(config, data_mean=round(units.moments(data)[0], 6))

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Find the values that pictures hold (or mean and deviation of points), labels' rates, and the deviation."""
        super().initialise(data, rng, parents)
        if not self.config.data_std:
            mean, square = self.units.moments(data)
            about = math.sqrt(max(square - 2 * self.config.data_mean * mean + self.config.data_mean**2, 0.0))
            # pictures that are all alike differ by less than the step between two values
            self.data_std.fill_(max(about, 1e-3))

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("diffusion", self.network, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Weighted squared error of the denoised example, which is that of F against a target of variance 1."""
        c = self.config
        x0, eps = self.units.inward(batch.x) - c.data_mean, rng.normal("noise", *self.spec.shape)
        sigma = torch.exp(c.noise_mean + c.noise_std * rng.normal("sigma")).view(-1, *[1] * (x0.ndim - 1))
        skip, out, inner = schedules.edm_scalings(sigma, float(self.data_std))
        x = x0 + sigma * eps
        time = self.time_scale * sigma.flatten().log()
        output = self.network(inner * x, time, self.labels.for_training(batch, rng)).float()
        error = (output - (x0 - skip * x) / out).square().flatten(1).mean(1)
        mse = (out**2).flatten() * error.detach()
        return error.mean(), {"mse": mse.mean()}

    # what it can do

    def _denoiser(self, label: Tensor | None, clip: bool) -> Denoiser:
        """The network as a denoise function of (x, sigma, label)."""
        std = float(self.data_std)

        def scalings(sigma: float) -> tuple[float, float, float, float]:
            total = sigma * sigma + std * std
            inner = 1 / math.sqrt(total)
            return std * std / total, sigma * std * inner, inner, self.time_scale * math.log(sigma)

        units, mean = self.units if clip else None, self.config.data_mean
        return Denoiser(self.network, scalings, label=label, units=units, mean=mean)

    def _levels(self, options: EDMOptions, strength: float = 1.0) -> list[float]:
        """Noise levels of a sampling that starts at a share ``strength`` of the way up sigma^(1/rho)."""
        c, inverse = self.config, 1 / options.rho
        low, high = c.sigma_min**inverse, c.sigma_max**inverse
        high = c.sigma_max if strength == 1 else (low + strength * (high - low)) ** options.rho
        low = min(c.sigma_min, high / 2)
        if options.grid == "karras":
            return schedules.karras_sigmas(options.steps, low, high, options.rho)
        if options.grid == "log":
            return schedules.log_sigmas(options.steps, low, high)
        return schedules.logistic_sigmas(options.steps, low, high, float(self.data_std))

    def job(
        self,
        label: Tensor | None,
        options: EDMOptions,
        rng: SampleRng,
        *,
        strength: float = 1.0,
        watch: Watch | None = None,
    ) -> Job:
        denoiser = self._denoiser(self.everything(label, options.guidance), options.clip)
        sigmas = self._levels(options, strength)
        denoiser.prepare(sigmas)
        denoise = denoiser.for_labels(label, self.classes, options)
        return Job(
            denoise, sigmas, options.sampler, options.own(), rng, self.units, sigmas[0], options.temperature, watch
        )

    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """By the probability flow, see the module; ``samples`` is ignored (``config.probes`` counts the probes)."""
        x = batch.x
        self.units.check(x)
        c, label, mean = self.config, self.labels.null(len(x)), self.config.data_mean
        denoiser, x0 = self._denoiser(label, clip=False), self.units.inward(x)
        low, change = c.sigma_min, torch.tensor(self.units.log_volume(), dtype=torch.float64)
        how = f"probability flow, {c.flow_steps} Runge-Kutta steps"
        preprocessing = self.units.preprocessing
        if isinstance(self.units, PictureUnits):
            gap = 2 / (self.units.levels - 1)
            if c.dequantise == "uniform":
                x0 = x0 + gap * (rng.uniform("dequantise", *self.spec.shape) - 0.5)
                change = torch.tensor(self.latent_dims * math.log(gap), dtype=torch.float64)
                preprocessing += "; uniform dequantisation"
            else:
                low = c.dequantise_sigma * gap
                x0, change = gaussian_dequantisation(
                    x0, rng.normal("dequantise", *self.spec.shape), low, self.units.levels
                )
                preprocessing += "; Gaussian dequantisation"
        probes = [rng.at("probe", i).integers("sign", 2, *self.spec.shape) * 2.0 - 1 for i in range(c.probes)]

        def density(rows: int, steps: int) -> Tensor:
            """Of the first so many examples, around the mean."""
            own = None if label is None else label[:rows]
            sigmas = schedules.karras_sigmas(steps + 1, low, c.sigma_max)[-2::-1]

            def denoise(y: Tensor, sigma: float) -> Tensor:
                return denoiser(y + mean, sigma, own) - mean if mean else denoiser(y, sigma, own)

            start = x0[:rows] - mean if mean else x0[:rows]
            return flow_log_density(denoise, start, sigmas, probes=[p[:rows] for p in probes] or None)

        nats, few = density(len(x), c.flow_steps), min(CHECKED, len(x))
        error = float((density(few, 2 * c.flow_steps) - nats[:few]).abs().max())
        how += f", {c.probes} random probes of the trace" if c.probes else ", exact trace"
        how += "; null class" if self.classes else ""
        return Likelihood(nats + change, "estimate", how, preprocessing, self.units.values, error)
