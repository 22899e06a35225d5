"""Restricted Boltzmann machine.

Papers
    Smolensky 1986 (the harmonium). Hinton 2002, "Training products of experts by minimizing contrastive divergence":
    CD-k. Tieleman 2008, "Training restricted Boltzmann machines using approximations to the likelihood gradient": PCD.
    Salakhutdinov & Murray 2008, "On the quantitative analysis of deep belief networks": the likelihood by annealed
    importance sampling. Hinton 2012, "A practical guide to training restricted Boltzmann machines": visible biases
    from the data's log-odds, small weights, momentum, decay. Centred gradients: see machine.py.

    p(v, h) = exp(b v + c h + v W h) / Z,    d log p(v) / dW = <v h>_data - <v h>_model

    <>_data is exact: P(h_j = 1 | v) = sigmoid(c_j + (v W)_j). <>_model comes from k steps of Gibbs sampling, from the
    data (CD-k) or from where the chains of the step before ended (PCD).

What differs, and why
    Probabilities of hidden units enter the gradient, their samples the chains (Hinton 2012); visible units are sampled
    throughout.
    The learning rate falls linearly to ``rate_end`` of itself, and published weights are averages over the last steps:
    the noise of few chains, which PCD needs for its mixing, is not in what is measured.
    log Z is summed where one side has at most 20 binary units, else annealed from both sides, and the result says so
    where these disagree. It is computed once for the weights and used for all examples.

Expected: see ``recipes/rbm.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from castalia.core.capabilities import Density, Likelihood, Refinement
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Logs, Model, Progress, Stage, Update
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Preview, Sampling, Watch
from castalia.core.specs.image import ImageSpec
from castalia.estimators.annealing import Partition
from castalia.models.energy.coding import BinaryCoding, Coding, GaussianCoding, LevelCoding
from castalia.models.energy.machine import Machine, Rates

PUBLISHED_TEMPERATURES = 14_500
"""Of Salakhutdinov & Murray."""


TOLD_EVERY = 10
"""Steps between two looks at free energies."""


@dataclass(frozen=True)
class RBMConfig(Config):
    """Configuration of a restricted Boltzmann machine.

    Attributes:
        hidden: number of hidden units.
        units: visible ones: ``binary``, ``gaussian``, or ``categorical`` (pixels rounded to a few levels).
        binarise: binary: ``dynamic`` draws binary pixels anew each time, ``threshold`` cuts at one half.
        levels: categorical: how many.
        noise: gaussian: deviation that is left to each pixel, as a share of that of the data.
        method: where chains begin: ``pcd`` goes on with those of the step before, ``cd`` starts from the data.
        steps: of Gibbs sampling for each gradient, k.
        steps_end: k at the end of the training, to which it rises linearly; 0: as at the start.
        chains: pcd: how many.
        rate: learning rate; the recipe's ``lr`` is for systems with an optimizer.
        rate_end: share of it that is left at the end, to which it falls linearly.
        momentum: share of the last move that is made again.
        decay: of the weights, per unit of rate.
        centred: subtract offsets from both sides' units.
        init: deviation of the weights at the start.
        temperatures: steps of the annealing that measures log Z; 14,500 are the published ones.
        runs: chains of it, each way, at least.
    """

    hidden: int = 500
    units: Literal["binary", "gaussian", "categorical"] = "binary"
    binarise: Literal["dynamic", "threshold"] = "dynamic"
    levels: int = 17
    noise: float = 1.0
    method: Literal["pcd", "cd"] = "pcd"
    steps: int = 1
    steps_end: int = 0
    chains: int = 100
    rate: float = 0.05
    rate_end: float = 0.0
    momentum: float = 0.0
    decay: float = 0.0
    centred: bool = True
    init: float = 0.01
    temperatures: int = 2000
    runs: int = 100

    def __post_init__(self) -> None:
        if min(self.hidden, self.steps, self.chains, self.temperatures) < 1 or self.runs < 2 or self.levels < 2:
            raise ValueError("hidden, steps, chains and temperatures must be positive, runs and levels at least 2")
        if self.levels > 256 or self.noise <= 0 or self.rate <= 0 or min(self.steps_end, self.decay, self.init) < 0:
            raise ValueError("levels are at most 256, noise and rate positive; steps_end, decay, init not negative")
        if not 0 <= self.momentum < 1 or not 0 <= self.rate_end <= 1:
            raise ValueError("momentum lies in [0, 1), rate_end in [0, 1]")

    def rates(self, progress: Progress) -> Rates:
        """Of a step."""
        done = progress.fraction
        steps = round(self.steps + done * (self.steps_end - self.steps)) if self.steps_end else self.steps
        rate = self.rate * (1 - (1 - self.rate_end) * done)
        return Rates(rate, self.decay, steps, self.centred, told=progress.step % TOLD_EVERY == 0)


@dataclass(frozen=True)
class RBMOptions(Sampling):
    """How examples are drawn.

    Attributes:
        temperature: divides the inputs of all units; 0 takes the likelier state each time.
        steps: of Gibbs sampling.
        start: ``anneal`` begins as independent pixels and turns the machine on during the first half of the steps;
            ``noise`` has it on at once; ``chains`` goes on from the persistent chains of the training.
        pixels: of the last step: their ``mean``, or a ``sample`` of them.
    """

    steps: int = 200
    start: Literal["anneal", "noise", "chains"] = "anneal"
    pixels: Literal["mean", "sample"] = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise ValueError("steps must be at least 1")


class RBM(Generator[RBMConfig, ImageSpec], Density, Refinement):
    """p(v, h) = exp(b v + c h + v W h) / Z over pictures and binary hidden units."""

    Config = RBMConfig
    SampleOptions: ClassVar[type[Sampling]] = RBMOptions

    def __init__(self, config: RBMConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        c = config
        self.coding: Coding
        if c.units == "binary":
            self.coding = BinaryCoding(spec, c.binarise)
        elif c.units == "gaussian":
            self.coding = GaussianCoding(spec, c.noise)
        else:
            self.coding = LevelCoding(spec, c.levels)
        self.machine = Machine(self.coding.units, c.hidden, c.chains if c.method == "pcd" else 0, c.init, c.momentum)

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Visible biases from the means of the first 10,000 examples, and chains drawn from them."""
        self.machine.begin(self.coding.fit(data, rng), rng)

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Update(self.config.method, self.machine, self.diverge, apart=self.machine.offsets),)),)

    def diverge(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        """One step of (persistent) contrastive divergence."""
        return self.machine.step(self.coding.encode(batch.x, rng), rng, self.config.rates(progress))[1]

    # what it can do

    def draw(self, n: int, given: Given, rng: SampleRng, options: RBMOptions, watch: Watch | None) -> Batch:
        """Pictures at the end of chains of their own."""
        m = self.machine
        if options.start == "chains":
            if not m.chains:
                raise UsageError("start=chains: a machine trained by CD has no chains; take anneal.")
            b = m.down(m.chain[rng.integers("which", m.chains)])
            v = m.units.sample(b, rng.at("start"), "visible", options.temperature)
        else:
            v = m.units.sample(m.base.expand(n, -1), rng.at("start"), "visible")
        return self._walk(v, None, rng, options, watch)

    def _walk(self, v: Tensor, free: Tensor | None, rng: SampleRng, options: RBMOptions, watch: Watch | None) -> Batch:
        """Gibbs steps in which only the ``free`` visible units (n, size) move."""
        held, b = v, v
        for step in range(1, options.steps + 1):
            at = min(1.0, 2 * step / options.steps) if options.start == "anneal" and free is None else 1.0
            new, b = self.machine.gibbs(v, rng.at("gibbs", step), at=at, temperature=options.temperature)
            v = new if free is None else torch.where(free, new, held)
            if watch:
                watch(Preview(step, options.steps, lambda b=b, v=v: self._shown(b, v, options)))
        return self._shown(b, v, options)

    def _shown(self, b: Tensor, v: Tensor, options: RBMOptions) -> Batch:
        return Batch.of(self.coding.decode(self.machine.units.mean(b) if options.pixels == "mean" else v))

    def redraw(
        self,
        batch: Batch,
        strength: float,
        mask: Tensor | None,
        given: Given,
        rng: SampleRng,
        options: RBMOptions,
        watch: Watch | None,
    ) -> Tensor:
        """Redraw pixels by Gibbs sampling with all others held; of those of the mask, a random share ``strength``."""
        share = rng.uniform("strength", self.spec.dims).unflatten(1, self.spec.shape) < strength
        free = share if mask is None else share & mask.to(share.device).expand(len(batch), *self.spec.shape)
        units = free.flatten(1).repeat_interleave(self.coding.per_pixel, 1)
        v = self.coding.encode(batch.x, rng)
        v = torch.where(units, self.machine.units.sample(self.machine.base.expand_as(v), rng.at("start"), "visible"), v)
        return torch.where(free, self._walk(v, units, rng, options, watch).x, batch.x)

    @torch.no_grad()
    def features(self, batch: Batch, *, rng: Rng | None = None) -> Tensor:
        """P(h = 1 | picture), ``float32`` (B, hidden)."""
        return self.machine.hidden_mean(self.coding.encode(batch.x, rng))

    def partition(self, seed: int = 0, temperatures: int = 0, runs: int = 0) -> Partition:
        """Log Z of the machine, summed or annealed from both sides; zeros take what the configuration says."""
        c = self.config
        return self.machine.partition(seed, temperatures or c.temperatures, runs or c.runs)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """-F(v) - log Z; more than ``runs`` ``samples`` are so many chains of the annealing."""
        v = self.coding.encode(batch.x, rng)
        z = self.partition(rng.seed, runs=max(samples, self.config.runs))
        nats = -self.machine.free_energy(v).double() - z.log + self.coding.log_volume()
        exact = "bound" if self.config.units == "gaussian" else "exact"
        return Likelihood(
            nats,
            exact if z.kind == "exact" else "estimate",
            z.detail,
            self.coding.preprocessing,
            self.coding.values,
            error=0.0 if z.kind == "exact" else max(abs(z.gap), z.high - z.log, z.log - z.low),
        )
