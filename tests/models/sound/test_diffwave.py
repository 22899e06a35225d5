"""DiffWave: the process, its schedules, its network and what it hears."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from castalia.core.data import Batch
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.audio import AudioSpec
from castalia.models.sound.denoiser import step_features
from castalia.models.sound.diffwave import FAST, DiffWave, DiffWaveConfig, DiffWaveSampling
from castalia.nn.mel import LogMel

SPEC = AudioSpec(8000, 1, 256, ("a", "b"))


def small(spec: AudioSpec = SPEC, **config: Any) -> DiffWave:
    settings = {"layers": 4, "cycle": 2, "channels": 8, "steps": 20, "last_beta": 0.3, **config}
    made = build(DiffWave, DiffWaveConfig(**settings), spec)
    assert isinstance(made, DiffWave)
    with torch.no_grad():
        made.network.out.weight.normal_(0, 0.1)
    return made.eval()


@pytest.mark.parametrize(
    ("config", "classes", "published"),
    [
        (DiffWaveConfig(steps=50, last_beta=0.05, mel=80, conditional=False), 0, 2.64e6),
        (DiffWaveConfig(channels=128, steps=50, last_beta=0.05, mel=80, conditional=False), 0, 6.91e6),
        (DiffWaveConfig(layers=36, cycle=12, channels=256), 10, 24.1e6),
    ],
)
def test_published_sizes(config: DiffWaveConfig, classes: int, published: float) -> None:
    """Within one in a hundred: published networks have gains of weight normalisation, and other label tables."""
    with torch.device("meta"):
        model = DiffWave(config, AudioSpec(22_050, 1, 15_872, tuple("0123456789"[:classes])))
    assert sum(p.numel() for p in model.network.parameters()) == pytest.approx(published, rel=0.01)


def test_waves_of_whole_steps_are_the_papers_and_between_them_straight() -> None:
    t = torch.tensor([3.0, 4.0, 3.25])
    found = step_features(t)
    rate = 10 ** (np.arange(64) * 4 / 63)
    np.testing.assert_allclose(found[0].numpy(), np.concatenate([np.sin(3 * rate), np.cos(3 * rate)]), atol=1e-6)
    torch.testing.assert_close(found[2], 0.75 * found[0] + 0.25 * found[1])


def test_a_short_schedule_has_the_levels_that_were_asked_for() -> None:
    model = small(steps=50, last_beta=0.05)
    betas, at = model.schedule(DiffWaveSampling(betas=FAST))
    level = np.concatenate([[1.0], np.sqrt(np.cumprod(1 - model.config.betas))])
    wanted = np.sqrt(np.cumprod(1 - np.array(FAST)))
    inside = wanted >= level[-1]
    np.testing.assert_allclose(np.interp(at, np.arange(51.0), level)[inside], wanted[inside], atol=1e-9)
    assert (np.diff(at) >= 0).all()
    assert len(betas) == 6
    whole, steps = model.schedule(DiffWaveSampling())
    assert steps.tolist() == list(range(1, 51))
    assert np.array_equal(whole, model.config.betas)


def test_a_perfect_network_gives_the_sound_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the true noise at every step the sampler ends at the example, whatever noise it adds on its way."""
    model = small()
    target = 0.5 * torch.sin(torch.arange(256) * 0.1)[None, None]
    signal = np.cumprod(1 - model.config.betas)

    def noise_of(x: torch.Tensor, t: torch.Tensor, *rest: Any) -> torch.Tensor:
        level = signal[round(float(t[0])) - 1]
        return (x - math.sqrt(level) * target) / math.sqrt(1 - level)

    monkeypatch.setattr(model, "guided", noise_of)
    made = model.sample(2, rng=SampleRng(0, range(2))).x
    torch.testing.assert_close(made, target.expand(2, -1, -1), atol=1e-4, rtol=0)


def test_the_loss_is_the_error_of_the_noise() -> None:
    model = small(conditional=False)
    rng = BatchRng(0, total=4)
    with torch.no_grad():
        model.network.out.weight.zero_()
        model.network.out.bias.zero_()
    loss, _ = model.loss(Batch.of(torch.zeros(4, 1, 256)), rng, Progress(0, 1))
    assert loss.item() == pytest.approx(rng.normal("noise", 1, 256).square().mean().item(), rel=1e-6)


def test_guidance_goes_from_nothing_over_the_model_beyond() -> None:
    model = small()
    x, t = torch.randn(2, 1, 256), torch.tensor([5.0, 5.0])
    label = torch.tensor([0, 1])
    none, one, two = (model.guided(x, t, label, None, w) for w in (0.0, 1.0, 2.0))
    assert not torch.allclose(none, one)
    torch.testing.assert_close(two, 2 * one - none)
    torch.testing.assert_close(none, model.network(x, t, torch.tensor([2, 2])))


def test_a_vocoder_hears_what_it_is_given() -> None:
    model = small(mel=16, hop=(4, 4), conditional=False)
    tone = 0.5 * torch.sin(torch.arange(300) * 0.5)[None, None]
    rng = SampleRng(0, [0])
    one, silent = (model.sample(1, {"mel": x}, rng=rng).x for x in (tone, torch.zeros(1, 1, 300)))
    assert one.shape == (1, 1, 300)
    assert not torch.equal(one, silent)
    assert model.sample(1, rng=rng).x.shape == (1, 1, 256)
    assert model.sample(1, {"mel": tone}, rng=rng, options=DiffWaveSampling(length=0.05)).x.shape == (1, 1, 400)


def test_a_tone_lights_its_band() -> None:
    mel = LogMel(8000, 40, 64)
    t = torch.arange(4000) / 8000
    peaks = [int(mel(torch.sin(2 * torch.pi * f * t)[None]).mean(2).argmax()) for f in (200, 800, 2000, 3500)]
    assert peaks == sorted(set(peaks))
    assert mel(torch.zeros(1, 4000)).max() == -1
    assert mel(torch.zeros(1, 4001)).shape == (1, 40, 63)
    assert mel(torch.sin(2 * torch.pi * 800 * t)[None]).max() < 1.2


def test_what_makes_no_sense() -> None:
    for wrong in ({"kernel": 2}, {"steps": 1}, {"drop": 0.0}, {"last_beta": 1.0}, {"mel": -1}):
        with pytest.raises(ValueError):
            DiffWaveConfig(**wrong)  # type: ignore[arg-type]
    for bad in ({"betas": (0.5, 0.1)}, {"guidance": -1.0}, {"length": 0}):
        with pytest.raises(ValueError):
            DiffWaveSampling(**bad)  # type: ignore[arg-type]
