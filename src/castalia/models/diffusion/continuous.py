"""What systems with a continuous noise level share: the set-up of a sampling, and the likelihood of its flow.

Papers
    Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations" (arXiv:2011.13456):
    the probability flow and its likelihood. Kingma et al. 2021, "Variational Diffusion Models" (arXiv:2107.00630): the
    decoder of noisy pictures.

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
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from castalia.core.capabilities import Density, Likelihood, Reversible
from castalia.core.data import Batch
from castalia.core.rng import SampleRng
from castalia.core.sampling import Watch
from castalia.models.diffusion import schedules
from castalia.models.diffusion.base import Diffusion, DiffusionConfig
from castalia.models.diffusion.drawing import Denoiser, DrawingOptions, Job
from castalia.models.diffusion.likelihood import flow_log_density
from castalia.nn.dequantisation import gaussian_dequantisation
from castalia.nn.units import PictureUnits

CHECKED = 4
"""Examples of a batch whose likelihood is computed with twice the steps as well, to know the error of the solver."""


@dataclass(frozen=True)
class ContinuousConfig(DiffusionConfig):
    """What configurations of systems with a continuous noise level have in common.

    Attributes:
        sigma_min: lowest noise level of sampling.
        sigma_max: highest noise level.
        flow_steps: likelihood: steps of fourth order, of four evaluations and gradients each.
        probes: likelihood: random vectors for the trace; 0 computes it exactly, for few dimensions.
        dequantise: likelihood of pictures: how values become continuous.
        dequantise_sigma: ``gaussian``: deviation, as a share of the distance between neighbouring values.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    flow_steps: int = 25
    probes: int = 1
    dequantise: Literal["gaussian", "uniform"] = "gaussian"
    dequantise_sigma: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError("0 < sigma_min < sigma_max")
        if self.flow_steps < 1 or self.probes < 0 or self.dequantise_sigma <= 0:
            raise ValueError("flow_steps and dequantise_sigma must be positive, probes not negative")


N = TypeVar("N", bound=ContinuousConfig)


class Continuous(Diffusion[N], Density, Reversible):
    """A network that can be asked at every noise level, and so defines a flow between noise and examples."""

    @property
    def mean(self) -> float:
        """What the noise at the highest level lies around, in the model's units."""
        return 0.0

    @abstractmethod
    def denoiser(self, label: Tensor | None, clip: bool) -> Denoiser:
        """The network as a denoise function of (x, sigma, label).

        Args:
            label: all labels that it is going to be asked with, ``int64``, or None.
            clip: whether denoised examples are settled.
        """

    def plain_denoiser(self, label: Tensor | None) -> Denoiser:
        return self.denoiser(label, clip=False)

    @abstractmethod
    def levels(self, options: Any, strength: float = 1.0) -> list[float]:
        """Noise levels of a sampling that starts at a share ``strength`` of the way up."""

    def drawer(self, label: Tensor | None, options: Any) -> Denoiser:
        """The denoiser of a sampling of examples with these labels, ``int64`` (B,), or None."""
        return self.denoiser(self.everything(label, options.guidance), bool(getattr(options, "clip", False)))

    def job(
        self,
        label: Tensor | None,
        options: DrawingOptions,
        rng: SampleRng,
        *,
        strength: float = 1.0,
        watch: Watch | None = None,
    ) -> Job:
        return self.job_of(self.drawer(label, options), label, options, rng, strength=strength, watch=watch)

    def job_of(
        self,
        denoiser: Denoiser,
        label: Tensor | None,
        options: DrawingOptions,
        rng: SampleRng,
        *,
        strength: float = 1.0,
        watch: Watch | None = None,
    ) -> Job:
        """:meth:`job` with a denoiser that knows all labels that guidance will ask for."""
        sigmas = self.levels(options, strength)
        denoiser.prepare(sigmas)
        denoise = denoiser.for_labels(label, self.classes, options)
        return Job(
            denoise, sigmas, options.method, options.own(), rng, self.units, sigmas[0], options.temperature, watch
        )

    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """By the probability flow, see the module; ``samples`` is ignored (``config.probes`` counts the probes)."""
        x = batch.x
        self.units.check(x)
        c, label, mean = self.config, self.labels.null(len(x)), self.mean
        denoiser, x0 = self.denoiser(label, clip=False), self.units.inward(x)
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
