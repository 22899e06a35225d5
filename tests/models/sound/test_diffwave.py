"""DiffWave: the process of noise and its way back, short schedules, steps, mel frames, guidance, sizes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from castalia.core.data import Batch
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.sampling import Preview
from castalia.core.specs.audio import AudioSpec
from castalia.models.sound.denoiser import Denoiser, Upsampler, step_features
from castalia.models.sound.diffwave import FAST, DiffWave, DiffWaveConfig, DiffWaveSampling
from castalia.recipes import diffwave as recipes
from tests.tools import Table

SPEC = AudioSpec(8000, 1, 96, ("a", "i", "u"))
SMALL = DiffWaveConfig(layers=4, cycle=2, channels=8, steps=20, last_beta=0.2)
VOCODER = replace(SMALL, mel=12, hop=(4, 4), conditional=False)


def made(config: DiffWaveConfig = SMALL, spec: AudioSpec = SPEC) -> DiffWave:
    """A network whose last layer says something: at its start it says nothing."""
    model = build(DiffWave, config, spec)
    assert isinstance(model, DiffWave)
    with torch.no_grad():
        nn.init.normal_(model.network.out.weight, 0, 0.3, generator=torch.Generator().manual_seed(1))
    return model.eval()


def sound(n: int, length: int, seed: int = 0, channels: int = 1) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return (0.3 * torch.randn(n, channels, length, generator=g)).clamp(-1, 1)


class Heard(nn.Module):
    """A network that keeps what it was given, and finds no noise."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []

    def forward(self, x, t, label=None, mel=None):
        self.calls.append((x, t, label, mel))
        return torch.zeros_like(x)


# the process


def test_noise_is_added_as_the_betas_say():
    """Mean sqrt(abar) x0 and variance 1 - abar at the step that the network is told, counted from 1."""
    model = made()
    heard = Heard()
    model.network = heard
    x = torch.full((256, 1, 4000), 0.5)
    loss, _ = model.loss(Batch.of(x, torch.zeros(256, dtype=torch.int64)), BatchRng(0, total=256), Progress(0, 1))
    noisy, t, label, mel = heard.calls[0]
    assert mel is None
    assert set(t.tolist()) == set(range(1, 21))
    abar = np.cumprod(1 - np.linspace(1e-4, 0.2, 20))[t.numpy() - 1]
    assert noisy.mean((1, 2)).numpy() == pytest.approx(0.5 * np.sqrt(abar), abs=0.08)
    assert noisy.var((1, 2)).numpy() == pytest.approx(1 - abar, rel=0.12)
    assert loss.item() == pytest.approx(1, abs=0.01)  # a network that finds nothing leaves all of the noise
    assert 0.03 < (label == 3).float().mean() < 0.2  # a tenth is learned without label
    assert set(label.tolist()) == {0, 3}


