"""MuseGAN: which latent moves what, shapes, and the game."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.music import MusicSpec
from castalia.models.adversarial.losses import gradient_norm, gradient_penalty, input_gradient
from castalia.models.music.musegan import MuseGAN, MuseGANConfig, MuseGANSampling, factors
from castalia.recipes import musegan as recipes

SPEC = MusicSpec("rolls", 32, 4, 16, ("a", "b", "c"), (0, 0, 0), 36, 64)


def small(spec: MusicSpec = SPEC, **config: Any) -> MuseGAN:
    made = build(MuseGAN, MuseGANConfig(**{"latents": 3, "width": 16, "temporal": 8, **config}), spec)
    assert isinstance(made, MuseGAN)
    return made


@pytest.mark.parametrize(
    ("bars", "bar", "low", "high"), [(1, 16, 36, 64), (2, 16, 24, 83), (4, 48, 24, 107), (3, 12, 0, 127)]
)
@pytest.mark.parametrize("model", ["hybrid", "composer", "jamming"])
def test_shapes(bars: int, bar: int, low: int, high: int, model: str) -> None:
    spec = MusicSpec("rolls", bars * bar, 4, bar, ("a", "b"), (0, 0), low, high)
    made = small(spec, model=model)
    latents = {"hybrid": 3 * (2 + 4), "composer": 6, "jamming": 12}[model]
    assert made.latent_dims == latents
    x = made.generator(torch.randn(2, latents))
    assert x.shape == (2, *spec.fields()["x"].shape)
    assert x.abs().max() <= 1
    assert made.judge(x, None).shape == (2,)


def test_each_latent_moves_what_it_should() -> None:
    """Of the hybrid: chords, style, then melody and groove of each track."""
    model = small().eval()
    z = torch.randn(1, model.latent_dims)
    plain = model.generator(z)
    moved = []
    for part in range(8):
        changed = z.clone()
        changed[:, 3 * part : 3 * part + 3] += 1
        moved.append((model.generator(changed) != plain).flatten(2).any(2)[0].tolist())
    assert moved[:2] == [[True] * 3] * 2
    assert moved[2:] == [[track == i for i in range(3)] for track in range(3) for _ in range(2)]


def test_what_changes_from_bar_to_bar_is_the_temporal_part() -> None:
    model = small(model="composer").eval()
    z = torch.randn(1, 6)
    z[:, :3] = 0
    with torch.no_grad():
        temporal = model.generator.temporal
        assert temporal is not None
        for p in temporal.second.parameters():
            p.zero_()
    x = model.generator(z).unflatten(2, (2, 16))
    assert torch.equal(x[:, :, 0], x[:, :, 1])


def test_one_track_of_a_jam_is_judged_alone() -> None:
    model = small(model="jamming").eval()
    assert len(model.critic.critics) == 3
    x = torch.randn(1, 3, 32, 29, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.critic.critics[1](x[:, 1:2]).sum(), x)
    assert gradient[:, [0, 2]].abs().max() == 0
    parts = sum(critic(x[:, i : i + 1]) for i, critic in enumerate(model.critic.critics))
    torch.testing.assert_close(model.critic(x), parts)


def test_the_penalty_is_on_the_norm_over_everything() -> None:
    """Over all tracks, steps and notes of an example, where code in public leaves an axis out."""
    x = torch.randn(3, 2, 4, 5)
    slope = torch.randn(2, 4, 5)

    def critic(x: torch.Tensor) -> torch.Tensor:
        return (x * slope).flatten(1).sum(1)

    expected = (slope.square().sum().sqrt() - 1) ** 2
    torch.testing.assert_close(gradient_penalty(critic, x), expected)
    assert gradient_norm(input_gradient(critic, x)[1]).shape == (3,)


def test_the_critics_loss_is_its_equation() -> None:
    model = small()
    batch = Batch.of(torch.randint(0, 2, (4, 3, 32, 29), dtype=torch.uint8))
    loss, logs = model.critic_loss(batch, BatchRng(0, total=4), Progress(0, 1))
    assert loss.item() == pytest.approx((10 * logs["penalty"] - logs["wasserstein"]).item(), rel=1e-4, abs=1e-5)


def test_notes_by_threshold_by_lot_and_one_at_a_time() -> None:
    model = small()
    x = torch.tensor([[-0.9, 0.2, 0.6]])
    assert model.outside(x).tolist() == [[0, 1, 1]]
    assert model.outside(x, torch.tensor([[0.04, 0.7, 0.7]])).tolist() == [[1, 0, 1]]
    assert small(one_note=True).outside(x).tolist() == [[0, 0, 1]]
    assert small(one_note=True).outside(-x.abs()).sum() == 0
    model.eval()
    lot = model.sample(2, rng=SampleRng(0, range(2)), options=MuseGANSampling(binary="lot")).x
    assert not torch.equal(lot, model.sample(2, rng=SampleRng(0, range(2))).x)


@pytest.mark.parametrize("name", ["musegan-paper", "musegan-book"])
def test_the_published_sizes_can_be_built(name: str) -> None:
    recipe = recipes.RECIPES[name]()
    o: Any = recipe.data.options
    tracks = ("drums", "piano", "guitar", "bass", "strings") if o.voices == "band" else ("s", "a", "t", "b")
    spec = MusicSpec("rolls", o.length, o.steps, o.bar, tracks, (0,) * len(tracks), o.lowest, o.highest)
    with torch.device("meta"):
        model = MuseGAN(recipe.config, spec)  # type: ignore[arg-type]
    assert model.latent_dims == 32 * (2 + 2 * len(tracks))
    assert spec.notes == 84
    assert sum(p.numel() for p in model.parameters()) > 5e6


def test_factors() -> None:
    assert [factors(n) for n in (1, 2, 16, 48, 7)] == [[], [2], [2, 2, 2, 2], [3, 2, 2, 2, 2], [7]]


def test_what_makes_no_sense() -> None:
    with pytest.raises(UsageError, match="kind=rolls"):
        MuseGAN(MuseGANConfig(), MusicSpec("voices", 16, 4, 16, ("melody",), (0,)))
    with pytest.raises(UsageError, match="no whole bars"):
        MuseGAN(MuseGANConfig(), MusicSpec("rolls", 18, 4, 16, ("a",), (0,)))
    for wrong in ({"width": 4}, {"penalty": 0.0}, {"latents": 0}):
        with pytest.raises(ValueError):
            MuseGANConfig(**wrong)  # type: ignore[arg-type]
