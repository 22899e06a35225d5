"""SampleRNN: what a sample sees, state from stretch to stretch, and steps one at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.audio import AudioSpec
from castalia.models.sound.samplernn import SampleRNN, SampleRNNConfig
from castalia.models.sound.tiers import parameters_of, whole
from castalia.models.sound.wavenet import WaveNetSampling
from castalia.recipes.samplernn import RECIPES

SPEC = AudioSpec(8000, 1, 96, ("a", "b"))
NOW = Progress(1, 10)


def small(spec: AudioSpec = SPEC, **config: Any) -> SampleRNN:
    settings = {"frames": (8, 2), "dim": 12, "embedding": 6, "truncation": 32, **config}
    made = build(SampleRNN, SampleRNNConfig(**settings), spec)
    assert isinstance(made, SampleRNN)
    return made.eval()


def noise(n: int = 3, size: int = 96) -> torch.Tensor:
    return torch.rand(n, 1, size, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8


@pytest.mark.parametrize("name", ["samplernn-paper", "samplernn-paper-3tier"])
def test_sizes_of_the_papers_networks(name: str) -> None:
    c = RECIPES[name]().config
    assert isinstance(c, SampleRNNConfig)
    with torch.device("meta"):
        model = SampleRNN(SampleRNNConfig(**{**c.__dict__, "weight_norm": False}), AudioSpec(16_000, 1, 1024))
    expected = parameters_of(c.frames, c.dim, c.layers, 256, c.embedding)
    assert sum(p.numel() for p in model.network.parameters()) == expected


@pytest.mark.parametrize("frames", [(8,), (8, 2), (16, 4, 2)])
def test_a_sample_sees_none_after_it(frames: tuple[int, ...]) -> None:
    model = small(frames=frames, truncation=32)
    codes = model.codes(noise())
    start = torch.full((3, frames[0]), 128)
    before, _ = model.network(start, codes, model.network.begin(3), None)
    for t in (0, 5, 8, 31, 60):
        changed = codes.clone()
        changed[:, t] = (changed[:, t] + 40) % 256
        after, _ = model.network(start, changed, model.network.begin(3), None)
        assert torch.equal(before[:, : t + 1], after[:, : t + 1])
        assert not torch.equal(before[:, t + 1], after[:, t + 1])


def test_stretches_with_carried_state_are_one_pass() -> None:
    model = small()
    batch = Batch.of(noise(size=90), torch.tensor([0, 1, 0]))
    with torch.no_grad():
        short, _ = small(truncation=8).loss(batch, BatchRng(0, total=3), NOW)
        long, _ = small(truncation=96).loss(batch, BatchRng(0, total=3), NOW)
    assert short.item() == pytest.approx(long.item(), rel=1e-5)
    exact = model.log_likelihood(batch, rng=SampleRng(0, range(3))).nats
    assert long.item() == pytest.approx(-exact.sum().item() / 270, rel=1e-5)


def test_no_gradient_passes_from_stretch_to_stretch() -> None:
    """What the last stretch costs does not reach the first state where there are two; it does where there is one."""
    x = noise()
    label = torch.tensor([0, 1, 0])
    grads = []
    for truncation in (32, 96):
        model = small(truncation=truncation)
        batch = Batch(x, torch.arange(3), label, {"length": torch.tensor([96, 96, 96])})
        model.loss(batch, BatchRng(0, total=3), NOW)[0].backward()
        grads.append([tier.first.grad.clone() for tier in model.network.stack])
    assert not torch.allclose(grads[0][0], grads[1][0])


@pytest.mark.parametrize("prompt", [0, 5, 16])
@pytest.mark.parametrize("levels", ["mulaw", "linear"])
def test_steps_are_the_network(prompt: int, levels: str) -> None:
    model = small(levels=levels)
    rng, options = SampleRng(0, range(2)), WaveNetSampling(length=40)
    given = {"prompt": noise(2, prompt)} if prompt else {}
    made, anew = model.sample(2, given, rng=rng, options=options).x, model.naive(2, given, rng, options).x
    assert made.shape == (2, 1, 40 + prompt)
    assert (made != anew).float().mean() < 0.02  # draws on the edge of two codes may differ
    assert torch.equal(model.codes(made[..., :prompt]), model.codes(noise(2, max(prompt, 1)))[:, :prompt])


def test_levels_come_back() -> None:
    for levels in ("mulaw", "linear"):
        model = small(levels=levels)
        codes = torch.arange(256)[None]
        assert torch.equal(model.codes(model.sound(codes)), codes)


def test_what_makes_no_sense() -> None:
    with pytest.raises(UsageError, match="mono"):
        SampleRNN(SampleRNNConfig(), AudioSpec(8000, 2, 64))
    for wrong in ({"frames": (8, 3)}, {"frames": (2, 8)}, {"frames": (1,)}, {"truncation": 100}, {"dim": 0}):
        with pytest.raises(ValueError):
            SampleRNNConfig(**wrong)  # type: ignore[arg-type]
    assert [whole(n, 8) for n in (0, 1, 8, 9)] == [0, 8, 8, 16]
    assert small().sample(1, rng=SampleRng(0, [0]), options=WaveNetSampling(length=0.01)).x.shape == (1, 1, 80)