def test_each_step_back_is_the_posterior(monkeypatch):
    """With a network that knows x0, what follows x_t has mean and variance of q(x_t-1 | x_t, x0)."""
    model = made(replace(SMALL, conditional=False))
    betas = model.config.betas
    abar = np.cumprod(1 - betas)
    x0 = 0.9 * sound(2, 50, seed=4)
    seen: list[torch.Tensor] = []

    def oracle(x, t, label, frames, guidance):
        seen.append(x)
        level = abar[int(t[0]) - 1]
        return (x - math.sqrt(level) * x0) / math.sqrt(1 - level)

    monkeypatch.setattr(model, "guided", oracle)
    rng = SampleRng(0, range(2))
    found = model.draw(2, {}, rng, DiffWaveSampling(length=50), None).x
    assert len(seen) == 20
    assert torch.allclose(found, x0, atol=1e-5)
    for i in range(19, 0, -1):
        x, after = seen[19 - i], seen[20 - i]
        mean = math.sqrt(abar[i - 1]) * betas[i] / (1 - abar[i]) * x0
        mean = mean + math.sqrt(1 - betas[i]) * (1 - abar[i - 1]) / (1 - abar[i]) * x
        variance = (1 - abar[i - 1]) / (1 - abar[i]) * betas[i]
        noise = rng.at("noise", i).normal("again", 1, 50)
        torch.testing.assert_close(after, mean + math.sqrt(variance) * noise, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("betas", [(), (*FAST, 0.9)])
def test_the_exact_denoiser_of_a_gaussian_draws_that_gaussian(monkeypatch, betas):
    """Of sound N(0, 0.2^2) the noise can be told exactly. All steps nearly give its power back, seven too little of it.

    How much is a recursion of variances by the posterior of x0, in which no noise is predicted.
    """
    model = made(replace(SMALL, steps=200, last_beta=0.05, conditional=False))
    level = np.concatenate([[1], np.sqrt(np.cumprod(1 - model.config.betas))])

    def exact(x, t, label, frames, guidance):
        abar = float(np.interp(float(t[0]), np.arange(201), level)) ** 2
        return math.sqrt(1 - abar) / (abar * 0.04 + 1 - abar) * x

    monkeypatch.setattr(model, "guided", exact)
    found = model.draw(64, {}, SampleRng(0, range(64)), DiffWaveSampling(length=500, betas=betas), None).x
    own = np.array(betas) if betas else model.config.betas
    abar, variance = np.concatenate([[1], np.cumprod(1 - own)]), 1.0
    for i in range(len(own), 0, -1):
        share = math.sqrt(abar[i]) * 0.04 / (abar[i] * 0.04 + 1 - abar[i])  # of x that is thought to be x0
        mean = math.sqrt(abar[i - 1]) * own[i - 1] / (1 - abar[i]) * share
        mean += math.sqrt(1 - own[i - 1]) * (1 - abar[i - 1]) / (1 - abar[i])
        variance = mean**2 * variance + (1 - abar[i - 1]) / (1 - abar[i]) * own[i - 1]
    assert found.std().item() == pytest.approx(math.sqrt(variance), rel=0.02)
    assert found.std().item() == pytest.approx(0.2, rel=0.4 if betas else 0.08)
    assert abs(found.mean().item()) < 0.01


@pytest.mark.parametrize("betas", [FAST, (1e-4, 0.1), (0.02,), (0.01, 0.02, 0.05, 0.2)])
def test_the_steps_of_a_short_sampling_have_its_levels(betas):
    model = made(replace(SMALL, steps=50, last_beta=0.05))
    own, at = model.schedule(DiffWaveSampling(betas=betas))
    assert own.tolist() == list(betas)
    level = np.concatenate([[1], np.sqrt(np.cumprod(1 - model.config.betas))])
    wanted = np.sqrt(np.cumprod(1 - np.array(betas)))
    for t, w in zip(at, wanted, strict=True):
        low = int(t)
        assert (1 - (t - low)) * level[low] + (t - low) * level[min(low + 1, 50)] == pytest.approx(w, abs=1e-9)
    assert (np.diff(at) > 0).all()
    whole, all_steps = model.schedule(DiffWaveSampling())
    assert whole.tolist() == model.config.betas.tolist()
    assert all_steps.tolist() == list(range(1, 51))
    again, same = model.schedule(DiffWaveSampling(betas=tuple(model.config.betas)))
    assert again.tolist() == whole.tolist()
    assert same == pytest.approx(all_steps, abs=1e-6)


def test_steps_are_told_by_the_waves_of_the_paper():
    t = torch.tensor([1.0, 7.0, 50.0, 200.0])
    rates = [10 ** (4 * k / 63) for k in range(64)]
    expected = [[math.sin(r * s) for r in rates] + [math.cos(r * s) for r in rates] for s in t.tolist()]
    torch.testing.assert_close(step_features(t), torch.tensor(expected), rtol=0, atol=1e-5)
    half = step_features(torch.tensor([7.25]))
    between = 0.75 * step_features(torch.tensor([7.0])) + 0.25 * step_features(torch.tensor([8.0]))
    torch.testing.assert_close(half, between, rtol=0, atol=1e-6)
    assert (step_features(t)[0] - step_features(t)[1]).abs().max() > 1


# the network


def test_it_looks_both_ways_as_far_as_its_dilations():
    network = Denoiser(1, 8, (1, 2, 4, 1, 2, 4), 3, 0, 0, ())
    nn.init.normal_(network.out.weight)
    x = torch.randn(1, 1, 61, requires_grad=True)
    network(x, torch.ones(1))[0, 0, 30].backward()
    assert x.grad is not None
    heard = x.grad[0, 0].abs() > 0
    assert heard.nonzero()[:, 0].tolist() == list(range(30 - 14, 30 + 15))


def test_sizes_are_those_of_the_paper():
    """2.64, 6.91 and 24.1 million are published; weight normalisation, which is left out, has a gain for each row."""

    def sizes(config: DiffWaveConfig, spec: AudioSpec) -> tuple[int, int]:
        with torch.device("meta"):
            model = DiffWave(config, spec)
        gains = sum(p.shape[0] for p in model.parameters() if p.ndim == 3)
        return sum(p.numel() for p in model.parameters()), gains

    vocoder = recipes.paper()
    assert isinstance(vocoder.config, DiffWaveConfig)
    spec = AudioSpec(22_050, 1, 62 * 256)
    base, gains = sizes(vocoder.config, spec)
    assert (base, base + gains) == (2_619_971, 2_631_620)
    assert base + gains == pytest.approx(2.64e6, rel=0.005)
    large, gains = sizes(replace(vocoder.config, channels=128), spec)
    assert (large, round((large + gains) / 1e6, 2)) == (6_885_315, 6.91)
    words = recipes.paper_words().config
    assert isinstance(words, DiffWaveConfig)
    found, _ = sizes(replace(words, conditional=False), AudioSpec(16_000, 1, 16_000))
    assert found == pytest.approx(24.1e6, rel=0.01)
    assert sum(words.dilations) == 3 * 4095
    assert sum(vocoder.config.dilations) == 3 * 1023
    assert vocoder.config.betas[[0, -1]].tolist() == [1e-4, 0.05]


@pytest.mark.parametrize("factors", [(16, 16), (8, 8), (3, 5), (2,), (7, 2, 4)])
def test_mel_frames_reach_as_far_as_their_sound(factors):
    frames = torch.randn(2, 5, 6)
    assert Upsampler(factors)(frames).shape == (2, 5, 6 * math.prod(factors))


# conditions


def test_guidance_moves_away_from_nothing():
    model, x, t = made(), sound(2, 64), torch.tensor([3.0, 9.0])
    with torch.no_grad():
        for block in model.network.blocks:
            block.label.weight.normal_(0, 1)
    label = torch.tensor([0, 2])
    asked = model.network(x, t, label)
    free = model.network(x, t, torch.full((2,), 3))
    assert (asked - free).abs().max() > 0.01
    for weight, expected in ((0.0, free), (1.0, asked), (2.0, 2 * asked - free), (0.5, (asked + free) / 2)):
        torch.testing.assert_close(model.guided(x, t, label, None, weight), expected, rtol=1e-4, atol=1e-5)
    options = DiffWaveSampling(guidance=0.0)
    one, two = (model.sample(1, {"label": torch.tensor([c])}, rng=SampleRng(0, [0]), options=options).x for c in (0, 2))
    assert torch.equal(one, two)  # nothing was asked for
    one, two = (model.sample(1, {"label": torch.tensor([c])}, rng=SampleRng(0, [0])).x for c in (0, 2))
    assert not torch.equal(one, two)


def test_a_vocoder_hears_the_frames_that_it_is_given():
    model = made(VOCODER)
    assert set(model.accepts()) == {"mel"}
    with torch.no_grad():
        for block in model.network.blocks:
            block.mel.weight.mul_(4)
    t = torch.arange(96) / 8000
    low, high = (0.5 * torch.sin(2 * math.pi * f * t)[None, None] for f in (300, 2500))
    rng = SampleRng(0, [0])
    nothing, a, b = (model.sample(1, given, rng=rng).x for given in ({}, {"mel": low}, {"mel": high}))
    assert a.shape == b.shape == nothing.shape == (1, 1, 96)
    assert (a - b).abs().max() > 0.01
    assert (a - nothing).abs().max() > 0.01
    off = DiffWaveSampling(guidance=0.0)
    assert torch.allclose(model.sample(1, {"mel": low}, rng=rng, options=off).x, nothing, atol=1e-5)
    for size in (1, 17, 200):  # of the sound that is given, or what is asked for
        x = sound(1, size)
        assert model.sample(1, {"mel": x}, rng=rng).x.shape[-1] == size
        longer = DiffWaveSampling(length=size + 33)
        assert model.sample(1, {"mel": x}, rng=rng, options=longer).x.shape[-1] == size + 33


def test_a_vocoder_learns_without_frames_too():
    model = made(VOCODER)
    heard = Heard()
    model.network = heard
    x = sound(300, 64)
    model.loss(Batch.of(x), BatchRng(0, total=300), Progress(0, 1))
    mel = heard.calls[0][3]
    assert mel.shape == (300, 12, 4)
    silent = (mel == -1).all(2).all(1)
    assert 0.04 < silent.float().mean() < 0.18
    torch.testing.assert_close(mel[~silent], model.mel(x[:, 0])[~silent])


def test_lengths_channels_temperature_and_previews():
    model, rng = made(), SampleRng(0, range(2))
    for length, samples in ((40, 40), (0.01, 80), (None, 96)):
        assert model.sample(2, rng=rng, options=DiffWaveSampling(length=length)).x.shape == (2, 1, samples)
    stereo = made(spec=AudioSpec(8000, 2, 50))
    assert stereo.sample(1, rng=SampleRng(0, [0])).x.shape == (1, 2, 50)
    still = model.sample(2, {"label": torch.tensor([1, 1])}, rng=rng, options=DiffWaveSampling(temperature=0.0)).x
    assert torch.equal(still[0], still[1])  # without noise all are one
    seen: list[Preview] = []
    whole = model.sample(2, rng=rng, options=DiffWaveSampling(betas=FAST), watch=seen.append)
    assert [(p.step, p.steps) for p in seen] == [(k, 6) for k in range(1, 7)]
    assert torch.equal(seen[-1].examples().x, whole.x)
    assert whole.x.abs().max() <= 1


def test_wrong_settings_are_refused():
    for settings in ({"kernel": 4}, {"layers": 0}, {"hop": (1, 8)}, {"cycle": 17}, {"last_beta": 1.0}, {"drop": 0.0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            replace(SMALL, **settings)
    for settings in ({"length": 0}, {"betas": (0.2, 0.1)}, {"betas": (0.0, 0.1)}, {"guidance": -1.0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            DiffWaveSampling(**settings)


def test_folded_samples_go_in_and_out_as_they_were():
    """Whatever the length, a place's outputs are those of its own samples: an identity stays one."""
    for channels, length, fold in ((1, 37, 8), (2, 16, 4), (2, 5, 1)):
        network = Denoiser(channels, channels * fold, (1,), 3, 0, 0, (), 16, fold)
        x = torch.rand(3, channels, length)  # positive, so that the rectifiers let it through
        with torch.no_grad():
            for layer in (network.into, network.out):
                layer.weight.copy_(torch.eye(channels * fold)[..., None])
                layer.bias.zero_()
        through = network.out(network.into(_folded(x, fold)))
        network.skip = nn.Identity()
        network.blocks = nn.ModuleList([_Straight()])
        assert torch.equal(network(x, torch.ones(3)), x)
        assert through.shape == (3, channels * fold, -(-length // fold))


def _folded(x, fold):
    n, channels, length = x.shape
    padded = torch.cat([x, torch.zeros(n, channels, -length % fold)], 2)
    return torch.stack([padded[:, c, k::fold] for c in range(channels) for k in range(fold)], 1)


class _Straight(nn.Module):
    """A block that hands on what it was given."""

    def forward(self, x, step, label, mel):
        return x, x


def test_a_folded_network_sees_a_sound_far_away():
    """With 8 samples a place a layer of three taps sees 24 samples, and a vocoder hears its frames in their place."""
    model = made(replace(VOCODER, layers=1, cycle=1, fold=8))
    x, frames = torch.randn(1, 1, 96), torch.zeros(1, 12, 6)
    t, base = torch.ones(1), None
    base = model.network(x, t, None, frames)
    louder = x.clone()
    louder[..., 40] += 1
    moved = (model.network(louder, t, None, frames) - base).abs()[0, 0] > 0
    assert moved.nonzero().min() >= 32
    assert moved.nonzero().max() < 56
    other = frames.clone()
    other[..., 3] = 1  # samples 48 to 64, and what upsampling smears
    moved = (model.network(x, t, None, other) - base).abs()[0, 0] > 0
    assert moved[48:64].all()
    assert not moved[:24].any()


def test_runs_from_before_levels_still_fit():
    """Without a level there is no gain among the weights, as there was none when those runs were written."""
    assert "gain" not in made().state_dict()
    assert "gain" in made(replace(SMALL, level=0.25)).state_dict()


def test_sound_is_brought_to_a_level_and_back():
    """Quiet sound is as loud as asked for where the network sees it, and as quiet as it was when it comes out."""
    quiet = 0.03 * torch.randn(40, 1, 96, generator=torch.Generator().manual_seed(0))
    data = Table(quiet, SPEC, torch.zeros(40, dtype=torch.int64))
    model = made(replace(SMALL, level=0.25))
    model.initialise(data, BatchRng(0, total=1), {})
    assert float(model.gain) == pytest.approx(0.25 / float(quiet.square().mean().sqrt()), rel=1e-5)
    heard = Heard()
    model.network = heard
    model.loss(data.batch(np.arange(40)), BatchRng(0, total=40), Progress(0, 1))
    noisy, t, _, _ = heard.calls[0]
    abar = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 0.2, 20)))[t - 1]
    assert float((noisy.var((1, 2)) - (1 - abar)).mean()) == pytest.approx(float(abar.mean()) / 16, abs=0.02)
    options = DiffWaveSampling(length=64, temperature=0.02)
    as_heard = model.sample(2, rng=SampleRng(0, range(2)), options=options).x * model.gain
    model.gain.fill_(1.0)
    torch.testing.assert_close(as_heard, model.sample(2, rng=SampleRng(0, range(2)), options=options).x)
    assert float(as_heard.abs().max()) < 1, "nothing was cut"
