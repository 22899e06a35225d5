"""MuseGAN: several tracks of a few bars at once, by a generator against a critic.

Paper
    Dong, Hsiao, Yang & Yang 2018, "MuseGAN: Multi-track Sequential Generative Adversarial Networks for Symbolic Music
    Generation and Accompaniment" (arXiv:1709.06298), section "Proposed model".

Equations
    A bar t of track i is, in the hybrid model,
    G_bar,i(z, G_temp(z_t)^(t), z_i, G_temp,i(z_i,t)^(t)):
    z is one vector for all, z_i one for each track, and a temporal network makes a vector for each bar of a third and a
    fourth. The composer model has only the first two and one generator for all tracks; the jamming model only the last
    two, and a critic for each track.
    The game is that of Wasserstein with a penalty on the slope (Gulrajani et al. 2017, arXiv:1704.00028).

What differs, and why
    A bar's generator doubles time and then notes by transposed convolutions whose strides are the factors of the bar
    and of the octave, so that any grid can be made; notes are filled up to whole octaves and cut off.
    Outputs are made binary by what the paper names (a threshold, or by lot), when sampling; ``one_note`` leaves of each
    step of each track the loudest note, for voices that sing.
    Accompaniment (a track that is given) is not built.

Expected: see ``recipes/musegan.py`` and the system's page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.config import Config
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Logs, Objective, Optimizer, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch
from castalia.core.specs.music import MusicSpec
from castalia.models.adversarial.contest import Contest, LatentOptions, draw_latents
from castalia.models.adversarial.losses import gradient_penalty, mix, wasserstein

OCTAVE = 12


@dataclass(frozen=True)
class MuseGANConfig(Config):
    """Configuration of a MuseGAN.

    Attributes:
        model: ``hybrid``, ``composer`` or ``jamming``.
        latents: length of each latent vector.
        width: channels at the beginning of a bar's generator; of the critic, half of it at its end.
        temporal: channels of the temporal networks.
        critic_steps: updates of the critic for one of the generator.
        penalty: weight of the gradient penalty.
        one_note: whether at most one note of a track sounds at a time.
    """

    model: Literal["hybrid", "composer", "jamming"] = "hybrid"
    latents: int = 32
    width: int = 256
    temporal: int = 256
    critic_steps: int = 5
    penalty: float = 10.0
    one_note: bool = False

    def __post_init__(self) -> None:
        if min(self.latents, self.width, self.temporal, self.critic_steps) < 1 or self.penalty <= 0:
            raise ValueError("latents, width, temporal, critic_steps and penalty must be positive")
        if self.width < 8:
            raise ValueError("width is at least 8")


@dataclass(frozen=True)
class MuseGANSampling(LatentOptions):
    """How to sample.

    Attributes:
        binary: ``threshold``: a note sounds where the generator's output is above 0; ``lot``: with probability
            (output + 1) / 2.
    """

    binary: Literal["threshold", "lot"] = "threshold"


class MuseGAN(Contest[MuseGANConfig, MusicSpec]):
    """min over G, max over 1-Lipschitz f of E f(x) - E f(G(z)), over piano rolls of several tracks."""

    Config = MuseGANConfig
    SampleOptions: ClassVar[type[Sampling]] = MuseGANSampling

    def __init__(self, config: MuseGANConfig, spec: MusicSpec) -> None:
        super().__init__()
        if spec.kind != "rolls":
            raise UsageError("MuseGAN works on piano rolls: set data.options.kind=rolls.")
        if spec.length % spec.bar:
            raise UsageError(f"{spec.length} steps are no whole bars of {spec.bar}; change data.options.length.")
        tracks, shape = len(spec.voices), (spec.bars, spec.bar, spec.notes)
        self.generator = Band(config, tracks, shape)
        critics = tracks if config.model == "jamming" else 1
        self.critic = Critics(critics, tracks // critics, shape, config.width)
        self.prepare(config, spec, self.generator.latents, 0)

    def stages(self) -> tuple[Stage, ...]:
        critic = Objective("critic", self.critic, self.critic_loss, repeat=self.config.critic_steps)
        return (Stage("train", (critic, Objective("generator", self.generator, self.generator_loss))),)

    def inside(self, x: Tensor) -> Tensor:
        """Rolls of 0 and 1 (B, V, T, notes) as the networks see them: -1 and 1, ``float32``."""
        return x.float() * 2 - 1

    def outside(self, x: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Rolls ``uint8``: where an output is above 0, or by lot with ``uniform`` numbers of the same shape."""
        sounds = x > 0 if uniform is None else uniform < (x + 1) / 2
        if self.config.one_note:
            sounds = sounds & (x == x.amax(-1, keepdim=True))
        return sounds.to(torch.uint8)

    def draw(self, n: int, given: Given, rng: SampleRng, options: LatentOptions, watch: Watch | None) -> Batch:
        assert isinstance(options, MuseGANSampling)
        z = options.temperature * draw_latents(rng, self.latent_dims, options.truncation)
        x = self.generate(z, None, rng)
        return Batch.of(self.outside(x, rng.uniform("sounds", *x.shape[1:]) if options.binary == "lot" else None))

    def critic_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The negative dual of the distance, plus what bounds the slope."""
        real, _ = self.real(batch)
        fake = self.make_still(rng, None)
        distance = wasserstein(self.judge(real, None), self.judge(fake, None))
        between = mix(real, fake, rng.uniform("mix"))
        penalty = gradient_penalty(lambda x: self.judge_smooth(x, None), between)
        return self.config.penalty * penalty - distance, {"wasserstein": distance.detach(), "penalty": penalty.detach()}

    def generator_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Minus the critic's mean on what is made."""
        return -self.judge(self.make(rng, None), None).float().mean(), {}


