"""Consistency models: from any noise level to the example in one evaluation.

Papers
    Song, Dhariwal, Chen & Sutskever 2023, "Consistency Models" (arXiv:2303.01469): the boundary condition (eq. 5 and
    appendix C), distillation (algorithm 2), training without a teacher (algorithm 3), several steps (algorithm 1).
    Song & Dhariwal 2024, "Improved Techniques for Training Consistency Models" (arXiv:2310.14189): no average as the
    target, pseudo-Huber distance, levels drawn from a discretised lognormal distribution (eq. 10), the grid that
    doubles (eq. 11), weights 1 / (sigma_{i+1} - sigma_i).
    Karras et al. 2022 (arXiv:2206.00364): noise levels, Heun's step of the teacher. Ho & Salimans 2022: guidance.

The function

    f(x, sigma) = m + c_skip (x - m) + c_out F(c_in (x - m), c_noise),
    c_skip = d^2 / ((sigma - e)^2 + d^2),  c_out = (sigma - e) d / sqrt(sigma^2 + d^2),  c_in = 1 / sqrt(sigma^2 + d^2)

is the identity at the lowest level e, whatever F. It is trained to give the same at neighbouring levels of one path of
the probability flow: f(x_{n+1}, sigma_{n+1}) is drawn to f(x_n, sigma_n), through which no gradient goes. Where x_n is
x0 + sigma_n z with the z of x_{n+1}, no teacher is needed; else a step of Heun's method with a teacher's denoiser leads
to it (``teacher=true`` and a finished run of ``edm`` with an equal network as the parent ``teacher``, from whose
weights the function starts). The number of levels grows in training.

    curriculum    levels N(k)                                   target                  paper
    doubling      10, 20, 40, ... 1280                          no average              Song & Dhariwal 2024
    growing       from 2 to 150 by a square root                average, slower with N  Song et al. 2023, training
    fixed         40                                            average, 0.95           the same, distillation

Examples are drawn by f from noise at the highest level; with more steps noise is added again and removed. In between,
f is no denoiser: it does not give the mean of all examples that may hide behind the noise, but one of them.

What differs, and why
    The deviation d of the data and its mean m are measured, as in ``edm``; in the papers they are 0.5 and 0. Distances
    are those of values (pseudo-Huber, or squared), not of LPIPS's features, with which the first paper got its
    published numbers; the second one does without them.

Expected: see ``recipes/consistency.py`` and the system's page.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.core.model import Logs, Model, Objective, Progress, Stage, Update
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Watch
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.diffusion import schedules
from castalia.models.diffusion.base import Diffusion, DiffusionConfig
from castalia.models.diffusion.drawing import Denoiser, DrawingOptions, Job
from castalia.models.diffusion.edm import EDM, measured_deviation, measured_mean


@dataclass(frozen=True)
class ConsistencyConfig(DiffusionConfig):
    """Configuration of consistency models.

    Attributes:
        data_std: deviation of the data in the model's units; 0 measures it before training, and the mean with it.
        data_mean: mean of the data in the model's units.
        sigma_min: e, the lowest noise level, at which the function is the identity.
        sigma_max: the highest, at which drawing starts.
        rho: of the levels (Karras et al., eq. 5).
        teacher: distil a finished run of ``edm``, the parent ``teacher``.
        teacher_guidance: scale of the teacher's guidance by class; 1 is none.
        curriculum: how many levels there are, see the module.
        first: levels at the start (``doubling``: s0, ``growing``: s0, ``fixed``: N).
        last: levels at the end (s1).
        average: decay of the average that is the target, at ``first`` levels; 0 takes the weights as they are.
        distance: of two results: ``huber`` (pseudo-Huber) or ``squared``.
        noise_mean: ``doubling``: mean of the lognormal distribution of levels; other curricula draw them evenly.
        noise_std: its deviation.
    """

    data_std: float = 0.0
    data_mean: float = 0.0
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    teacher: bool = False
    teacher_guidance: float = 1.0
    curriculum: Literal["doubling", "growing", "fixed"] = "doubling"
    first: int = 10
    last: int = 1280
    average: float = 0.0
    distance: Literal["huber", "squared"] = "huber"
    noise_mean: float = -1.1
    noise_std: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data_std < 0 or self.noise_std <= 0 or self.rho <= 0 or self.teacher_guidance < 0:
            raise ValueError("noise_std and rho must be positive, data_std and teacher_guidance not negative")
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError("0 < sigma_min < sigma_max")
        if not 2 <= self.first <= self.last <= 100_000:
            raise ValueError("first and last are numbers of levels: at least 2, the first not above the last")
        if not 0 <= self.average < 1:
            raise ValueError("average lies in [0, 1)")

    def levels_at(self, fraction: float) -> int:
        """How many levels there are after that share of training."""
        if self.curriculum == "fixed":
            return self.first
        if self.curriculum == "growing":
            square = fraction * ((self.last + 1) ** 2 - self.first**2) + self.first**2
            return math.ceil(math.sqrt(square) - 1) + 1
        doublings = math.floor(math.log2(self.last / self.first))
        return min(self.first * 2 ** min(math.floor(fraction * (doublings + 1)), doublings), self.last) + 1

    def decay_at(self, levels: int) -> float:
        """Decay of the target's average with so many levels: slower with more where they grow (algorithm 3)."""
        if not self.average or self.curriculum == "fixed":
            return self.average
        return math.exp(self.first * math.log(self.average) / levels)


