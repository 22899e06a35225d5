"""Energy-based model, trained with chains from a replay buffer.

Papers
    Du & Mordatch 2019, "Implicit generation and modeling with energy-based models" (arXiv:1903.08689): eq. 1 (Langevin
    dynamics), section 3.2 (the replay buffer), 3.3 (spectral norm, energies bound by their squares), algorithm 1.
    Nijkamp et al. 2020 (arXiv:1903.12370): when chains diverge. Classes: a head for each, as in Grathwohl et al. 2020
    (arXiv:1912.03263).

    p(x) = exp(-E(x)) / Z,    gradient of log p: -<dE>_data + <dE>_model
    L = mean E(x+) - mean E(x-) + alpha (mean E(x+)^2 + mean E(x-)^2)

    x- are where chains of Langevin dynamics are, which go on from where they were when their place in the buffer was
    used last; five in a hundred start anew from noise.

What differs, and why
    A chain belongs to a place of the buffer, and all places have their turn: the paper draws places at random, which
    sometimes takes one twice, and in several processes would take other ones in each.
    What is stored is rounded to 8 bits and comes back with the noise of dequantisation, like the data.
    Divergence is looked for and undone. Where the energies of data and samples part, or grow beyond a limit, the
    weights go back to when they last were calm, all chains begin anew, and from then on a step is half of a step
    (``caution``, which slowly returns to 1).
    Points are standardised, and their chains have no bounds.

Expected: see ``recipes/ebm.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from castalia.core.capabilities import Perception, Refinement
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset, some_of
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Logs, Model, Objective, Optimizer, Progress, Stage, Update
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Preview, Sampling, Watch
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.energy.langevin import langevin
from castalia.models.energy.networks import Dense, Residual, Strided, bounded
from castalia.models.energy.watching import Guard
from castalia.nn.labels import Labels, classes_of
from castalia.nn.seeing import Seeing

FIT_EXAMPLES = 10_000
"""At most this many examples are read for means and deviations of points."""


@dataclass(frozen=True)
class EBMConfig(Config):
    """Configuration of an energy-based model.

    Attributes:
        network: of pictures: ``strided`` (small) or ``residual`` (Du & Mordatch). Points have a perceptron.
        widths: channels per level, each halving the picture; of points, hidden layers.
        hidden: strided: width of the dense layer.
        spectral: bind every layer by its spectral norm.
        conditional: an energy for each class.
        steps: of Langevin dynamics for each training step.
        step: multiplies the gradient.
        noise: deviation of what is added in each step.
        clip: no part of a gradient is larger; 0: any.
        replay: places of the buffer.
        restart: share of chains that start anew from noise.
        alpha: weight of the squared energies.
        draw_steps: of Langevin dynamics from noise for a sample, unless asked otherwise.
        limit: energies, or a gap between data and samples, beyond it are a divergence.
        betas: of Adam, whose first is 0 in the paper.
    """

    network: Literal["strided", "residual"] = "strided"
    widths: tuple[int, ...] = (16, 32, 64, 64)
    hidden: int = 64
    spectral: bool = False
    conditional: bool = False
    steps: int = 60
    step: float = 10.0
    noise: float = 0.005
    clip: float = 0.03
    replay: int = 8192
    restart: float = 0.05
    alpha: float = 0.1
    draw_steps: int = 300
    limit: float = 20.0
    betas: tuple[float, float] = (0.0, 0.999)

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1 or min(self.hidden, self.steps, self.replay, self.draw_steps) < 1:
            raise ValueError("widths, hidden, steps, replay and draw_steps must be positive")
        if min(self.step, self.limit) <= 0 or min(self.noise, self.clip, self.alpha) < 0:
            raise ValueError("step and limit must be positive; noise, clip and alpha not negative")
        if not 0 <= self.restart <= 1:
            raise ValueError("restart is a share between 0 and 1")


@dataclass(frozen=True)
class EBMOptions(Sampling):
    """How examples are drawn.

    Attributes:
        temperature: multiplies the noise of the dynamics.
        steps: of Langevin dynamics; 0: as many as the configuration says.
        start: from ``noise``, or from chains of the ``replay`` buffer, which are old and good.
    """

    steps: int = 0
    start: Literal["noise", "replay"] = "noise"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 0:
            raise ValueError("steps must not be negative")


class Replay(nn.Module):
    """Where chains are: ``uint8`` pictures or points, each with its class."""

    x: Tensor
    label: Tensor

    def __init__(self, places: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("x", torch.zeros(places, *shape, dtype=dtype))
        self.register_buffer("label", torch.zeros(places, dtype=torch.int64))

    def mine(self, rng: Rng, progress: Progress) -> Tensor:
        """Places ``int64`` (rows,) whose turn it is, of the rows of this process."""
        total = round(rng.rows / rng.share)
        if total > len(self.x):
            raise UsageError(f"config.replay = {len(self.x)} has no place for batches of {total} chains.")
        rows = torch.arange(rng.start, rng.start + rng.rows, device=self.x.device)
        return (progress.step * total + rows) % len(self.x)


E = TypeVar("E", bound=EBMConfig)


class EBM(Generator[E, ImageSpec | PointsSpec], Refinement, Perception):
    """p(x) proportional to exp(-E(x)), or to exp(-E(x, y)) for each class y."""

    Config: ClassVar[type[Config]] = EBMConfig
    SampleOptions: ClassVar[type[Sampling]] = EBMOptions
    shard_units = ()
    mean: Tensor
    deviation: Tensor

    def __init__(self, config: E, spec: ImageSpec | PointsSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        c, self.pictures = config, isinstance(spec, ImageSpec)
        self.labels = Labels(classes_of(spec, c.conditional))
        network = self.energies(spec, max(1, self.labels.classes))
        self.network = bounded(network) if c.spectral else network
        kind = torch.uint8 if self.pictures else torch.float32
        self.replay = Replay(c.replay, spec.shape, kind)
        self.guard = Guard(self.network, c.limit)
        self.register_buffer("mean", torch.zeros(() if self.pictures else spec.shape))
        self.register_buffer("deviation", torch.ones(() if self.pictures else spec.shape))

    def energies(self, spec: ImageSpec | PointsSpec, out: int) -> nn.Module:
        """The network that gives an example ``out`` energies."""
        c = self.config
        if isinstance(spec, PointsSpec):
            return Dense(spec.dims, c.widths, out)
        if c.network == "strided":
            return Strided(spec.shape, c.widths, c.hidden, out)
        return Residual(spec.shape, c.widths, out)

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Units of points; the buffer full of noise."""
        if not self.pictures:
            x = data.batch(some_of(data, FIT_EXAMPLES)).x
            self.mean.copy_(x.mean(0))
            self.deviation.copy_(x.std(0, correction=0).clamp(min=1e-6))
        self.labels.fit(data)
        self._renew(rng)

    # the objectives

    def stages(self) -> tuple[Stage, ...]:
        memory = (self.replay.x, self.replay.label)
        learned = nn.ModuleList([self.network, self.guard, self.replay])
        optimizer = Optimizer("adam", betas=self.config.betas)
        parts = (
            Update("chains", self.replay, self.walk, apart=memory),
            Objective("energy", self.network, self.contrast, optimizer, project=self.guard.project),
            Update("guard", learned, self.look, apart=(self.guard.seen,)),
        )
        return (Stage("train", parts),)

    def walk(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        """Let the chains whose turn it is go on, some of them from noise."""
        places = self.replay.mine(rng, progress)
        x, label = self.inward(self.replay.x[places], rng), self.replay.label[places]
        anew = rng.uniform("restart") < self.config.restart
        x = torch.where(anew.view(-1, *[1] * (x.ndim - 1)), self.noise(rng), x)
        if self.labels.classes:
            label = torch.where(anew, self.labels.drawn(rng), label)  # type: ignore[arg-type]
        x = self._go(x, self.led(label), rng, self.config.steps)
        self.replay.x[places], self.replay.label[places] = self.outward(x), self.named(x, label)
        return {"restarted": anew.float().mean()}

    def led(self, label: Tensor) -> Tensor | None:
        """Classes whose energies the chains of the training follow."""
        return label

    def named(self, x: Tensor, label: Tensor) -> Tensor:
        """Classes of the chains of the training, by where they have come to."""
        return label

    def contrast(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Energies of the data down, those of where the chains are up."""
        places = self.replay.mine(rng, progress)
        real, made = self.inward(batch.x, rng), self.inward(self.replay.x[places], rng.at("made"))
        label = self.labels.of(batch)
        labels = None if label is None else torch.cat([label, self.replay.label[places]])
        low, high = self.energy(torch.cat([real, made]), labels).chunk(2)
        square = low.square().mean() + high.square().mean()
        self.guard.note(low, high)
        loss = low.mean() - high.mean() + self.config.alpha * square
        return loss, {"real": low.mean(), "made": high.mean(), "square": square}

    def look(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        """Go back where the last steps have gone wrong."""
        if self.guard.look(rng.share):
            self._renew(rng)
        return {"caution": self.guard.caution.clone(), "recoveries": self.guard.recoveries.float()}

    @torch.no_grad()
    def _renew(self, rng: Rng) -> None:
        """Let all chains begin anew."""
        here = rng.shared(len(self.replay.x))
        self.replay.x.copy_(self.outward(self.noise(here)))
        if self.labels.classes:
            self.replay.label.copy_(self.labels.drawn(here))  # type: ignore[arg-type]

    # energies and chains

    def energy(self, x: Tensor, label: Tensor | None) -> Tensor:
        """E(x), or E(x, y) where there are classes, ``float32`` (n,), of examples in the dynamics' units."""
        energies = self.network(x)
        return energies[:, 0] if label is None or not self.labels.classes else energies.gather(1, label[:, None])[:, 0]

    def inward(self, x: Tensor, rng: Rng | None) -> Tensor:
        """Pictures dequantised, on [0, 1); points standardised."""
        if self.pictures:
            return (x.float() + (0.5 if rng is None else rng.uniform("dequantise", *self.spec.shape))) / 256
        return (x - self.mean) / self.deviation

    def outward(self, x: Tensor) -> Tensor:
        """The inverse."""
        if self.pictures:
            return (x * 256).floor().clamp(0, 255).to(torch.uint8)
        return x * self.deviation + self.mean

    def noise(self, rng: Rng) -> Tensor:
        """Where chains begin: evenly on [0, 1) for pictures, standard normal for points."""
        draw = rng.uniform if self.pictures else rng.normal
        return draw("noise", *self.spec.shape)

    def _go(
        self,
        x: Tensor,
        label: Tensor | None,
        rng: Rng,
        steps: int,
        temperature: float = 1.0,
        settle: Callable[[Tensor], Tensor] | None = None,
        watch: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Langevin dynamics, the network in evaluation mode."""
        c, training = self.config, self.network.training
        self.network.eval()
        try:
            with nn.utils.parametrize.cached():
                return langevin(
                    lambda y: self.energy(y, label),
                    x,
                    rng,
                    steps=steps,
                    step=c.step,
                    noise=temperature * c.noise,
                    clip=c.clip,
                    bounds=(0.0, 1.0) if self.pictures else None,
                    settle=settle,
                    watch=watch,
                )
        finally:
            self.network.train(training)

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        return {"label": LabelSpec(self.spec.classes)} if self.labels.classes else {}

    def draw(self, n: int, given: Given, rng: SampleRng, options: EBMOptions, watch: Watch | None) -> Batch:
        """Where chains of their own are in the end."""
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        x = self.noise(rng)
        if options.start == "replay":
            which = rng.integers("which", len(self.replay.x))
            if label is not None:  # the first one of its class from there on
                same = self.replay.label[None] == label[:, None]
                behind = (torch.arange(len(self.replay.x), device=x.device)[None] - which[:, None]) % len(self.replay.x)
                which = behind.masked_fill(~same, len(self.replay.x)).argmin(1)
            x = self.inward(self.replay.x[which], rng)
        steps = options.steps or self.config.draw_steps
        return Batch.of(
            self.outward(self._go(x, label, rng, steps, options.temperature, watch=self._told(watch, steps)))
        )

    def _told(self, watch: Watch | None, steps: int) -> Callable[[int, Tensor], None] | None:
        if watch is None:
            return None
        return lambda i, x: watch(Preview(i, steps, lambda: Batch.of(self.outward(x))))

    def redraw(
        self,
        batch: Batch,
        strength: float,
        mask: Tensor | None,
        given: Given,
        rng: SampleRng,
        options: EBMOptions,
        watch: Watch | None,
    ) -> Tensor:
        """Langevin dynamics from examples with a share ``strength`` of noise; what is outside the mask is held."""
        label = given.get("label", batch.label if self.labels.classes else None)
        label = self.labels.drawn(rng) if label is None else label
        steps = options.steps or self.config.draw_steps
        known = self.inward(batch.x, rng)
        free = None if mask is None else mask.to(known.device)

        def settle(x: Tensor) -> Tensor:
            return x if free is None else torch.where(free, x, known)

        start = settle(torch.lerp(known, self.noise(rng), strength))
        return self.outward(self._go(start, label, rng, steps, options.temperature, settle, self._told(watch, steps)))

    def perceive(self) -> Mapping[str, nn.Module]:
        """The energy's network, which returns energies (B, 1), or (B, classes).

        Raises:
            UsageError: the model is of points.
        """
        if not self.pictures:
            raise UsageError("This model's network looks at points, and not at pictures.")
        return {"energy": Seeing(self.network, lambda x: (x + 0.5) / 256)}
