"""3D-GAN: its sizes, the discriminator's rest, and that it learns."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Objective, Progress, Update, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.shape import ShapeSpec
from castalia.media.shape.read import ShapeOptions
from castalia.media.shape.sets import open_set
from castalia.models.shapes.carvers import ShapeSampling, one_piece
from castalia.models.shapes.gan3d import GAN3D, GAN3DConfig, Referee

SPEC = ShapeSpec(8, ("a", "b"))
NOW = Progress(0, 10)


def small(spec: ShapeSpec = SPEC, **config: Any) -> GAN3D:
    made = build(GAN3D, GAN3DConfig(**{"latent_dims": 4, "width": 4, **config}), spec)
    assert isinstance(made, GAN3D)
    return made


def some(n: int = 6, size: int = 8) -> Batch:
    g = torch.Generator().manual_seed(0)
    x = (torch.rand(n, 1, size, size, size, generator=g) < 0.3).to(torch.uint8)
    return Batch.of(x, torch.arange(n) % 2)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_networks_of_the_paper() -> None:
    """200 to 512 x 4^3, 256 x 8^3, 128 x 16^3, 64 x 32^3 and 1 x 64^3, kernels of 4; the other way round to one logit."""
    with torch.device("meta"):
        model = GAN3D(GAN3DConfig(), ShapeSpec(64))
        assert model.generator(torch.zeros(2, 200)).shape == (2, 1, 64, 64, 64)
        seen = model.critic.stack(torch.zeros(2, 1, 64, 64, 64))
        assert [tuple(s.shape[1:3]) for s in seen] == [(64, 32), (128, 16), (256, 8), (512, 4)]
        assert model.critic.features(torch.zeros(2, 1, 64, 64, 64)).shape == (2, 8 * (128 + 256 + 512))
    channels, kernel = (200, 512, 256, 128, 64, 1), 4**3
    weights = sum(a * b * kernel + b for a, b in pairwise(channels))
    assert count(model.generator) == weights + 2 * (512 + 256 + 128 + 64)
    back = (1, 64, 128, 256, 512, 1)
    weights = sum(a * b * kernel + b for a, b in pairwise(back))
    assert count(model.critic) == weights + 2 * (64 + 128 + 256 + 512)


@pytest.mark.parametrize("size", [8, 16, 32])
def test_smaller_cubes_have_fewer_layers(size: int) -> None:
    model = small(ShapeSpec(size))
    assert model.sample(2, rng=SampleRng(0, range(2))).x.shape == (2, 1, size, size, size)
    assert len(model.critic.layers) == {8: 1, 16: 2, 32: 3}[size]


def test_latents_are_uniform() -> None:
    z = small().latents(torch.randn(20_000, 1))
    assert 0 < z.min() < 0.001
    assert 0.999 < z.max() < 1
    torch.testing.assert_close(z.sort(0).values[:, 0], torch.linspace(0, 1, 20_000), atol=0.02, rtol=0)


def test_the_game_is_its_equation() -> None:
    model, batch, rng = small(), some(), BatchRng(0, total=6)
    loss, logs = model.critic_loss(batch, rng, NOW)
    fake = model.make_still(rng, None)
    real, made = model.judge(model.inside(batch.x), None), model.judge(fake, None)
    d_real, d_made = torch.sigmoid(real), torch.sigmoid(made)
    expected = -(d_real.log().mean() + (1 - d_made).log().mean())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert logs["accuracy"].item() == pytest.approx(
        0.5 * ((real > 0).float().mean() + (made < 0).float().mean()).item()
    )
    generator = BatchRng(1, total=6)
    theirs = torch.sigmoid(model.judge(model.make_still(generator, None), None))
    assert model.generator_loss(batch, generator, NOW)[0].item() == pytest.approx(-theirs.log().mean().item(), rel=1e-4)
    minimax = small(game="minimax")
    minimax.load_state_dict(model.state_dict())
    assert minimax.generator_loss(batch, generator, NOW)[0].item() == pytest.approx(
        (1 - theirs).log().mean().item(), rel=1e-4
    )


def step(model: GAN3D, optimizer: torch.optim.Optimizer, number: int) -> float:
    """One update of the discriminator and of its referee, as the loop does it; returns whether it rested."""
    critic, remember, _ = model.stages()[0].objectives
    assert isinstance(critic, Objective)
    assert isinstance(remember, Update)
    assert critic.project is not None
    rng = BatchRng(number, total=6)
    loss, logs = critic.loss(some(), rng, NOW)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        critic.project()
        remember.step(some(), rng, NOW)
    return float(logs["rests"])


def test_the_discriminator_rests_where_it_is_too_good() -> None:
    model = small(rest=0.8)
    optimizer = torch.optim.Adam(model.critic.parameters(), 0.01)
    assert step(model, optimizer, 0) == 0, "it begins"
    model.referee.tally.copy_(torch.tensor([9.7, 12.0]))  # 81 %
    before = [p.detach().clone() for p in model.critic.parameters()]
    assert step(model, optimizer, 1) == 1
    assert all(torch.equal(p, old) for p, old in zip(model.critic.parameters(), before, strict=True))
    model.referee.tally.copy_(torch.tensor([9.6, 12.0]))  # 80 %: not above
    assert step(model, optimizer, 2) == 0
    assert not all(torch.equal(p, old) for p, old in zip(model.critic.parameters(), before, strict=True))


def test_it_plays_with_its_accuracy_held() -> None:
    """Against a generator that stands still: without the rule it wins; with it, it rests most of the time."""
    rests = {}
    for rest in (0.8, 1.0):
        model = small(rest=rest)
        optimizer = torch.optim.Adam(model.critic.parameters(), 0.01)
        rests[rest] = np.mean([step(model, optimizer, n) for n in range(60)])
    assert rests[1.0] == 0
    assert rests[0.8] > 0.5


def test_the_referee_counts_over_processes() -> None:
    """Two processes with three rows each come to what one with six does."""
    whole, halves = Referee(), [Referee(), Referee()]
    real, fake = torch.tensor([1.0, 1, -1, 1, -1, 1]), torch.tensor([-1.0, 1, 1, -1, -1, 1])
    for turn in range(2):
        whole.count(real.roll(turn), fake)
        whole.settle(1.0)
        old = halves[0].tally.clone()
        for rank, half in enumerate(halves):
            rows = slice(3 * rank, 3 * rank + 3)
            half.count(real.roll(turn)[rows], fake[rows])
            half.settle(0.5)
        changed = sum((half.tally - old for half in halves), old)
        for half in halves:
            half.tally.copy_(changed)
        assert torch.equal(halves[0].tally, whole.tally)
        assert whole.accuracy == 7 / 12


def test_classes_are_asked_for_and_judged_by() -> None:
    model, batch = small(conditional=True), some()
    one, other = (model.judge(model.inside(batch.x), torch.full((6,), c)) for c in (0, 1))
    assert not torch.equal(one, other)
    z = torch.randn(3, 4)
    asked = [model.eval().generate(z, torch.full((3,), c), None) for c in (0, 1)]
    assert not torch.equal(*asked)
    with pytest.raises(UsageError, match="no labels"):
        small(ShapeSpec(8), conditional=True)


def test_features_are_pooled_responses() -> None:
    model, x = small(ShapeSpec(16)), some(3, 16).x
    found = model.features(x)
    seen = model.critic.eval().stack(model.inside(x))[1]
    torch.testing.assert_close(found, F.adaptive_max_pool3d(seen, 2).flatten(1))
    assert model.features(x).shape == (3, 8 * 8)
    assert model.train().critic.training
    model.features(x)
    assert model.critic.training, "it is left as it was"


def test_features_tell_classes_apart() -> None:
    """Even of a network that has seen nothing; a linear classifier on them, on solids that it has not seen."""
    from sklearn.linear_model import RidgeClassifier

    train, test = (open_set("solids", ShapeOptions(size=16), s) for s in ("train", "test"))
    model = small(ShapeSpec(16), width=8)
    seen = [model.features(d.batch(np.arange(400)).x).numpy() for d in (train, test)]
    assert train.labels is not None
    assert test.labels is not None
    score = RidgeClassifier().fit(seen[0], train.labels[:400]).score(seen[1], test.labels[:400])
    assert score > 0.9


def test_sampling_options() -> None:
    model = small()
    many = model.sample(8, rng=SampleRng(0, range(8)), options=ShapeSampling(threshold=0.2)).x.sum()
    few = model.sample(8, rng=SampleRng(0, range(8)), options=ShapeSampling(threshold=0.8)).x.sum()
    assert many > few
    for wrong in ({"threshold": 0.0}, {"threshold": 1.0}, {"truncation": -1.0}):
        with pytest.raises(ValueError):
            ShapeSampling(**wrong)
    x = torch.zeros(2, 1, 8, 8, 8, dtype=torch.uint8)
    x[0, 0, :3, :3, :3] = x[0, 0, 6, 6, 6] = 1
    assert one_piece(x).sum((1, 2, 3, 4)).tolist() == [27, 0]
    whole = model.sample(8, rng=SampleRng(0, range(8)), options=ShapeSampling(threshold=0.45, one_piece=True))
    assert torch.equal(one_piece(whole.x), whole.x)


def test_what_does_not_fit_is_refused() -> None:
    for size in (4, 12, 20):
        with pytest.raises(UsageError, match="cubes of 8, 16, 32"):
            small(ShapeSpec(size))
    for wrong in ({"width": 0}, {"rest": 0.3}, {"latent_dims": 0}):
        with pytest.raises(ValueError):
            GAN3DConfig(**wrong)  # type: ignore[arg-type]
