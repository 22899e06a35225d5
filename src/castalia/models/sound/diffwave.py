"""DiffWave: sound out of noise, all samples at once; by class, and as a vocoder of mel spectrograms.

Paper
    Kong, Ping, Huang, Zhao & Catanzaro 2021, "DiffWave: A Versatile Diffusion Model for Audio Synthesis"
    (arXiv:2009.09761): the process and loss of Ho et al. 2020 (section 2, algorithms 1 and 2), the network (section 3,
    ``denoiser.py``), fast sampling (appendix B).

Equations
    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps,    loss = |eps - eps_theta(x_t, t)|^2    (eq. 7)
    x_t-1 = (x_t - beta_t / sqrt(1 - abar_t) eps_theta) / sqrt(alpha_t) + sigma_t z,
    sigma_t^2 = (1 - abar_t-1) / (1 - abar_t) beta_t    (eq. 5).
    A short sampling has its own betas; the network is asked at the fractional t whose noise level is the same.

What differs, and why
    Labels and mel frames are left out for a share of examples, so that sound can be asked for without them, and so that
    classifier-free guidance (Ho & Salimans 2022) works; the paper has no guidance.
    Mel frames are our own scale (``castalia.nn.mel``).
    ``fold`` samples can stand side by side as channels of one place, and sound be brought to a ``level``; the paper has
    neither, the recipes for small machines both. The first buys wide layers that see far for the price of narrow ones.
    The second matters where recordings are quiet: speech at -30 dB is under the noise at all but a few of 50 steps.
    Clips shorter than a training crop are filled with silence, which is learned as well.

Expected: see ``recipes/diffwave.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from castalia.core.capabilities import Exportable
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset, some_of
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Preview, Sampling, Watch
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.audio import AudioSpec
from castalia.models.sound.denoiser import Block, Denoiser
from castalia.nn.labels import Labels
from castalia.nn.mel import LogMel

LOOKED_AT = 500
"""Clips from which the loudness is found."""

FAST = (1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5)
"""Betas of the paper's sampling in six steps (appendix B, for T = 50)."""


@dataclass(frozen=True)
class DiffWaveConfig(Config):
    """Configuration of a DiffWave.

    Attributes:
        layers: of the network.
        cycle: after so many layers the dilations 1, 2, 4, ... begin anew.
        kernel: taps, an odd number.
        channels: of the residual path.
        step_width: of the layers that see the step.
        fold: samples that stand side by side as channels of one place; 1 is the paper's.
        level: root mean square that sound is brought to, by one factor that is found in the training data; 0 leaves it.
        steps: T.
        last_beta: the last of T evenly spaced betas; the first is 1e-4.
        mel: bands of the mel spectrogram that it is a vocoder of; 0: it is none.
        hop: factors of the distance of mel frames, in samples.
        conditional: whether labels are used, where the data have them.
        drop: share of examples that are learned without label, and without mel frames.
    """

    layers: int = 30
    cycle: int = 10
    kernel: int = 3
    channels: int = 64
    step_width: int = 512
    fold: int = 1
    level: float = 0.0
    steps: int = 200
    last_beta: float = 0.02
    mel: int = 0
    hop: tuple[int, ...] = (16, 16)
    conditional: bool = True
    drop: float = 0.1

    def __post_init__(self) -> None:
        if min(self.layers, self.cycle, self.channels, self.step_width) < 1 or self.kernel < 3 or not self.kernel % 2:
            raise ValueError("layers, cycle, channels and step_width must be positive, kernel odd and at least 3")
        if not self.hop or min(self.hop) < 2:
            raise ValueError("hop is one or more factors of at least 2")
        if not 1 <= self.fold <= 1024 or not 0 <= self.level <= 1:
            raise ValueError("fold is from 1 to 1,024, level from 0 to 1")
        if self.cycle > 16 or self.mel < 0 or self.steps < 2:
            raise ValueError("cycle is at most 16, mel not negative, steps at least 2")
        if not 1e-4 < self.last_beta < 1 or not 0 < self.drop < 1:
            raise ValueError("last_beta lies between 1e-4 and 1, drop between 0 and 1")

    @property
    def dilations(self) -> tuple[int, ...]:
        """Of all layers, in order."""
        return tuple(2 ** (i % self.cycle) for i in range(self.layers))

    @property
    def betas(self) -> np.ndarray:
        """``float64`` (steps,)."""
        return np.linspace(1e-4, self.last_beta, self.steps)


