"""Deep Boltzmann machine.

Papers
    Salakhutdinov & Hinton 2009, "Deep Boltzmann Machines" (AISTATS): the model (eq. 9), mean-field inference for the
    data and persistent chains for the model (section 2), the greedy start with doubled weights (section 3.1), the
    bound on the likelihood with log Z by annealed importance sampling (section 4).
    Montavon & Mueller 2012, "Deep Boltzmann Machines and the Centering Trick": centred units make the greedy start
    unnecessary.

    p(v, h^1, h^2, ...) = exp(b v + sum_l c_l h^l + v W_1 h^1 + h^1 W_2 h^2 + ...) / Z
    log p(v) >= b v + sum_l (c_l m_l + H(m_l)) + v W_1 m_1 + m_1 W_2 m_2 + ... - log Z,      m_l = <h^l> under q(h | v)

Given the layers of even number (v, h^2, ...) those of odd number are independent, and the other way round. So the
machine is a harmonium (machine.py) between these two sides, whose visible side is seen in part only, and whose weights
have no entries between layers that are no neighbours. Its chains, its gradient and its partition function are those of
the restricted machine.

What differs, and why
    Gradients are centred; ``pretrain`` is the greedy start of the paper, for two hidden layers.
    The greedy machines have their doubled side twice, with equal weights; each copy is drawn by itself.
    The means of the posterior enter the gradient, with the odd layers' once more updated, as in the paper.

Expected: see ``recipes/dbm.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from castalia.core.capabilities import Density, Likelihood, Refinement
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.model import Generator, Logs, Model, Progress, Stage, Update
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Preview, Sampling, Watch
from castalia.core.specs.image import ImageSpec
from castalia.estimators.annealing import Partition
from castalia.models.energy.coding import BinaryCoding
from castalia.models.energy.machine import Machine, Rates
from castalia.models.energy.units import Binary


@dataclass(frozen=True)
class DBMConfig(Config):
    """Configuration of a deep Boltzmann machine; the sizes of the default are the paper's for digits.

    Attributes:
        widths: hidden layers, from the picture up.
        binarise: ``dynamic`` draws binary pixels anew each time, ``threshold`` cuts at one half.
        fields: mean-field updates of all layers.
        steps: of Gibbs sampling for each gradient.
        chains: persistent chains.
        rate: learning rate, which falls linearly to 0 within each stage.
        momentum: share of the last move that is made again.
        decay: of the weights, per unit of rate.
        init: deviation of the weights at the start.
        pretrain: share of the training for the greedy start of both layers, relative to 1 for the whole machine; 0
            leaves it out.
        temperatures: steps of the annealing that measures log Z; the paper has 20,000.
        runs: chains of it, each way, at least.
    """

    widths: tuple[int, ...] = (500, 1000)
    binarise: Literal["dynamic", "threshold"] = "dynamic"
    fields: int = 15
    steps: int = 5
    chains: int = 100
    rate: float = 0.02
    momentum: float = 0.0
    decay: float = 2e-4
    init: float = 0.01
    pretrain: float = 0.0
    temperatures: int = 2000
    runs: int = 100

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or min(*self.widths, self.fields, self.steps, self.chains, self.temperatures) < 1:
            raise ValueError("widths are at least two layers; they, fields, steps, chains, temperatures are positive")
        if self.rate <= 0 or min(self.decay, self.init, self.pretrain) < 0 or not 0 <= self.momentum < 1:
            raise ValueError("rate must be positive, decay, init, pretrain not negative, momentum lies in [0, 1)")
        if self.pretrain and len(self.widths) != 2:
            raise ValueError("pretrain is for two hidden layers")
        if self.runs < 2:
            raise ValueError("runs must be at least 2")


@dataclass(frozen=True)
class DBMOptions(Sampling):
    """How pictures are drawn.

    Attributes:
        temperature: divides the inputs of all units; 0 takes the likelier state each time.
        steps: of Gibbs sampling.
        start: ``anneal`` begins as independent units and turns the machine on during the first half of the steps;
            ``chains`` goes on from the persistent chains of the training.
        pixels: of the last step: their ``mean``, or a ``sample`` of them.
    """

    steps: int = 400
    start: Literal["anneal", "chains"] = "anneal"
    pixels: Literal["mean", "sample"] = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise ValueError("steps must be at least 1")


class DBM(Generator[DBMConfig, ImageSpec], Density, Refinement):
    """Layers of binary units, each bound to its neighbours, without directions."""

    Config = DBMConfig
    SampleOptions: ClassVar[type[Sampling]] = DBMOptions
    between: Tensor

    def __init__(self, config: DBMConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        c, self.pixels = config, spec.dims
        self.coding = BinaryCoding(spec, c.binarise)
        sizes = (spec.dims, *c.widths)
        even, odd = sizes[0::2], sizes[1::2]
        self.machine = Machine(Binary(sum(even)), sum(odd), c.chains, c.init, c.momentum)
        # which weights are between neighbours
        rows = [
            torch.cat([torch.full((n, m), float(abs(2 * i - 2 * j - 1) == 1)) for j, m in enumerate(odd)], 1)
            for i, n in enumerate(even)
        ]
        self.register_buffer("between", torch.cat(rows), persistent=False)
        self.greedy = nn.ModuleList()
        if c.pretrain:
            first = Machine(Binary(2 * sizes[0]), sizes[1], 0, c.init, c.momentum)
            second = Machine(Binary(sizes[1]), 2 * sizes[2], 0, c.init, c.momentum)
            self.greedy.extend([first, second])

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Biases of the pixels from the means of the first 10,000 examples, and chains drawn from them."""
        mean = self.coding.fit(data, rng)
        self._begin(mean, rng)
        if self.greedy:
            self._greedy(0).begin(mean.repeat(2), rng)

    @torch.no_grad()
    def _begin(self, mean: Tensor, rng: Rng) -> None:
        rest = self.machine.units.size - self.pixels
        self.machine.weight.mul_(self.between)
        self.machine.begin(torch.cat([mean, mean.new_full((rest,), 0.5)]), rng)

    def _greedy(self, number: int) -> Machine:
        machine = self.greedy[number]
        assert isinstance(machine, Machine)
        return machine

    # the objectives

    def stages(self) -> tuple[Stage, ...]:
        whole = Update("dbm", self.machine, self.diverge, apart=self.machine.offsets)
        if not self.greedy:
            return (Stage("train", (whole,)),)
        first, second = self._greedy(0), self._greedy(1)
        share = self.config.pretrain / 2
        return (
            Stage("layer 1", (Update("cd", first, self.first, apart=first.offsets),), share=share),
            Stage(
                "layer 2", (Update("cd", second, self.second, apart=second.offsets),), share=share, enter=self._between
            ),
            Stage("train", (whole,), enter=self._join),
        )

    def rates(self, progress: Progress, steps: int) -> Rates:
        """Of a step of a machine."""
        return Rates(self.config.rate * (1 - progress.fraction), self.config.decay, steps)

    def diverge(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        """A step of the whole machine: mean fields of the data, persistent chains of the model."""
        even, _ = self.infer(self.coding.encode(batch.x, rng))
        return self.machine.step(even, rng, self.rates(progress, self.config.steps), self.between)[1]

    def first(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        """A step of the first greedy machine, which has the pixels twice."""
        machine = self._greedy(0)
        logs = machine.step(self.coding.encode(batch.x, rng).repeat(1, 2), rng, self.rates(progress, 1))[1]
        for tensor in (machine.weight, machine.visible):
            tensor.copy_(tensor.view(2, -1, *tensor.shape[1:]).mean(0).repeat(2, *[1] * (tensor.ndim - 1)))
        return logs

    def second(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        """A step of the second greedy machine, which has its hidden units twice."""
        machine = self._greedy(1)
        below = self._greedy(0).hidden_mean(self.coding.encode(batch.x, rng).repeat(1, 2))
        logs = machine.step(below, rng, self.rates(progress, 1))[1]
        half = len(machine.hidden) // 2
        machine.weight.copy_(machine.weight.view(-1, 2, half).mean(1).repeat(1, 2))
        machine.hidden.copy_(machine.hidden.view(2, half).mean(0).repeat(2))
        return logs

    @torch.no_grad()
    def _between(self, rng: Rng) -> None:
        """Begin the second greedy machine on what the first has come to."""
        self._greedy(1).begin(self._greedy(0).offset_h.clamp(0.01, 0.99), rng)

    @torch.no_grad()
    def _join(self, rng: Rng) -> None:
        """Put the greedy machines together: each weight once, without its double."""
        first, second, machine = self._greedy(0), self._greedy(1), self.machine
        pixels, top = self.pixels, self.config.widths[1]
        machine.weight[:pixels].copy_(first.weight[:pixels])
        machine.weight[pixels:].copy_(second.weight[:, :top].T)
        machine.hidden.copy_(0.5 * (first.hidden + second.visible))
        machine.visible.copy_(torch.cat([first.visible[:pixels], second.hidden[:top]]))
        machine.offset_h.copy_(first.offset_h)
        machine.offset_v[pixels:].copy_(second.offset_h[:top])
        machine.rest()
        here = rng.shared(machine.chains)
        v = machine.units.sample(machine.base.expand(machine.chains, -1), here, "chain")
        machine.chain.copy_((machine.hidden_mean(v) > here.uniform("hidden", machine.size)).float())

    # inference

    @torch.no_grad()
    def infer(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Means under q of the even layers, with ``v`` (n, pixels) first, and of the odd ones: (n, even), (n, odd)."""
        m, k = self.machine, self.pixels
        seen = torch.addmm(m.hidden, v, m.weight[:k]).float()  # what the pixels say, which does not change
        inner, bias = m.weight[k:], m.visible[k:]
        even = v.new_full((len(v), len(bias)), 0.5)
        odd = torch.sigmoid(seen + even @ inner)
        for _ in range(self.config.fields):
            even = torch.sigmoid(torch.addmm(bias, odd, inner.T).float())
            odd = torch.sigmoid(seen + even @ inner)
        return torch.cat([v, even], 1), odd

    @torch.no_grad()
    def features(self, batch: Batch, *, rng: Rng | None = None) -> Tensor:
        """Means of all hidden layers, odd ones first, ``float32`` (B, hidden)."""
        even, odd = self.infer(self.coding.encode(batch.x, rng))
        return torch.cat([odd, even[:, self.pixels :]], 1)

    # what it can do

    def draw(self, n: int, given: Given, rng: SampleRng, options: DBMOptions, watch: Watch | None) -> Batch:
        """Pictures at the end of chains of their own."""
        m = self.machine
        if options.start == "chains":
            inputs = m.down(m.chain[rng.integers("which", m.chains)])
            v = m.units.sample(inputs, rng.at("start"), "visible", options.temperature)
        else:
            v = m.units.sample(m.base.expand(n, -1), rng.at("start"), "visible")
        return self._walk(v, None, rng, options, watch)

    def _walk(self, v: Tensor, free: Tensor | None, rng: SampleRng, options: DBMOptions, watch: Watch | None) -> Batch:
        """Gibbs steps in which only the ``free`` units of the even layers (n, even) move."""
        held, b = v, v
        for step in range(1, options.steps + 1):
            at = min(1.0, 2 * step / options.steps) if options.start == "anneal" and free is None else 1.0
            new, b = self.machine.gibbs(v, rng.at("gibbs", step), at=at, temperature=options.temperature)
            v = new if free is None else torch.where(free, new, held)
            if watch:
                watch(Preview(step, options.steps, lambda b=b, v=v: self._shown(b, v, options)))
        return self._shown(b, v, options)

    def _shown(self, b: Tensor, v: Tensor, options: DBMOptions) -> Batch:
        pixels = self.machine.units.mean(b) if options.pixels == "mean" else v
        return Batch.of(self.coding.decode(pixels[:, : self.pixels]))

    def redraw(
        self,
        batch: Batch,
        strength: float,
        mask: Tensor | None,
        given: Given,
        rng: SampleRng,
        options: DBMOptions,
        watch: Watch | None,
    ) -> Tensor:
        """Redraw pixels by Gibbs sampling with all others held; of those of the mask, a random share ``strength``."""
        share = rng.uniform("strength", self.spec.dims).unflatten(1, self.spec.shape) < strength
        free = share if mask is None else share & mask.to(share.device).expand(len(batch), *self.spec.shape)
        even, _ = self.infer(self.coding.encode(batch.x, rng))
        units = torch.cat([free.flatten(1), free.new_ones(len(batch), even.shape[1] - self.pixels)], 1)
        start = self.machine.units.sample(self.machine.base.expand_as(even), rng.at("start"), "visible")
        return torch.where(free, self._walk(torch.where(units, start, even), units, rng, options, watch).x, batch.x)

    def partition(self, seed: int = 0, temperatures: int = 0, runs: int = 0) -> Partition:
        """Log Z, summed or annealed from both sides; zeros take what the configuration says."""
        c = self.config
        return self.machine.partition(seed, temperatures or c.temperatures, runs or c.runs)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """The variational bound at the mean fields, minus log Z; more than ``runs`` ``samples`` are so many chains."""
        v = self.coding.encode(batch.x, rng)
        z = self.partition(rng.seed, runs=max(samples, self.config.runs))
        nats = self.bound(v) - z.log
        return Likelihood(
            nats,
            "bound" if z.kind == "exact" else "estimate",
            f"mean-field bound; {z.detail}",
            self.coding.preprocessing,
            self.coding.values,
            error=0.0 if z.kind == "exact" else max(abs(z.gap), z.high - z.log, z.log - z.low),
        )

    def bound(self, v: Tensor) -> Tensor:
        """A lower bound on log p(v) + log Z, ``float64`` (n,), of pixels (n, pixels)."""
        even, odd = (means.double() for means in self.infer(v))
        m = self.machine
        energy = even @ m.visible.double() + odd @ m.hidden.double() + ((even @ m.weight.double()) * odd).sum(1)
        return energy + entropy(odd) + entropy(even[:, self.pixels :])


def entropy(means: Tensor) -> Tensor:
    """Nats of independent binary units with these means (n, size), (n,)."""
    p = means.clamp(1e-12, 1 - 1e-12)
    return -(p * p.log() + (1 - p) * torch.log1p(-p)).sum(1)
