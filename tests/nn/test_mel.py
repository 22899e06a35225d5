"""Mel frames: where a tone is seen, how loud, and how many frames there are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from castalia.nn.mel import LogMel, mel, mel_filters


def tone(frequency: float, rate: int, length: int, gain: float = 1.0) -> torch.Tensor:
    return gain * torch.sin(2 * math.pi * frequency * torch.arange(length) / rate)[None]


def centres(rate: int, bands: int) -> np.ndarray:
    edges = np.linspace(0, mel(np.array(rate / 2)), bands + 2)[1:-1]
    return 700 * (10 ** (edges / 2595) - 1)


@pytest.mark.parametrize("frequency", [400.0, 1000.0, 2500.0, 3600.0])
def test_a_tone_lights_its_band(frequency):
    frames = LogMel(8000, 24, 64)(tone(frequency, 8000, 4000))
    assert frames.shape == (1, 24, 63)
    middle = frames[0, :, 20:40].mean(1)
    assert int(middle.argmax()) == int(np.abs(mel(centres(8000, 24)) - mel(np.array(frequency))).argmin())
    assert middle.max() > 0.85
    far = np.abs(mel(centres(8000, 24)) - mel(np.array(frequency))) > 600
    assert middle[torch.from_numpy(far)].max() < middle.max() - 0.5


def test_the_scale_is_decibels_from_silence_to_full_scale():
    find = LogMel(8000, 24, 64)
    assert (find(torch.zeros(2, 640)) == -1).all()
    frequency = centres(8000, 24)[12]
    loud = find(tone(frequency, 8000, 4000))[0, :, 20:40].max()
    assert loud.item() == pytest.approx(1.06, abs=0.06)
    quiet = find(tone(frequency, 8000, 4000, 0.01))[0, :, 20:40].max()
    assert (loud - quiet).item() == pytest.approx(2 * 40 / 100, abs=1e-3)  # 40 dB of 100


@pytest.mark.parametrize("length", [1, 63, 64, 65, 1000])
def test_there_is_a_frame_for_each_begun_hop(length):
    assert LogMel(8000, 16, 64)(torch.rand(1, length)).shape[-1] == math.ceil(length / 64)


def test_a_frame_stands_where_its_sound_is():
    x = torch.zeros(1, 4096)
    x[0, 2048] = 1.0
    frames = LogMel(8000, 16, 64)(x)[0].mean(0)
    assert int(frames.argmax()) == 32
    assert frames[20] == frames[44] == -1


def test_filters_are_triangles_that_meet():
    filters = mel_filters(16_000, 2048, 40)
    assert filters.shape == (40, 1025)
    assert filters.max(1) == pytest.approx(np.ones(40), abs=0.2)
    inside = slice(int(centres(16_000, 40)[0] / 8000 * 1024) + 1, int(centres(16_000, 40)[-1] / 8000 * 1024))
    assert filters.sum(0)[inside] == pytest.approx(1, abs=1e-6)
    assert mel(np.array(1000.0)) == pytest.approx(1000, abs=1)
