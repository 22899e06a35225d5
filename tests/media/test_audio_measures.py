"""What is said of sound, on tones of which it is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from castalia.core.data import Batch
from castalia.core.rng import Rng
from castalia.core.spec import LabelSpec
from castalia.core.specs.audio import AudioSpec
from castalia.core.specs.text import TextSpec
from castalia.media.audio.likeness import class_heard, columns_heard
from castalia.media.audio.measures import MEASURES, loudness, mono, pitch, silence
from castalia.media.base import Work
from castalia.media.rooms import room
from tests.tools import Table

RATE = 8000
SPEC = AudioSpec(RATE, 1, RATE // 2)


def tone(frequency: float, amplitude: float = 0.5) -> torch.Tensor:
    time = torch.arange(RATE // 2) / RATE
    return amplitude * torch.sin(2 * math.pi * frequency * time)[None]


NOTHING = torch.zeros(1, RATE // 2)


def work(*clips: torch.Tensor) -> Work:
    real = Table(torch.stack([tone(200), tone(200)]), SPEC)
    return Work(SPEC, Batch.of(torch.stack(clips)), None, real)


def test_loudness_is_that_of_a_sine_and_silence_has_none() -> None:
    out = loudness(work(tone(100), tone(100, 0.05), NOTHING))
    full = 10 * math.log10(0.5**2 / 2)
    assert out["loudness"].value == pytest.approx(full - 10, abs=0.05)
    assert out["loudness_floor"].value == pytest.approx(full, abs=0.05)
    assert (out["loudness"].n, out["loudness"].unit) == (2, "dB full scale")
    assert "1 more have none" in out["loudness"].detail


def test_silence_is_a_share_of_time() -> None:
    half = tone(100).clone()
    half[:, : RATE // 4] = 0
    out = silence(work(half, tone(100), NOTHING))
    assert out["silence"].value == pytest.approx((0.5 + 0 + 1) / 3, abs=0.02)
    assert out["silence_floor"].value == 0


def test_pitch_is_found_where_something_is_voiced() -> None:
    out = pitch(work(tone(100), tone(300), NOTHING))
    assert out["pitch"].value == pytest.approx(200, rel=0.02)
    assert out["pitch"].n == 2
    assert out["pitch_floor"].value == pytest.approx(200, rel=0.02)
    assert set(pitch(work(NOTHING))) == {"pitch_floor"}, "nothing to say of samples"


def test_padding_is_not_heard_and_channels_are_mixed() -> None:
    x = torch.cat([tone(100), -tone(100)]).repeat(2, 1, 1)
    x[1, 1] = 0
    found = mono(Batch.of(x, extra={"length": torch.tensor([RATE // 2, 100])}))
    assert [len(clip) for clip in found] == [RATE // 2, 100]
    assert np.abs(found[0]).max() == 0
    assert found[1] == pytest.approx(tone(100)[0, :100].numpy() / 2)


def test_the_medium_brings_them() -> None:
    assert room("audio").measures == MEASURES


def test_what_samples_were_given_is_heard_in_them() -> None:
    """Who speaks is heard by the spectrum, what is said by its course: rising or falling, low or high."""
    random = np.random.default_rng(0)
    columns = (("speaker", LabelSpec(("low", "high"))), ("caption", TextSpec("bytes", 4, 256)))
    spec = AudioSpec(RATE, 1, RATE // 2, columns=columns)

    def sung(high: bool, up: bool) -> torch.Tensor:
        course = np.linspace(1, 1.5, RATE // 2) if up else np.linspace(1.5, 1, RATE // 2)
        pitch = (900 if high else 300) * course * random.uniform(0.95, 1.05)
        clip = 0.4 * np.sin(2 * np.pi * np.cumsum(pitch) / RATE) + 0.01 * random.normal(size=len(pitch))
        return torch.from_numpy(clip).float()[None]

    class Said(Table):
        pad = 4

        def __init__(self, n: int) -> None:
            self.high, self.up = torch.arange(n) % 2, torch.arange(n) // 2 % 2
            super().__init__(
                torch.stack([sung(bool(h), bool(u)) for h, u in zip(self.high, self.up, strict=True)]), spec
            )

        def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
            said = torch.full((len(ids), self.pad), -1)
            said[:, 0] = self.up[torch.from_numpy(ids)] + 97
            extra = {"speaker": self.high[torch.from_numpy(ids)], "caption": said}
            return Batch.of(self.x[torch.from_numpy(ids)], None, extra)

    train, held_out = Said(48), Said(16)
    asked = np.arange(16)
    right = columns_heard(Work(spec, held_out.batch(asked), train, held_out, asked))
    assert {name: m.value for name, m in right.items()} == dict.fromkeys(
        ("heard_speaker", "heard_speaker_floor", "heard_caption", "heard_caption_floor"), 1.0
    )
    other = columns_heard(
        Work(spec, held_out.batch(asked ^ 1), train, held_out, asked)
    )  # the other voice says the same
    assert (other["heard_speaker"].value, other["heard_caption"].value) == (0.0, 1.0)
    assert columns_heard(Work(spec, held_out.batch(asked), train, held_out)) == {}, "nothing was asked for"

    # captions are padded to the longest of their batch, and are the same words for all that
    longer = Said(16)
    longer.pad = 9
    assert columns_heard(Work(spec, held_out.batch(asked), train, longer, asked))["heard_caption_floor"].value == 1


def test_a_listener_that_hears_nothing_says_nothing() -> None:
    """Noise of two classes, one five times as often: naming that one is right in 83 % of cases, and is no hearing."""
    random = np.random.default_rng(0)

    def noise(n: int) -> Table:
        x = torch.from_numpy(random.normal(0, 0.1, (n, 1, 2000))).float()
        return Table(x, replace(SPEC, length=2000, classes=("a", "b")), (torch.arange(n) % 6 == 0).long())

    train, held_out = noise(60), noise(30)
    samples = held_out.batch(np.arange(30))
    assert class_heard(Work(train.spec, samples, train, held_out)) == {}
    loud = Table(
        train.x * (1 + 50 * train.labels.view(-1, 1, 1) * torch.linspace(0, 1, 2000)), train.spec, train.labels
    )
    real = Table(
        held_out.x * (1 + 50 * held_out.labels.view(-1, 1, 1) * torch.linspace(0, 1, 2000)), train.spec, held_out.labels
    )
    found = class_heard(Work(train.spec, real.batch(np.arange(30)), loud, real))
    assert found["class_heard"].value == found["class_heard_floor"].value == 1
    assert "0.833 by the commonest" in found["class_heard"].detail
