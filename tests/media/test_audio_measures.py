"""What is said of sound, on tones of which it is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from castalia.core.data import Batch
from castalia.core.specs.audio import AudioSpec
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
