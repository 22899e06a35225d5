"""Deep belief net.

Papers
    Hinton, Osindero & Teh 2006, "A fast learning algorithm for deep belief nets" (Neural Computation 18): section 4
    (greedy layers), 5 and appendix B (the up-down algorithm), 6 (labels in the associative memory at the top, and
    classes by free energy).
    Salakhutdinov & Murray 2008: the bound on its likelihood, with log Z of the top by annealed importance sampling.

    p(x) = sum over h of p(x | h^1) p(h^1 | h^2) ... p(h^{L-1}),      p(h^{L-1}) that of a Boltzmann machine

    log p(x) >= E_q [sum_l log p(h^{l-1} | h^l) - log q(h^l | h^{l-1}) + log p*(h^{L-1})] - log Z,

    with q from the recognition weights; K samples of it make the bound importance weighted. The top machine's visible
    side is h^{L-1} and, where there are labels, a group of units of which one is on.

Stages
    ``layer 1``, ``layer 2``, ...: a restricted Boltzmann machine on the states of the layer below, whose weights then
    stand still; ``top``: the associative memory; ``up-down``: all weights, those up and those down no longer tied.

What differs, and why
    A layer whose shape is that of the one below turned round starts as it (so the bound starts where it was); others
    start small, with the log-odds of the states below as biases.
    States are sampled on the way up, in training and in the bound. For classes they are means, as in the paper.
    The gradients of the machines are centred; see machine.py. Not in the up-down weights.
    The likelihood is that of a picture alone, summed over its labels.

Expected: see ``recipes/dbn.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.capabilities import Density, Likelihood
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Logs, Model, Progress, Stage, Update
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Preview, Sampling, Watch
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.image import ImageSpec
from castalia.estimators.annealing import Partition
from castalia.models.energy.coding import BinaryCoding
from castalia.models.energy.machine import Machine, Rates
from castalia.models.energy.units import Binary, Categorical, Joined, drawn
from castalia.nn.labels import Labels, classes_of


@dataclass(frozen=True)
class DBNConfig(Config):
    """Configuration of a deep belief net; the sizes of the default are those of the paper.

    Attributes:
        widths: hidden layers, from the picture up; the last one is the hidden side of the top machine.
        conditional: labels are units of the top machine, and can be asked for.
        binarise: ``dynamic`` draws binary pixels anew each time, ``threshold`` cuts at one half.
        method: of the top machine: ``cd`` from the data, or ``pcd`` with ``chains`` chains.
        chains: pcd: how many.
        rate: learning rate of the machines, which falls linearly to 0 within each stage.
        momentum: of the machines: share of the last move that is made again.
        decay: of the machines' weights, per unit of rate.
        updown: learning rate of the up-down stage, falling in the same way.
        updown_share: of the training, relative to 1 for each machine; 0 leaves the stage out.
        steps: of Gibbs sampling in the top machine, in equal parts of the up-down stage.
        init: deviation of the weights at the start.
        temperatures: steps of the annealing that measures log Z of the top.
        runs: chains of it, each way, at least.
    """

    widths: tuple[int, ...] = (500, 500, 2000)
    conditional: bool = False
    binarise: Literal["dynamic", "threshold"] = "dynamic"
    method: Literal["cd", "pcd"] = "cd"
    chains: int = 100
    rate: float = 0.1
    momentum: float = 0.5
    decay: float = 2e-4
    updown: float = 0.02
    updown_share: float = 2.0
    steps: tuple[int, ...] = (3, 6, 10)
    init: float = 0.01
    temperatures: int = 2000
    runs: int = 100

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or min(self.widths) < 1 or not self.steps or min(self.steps) < 1:
            raise ValueError("widths are at least two layers, all positive; steps at least one positive number")
        if min(self.rate, self.updown) <= 0 or min(self.decay, self.updown_share, self.init) < 0:
            raise ValueError("rate and updown must be positive; decay, updown_share and init not negative")
        if not 0 <= self.momentum < 1 or min(self.chains, self.temperatures) < 1 or self.runs < 2:
            raise ValueError("momentum lies in [0, 1); chains and temperatures are positive, runs at least 2")


@dataclass(frozen=True)
class DBNOptions(Sampling):
    """How pictures are drawn.

    Attributes:
        temperature: divides the inputs of the top machine's units; 0 takes the likelier state each time.
        steps: of Gibbs sampling in the top machine; in the first half it is turned on by and by.
        pixels: of the way down: their ``mean``, or a ``sample`` of them.
    """

    steps: int = 200
    pixels: Literal["mean", "sample"] = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise ValueError("steps must be at least 1")


class Layer(nn.Module):
    """A machine that becomes a directed layer: its weights lead down, and others, equal at first, lead up."""

    def __init__(self, below: int, above: int, init: float, momentum: float) -> None:
        super().__init__()
        self.machine = Machine(Binary(below), above, 0, init, momentum)
        self.up_weight = nn.Parameter(self.machine.weight.detach().clone())
        self.up_bias = nn.Parameter(torch.zeros(above))

    def tie(self) -> None:
        """Make the weights that lead up those of the machine."""
        self.up_weight.copy_(self.machine.weight)
        self.up_bias.copy_(self.machine.hidden)

    def up(self, v: Tensor) -> Tensor:
        """Inputs from below, (n, above)."""
        return torch.addmm(self.up_bias, v, self.up_weight).float()

    def down(self, h: Tensor) -> Tensor:
        """Inputs from above, (n, below)."""
        return self.machine.down(h)


class DBN(Generator[DBNConfig, ImageSpec], Density):
    """Directed layers below a Boltzmann machine, which knows the labels."""

    Config = DBNConfig
    SampleOptions: ClassVar[type[Sampling]] = DBNOptions

    def __init__(self, config: DBNConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        c = config
        self.coding = BinaryCoding(spec, c.binarise)
        sizes = (spec.dims, *c.widths)
        self.layers = nn.ModuleList(Layer(below, above, c.init, c.momentum) for below, above in pairwise(sizes[:-1]))
        self.code, self.classes = c.widths[-2], classes_of(spec, c.conditional)
        parts = [Binary(self.code), Categorical(1, self.classes)] if self.classes else [Binary(self.code)]
        self.top = Machine(Joined(parts), c.widths[-1], c.chains if c.method == "pcd" else 0, c.init, c.momentum)
        self.labels = Labels(self.classes)

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Biases of the pixels from the means of the first 10,000 examples."""
        first = self._layers()[0]
        first.machine.begin(self.coding.fit(data, rng), rng)
        self.labels.fit(data)
        self._begin_top(rng)

    def _layers(self) -> list[Layer]:
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    # the objectives

    def stages(self) -> tuple[Stage, ...]:
        stages = []
        for i, layer in enumerate(self._layers()):
            step = Update("cd", layer, self._fit(layer), apart=layer.machine.offsets)
            enter = self._enter(i) if i else None
            stages.append(Stage(f"layer {i + 1}", (step,), enter=enter, transform=self._below(i)))
        top = Update(self.config.method, self.top, self.associate, apart=self.top.offsets)
        stages.append(Stage("top", (top,), enter=self._begin_top, transform=self._below(len(self.layers))))
        if self.config.updown_share:
            whole = nn.ModuleList([*self.layers, self.top])
            step = Update("up-down", whole, self.up_down, apart=self.top.offsets)
            stages.append(Stage("up-down", (step,), share=self.config.updown_share))
        return tuple(stages)

    def rates(self, progress: Progress) -> Rates:
        """Of a step of a machine."""
        c = self.config
        return Rates(c.rate * (1 - progress.fraction), c.decay)

    def _below(self, count: int) -> Callable[[Batch, Rng, Progress], Batch]:
        """Pictures as states of the layer ``count``, sampled on the way up."""

        def transform(batch: Batch, rng: Rng, progress: Progress) -> Batch:
            states = self.rise(self.coding.encode(batch.x, rng), rng, count)
            return Batch(states[-1], batch.ids, batch.label)

        return transform

    def _fit(self, layer: Layer) -> Callable[[Batch, Rng, Progress], Logs]:
        def step(batch: Batch, rng: Rng, progress: Progress) -> Logs:
            logs = layer.machine.step(batch.x, rng, self.rates(progress))[1]
            layer.tie()
            return logs

        return step

    def _enter(self, i: int) -> Callable[[Rng], None]:
        """Begin the layer ``i`` on what the one below has come to."""

        @torch.no_grad()
        def enter(rng: Rng) -> None:
            below, layer = self._layers()[i - 1], self._layers()[i]
            turned = self._turn(below.machine, layer.machine)
            layer.machine.begin(below.machine.offset_h, rng)
            if turned:
                layer.machine.visible.copy_(below.machine.hidden)
            layer.tie()

        return enter

    @torch.no_grad()
    def _begin_top(self, rng: Rng) -> None:
        below = self._layers()[-1].machine
        turned = self._turn(below, self.top)
        self.top.begin(torch.cat([below.offset_h, self.labels.shares]), rng)
        if turned:
            self.top.visible.copy_(below.hidden)

    @staticmethod
    def _turn(below: Machine, machine: Machine) -> bool:
        """Start as the machine below turned round, where the shapes allow it; whether they did."""
        if machine.weight.shape != below.weight.T.shape:
            return False
        machine.weight.copy_(below.weight.T)
        machine.hidden.copy_(below.visible)
        return True

    def associate(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        """A step of the top machine on states of the layer below it, with their labels."""
        return self.top.step(self.with_label(batch.x, self.labels.of(batch)), rng, self.rates(progress))[1]

    def up_down(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        """Appendix B: awake the weights down learn from what is seen, asleep those up from what is dreamt."""
        c, layers = self.config, self._layers()
        rate = c.updown * (1 - progress.fraction)
        part = min(int(progress.fraction * len(c.steps)), len(c.steps) - 1)
        awake = self.rise(self.coding.encode(batch.x, rng), rng, len(layers))
        # the gradients down, before the weights of the top move what is dreamt
        moves: list[tuple[Tensor, Tensor]] = []
        logs: dict[str, Tensor] = {}
        for layer, below, above in zip(layers, awake, awake[1:], strict=False):
            inputs = layer.down(above)
            wrong = below - torch.sigmoid(inputs)
            moves += [(layer.machine.weight, wrong.T @ above / len(above)), (layer.machine.visible, wrong.mean(0))]
            if not logs:
                logs["reconstruction"] = -log_bernoulli(below, inputs).mean()
        seen = self.with_label(awake[-1], self.labels.of(batch))
        rates = Rates(rate, c.decay, c.steps[part])
        dreamt, more = self.top.step(seen, rng, rates)
        here = rng.shared(len(dreamt)) if self.top.chains else rng
        above = dreamt[:, : self.code]
        for i in range(len(layers) - 1, -1, -1):
            layer = layers[i]
            below = drawn(torch.sigmoid(layer.down(above)), here, f"dream {i}")
            wrong = above - torch.sigmoid(layer.up(below))
            moves += [(layer.up_weight, below.T @ wrong / len(above)), (layer.up_bias, wrong.mean(0))]
            above = below
        for parameter, gradient in moves:
            parameter.add_(gradient.float(), alpha=rate)
        return {**logs, **more}

    # up and down

    def rise(self, v: Tensor, rng: Rng, count: int) -> list[Tensor]:
        """States of the layers 0 (the pixels ``v``) to ``count``, sampled."""
        states = [v]
        for i, layer in enumerate(self._layers()[:count]):
            states.append(drawn(torch.sigmoid(layer.up(states[-1])), rng, f"up {i}"))
        return states

    def with_label(self, h: Tensor, label: Tensor | None) -> Tensor:
        """The visible side of the top machine, for states (n, code) and class numbers."""
        if not self.classes:
            return h
        assert label is not None
        return torch.cat([h, F.one_hot(label, self.classes).to(h.dtype)], 1)

    def energies(self, h: Tensor) -> Tensor:
        """Free energies (n, classes) of states (n, code) of the top machine with each label; (n, 1) without labels."""
        if not self.classes:
            return self.top.free_energy(h)[:, None]
        top, k = self.top, self.code
        a = torch.addmm(top.hidden, h, top.weight[:k])
        with_each = [F.softplus(a + top.weight[k + y]).sum(1) + top.visible[k + y] for y in range(self.classes)]
        return -(h @ top.visible[:k])[:, None] - torch.stack(with_each, 1)

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        return {"label": LabelSpec(self.spec.classes)} if self.classes else {}

    def draw(self, n: int, given: Given, rng: SampleRng, options: DBNOptions, watch: Watch | None) -> Batch:
        """Gibbs sampling in the top machine, its label held, and one way down."""
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        top, o = self.top, options
        v = top.units.sample(top.base.expand(n, -1), rng.at("start"), "visible")
        v = self.with_label(v[:, : self.code], label)
        for step in range(1, o.steps + 1):
            at = min(1.0, 2 * step / o.steps)
            v, _ = top.gibbs(v, rng.at("gibbs", step), at=at, temperature=o.temperature)
            v = self.with_label(v[:, : self.code], label)
            if watch:
                watch(Preview(step, o.steps, lambda v=v: self._fall(v, rng, o)))
        return self._fall(v, rng, o)

    def _fall(self, v: Tensor, rng: SampleRng, options: DBNOptions) -> Batch:
        """Pictures of states of the top machine."""
        h = v[:, : self.code]
        for i, layer in reversed(list(enumerate(self._layers()))):
            p = torch.sigmoid(layer.down(h))
            h = drawn(p, rng.at("down", i), "states") if i or options.pixels == "sample" else p
        return Batch.of(self.coding.decode(h))

    @torch.no_grad()
    def classify(self, batch: Batch) -> Tensor:
        """Probabilities (B, classes) of the labels of pictures, from free energies at the means of the states."""
        if not self.classes:
            raise UsageError("This net was trained without labels, and knows no classes.")
        h = self.coding.encode(batch.x, None)
        for layer in self._layers():
            h = torch.sigmoid(layer.up(h))
        return torch.softmax(-self.energies(h), 1)

    def partition(self, seed: int = 0, temperatures: int = 0, runs: int = 0) -> Partition:
        """Log Z of the top machine; zeros take what the configuration says."""
        c = self.config
        return self.top.partition(seed, temperatures or c.temperatures, runs or c.runs)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """The bound with ``samples`` samples of the states (importance weighted), and log Z of the top machine."""
        v = self.coding.encode(batch.x, rng)
        z = self.partition(rng.seed)
        terms = []
        for k in range(samples):
            states = self.rise(v, rng.at("states", k), len(self.layers))
            term = torch.logsumexp(-self.energies(states[-1]).double(), 1)
            for layer, below, above in zip(self._layers(), states, states[1:], strict=False):
                term = term + log_bernoulli(below, layer.down(above)).double()
                term = term - log_bernoulli(above, layer.up(below)).double()
            terms.append(term)
        nats = torch.logsumexp(torch.stack(terms), 0) - math.log(samples) - z.log
        detail = f"bound with K = {samples} samples of the states; top machine: {z.detail}"
        kind = "bound" if z.kind == "exact" else "estimate"
        error = 0.0 if z.kind == "exact" else max(abs(z.gap), z.high - z.log)
        return Likelihood(nats, kind, detail, self.coding.preprocessing, error=error)


def log_bernoulli(states: Tensor, inputs: Tensor) -> Tensor:
    """log-probability (n,) of zeros and ones (n, size) given their inputs."""
    return (states * inputs - F.softplus(inputs)).sum(1)
