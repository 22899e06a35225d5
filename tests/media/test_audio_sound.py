"""Mu-law, what an ear would measure, drawings, and the floors that counting gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.specs.audio import AudioSpec
from castalia.media.audio.clips import AudioClips
from castalia.media.audio.draw import audio_image, mel_filters, spectrogram
from castalia.media.audio.hearing import loudness, pitch, silence
from castalia.media.audio.markov import Chain, bits, contexts, floors
from castalia.media.audio.medium import AudioMedium
from castalia.nn import mulaw


def test_all_codes_survive_the_round_trip():
    codes = torch.arange(256)
    sound = mulaw.decode(codes)
    assert torch.equal(mulaw.encode(sound), codes)
    assert sound.min() == -1
    assert sound.max() == pytest.approx(1)
    assert (sound.diff() > 0).all()
    assert mulaw.encode(torch.zeros(1)).item() == mulaw.SILENCE
    assert mulaw.encode(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]


def test_mulaw_is_the_formula_and_fine_where_it_is_quiet():
    x = torch.linspace(-1, 1, 10_001, dtype=torch.float64)
    curve = torch.sign(x) * torch.log(1 + 255 * x.abs()) / math.log(256)
    wrong = mulaw.encode(x) != torch.floor((curve + 1) / 2 * 255 + 0.5).long()
    assert wrong.sum() <= 2  # on the edge of a step, in 32 bits
    error = (mulaw.decode(mulaw.encode(x)) - x).abs()
    assert error.max() < 0.023
    assert error[x.abs() < 0.01].max() < 3e-4


@pytest.mark.parametrize("frequency", [80.0, 123.0, 220.0, 410.0])
def test_pitch_of_a_tone_with_harmonics(frequency):
    t = np.arange(8000) / 8000
    x = sum(np.sin(2 * np.pi * k * frequency * t) / k for k in range(1, 6)) / 4
    assert pitch(x, 8000) == pytest.approx(frequency, rel=0.03)


def test_noise_and_silence_have_no_pitch():
    assert math.isnan(pitch(0.3 * np.random.default_rng(0).standard_normal(8000), 8000))
    assert math.isnan(pitch(np.zeros(8000), 8000))
    assert math.isnan(pitch(np.zeros(3), 8000))


def test_loudness_and_silence():
    t = np.arange(8000) / 8000
    x = np.sin(2 * np.pi * 200 * t)
    assert loudness(x) == pytest.approx(-3.01, abs=0.01)
    assert loudness(np.zeros(5)) == -math.inf
    assert silence(np.concatenate([x, np.zeros(8000)]), 8000) == pytest.approx(0.5, abs=0.01)
    assert silence(x, 8000) == 0


def test_a_tone_lies_in_its_mel_band():
    rate, t = 8000, np.arange(4000) / 8000
    filters = mel_filters(rate, 1024, 40)
    assert filters.shape == (40, 513)
    for frequency in (300.0, 1000.0, 2500.0):
        power = spectrogram(np.sin(2 * np.pi * frequency * t), rate, 20, 40)
        assert power.shape == (40, 20)
        loudest = power[:, 10].argmax()
        bins = np.fft.rfftfreq(1024, 1 / rate)
        centre = (filters[loudest] * bins).sum() / filters[loudest].sum()
        assert abs(centre - frequency) < 0.12 * frequency + 40


def test_drawings_show_every_clip():
    data = AudioMedium().tiny()
    picture = AudioMedium().picture(data.batch(np.arange(5)), data.spec)
    assert picture.mode == "RGB"
    pixels = np.asarray(picture).astype(int)
    assert pixels.max() > 200
    assert pixels.std() > 20
    wide = audio_image([np.zeros(10), np.ones(3), np.zeros(0)], 8000, columns=3)
    assert wide.width > wide.height
    with pytest.raises(UsageError, match="at least one clip"):
        audio_image([], 8000)
    with pytest.raises(UsageError, match="columns"):
        audio_image([np.zeros(9)], 8000, columns=0)


def test_padding_is_not_drawn_written_or_counted():
    spec = AudioSpec(8000, 2, 100)
    batch = Batch.of(torch.zeros(2, 2, 50), extra={"length": torch.tensor([50, 20])})
    assert AudioMedium().rates(batch, spec)["bits_per_sample"].counts.tolist() == [100, 40]
    assert AudioMedium().rates(Batch.of(torch.zeros(1, 2, 30)), spec)["bits_per_sample"].counts.tolist() == [60]


def test_distance_is_zero_for_the_same_and_grows():
    medium, data = AudioMedium(), AudioMedium().tiny()
    a, i = (data.batch(np.flatnonzero(data.labels.numpy() == c)) for c in (0, 1))
    half, other = data.batch(np.arange(0, 24)), data.batch(np.arange(24, 48))
    assert medium.distance(half, half, data.spec) == pytest.approx(0, abs=1e-6)
    assert 0 < 5 * medium.distance(half, other, data.spec) < medium.distance(a, i, data.spec)


def test_tiny_vowels_are_what_they_say():
    data = AudioMedium().tiny()
    again = AudioMedium().tiny()
    assert data.fingerprint == again.fingerprint
    assert data.spec.classes == ("a", "i", "u")
    assert np.abs(data.samples).max() < 0.61 * 32768
    found = [pitch(data.clip(i)[:, 0] / 32768, 8000) for i in range(len(data))]
    assert np.nanmin(found) > 85
    assert np.nanmax(found) < 245


def test_contexts_are_windows_of_codes():
    clips = [np.array([1, 2, 3]), np.array([4])]
    assert contexts(clips, 0).tolist() == [1, 2, 3, 4]
    assert contexts(clips, 1).tolist() == [128 * 256 + 1, 256 + 2, 2 * 256 + 3, 128 * 256 + 4]


def test_chains_are_distributions_and_find_the_true_rate():
    """A first-order source of known entropy: order 1 reaches it, order 0 does not, order 2 is no better."""
    rng = np.random.default_rng(0)
    table = np.zeros((256, 256))
    for a in range(256):
        table[a, [a, (a + 1) % 256, (a + 7) % 256, 3]] += [0.5, 0.3, 0.15, 0.05]
    code, codes = 0, []
    cumulative = table.cumsum(1) / table.sum(1, keepdims=True)
    cumulative[:, -1] = 1
    for u in rng.random(60_000):
        code = int(np.searchsorted(cumulative[code], u, "right"))
        codes.append(code)
    train, test = [np.array(codes[:50_000])], [np.array(codes[50_000:])]
    chain = Chain(train)
    strengths = chain.tune([np.array(codes[45_000:50_000])], 2)
    every = [np.array([5, c]) for c in range(256)]
    assert chain.probabilities(every, strengths)[1::2].sum() == pytest.approx(1)
    entropy = -sum(p * math.log2(p) for p in (0.5, 0.3, 0.15, 0.05))
    zero, one, two = (bits(chain.probabilities(test, strengths[: k + 1])) for k in range(3))
    assert one == pytest.approx(entropy, abs=0.1)
    assert zero > entropy + 3
    assert one - 0.01 < two < one + 0.2


def test_floors_of_a_constant_sound_are_nothing():
    data = AudioClips(np.zeros((4000, 1), np.int16), np.arange(100, 4001, 100), AudioSpec(8000, 1, 100), name="x")
    found = floors(data, data)
    assert list(found) == ["order 0", "order 1", "order 2"]
    assert max(found.values()) < 0.02
