"""Motion diffusion: a transformer that finds the motion in noise, by class.

Papers
    Tevet, Raab, Gordon, Shafir, Cohen-Or & Bermano 2022, "Human Motion Diffusion Model" (MDM, arXiv:2209.14916).
    Ho et al. 2020 (arXiv:2006.11239): the process. Nichol & Dhariwal 2021 (arXiv:2102.09672): its cosine schedule.
    Ho & Salimans 2022 (arXiv:2207.12598): guidance.

Equations
    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps;  the network G predicts x_0 itself (section 3)
    loss = |x_0 - G|^2 + pos |FK(x_0) - FK(G)|^2 + vel |d FK(x_0) - d FK(G)|^2 + foot |d FK(G)|^2 where feet stand
                                                                                                     (eqs. 2 to 6)
    G is a transformer encoder over frames, with one more token in front that is the sum of what is asked for and of
    the step. With guidance s:  G(nothing) + s (G(class) - G(nothing)).

What differs, and why
    What networks see is steps of the root on the ground and rotations of all joints (``steps.py``); the paper has the
    representation of HumanML3D, or of its action data sets, rotations too.
    Words are not read: the class is a learned vector, as in the paper's action-to-motion.
    Sampling in fewer steps takes every so many of the process (the paper's later code does so).
    At the paper's size (8 layers, 512 wide, 1,024 inside) the network has 17 to 18 million parameters.

Expected: see ``recipes/mdm.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from castalia.core.capabilities import Exportable
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Preview, Sampling, Watch
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.motion import MotionSpec
from castalia.models.diffusion.schedules import cosine_betas
from castalia.models.motion.steps import Steps, encoder
from castalia.nn.embeddings import places
from castalia.nn.labels import Labels


@dataclass(frozen=True)
class MDMConfig(Config):
    """Configuration of a motion diffusion model; the defaults are the paper's.

    Attributes:
        layers: of the transformer.
        dim: of a frame.
        heads: of attention.
        hidden: units inside a layer.
        dropout: in the transformer.
        steps: T of the process.
        conditional: whether classes are used, where the data have them.
        drop: share of examples that are learned without class.
        places: weight of the error of places.
        velocity: weight of the error of velocities.
        feet: weight of the speed of feet that should stand.
    """

    layers: int = 8
    dim: int = 512
    heads: int = 4
    hidden: int = 1024
    dropout: float = 0.1
    steps: int = 1000
    conditional: bool = True
    drop: float = 0.1
    places: float = 1.0
    velocity: float = 1.0
    feet: float = 1.0

    def __post_init__(self) -> None:
        if min(self.layers, self.dim, self.heads, self.hidden) < 1 or self.dim % self.heads or self.dim % 2:
            raise ValueError("sizes must be positive, and dim a multiple of heads and of 2")
        if not 0 <= self.dropout < 1 or not 0 < self.drop < 1 or self.steps < 2:
            raise ValueError("dropout and drop are shares, steps at least 2")
        if min(self.places, self.velocity, self.feet) < 0:
            raise ValueError("weights must not be negative")


@dataclass(frozen=True)
class MDMSampling(Sampling):
    """How to sample.

    Attributes:
        steps: of the process that are taken, evenly spaced; 0: all.
        guidance: weight of the class: 1 is the model, more exaggerates.
    """

    steps: int = 50
    guidance: float = 2.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 0 or not 0 <= self.guidance < 100:
            raise ValueError("steps and guidance must not be negative")


class Network(nn.Module):
    """Noisy frames, the step, and the class, to frames."""

    def __init__(self, spec: MotionSpec, config: MDMConfig, classes: int) -> None:
        super().__init__()
        c = config
        self.into, self.out = nn.Linear(spec.numbers, c.dim), nn.Linear(c.dim, spec.numbers)
        self.time = nn.Sequential(nn.Linear(c.dim, c.dim), nn.SiLU(), nn.Linear(c.dim, c.dim))
        self.kinds = nn.Embedding(classes + 1, c.dim) if classes else None
        self.body = encoder(c.dim, c.heads, c.hidden, c.layers, c.dropout)
        self.register_buffer("at", places(max(spec.length + 1, c.steps), c.dim), persistent=False)

    at: Tensor

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Frames (B, T, numbers) from noisy ones, steps ``int64`` (B,) from 0, and classes (B,)."""
        asked = self.time(self.at[t])
        if self.kinds is not None and label is not None:
            asked = asked + self.kinds(label)
        h = torch.cat([asked[:, None], self.into(x)], 1)
        return self.out(self.body(h + self.at[: h.shape[1]])[:, 1:])