@dataclass(frozen=True)
class ConsistencyOptions(DrawingOptions):
    """How examples are drawn; see :class:`castalia.models.diffusion.drawing.DrawingOptions`.

    Attributes:
        sampler: noise is added and removed again (algorithm 1 of Song et al.).
        steps: evaluations for one example.
        grid: of the levels, as in training.
        clip: keep examples among the pictures that there are after every step.
    """

    sampler: Literal["renoise"] = "renoise"
    steps: int = 2
    grid: Literal["karras"] = "karras"
    clip: bool = True


class Consistency(Diffusion[ConsistencyConfig]):
    """f(x, sigma), the same along each path of the probability flow."""

    Config = ConsistencyConfig
    SampleOptions = ConsistencyOptions
    data_std: Tensor

    def __init__(self, config: ConsistencyConfig, spec: ImageSpec | PointsSpec) -> None:
        super().__init__(config, spec, 1)
        self.time_scale = 0.25 if isinstance(spec, ImageSpec) and config.unet.time == "fourier" else 250.0
        self.register_buffer("data_std", torch.tensor(config.data_std or 0.5))
        if config.average:
            self.target = copy.deepcopy(self.network).requires_grad_(False)
        if config.teacher:
            self.teacher = copy.deepcopy(self.network).requires_grad_(False)

    @classmethod
    def complete(cls, config: ConsistencyConfig, data: Dataset) -> ConsistencyConfig:
        """Measure the mean of pictures, where their deviation is going to be measured as well."""
        return config if config.data_std else replace(config, data_mean=measured_mean(config.data_mean, data))

    def frozen(self) -> tuple[torch.nn.Module, ...]:
        return (self.teacher,) if self.config.teacher else ()

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Find what pictures hold and how far they deviate; and copy the teacher, where there is one.

        Raises:
            UsageError: the teacher is missing, is no run of ``edm``, or its network is another.
        """
        super().initialise(data, rng, parents)
        c = self.config
        if not c.data_std:
            self.data_std.fill_(measured_deviation(self.units, data, c.data_mean))
        if not c.teacher:
            return
        teacher = parents.get("teacher")
        if not isinstance(teacher, EDM):
            raise UsageError(
                "Distillation needs a teacher, a finished run of `edm`: give --parent teacher=RUN, or train without "
                "one (config.teacher=false)."
            )
        if teacher.config.unet != c.unet or teacher.config.perceptron != c.perceptron or teacher.spec != self.spec:
            raise UsageError("The teacher's network, or the shape of its data, is another than this model's.")
        if teacher.config.data_mean != c.data_mean or abs(float(teacher.data_std / self.data_std) - 1) > 1e-3:
            raise UsageError("The teacher was trained on data of another mean or deviation: give it the same data.")
        self.data_std.copy_(teacher.data_std)
        for network in (self.teacher, self.network):
            network.load_state_dict(teacher.network.state_dict())

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        parts: tuple[Objective | Update, ...] = (Objective("consistency", self.network, self.loss),)
        if self.config.average:
            parts = (*parts, Update("target", self.target, self.follow))
        return (Stage("train", parts, enter=self.begin if self.config.average else None),)

    @torch.no_grad()
    def begin(self, rng: Rng) -> None:
        """The average starts from the weights themselves."""
        self.target.load_state_dict(self.network.state_dict())

    def follow(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        """Move the average towards the weights."""
        decay = self.config.decay_at(self.config.levels_at(progress.fraction))
        for ours, theirs in zip(self.target.parameters(), self.network.parameters(), strict=True):
            ours.lerp_(theirs.to(ours.dtype), 1 - decay)
        return {}

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Distance of the results at two neighbouring levels, weighted, averaged over the batch."""
        c = self.config
        x0, z = self.units.inward(batch.x) - c.data_mean, rng.normal("noise", *self.spec.shape)
        label = self.labels.for_training(batch, rng)
        count = c.levels_at(progress.fraction)
        sigmas = torch.tensor(schedules.karras_sigmas(count, c.sigma_min, c.sigma_max, c.rho)[-2::-1], device=z.device)
        lower = self.draw_level(sigmas, rng)
        wide = (-1, *[1] * (x0.ndim - 1))
        low, high = (sigmas[lower + i].to(x0.dtype).view(wide) for i in (0, 1))
        x = x0 + high * z
        below = self.teach(x, high, low, label) if c.teacher else x0 + low * z
        with torch.no_grad(), torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
            # the state of the generator goes back afterwards: both see the same dropout
            goal = self.result(self.target if c.average else self.network, below, low, label)
        error = self.result(self.network, x, high, label) - goal
        square = error.square().flatten(1).sum(1)
        if c.distance == "huber":
            soft = 0.00054 * math.sqrt(error[0].numel())
            distance = (square + soft**2).sqrt() - soft
        else:
            distance = square / error[0].numel()
        weight = 1 / (high - low).flatten() if c.curriculum == "doubling" else 1.0
        return (weight * distance).mean(), {"distance": distance.detach().mean(), "levels": x.new_tensor(float(count))}

    def draw_level(self, sigmas: Tensor, rng: Rng) -> Tensor:
        """Numbers ``int64`` (B,) of the lower of two neighbouring levels."""
        c = self.config
        if c.curriculum != "doubling":
            return (rng.uniform("level") * (len(sigmas) - 1)).long().clamp(max=len(sigmas) - 2)
        at = torch.erf((sigmas.double().log() - c.noise_mean) / (math.sqrt(2) * c.noise_std))
        chance = (at[1:] - at[:-1]).cumsum(0)
        drawn = rng.uniform("level").double() * chance[-1]
        return torch.searchsorted(chance, drawn, right=True).clamp(max=len(sigmas) - 2)

    def result(self, network: torch.nn.Module, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """F about the mean: (B, ...) at levels (B, 1, ...)."""
        std, low = float(self.data_std), self.config.sigma_min
        total = sigma**2 + std**2
        skip, out = std**2 / ((sigma - low) ** 2 + std**2), (sigma - low) * std / total.sqrt()
        output = network(x / total.sqrt(), self.time_scale * sigma.flatten().log(), label).float()
        return skip * x + out * output

    @torch.no_grad()
    def teach(self, x: Tensor, high: Tensor, low: Tensor, label: Tensor | None) -> Tensor:
        """A step of Heun's method from one level to the other along the teacher's flow, about the mean."""

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            skip, out, inner = schedules.edm_scalings(sigma, float(self.data_std))

            def branch(asked: Tensor | None) -> Tensor:
                time = self.time_scale * sigma.flatten().log()
                return skip * x + out * self.teacher(inner * x, time, asked).float()

            scale = self.config.teacher_guidance
            if label is None or scale == 1:
                return branch(label)
            plain = branch(self.labels.null(len(x)))
            return plain + scale * (branch(label) - plain)

        first = (x - denoise(x, high)) / high
        there = x + (low - high) * first
        return x + (low - high) * 0.5 * (first + (there - denoise(there, low)) / low)

    # what it can do

    def denoiser(self, label: Tensor | None, clip: bool) -> Denoiser:
        """F as a function of (x, sigma, label)."""
        std, low = float(self.data_std), self.config.sigma_min

        def scalings(sigma: float) -> tuple[float, float, float, float]:
            total = sigma * sigma + std * std
            skip, out = std * std / ((sigma - low) ** 2 + std * std), (sigma - low) * std / math.sqrt(total)
            return skip, out, 1 / math.sqrt(total), self.time_scale * math.log(sigma)

        return Denoiser(
            self.network, scalings, label=label, units=self.units if clip else None, mean=self.config.data_mean
        )

    def plain_denoiser(self, label: Tensor | None) -> Denoiser:
        return self.denoiser(label, clip=False)

    def picture_options(self) -> ConsistencyOptions:
        return ConsistencyOptions(steps=1)  # further ones want fresh noise, and not Euler's step

    def job(
        self,
        label: Tensor | None,
        options: ConsistencyOptions,
        rng: SampleRng,
        *,
        strength: float = 1.0,
        watch: Watch | None = None,
    ) -> Job:
        c, inverse = self.config, 1 / self.config.rho
        low, high = c.sigma_min**inverse, c.sigma_max**inverse
        top = c.sigma_max if strength == 1 else max((low + strength * (high - low)) ** c.rho, c.sigma_min)
        # the lowest level of a grid of one more level is e, where there is nothing to do
        sigmas = [*schedules.karras_sigmas(options.steps + 1, c.sigma_min, top, c.rho)[: options.steps], 0.0]
        denoiser = self.denoiser(self.everything(label, options.guidance), options.clip)
        denoiser.prepare(sigmas)
        denoise, heat = denoiser.for_labels(label, self.classes, options), options.temperature
        return Job(denoise, sigmas, "renoise", {}, rng, self.units, sigmas[0], heat, watch)
