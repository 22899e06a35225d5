"""Flow matching: a velocity that carries noise to examples along straight lines, and rectified flow.

Papers
    Lipman, Chen, Ben-Hamu, Nickel & Le 2023, "Flow Matching for Generative Modeling" (arXiv:2210.02747): the loss with
    conditional optimal-transport paths (eq. 20 to 23).
    Liu, Gong & Liu 2023, "Flow Straight and Fast: Rectified Flow" (arXiv:2209.03003): the same path with nothing left
    at its end (eq. 1), reflow on the flow's own pairs (algorithm 1), straightness (eq. 6), distillation of the first
    step. Albergo & Vanden-Eijnden 2023 (arXiv:2209.15571): stochastic interpolants.
    Tong et al. 2024 (arXiv:2302.00482) and Pooladian et al. 2023 (arXiv:2304.14772): noise and examples of a batch
    paired by optimal transport.
    Esser et al. 2024 (arXiv:2403.03206): times drawn from a logit-normal distribution (eq. 19), the shift of the grid
    (eq. 23). Ho & Salimans 2022: dropped labels.

With noise z and an example x1, and s (``end``) the deviation that is left at t = 1,

    x_t = (1 - (1 - s) t) z + t x1,     v(x_t, t) is trained to be  x1 - (1 - s) z,

and examples are drawn by dx/dt = v from noise at t = 0. Reflow draws pairs of noise and the example that the flow makes
of it, and trains on straight lines between those: they cross less, and so the new flow bends less.

Whatever the path, the network says what the example is: D = (1 - s) x_t + (1 - (1 - s) t) v. In the variables of the
family, x = x_t / t at the noise level sigma = (1 - (1 - s) t) / t, it is a denoiser like others, and so all samplers,
guidance, redrawing, filling in and the likelihood of the family work. ``euler`` is Euler's method in t as well as in
sigma; ``midpoint``, ``heun`` and ``rk4`` are those in t, see straight.py.

What differs, and why
    t grows from noise to example, as in Lipman et al. and Liu et al. The network is told 1,000 t, for its features are
    made for such numbers. Sampling starts at the noise level ``sigma_max`` (t = 0.001), where x_t is noise but for a
    thousandth. No adaptive solver (dopri5, which the published numbers have): its steps depend on all examples of a
    batch, and here an example depends on its own seed alone. Distillation compares values, not features (LPIPS).
    With classes, optimal transport pairs within a class only: else labels would tell of the noise
    (a known fault of public code).

Expected: see ``recipes/flow_matching.py`` and the system's page.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from castalia.core.data import Batch, Dataset
from castalia.core.encoded import Encoded
from castalia.core.model import Logs, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.diffusion import schedules
from castalia.models.diffusion.continuous import Continuous, ContinuousConfig
from castalia.models.diffusion.drawing import Denoiser, DrawingOptions
from castalia.models.diffusion.samplers import Sampler
from castalia.models.diffusion.straight import STRAIGHT, level_of, straightness, time_of

TIME_SCALE = 1_000.0


@dataclass(frozen=True)
class FlowMatchingConfig(ContinuousConfig):
    """Configuration of flow matching.

    Attributes:
        sigma_min: likelihood of points: the noise level at which their density is taken.
        sigma_max: noise level at which sampling starts.
        time: distribution of t in training.
        time_mean: ``logit_normal``: mean of logit t; more is nearer to examples.
        time_std: its deviation.
        end: s, deviation of the noise that is left at t = 1; 0 is rectified flow.
        coupling: noise and examples as they come, or paired within each batch by optimal transport.
        rounds: of reflow, each a stage of its own.
        pairs: reflow: pairs of noise and example, at most as many as there are training examples.
        pair_steps: reflow: steps of the midpoint method that make a pair.
        distil: a last stage in which only the first step is trained, on the pairs: one evaluation per example.
    """

    sigma_max: float = 1_000.0
    time: Literal["uniform", "logit_normal"] = "uniform"
    time_mean: float = 0.0
    time_std: float = 1.0
    end: float = 0.0
    coupling: Literal["independent", "transport"] = "independent"
    rounds: int = 0
    pairs: int = 50_000
    pair_steps: int = 25
    distil: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.time_std <= 0 or not 0 <= self.end < 0.5:
            raise ValueError("time_std must be positive, end lies in [0, 0.5)")
        if not 0 <= self.rounds <= 10 or min(self.pairs, self.pair_steps) < 1:
            raise ValueError("rounds lies between 0 and 10; pairs and pair_steps are at least 1")


@dataclass(frozen=True)
class FlowOptions(DrawingOptions):
    """How examples are drawn; see :class:`castalia.models.diffusion.drawing.DrawingOptions`.

    Attributes:
        sampler: ``euler`` (one evaluation a step), ``midpoint`` and ``heun`` (two), ``rk4`` (four), or one of the
            family's.
        steps: of the sampler.
        grid: of the times: even in t, or ``karras`` (even in sigma^(1/7)).
        shift: multiplies the noise levels: more than 1 spends more steps where there is noise, for larger pictures.
        clip: keep denoised pictures among the pictures that there are.
    """

    sampler: Literal[
        "euler", "midpoint", "heun", "rk4", "ddpm", "ddim", "euler-ancestral", "dpm++2m", "dpm++3m", "dpm++2m-sde"
    ] = "midpoint"
    steps: int = 15
    grid: Literal["uniform", "karras"] = "uniform"
    shift: float = 1.0
    clip: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.shift <= 100:
            raise ValueError("shift lies between 0 and 100")

    @property
    def method(self) -> str | Sampler:
        """The chosen sampler."""
        return STRAIGHT.get(self.sampler, self.sampler)


class FlowMatching(Continuous[FlowMatchingConfig]):
    """dx/dt = v(x, t), from N(0, 1) at t = 0 to examples at t = 1."""

    Config = FlowMatchingConfig
    SampleOptions = FlowOptions

    def __init__(self, config: FlowMatchingConfig, spec: ImageSpec | PointsSpec) -> None:
        super().__init__(config, spec, 1)
        if config.rounds or config.distil:
            self.source = copy.deepcopy(self.network).requires_grad_(False)

    # the objectives

    def stages(self) -> tuple[Stage, ...]:
        c = self.config
        first = Stage("flow", (Objective("flow", self.network, self.loss),))
        more = [f"reflow-{i + 1}" for i in range(c.rounds)] + ["distil"] * c.distil
        return first, *(
            Stage(
                name,
                (Objective("flow", self.network, partial(self.pair_loss, only_start=name == "distil")),),
                enter=self.keep,
                data=self.coupled,
            )
            for name in more
        )

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Mean squared error of the velocity per value, averaged over the batch."""
        x1, z = self.units.inward(batch.x), rng.normal("noise", *self.spec.shape)
        if self.config.coupling == "transport":
            z = z[paired(z, x1, self.labels.of(batch))]
        return self.error(z, x1, self.times(rng), self.labels.for_training(batch, rng))

    def pair_loss(self, batch: Batch, rng: Rng, progress: Progress, only_start: bool) -> tuple[Tensor, Logs]:
        """The same on pairs of noise and example; at t = 0 alone where the first step is distilled."""
        z, x1 = (part.view(-1, *self.spec.shape) for part in batch.x.chunk(2, 1))
        t = torch.zeros(len(z), device=z.device) if only_start else self.times(rng)
        return self.error(z, x1, t, self.labels.for_training(batch, rng))

    def times(self, rng: Rng) -> Tensor:
        """T (B,)."""
        c = self.config
        if c.time == "uniform":
            return rng.uniform("time")
        return torch.sigmoid(c.time_mean + c.time_std * rng.normal("time"))

    def error(self, z: Tensor, x1: Tensor, t: Tensor, label: Tensor | None) -> tuple[Tensor, Logs]:
        """|v - (x1 - (1 - s) z)|^2 per value."""
        rest = 1 - self.config.end
        wide = t.view(-1, *[1] * (x1.ndim - 1))
        state = (1 - rest * wide) * z + wide * x1
        v = self.network(state, TIME_SCALE * t, label).float()
        error = (v - (x1 - rest * z)).square().mean()
        return error, {"mse": error.detach()}

    # reflow

    @torch.no_grad()
    def keep(self, rng: Rng) -> None:
        """Keep the flow as it is, for its pairs."""
        self.source.load_state_dict(self.network.state_dict())

    def coupled(self, data: Dataset) -> Dataset:
        """Pairs of noise and the example that the kept flow makes of it, as points of twice the dimensions."""
        spec = PointsSpec(2 * self.latent_dims, tuple(self.spec.classes) if self.classes else ())
        some = data if len(data) <= self.config.pairs else First(data, self.config.pairs)
        levels = self.levels(FlowOptions(steps=self.config.pair_steps))

        @torch.no_grad()
        def call(batch: Batch) -> Batch:
            rng = SampleRng(0, batch.ids.tolist(), batch.x.device).at("pairs")
            z, label = rng.normal("latent", *self.spec.shape), self.labels.of(batch)
            denoiser = Denoiser(self.source.eval(), self.scalings, label=label, units=None)
            denoise = denoiser.for_labels(label, self.classes, FlowOptions())
            x1 = STRAIGHT["midpoint"](denoise, levels[0] * z, levels, end=self.config.end)
            return Batch(torch.cat([z.flatten(1), x1.flatten(1)], 1), batch.ids, label)

        return Encoded(some, call, spec, self.device)

    @torch.no_grad()
    def straightness(self, n: int, rng: SampleRng, steps: int = 50, label: Tensor | None = None) -> Tensor:
        """How far the paths of ``n`` examples are from straight lines, ``float64`` (n,); 0 is straight."""
        label = self.labels.drawn(rng) if label is None else label
        levels = self.levels(FlowOptions(steps=steps))
        denoise = self.denoiser(label, clip=False).for_labels(label, self.classes, FlowOptions())
        z = rng.normal("latent", *self.spec.shape)
        return straightness(denoise, levels[0] * z, levels, self.config.end)

    # what it can do

    def scalings(self, sigma: float) -> tuple[float, float, float, float]:
        """See the module: x_t = t x, and D = (1 - s) t x + (1 - (1 - s) t) v."""
        rest = 1 - self.config.end
        t = time_of(sigma, self.config.end)
        return rest * t, 1 - rest * t, t, TIME_SCALE * t

    def denoiser(self, label: Tensor | None, clip: bool) -> Denoiser:
        return Denoiser(self.network, self.scalings, label=label, units=self.units if clip else None)

    def levels(self, options: FlowOptions, strength: float = 1.0) -> list[float]:
        """Of a sampling that starts at t = 1 - ``strength``."""
        c, n = self.config, options.steps
        high = c.sigma_max if strength == 1 else level_of(1 - strength, c.end)
        if options.grid == "karras":
            return [*schedules.karras_sigmas(n, min(c.sigma_min, high / 2), high)[:-1], c.end]
        start, more = time_of(high, c.end), options.shift - 1
        even = [level_of(start + (1 - start) * i / n, c.end) for i in range(1, n)]
        # the shift of eq. 23 of Esser et al. multiplies noise levels; here it leaves the first one where it is
        return [high, *((1 + more) * sigma / (1 + more * sigma / high) for sigma in even), c.end]


class First(Dataset):
    """The first examples of a data set."""

    def __init__(self, data: Dataset, size: int) -> None:
        self.data, self.size = data, size
        self.spec, self.name, self.fingerprint = data.spec, data.name, data.fingerprint
        self.labels, self.files = data.labels, data.files

    def __len__(self) -> int:
        return self.size

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        return self.data.batch(ids, rng)


def paired(z: Tensor, x: Tensor, label: Tensor | None = None) -> Tensor:
    """Which noise goes with which example so that the squared distances are least, ``int64`` (B,); within a class."""
    every = torch.arange(len(x), device=x.device)
    index = every.clone()
    for group in [every] if label is None else [(label == c).nonzero()[:, 0] for c in label.unique()]:
        cost = torch.cdist(x[group].flatten(1).double(), z[group].flatten(1).double()).square()
        _, column = linear_sum_assignment(cost.cpu().numpy())
        index[group] = group[torch.from_numpy(column).to(group.device)]
    return index
