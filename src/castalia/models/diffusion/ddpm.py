"""Denoising diffusion in discrete time.

Papers
    Sohl-Dickstein et al. 2015, "Deep Unsupervised Learning using Nonequilibrium Thermodynamics" (arXiv:1503.03585).
    Ho, Jain & Abbeel 2020, "Denoising Diffusion Probabilistic Models" (arXiv:2006.11239): linear schedule, prediction
    of the noise, L_simple (eq. 14), the fixed variances, the bound (eq. 5) with its discretised decoder (eq. 13).
    Song, Meng & Ermon 2021, "Denoising Diffusion Implicit Models" (arXiv:2010.02502): fewer steps, ``eta``.
    Nichol & Dhariwal 2021, "Improved Denoising Diffusion Probabilistic Models" (arXiv:2102.09672): cosine schedule,
    learned variance with L_hybrid = L_simple + 0.001 L_vlb, no gradient from L_vlb into the mean.
    Salimans & Ho 2022 (arXiv:2202.00512): v. Hang et al. 2023 (arXiv:2303.09556): min-SNR weights.
    Lin et al. 2024 (arXiv:2305.08891): zero terminal SNR. Ho & Salimans 2022: dropped labels.

What differs, and why
    Training sees x_t = sqrt(abar) x0 + sqrt(1 - abar) eps as in the papers. Everything after it speaks of
    x = x0 + sigma eps, which is the same divided by sqrt(abar); see schedules.py.
    A linear schedule of T steps has the betas of Ho et al. times 1000 / T, so that all noise together is the same.
    Samplers use noise levels between the steps too: the time that the network is told is then not a whole number.
    ``weighting="vlb"``: the weights of the bound, by drawing the steps in proportion to them. The gradient is in
    expectation that of the bound, and its variance much smaller than with weights on evenly drawn steps.
    Where a denoised picture is clipped, the direction of the noise follows from the clipped one.
    Pictures that hold few values are modelled as such; see units.py.
    L_vlb is computed with the denoised example settled (clipped), as the bound is measured and samples are drawn. The
    code of Nichol & Dhariwal trains the variance with it unclipped, and clips afterwards.

Expected: see ``recipes/diffusion.py`` and the system's page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from castalia.core.capabilities import Density, Likelihood, Reversible
from castalia.core.data import Batch
from castalia.core.model import Logs, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Watch
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.diffusion import schedules
from castalia.models.diffusion.base import Diffusion, DiffusionConfig
from castalia.models.diffusion.drawing import Denoiser, DrawingOptions, Job
from castalia.models.diffusion.likelihood import decoder_deviation, step_kl, strata, variational_bound
from castalia.models.diffusion.schedules import Discrete, Prediction
from castalia.nn.units import PictureUnits

MOST_TIMESTEPS = 100_000


@dataclass(frozen=True)
class DDPMConfig(DiffusionConfig):
    """Configuration of discrete-time diffusion.

    Attributes:
        timesteps: T.
        schedule: of the betas. ``linear`` is scaled with T; ``scaled_linear`` is that of latent diffusion.
        zero_snr: rescale the schedule so that nothing of the example is left at step T; not with ``eps``.
        prediction: what the network predicts.
        variance: of a reverse step: the posterior's, beta, or learned between them.
        weighting: of the steps in the loss.
        snr_limit: ``min_snr``: gamma.
        vlb_weight: ``learned``: lambda of L_hybrid.
    """

    timesteps: int = 1000
    schedule: Literal["linear", "cosine", "scaled_linear"] = "linear"
    zero_snr: bool = False
    prediction: Prediction = "eps"
    variance: Literal["fixed_small", "fixed_large", "learned"] = "fixed_large"
    weighting: Literal["simple", "min_snr", "vlb"] = "simple"
    snr_limit: float = 5.0
    vlb_weight: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.timesteps <= MOST_TIMESTEPS:  # there is a table of them
            raise ValueError(f"timesteps must be 2 to {MOST_TIMESTEPS:,}")
        if self.zero_snr and self.prediction == "eps":
            raise ValueError("zero_snr: where there is only noise, predicting it says nothing; choose v or x0")
        if self.snr_limit <= 0 or self.vlb_weight < 0:
            raise ValueError("snr_limit must be positive, vlb_weight not negative")
        self.process()

    def process(self) -> Discrete:
        """Its noise levels."""
        t = self.timesteps
        try:
            return schedules.process_of(self.schedule, t, zero_snr=self.zero_snr)
        except ValueError as error:
            raise ValueError(f"timesteps: {self.schedule} with {t} steps does not work: {error}") from error


@dataclass(frozen=True)
class DDPMOptions(DrawingOptions):
    """How examples are drawn; see :class:`castalia.models.diffusion.drawing.DrawingOptions`.

    Attributes:
        sampler: ``ddpm`` is ancestral sampling with the variance of the configuration.
        steps: at most T with ``leading``, ``trailing`` and ``linspace``.
        grid: steps of the process (``leading``, ``trailing``, ``linspace``), or levels between its first and last.
        clip: keep denoised pictures among the pictures that there are: clipped, and near the noiseless end rounded.
    """

    sampler: Literal["ddpm", "ddim", "euler", "euler-ancestral", "heun", "dpm++2m", "dpm++3m", "dpm++2m-sde"] = (
        "dpm++2m"
    )
    grid: Literal["leading", "trailing", "linspace", "karras", "log", "logistic"] = "logistic"
    clip: bool = True


class DDPM(Diffusion[DDPMConfig], Density, Reversible):
    """p(x_{0:T}): a chain that removes the noise that q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t) added."""

    Config = DDPMConfig
    SampleOptions = DDPMOptions
    sigmas: Tensor
    chance: Tensor

    def __init__(self, config: DDPMConfig, spec: ImageSpec | PointsSpec) -> None:
        learned = config.variance == "learned"
        super().__init__(config, spec, 1 + learned)
        self.learned, self.process = learned, config.process()
        # the bound as a sum of w_t |eps - predicted|^2: Ho et al., eq. 12; the first term stands for the decoder's
        levels = self.process.sigmas
        weights = 0.5 * ((levels / np.concatenate([levels[:1] / math.sqrt(2), levels[:-1]])) ** 2 - 1)
        # where noise prevails it is easily told: |eps - predicted|^2 falls as 1 / (1 + sigma^2). Without this factor a
        # cosine schedule would draw little but its last step
        weights = weights / (1 + levels**2)
        self.vlb_scale = float(weights.sum())
        self.register_buffer("chance", torch.from_numpy(weights / weights.sum()).float(), persistent=False)
        self.register_buffer("sigmas", torch.from_numpy(levels).float(), persistent=False)

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("diffusion", self.network, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Mean squared error of the prediction per value, weighted, averaged over the batch; and L_vlb if learned."""
        c, last = self.config, len(self.process) - 1
        x0, eps = self.units.inward(batch.x), rng.normal("noise", *self.spec.shape)
        if c.weighting == "vlb":
            times = torch.searchsorted(self.chance.cumsum(0), rng.uniform("time"), right=True).clamp(max=last)
        else:
            times = rng.integers("time", last + 1)
        sigma = self.sigmas[times].view(-1, *[1] * (x0.ndim - 1))
        skip, out, inner = schedules.scalings(c.prediction, sigma)
        signal, noise = inner, sigma * inner  # sqrt(abar) and sqrt(1 - abar)
        output = self.network(signal * x0 + noise * eps, times.float(), self.labels.for_training(batch, rng)).float()
        predicted, raw = output.chunk(2, 1) if self.learned else (output, output)
        error = (predicted - schedules.target(c.prediction, x0, eps, sigma)).square().flatten(1).mean(1)
        logs = {"mse": error.mean()}
        scale, flat = out.flatten(), sigma.flatten()
        if c.weighting == "min_snr":
            error = error * (flat**-2).clamp(max=c.snr_limit) * scale**2
        elif c.weighting == "vlb":
            error = error * self.vlb_scale * (1 + flat**2) * (scale / flat) ** 2
        loss = error.mean()
        if self.learned:
            denoised = self.units.settle(skip * (x0 + sigma * eps) + out * predicted.detach(), sigma)
            # in bits per value, as in the code of Nichol & Dhariwal
            terms = self._term(x0, denoised, times, (raw + 1) / 2) / math.log(2)
            terms = terms / self.chance[times] if c.weighting == "vlb" else terms * (last + 1)
            loss = loss + c.vlb_weight * terms.mean()
            logs["vlb"] = terms.mean()
        return loss, logs

    def _term(self, x0: Tensor, denoised: Tensor, times: Tensor, fraction: Tensor) -> Tensor:
        """One term of the bound for each example, nats per value (B,), with gradients for the variance only."""
        later = times.clamp(min=1)
        term = step_kl(x0.double(), denoised.double(), self.process, later, fraction.double(), stop_mean=True)
        term = term.flatten(1).mean(1)
        first = times == 0
        if first.any():
            deviation = decoder_deviation(self.process, fraction[first])
            decoded = -self.units.decoder()(x0[first], denoised[first].detach(), deviation)
            term = term.masked_scatter(first, decoded.flatten(1).mean(1))
        return term.float()

    # what it can do

    def _denoiser(self, label: Tensor | None, clip: bool) -> Denoiser:
        """The network as a denoise function of (x, sigma, label)."""

        def scalings(sigma: float) -> tuple[float, float, float, float]:
            inner = 1 / math.sqrt(1 + sigma * sigma)
            skip, out = {"eps": (1.0, -sigma), "v": (inner * inner, -sigma * inner), "x0": (0.0, 1.0)}[
                self.config.prediction
            ]
            return skip, out, inner, self.process.time(sigma)

        units = self.units if clip else None
        return Denoiser(self.network, scalings, label=label, units=units, split=self.learned)

    def plain_denoiser(self, label: Tensor | None) -> Denoiser:
        return self._denoiser(label, clip=False)

    def _levels(self, options: DDPMOptions, strength: float = 1.0) -> list[float]:
        """Noise levels of a sampling that starts at a share ``strength`` of the steps."""
        return schedules.levels(self.process, options.steps, options.grid, strength)

    def job(
        self,
        label: Tensor | None,
        options: DDPMOptions,
        rng: SampleRng,
        *,
        strength: float = 1.0,
        watch: Watch | None = None,
    ) -> Job:
        denoiser = self._denoiser(self.everything(label, options.guidance), options.clip)
        sigmas = self._levels(options, strength)
        denoiser.prepare(sigmas)
        own = options.own()
        if options.sampler == "ddpm":
            fixed = float(self.config.variance == "fixed_large")
            # with guidance both branches were asked; the variance is that of the one with the label
            own["variance"] = (lambda: denoiser.fraction[: rng.rows]) if self.learned else fixed  # type: ignore[index]
        denoise = denoiser.for_labels(label, self.classes, options)
        width = math.hypot(1, sigmas[0])  # of x_T, whose signal is not quite gone
        return Job(denoise, sigmas, options.sampler, own, rng, self.units, width, options.temperature, watch)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """The variational bound, from the decoder and ``samples`` of the T - 1 other terms (all, where not fewer)."""
        x = batch.x
        self.units.check(x)
        label, large = self.labels.null(len(x)), float(self.config.variance == "fixed_large")

        def predict(x: Tensor, times: Tensor) -> tuple[Tensor, Tensor | None]:
            sigma = self.sigmas[times].view(-1, *[1] * (x.ndim - 1))
            skip, out, inner = schedules.scalings(self.config.prediction, sigma)
            output = self.network(inner * x, times.float(), label).float()
            predicted, raw = output.chunk(2, 1) if self.learned else (output, None)
            denoised = self.units.settle(skip * x + out * predicted, sigma)
            return denoised, None if raw is None else (raw + 1) / 2

        nats = variational_bound(
            predict,
            self.units.inward(x),
            self.process,
            self.units.decoder(),
            noise=lambda i: rng.at("bound", i).normal("noise", *self.spec.shape),
            where=lambda i: rng.at("bound", i).uniform("term"),
            terms=samples,
            variance=large,
            # pictures as in the papers; for a density only beta_1 lets the bound of the ideal network reach the truth
            decoder_variance=0.0 if isinstance(self.units, PictureUnits) else large,
        )
        rest, used = len(self.process) - 1, len(strata(len(self.process), samples))
        which = "all" if used == rest else f"{used} random ones"
        detail = f"variational bound: decoder, prior, and {which} of {rest} terms, one noise each"
        detail += "; null class" if self.classes else ""
        nats = self.units.log_volume() - nats
        return Likelihood(nats, "bound", detail, self.units.preprocessing, self.units.values)