class MDM(Generator[MDMConfig, MotionSpec], Exportable):
    """A network that finds the motion in noise."""

    Config = MDMConfig
    SampleOptions: ClassVar[type[Sampling]] = MDMSampling

    def __init__(self, config: MDMConfig, spec: MotionSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.classes = len(spec.classes) if config.conditional else 0
        self.labels = Labels(self.classes, config.drop)
        self.seen = Steps(spec)
        self.network = Network(spec, config, self.classes)

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Find the scales, and count the classes."""
        self.seen.fit(data)
        self.labels.fit(data)

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("mdm", self.network, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Eq. 6, averaged over the batch."""
        c, clean = self.config, self.seen.inside(batch.x)
        t = rng.integers("step", c.steps)
        level = self.levels(t)[:, None, None]
        x = level.sqrt() * clean + (1 - level).sqrt() * rng.normal("noise", *clean.shape[1:])
        label = self.labels.for_training(batch, rng) if self.classes else None
        found = self.network(x, t, label).float()
        simple = (found - clean).square().mean()
        logs = {"simple": simple.detach()}
        if not (c.places or c.velocity or c.feet):
            return simple, logs
        with torch.autocast(x.device.type, enabled=False):
            places, velocity, feet = (part.mean() for part in self.seen.geometry(found, clean))
        logs |= {"places": places.detach(), "velocity": velocity.detach(), "feet": feet.detach()}
        return simple + c.places * places + c.velocity * velocity + c.feet * feet, logs

    def levels(self, t: Tensor) -> Tensor:
        """Abar ``float32`` (B,) at steps (B,) from 0."""
        signal = torch.from_numpy(np.cumprod(1 - cosine_betas(self.config.steps))).float().to(t.device)
        return signal[t]

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        return {"label": LabelSpec(self.spec.classes)} if self.classes else {}

    def draw(self, n: int, given: Given, rng: SampleRng, options: MDMSampling, watch: Watch | None) -> Batch:
        """Motions of the class asked for; the temperature multiplies all noise."""
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        times = self.times(options.steps)
        signal = np.cumprod(1 - cosine_betas(self.config.steps))[times]
        x = options.temperature * rng.normal("start", self.spec.length, self.spec.numbers)
        for i in range(len(times) - 1, -1, -1):
            now, before = float(signal[i]), float(signal[i - 1]) if i else 1.0
            clean = self.guided(x, int(times[i]), label, options.guidance)
            beta = 1 - now / before
            x = (before**0.5 * beta * clean + (1 - beta) ** 0.5 * (1 - before) * x) / (1 - now)
            if i:
                spread = ((1 - before) / (1 - now) * beta) ** 0.5
                noise = rng.at("noise", i).normal("again", self.spec.length, self.spec.numbers)
                x = x + options.temperature * spread * noise
            if watch is not None:
                watch(Preview(len(times) - i, len(times), lambda c=clean: Batch.of(self.seen.outside(c), label)))
        return Batch.of(self.seen.outside(x), label)

    def times(self, steps: int) -> np.ndarray:
        """The steps of the process that are taken, rising, ``int64``; the last is always among them."""
        whole = self.config.steps
        count = min(steps or whole, whole)
        return np.unique(np.linspace(whole - 1, 0, count).round().astype(np.int64))

    def guided(self, x: Tensor, t: int, label: Tensor | None, guidance: float) -> Tensor:
        """The motion that is found, ``float32`` (B, T, numbers), as networks see it."""
        at = torch.full((len(x),), t, dtype=torch.int64, device=x.device)
        asked = self.network(x, at, label).float()
        if label is None or guidance == 1:
            return asked
        free = self.network(x, at, self.labels.null(len(x))).float()
        return free + guidance * (asked - free)

    def cost(self, options: MDMSampling) -> int:
        return self.spec.length * self.config.dim * self.config.layers

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """The network: noisy frames as it sees them, steps and classes, to frames."""
        x = torch.zeros(2, self.spec.length, self.spec.numbers, device=self.device)
        t = torch.zeros(2, dtype=torch.int64, device=self.device)
        label = (torch.zeros(2, dtype=torch.int64, device=self.device),) if self.classes else ()
        return {"network": (self.network, (x, t, *label))}