@dataclass(frozen=True)
class DiffWaveSampling(Sampling):
    """How to sample.

    Attributes:
        length: of the sound: a whole number is samples, a number with a point is seconds; None is that of a training
            crop, or of the sound whose mel spectrogram is given.
        betas: of a sampling of its own, rising; () takes all T steps. The paper's in six steps are
            (1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5).
        guidance: weight of what is asked for: 1 is the model, 0 leaves it out, more exaggerates it.
    """

    length: int | float | None = None
    betas: tuple[float, ...] = ()
    guidance: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length is not None and (isinstance(self.length, bool) or not 0 < self.length < 1e9):
            raise ValueError("length must be positive: samples, or seconds where it has a point (1.0)")
        if not all(0 < b < 1 for b in self.betas) or list(self.betas) != sorted(self.betas):
            raise ValueError("betas lie between 0 and 1 and rise")
        if not 0 <= self.guidance < 100:
            raise ValueError("guidance is a weight from 0 up")


class DiffWave(Generator[DiffWaveConfig, AudioSpec], Exportable):
    """A network that finds the noise in sound."""

    Config = DiffWaveConfig
    SampleOptions: ClassVar[type[Sampling]] = DiffWaveSampling
    shard_units = (Block,)
    gain: Tensor

    def __init__(self, config: DiffWaveConfig, spec: AudioSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        c = config
        self.classes = len(spec.classes) if c.conditional else 0
        self.labels = Labels(self.classes, c.drop)
        self.mel = LogMel(spec.rate, c.mel, math.prod(c.hop)) if c.mel else None
        self.network = Denoiser(
            spec.channels, c.channels, c.dilations, c.kernel, self.classes, c.mel, c.hop, c.step_width, c.fold
        )
        self.register_buffer("gain", torch.ones(()), persistent=c.level > 0)

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Count the labels; find how much louder sound has to be (from 500 clips at most)."""
        self.labels.fit(data)
        if self.config.level:
            total, count = torch.zeros((), dtype=torch.float64), 0
            for ids in np.array_split(some_of(data, LOOKED_AT), 20):
                if len(ids):
                    x = data.batch(ids).x
                    total, count = total + x.double().square().sum(), count + x.numel()
            self.gain.copy_(self.config.level / (total / count).sqrt().clamp(min=1e-4))

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("diffwave", self.network, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Mean square of what is left of the noise, at a step drawn for each example (eq. 7)."""
        signal = torch.from_numpy(np.cumprod(1 - self.config.betas)).float().to(batch.x.device)
        t = rng.integers("step", self.config.steps)
        level, noise = signal[t][:, None, None], rng.normal("noise", *batch.x.shape[1:])
        x = level.sqrt() * self.gain * batch.x + (1 - level).sqrt() * noise
        label = self.labels.for_training(batch, rng) if self.classes else None
        frames = self._frames(batch.x, rng.uniform("drop mel") < self.config.drop)
        found = self.network(x, t + 1, label, frames)
        loss = (found.float() - noise).square().mean()
        return loss, {"noise_error": loss.detach()}

    def _frames(self, x: Tensor, unknown: Tensor | None = None) -> Tensor | None:
        """Mel frames (B, bands, F) of sound (B, C, T), those of ``unknown`` examples all -1; None for no vocoder."""
        if self.mel is None:
            return None
        with torch.autocast(x.device.type, enabled=False):
            frames = self.mel(x.float().mean(1))
        return frames if unknown is None else torch.where(unknown[:, None, None], -1.0, frames)

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        """A label where it is conditional; ``mel``: of a vocoder, a sound whose mel spectrogram is to be heard."""
        label = {"label": LabelSpec(self.spec.classes)} if self.classes else {}
        return {**label, **({"mel": self.spec} if self.mel is not None else {})}

    def length(self, given: Given, options: DiffWaveSampling) -> int:
        """Samples of what is asked for."""
        if options.length is not None:
            seconds = options.length * self.spec.rate
            return options.length if isinstance(options.length, int) else max(1, round(seconds))
        return given["mel"].shape[-1] if "mel" in given and given["mel"].shape[-1] else self.spec.length

    def schedule(self, options: DiffWaveSampling) -> tuple[np.ndarray, np.ndarray]:
        """Betas of a sampling, and the step of each at which the network is asked, counted from 1 (appendix B)."""
        betas = self.config.betas
        if not options.betas:
            return betas, np.arange(1, len(betas) + 1, dtype=np.float64)
        own, level = np.array(options.betas), np.sqrt(np.cumprod(1 - betas))
        wanted = np.sqrt(np.cumprod(1 - own))
        # levels fall with t, and interpolation wants them rising
        return own, np.interp(-wanted, -np.concatenate([[1.0], level]), np.arange(len(level) + 1.0))

    def draw(self, n: int, given: Given, rng: SampleRng, options: DiffWaveSampling, watch: Watch | None) -> Batch:
        """Sound of the length asked for; the temperature multiplies all noise."""
        label, frames = self._conditions(n, given, rng)
        size = self.length(given, options)
        if frames is not None:
            hop = math.prod(self.config.hop)
            frames = nn.functional.pad(frames, (0, max(0, -(-size // hop) - frames.shape[-1])), value=-1.0)
        betas, at = self.schedule(options)
        signal = np.cumprod(1 - betas)
        x = options.temperature * rng.normal("start", self.spec.channels, size)
        for i in range(len(betas) - 1, -1, -1):
            t = torch.full((n,), float(at[i]), device=x.device)
            noise = self.guided(x, t, label, frames, options.guidance)
            x = (x - betas[i] / math.sqrt(1 - signal[i]) * noise) / math.sqrt(1 - betas[i])
            if i:
                spread = math.sqrt((1 - signal[i - 1]) / (1 - signal[i]) * betas[i])
                x = x + options.temperature * spread * rng.at("noise", i).normal("again", self.spec.channels, size)
            if watch is not None:
                now = x
                watch(
                    Preview(len(betas) - i, len(betas), lambda now=now: Batch.of((now / self.gain).clamp(-1, 1), label))
                )
        shown = None if label is None or int(label.max()) >= self.classes else label
        return Batch.of((x.float() / self.gain).clamp(-1, 1), shown)

    def _conditions(self, n: int, given: Given, rng: SampleRng) -> tuple[Tensor | None, Tensor | None]:
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        if self.mel is None:
            return label, None
        if "mel" in given:  # a vocoder of given frames need not know the class
            return (given["label"] if "label" in given else self.labels.null(n)), self._frames(given["mel"])
        return label, torch.full((n, self.config.mel, 1), -1.0, device=self.device)

    def guided(self, x: Tensor, t: Tensor, label: Tensor | None, frames: Tensor | None, guidance: float) -> Tensor:
        """The noise, ``float32``: of what is asked for, away from that of nothing by the weight (Ho & Salimans)."""
        asked = self.network(x, t, label, frames).float()
        if guidance == 1 or (label is None and frames is None):
            return asked
        nobody = None if label is None else self.labels.null(len(x))
        silent = None if frames is None else torch.full_like(frames, -1.0)
        free = self.network(x, t, nobody, silent).float()
        return free + guidance * (asked - free)

    def cost(self, options: DiffWaveSampling) -> int:
        return self.length({}, options) * self.config.channels

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """The network: noisy sound, steps, labels and mel frames to the noise."""
        x = torch.zeros(2, self.spec.channels, 256, device=self.device)
        t = torch.ones(2, device=self.device)
        label = torch.zeros(2, dtype=torch.int64, device=self.device) if self.classes else None
        if self.mel is None:
            return {"network": (self.network, (x, t) if label is None else (x, t, label))}
        hop = math.prod(self.config.hop)
        frames = torch.zeros(2, self.config.mel, -(-256 // hop), device=self.device)
        return {"network": (self.network, (x, t, label, frames))} if label is not None else {}
