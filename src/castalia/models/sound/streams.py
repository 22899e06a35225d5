"""Sampling a WaveNet: where it stands, and its next samples by queues."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from castalia.core.rng import SampleRng
from castalia.core.sampling import Sampling
from castalia.core.specs.audio import AudioSpec
from castalia.models.sound.queues import Queues
from castalia.models.sound.voice import Voice
from castalia.nn.samples import MuLaw, SampleDistribution


@dataclass(frozen=True)
class WaveNetSampling(Sampling):
    """How to sample.

    Attributes:
        length: of the sound, or of what comes after a prompt: a whole number is samples, a number with a point is
            seconds; None is the length of a training crop.
    """

    length: int | float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length is not None and (isinstance(self.length, bool) or not 0 < self.length < 1e9):
            raise ValueError("length must be positive: samples, or seconds where it has a point (1.0)")

    def samples(self, spec: AudioSpec) -> int:
        """How many samples that is."""
        if self.length is None:
            return spec.length
        return self.length if isinstance(self.length, int) else max(1, round(self.length * spec.rate))


@dataclass
class Stream:
    """Where sampling stands. Going on uses up the state.

    Attributes:
        queues: what the steps need.
        last: the newest value of each stream and the one before, (n,) each.
        voice: what it is told.
        options: how to sample.
        rng: one stream per example.
        done: samples that are made, a prompt included.
        total: samples that shall be made, a prompt included.
        first: the prompt, (n, 1, T), until it has been given out.
    """

    queues: Queues
    last: tuple[np.ndarray, np.ndarray]
    voice: Voice
    options: WaveNetSampling
    rng: SampleRng
    done: int
    total: int
    first: Tensor | None


def steps(state: Stream, values: SampleDistribution, noise: np.ndarray) -> np.ndarray:
    """The next values (n, T), by noise (T, n, draws)."""
    if state.queues.n == 1:
        return _steps_of_one(state, values, noise)
    look, draw, codes = state.queues.look, values.draw, isinstance(values, MuLaw)
    newest, older = state.queues.packed.now, state.queues.packed.before
    (now, before), temperature = state.last, state.options.temperature
    made = np.empty((state.queues.n, len(noise)), now.dtype)
    for i, uniform in enumerate(noise):
        outputs = look(newest[now], older[before]) if codes else look(now[:, None] * newest, before[:, None] * older)
        before, now = now, draw(outputs, uniform, temperature)
        made[:, i] = now
    state.last = now, before
    return made


def _steps_of_one(state: Stream, values: SampleDistribution, noise: np.ndarray) -> np.ndarray:
    """The same for a single stream, with plain numbers: up to twice as fast."""
    look, draw, codes, made = state.queues.look, values.draw_one, isinstance(values, MuLaw), []
    newest, older = state.queues.packed.now, state.queues.packed.before
    (now, before), temperature = (v.item() for v in state.last), state.options.temperature
    for uniform in noise[:, 0].tolist():
        outputs = (
            look(newest[now : now + 1], older[before : before + 1]) if codes else look(newest * now, older * before)
        )
        before, now = now, draw(outputs[0], uniform, temperature)
        made.append(now)
    kind = state.last[0].dtype
    state.last = np.array([now], kind), np.array([before], kind)
    return np.array([made], kind)