class Band(nn.Module):
    """The generator: latents (B, z) to rolls (B, tracks, bars * steps, notes) from -1 to 1.

    The latents are, one behind the other: the shared temporal one, the shared one, those of each track in the same
    order; the model has some of them.

    Args:
        config: its widths, and which model.
        tracks: how many.
        shape: bars, steps of a bar, notes.
    """

    def __init__(self, config: MuseGANConfig, tracks: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        c = config
        self.tracks, self.shape, self.size = tracks, shape, c.latents
        self.shared, self.private = c.model != "jamming", c.model != "composer"
        self.latents = c.latents * (2 * self.shared + 2 * tracks * self.private)
        self.temporal = Temporal(c.latents, shape[0], c.temporal) if self.shared else None
        own = [Temporal(c.latents, shape[0], c.temporal) for _ in range(tracks)] if self.private else []
        self.own = nn.ModuleList(own)
        inputs = 2 * c.latents * (self.shared + self.private)
        count, each = (tracks, 1) if self.private else (1, tracks)
        self.bars = nn.ModuleList(BarGenerator(inputs, each, shape[1:], c.width) for _ in range(count))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        parts = list(z.split(self.size, 1))
        common: list[Tensor] = []
        bars, steps, notes = self.shape
        if self.temporal is not None:
            moving, still = parts.pop(0), parts.pop(0)
            common = [self.temporal(moving), still[:, None].expand(-1, bars, -1)]
        tracks = []
        for i, bar in enumerate(self.bars):
            seen = list(common)
            if self.private:
                seen += [self.own[i](parts[2 * i]), parts[2 * i + 1][:, None].expand(-1, bars, -1)]
            made = bar(torch.cat(seen, 2).flatten(0, 1))
            tracks.append(made.view(z.shape[0], bars, -1, steps, notes).transpose(1, 2).flatten(2, 3))
        return torch.cat(tracks, 1)


class Temporal(nn.Module):
    """A vector (B, z) to one for each bar (B, bars, z), by two transposed convolutions over time."""

    def __init__(self, latents: int, bars: int, width: int) -> None:
        super().__init__()
        first = min(2, bars)
        self.first = nn.ConvTranspose1d(latents, width, first)
        self.norm = nn.BatchNorm1d(width)
        self.second = nn.ConvTranspose1d(width, latents, bars - first + 1)

    def forward(self, z: Tensor) -> Tensor:
        h = F.relu(self.norm(self.first(z[:, :, None])))
        return self.second(h).transpose(1, 2)


class BarGenerator(nn.Module):
    """A vector (B, inputs) to a bar (B, tracks, steps, notes), from -1 to 1: time first, then octaves, then notes."""

    def __init__(self, inputs: int, tracks: int, shape: tuple[int, int], width: int) -> None:
        super().__init__()
        steps, notes = shape
        self.notes, octaves = notes, -(-notes // OCTAVE)
        strides = [(f, 1) for f in factors(steps)] + [(1, octaves)]
        self.dense = nn.Linear(inputs, width)
        self.norm = nn.BatchNorm1d(width)
        layers: list[nn.Module] = []
        now = width
        for i, stride in enumerate(strides):
            after = max(width // 2 ** min(i + 1, 3), 4)
            layers += [nn.ConvTranspose2d(now, after, stride, stride), nn.BatchNorm2d(after), nn.ReLU()]
            now = after
        self.body = nn.Sequential(*layers)
        self.last = nn.ConvTranspose2d(now, tracks, (1, OCTAVE), (1, OCTAVE))
        for module in self.modules():
            if isinstance(module, nn.ConvTranspose2d):  # each place has one tap: torch's bounds would fade with depth
                nn.init.normal_(module.weight, 0, math.sqrt(2 / module.in_channels))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm(self.dense(x)))[:, :, None, None]
        return torch.tanh(self.last(self.body(h))[..., : self.notes])


class Critics(nn.Module):
    """One critic, or one for each track, whose judgements are added up: rolls (B, V, T, notes) to (B, 1)."""

    def __init__(self, count: int, tracks: int, shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.tracks = tracks
        self.critics = nn.ModuleList(Critic(tracks, shape, width) for _ in range(count))

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        parts = [critic(part) for critic, part in zip(self.critics, x.split(self.tracks, 1), strict=True)]
        return torch.stack(parts).sum(0)


class Critic(nn.Module):
    """Rolls (B, tracks, T, notes) to (B, 1): bars together first, then notes, octaves, and time."""

    def __init__(self, tracks: int, shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        bars, steps, notes = shape
        self.shape, octaves = shape, -(-notes // OCTAVE)
        self.spare = octaves * OCTAVE - notes
        narrow, wide = max(width // 4, 2), max(width // 2, 4)
        sizes = [(min(2, bars), 1, 1), (bars - min(2, bars) + 1, 1, 1)]
        layers: list[nn.Module] = []
        now = tracks
        for size in sizes:
            layers += [nn.Conv3d(now, narrow, size), nn.LeakyReLU(0.2)]
            now = narrow
        strides = [(1, 1, OCTAVE), (1, 1, octaves), *((1, f, 1) for f in reversed(factors(steps)))]
        for i, stride in enumerate(strides):
            after = narrow if i < 2 else wide
            layers += [nn.Conv3d(now, after, stride, stride), nn.LeakyReLU(0.2)]
            now = after
        self.body = nn.Sequential(*layers)
        self.dense = nn.Linear(now, width)
        self.out = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        bars, steps, _ = self.shape
        x = F.pad(x, (0, self.spare), value=-1.0).unflatten(2, (bars, steps))
        return self.out(F.leaky_relu(self.dense(self.body(x).flatten(1)), 0.2))


def factors(number: int) -> list[int]:
    """Prime factors, largest first."""
    out, rest = [], number
    for p in range(2, math.isqrt(number) + 1):
        while rest % p == 0:
            out.append(p)
            rest //= p
    return sorted([*out, *([rest] if rest > 1 else [])], reverse=True)


PAPER = Optimizer("adam", lr=1e-3, betas=(0.5, 0.9))
"""Of the published code and of the book."""
