"""Energy models: Langevin dynamics against its stationary law, the buffer's turns, and what happens in a divergence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from castalia import api, recipes
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.energy.ebm import EBM, EBMConfig, EBMOptions
from castalia.models.energy.langevin import langevin
from castalia.models.energy.watching import KEPT_EVERY, TRUSTED_AFTER, Guard
from castalia.training.loop import train
from tests.tools import Table, small_recipe

SMALL: dict[str, Any] = {"widths": (4, 8), "hidden": 8, "steps": 3, "replay": 40, "draw_steps": 4}


def ebm(spec: ImageSpec | PointsSpec, **config: Any) -> EBM:
    made = build(EBM, EBMConfig(**(SMALL | config)), spec)
    assert isinstance(made, EBM)
    return made


# Langevin dynamics


@pytest.mark.parametrize(("step", "noise", "deviation"), [(0.1, 0.3, 1.0), (0.02, 0.2, 0.5), (0.5, 1.0, 1.0)])
def test_the_stationary_variance_on_a_gaussian(step: float, noise: float, deviation: float) -> None:
    """x <- (1 - step / s^2) (x + noise n): variance a^2 noise^2 / (1 - a^2), near to s^2 where step = noise^2 / 2."""
    n, a = 4_000, 1 - step / deviation**2
    x = langevin(
        lambda y: y.square().sum(1) / (2 * deviation**2),
        torch.zeros(n, 2),
        BatchRng(0, total=n),
        steps=120,
        step=step,
        noise=noise,
    )
    right = a**2 * noise**2 / (1 - a**2)
    assert x.var().item() == pytest.approx(right, rel=0.06)  # three standard errors of 8,000 numbers are 0.05
    if step == noise**2 / 2 and step < 0.1:
        assert x.var().item() == pytest.approx(deviation**2, rel=0.15)


def test_clipping_bounds_and_what_is_settled() -> None:
    x, held = torch.full((3, 2), 0.5), torch.tensor([[True, False]])
    seen: list[int] = []
    y = langevin(
        lambda z: 1000 * z.sum(1),
        x,
        BatchRng(0, total=3),
        steps=4,
        step=1.0,
        noise=0.0,
        clip=0.1,
        bounds=(0.2, 1.0),
        settle=lambda z: torch.where(held, x, z),
        watch=lambda i, z: seen.append(i),
    )
    assert seen == [1, 2, 3, 4]
    torch.testing.assert_close(y, torch.tensor([[0.5, 0.2]]).expand(3, 2))


# the buffer


def test_every_place_has_its_turn_and_processes_have_their_own() -> None:
    model, total = ebm(ImageSpec(1, 8, 8)), 8
    seen = []
    for step in range(5):
        whole = model.replay.mine(BatchRng(0, total=total), Progress(step, 9))
        halves = [model.replay.mine(BatchRng(0, total=total, start=s, rows=4), Progress(step, 9)) for s in (0, 4)]
        assert torch.equal(whole, torch.cat(halves))
        assert len(whole.unique()) == total
        seen.append(whole)
    assert sorted(torch.cat(seen).tolist()) == list(range(40))
    with pytest.raises(UsageError, match="replay"):
        model.replay.mine(BatchRng(0, total=41), Progress(0, 9))


def test_five_in_a_hundred_chains_start_anew() -> None:
    model = ebm(PointsSpec(2), restart=0.05, replay=4000, steps=1, noise=0.0, step=1e-9, clip=0.0)
    with torch.no_grad():
        model.replay.x.fill_(100.0)
        logs = model.walk(Batch.of(torch.zeros(4000, 2)), BatchRng(0, total=4000), Progress(0, 9))
    anew = (model.replay.x < 50).all(1).float().mean()
    assert anew.item() == pytest.approx(0.05, abs=0.011)  # three standard errors
    assert logs["restarted"].item() == pytest.approx(anew.item(), abs=1e-6)


def test_chains_go_on_from_where_they_were() -> None:
    model = ebm(ImageSpec(1, 8, 8), restart=0.0, noise=0.0, clip=1e-4, step=1.0)
    x = torch.randint(50, 200, model.replay.x.shape, dtype=torch.uint8)
    with torch.no_grad():
        model.replay.x.copy_(x)
        model.walk(Batch.of(x[:8]), BatchRng(0, total=8), Progress(2, 9))
    assert (model.replay.x.int() - x.int()).abs().max() <= 1
    assert torch.equal(model.replay.x[24:], x[24:])


# the objective


def test_the_loss_is_that_of_the_paper() -> None:
    model = ebm(ImageSpec(1, 8, 8, ("a", "b")), conditional=True, alpha=0.3)
    x, label = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8), torch.arange(8) % 2
    with torch.no_grad():
        model.replay.x.copy_(torch.randint(0, 256, model.replay.x.shape, dtype=torch.uint8))
        model.replay.label.copy_(torch.arange(40) % 2)
    rng = BatchRng(0, total=8)
    loss, _ = model.contrast(Batch(x, torch.arange(8), label), rng, Progress(0, 9))
    low = model.network(model.inward(x, rng))[torch.arange(8), label]
    high = model.network(model.inward(model.replay.x[:8], rng.at("made")))[torch.arange(8), label]
    right = low.mean() - high.mean() + 0.3 * (low.square().mean() + high.square().mean())
    assert loss.item() == pytest.approx(right.item(), abs=1e-6)


def test_points_are_standardised() -> None:
    spec, x = PointsSpec(2), torch.randn(500, 2) * torch.tensor([3.0, 0.1]) + torch.tensor([5.0, -1.0])
    model = ebm(spec)
    model.initialise(Table(x, spec), BatchRng(0, total=1), {})
    inside = model.inward(x, None)
    torch.testing.assert_close(inside.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(inside.std(0, correction=0), torch.ones(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(model.outward(inside), x, atol=1e-5, rtol=0)


# divergence


def calm(guard: Guard, steps: int) -> None:
    for _ in range(steps):
        guard.note(torch.zeros(4), torch.zeros(4) + 0.1)
        assert not guard.look(1.0)


def test_a_divergence_is_undone_and_steps_become_smaller() -> None:
    network = nn.Linear(3, 1)
    guard, weight = Guard(network, limit=5.0), network.weight
    with torch.no_grad():
        for _ in range(TRUSTED_AFTER):
            weight += 1
            calm(guard, KEPT_EVERY)
        good = weight - (TRUSTED_AFTER - 1)
        weight.mul_(1000)
        guard.note(torch.full((4,), -50.0), torch.full((4,), 50.0))
        assert not guard.look(1.0), "it is judged in the next step, by all processes alike"
        assert guard.look(1.0)
        torch.testing.assert_close(weight, good)
        assert guard.caution == 0.5
        assert guard.recoveries == 1
        weight += 1.0
        guard.project()
        torch.testing.assert_close(weight, good + 0.5)
        calm(guard, 400)
        assert guard.caution == 1.0


def test_energies_that_grow_together_are_a_divergence_too() -> None:
    guard = Guard(nn.Linear(2, 1), limit=5.0)
    guard.note(torch.full((4,), 80.0), torch.full((4,), 80.0))
    with torch.no_grad():
        guard.look(1.0)
        assert guard.look(1.0)


def test_a_training_that_runs_away_is_caught(tmp_path: Path) -> None:
    """With a learning rate a thousand times too high it takes back and goes on, and all that it leaves is finite."""
    recipe = small_recipe("ebm", steps=60, lr=3.0, clip=0.0)
    recipe = replace(recipe, config=replace(recipe.config, steps=2, limit=2.0))
    run = train(recipe, api.training_data(recipe), tmp_path / "run", quiet=True)
    model = run.model()[0]
    assert isinstance(model, EBM)
    assert model.guard.recoveries >= 1
    assert all(t.isfinite().all() for t in model.state_dict().values() if t.is_floating_point())
    assert max(m["guard/recoveries"] for m in run.metrics()) >= 1


# sampling


def test_chains_of_the_buffer_are_of_the_class_that_is_asked_for() -> None:
    model = ebm(ImageSpec(1, 8, 8, ("a", "b")), conditional=True, noise=0.0, clip=1e-6).eval()
    with torch.no_grad():
        model.replay.label.copy_((torch.arange(40) % 3 == 0).long())
        model.replay.x.copy_((model.replay.label * 200)[:, None, None, None].expand_as(model.replay.x))
    label = torch.tensor([0, 1, 1, 0, 1])
    drawn = model.sample(5, {"label": label}, rng=SampleRng(0, range(5)), options=EBMOptions(start="replay"))
    assert (drawn.x.flatten(1).float().mean(1) > 100).tolist() == [False, True, True, False, True]


def test_without_noise_and_slope_what_is_refined_stays() -> None:
    model = ebm(ImageSpec(1, 8, 8), noise=0.0).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    x = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., :4] = True
    out = model.refine(Batch.of(x), strength=0.5, mask=mask, rng=SampleRng(0, range(3))).x
    assert torch.equal(out[..., 4:], x[..., 4:])
    noise = model.outward(model.noise(SampleRng(0, range(3)))).float()
    torch.testing.assert_close(out[..., :4].float(), ((x + noise) / 2)[..., :4], atol=1.0, rtol=0)


def test_spectral_norm_binds_every_layer() -> None:
    model = ebm(ImageSpec(1, 8, 8), spectral=True)
    x = torch.rand(4, 1, 8, 8)
    for _ in range(30):
        model.network(x)
    weights = [m.weight for m in model.network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weights) == 4
    for weight in weights:
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("wrong", [{"widths": ()}, {"step": 0.0}, {"restart": 1.5}, {"alpha": -1.0}])
def test_bad_configurations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EBMConfig(**wrong)


def test_sizes_of_the_paper() -> None:
    """A convolution and six residual blocks of 128 and 256 channels, a sum, one number."""
    model = build(EBM, recipes.recipe("ebm-cifar-paper").config, ImageSpec(3, 32, 32))
    assert isinstance(model, EBM)

    def conv(a: int, b: int, k: int = 3) -> int:
        return a * b * k * k + b

    def block(a: int, b: int) -> int:
        return conv(a, b) + conv(b, b) + (conv(a, b, 1) if a != b else 0)

    blocks = 2 * block(128, 128) + block(128, 256) + 3 * block(256, 256)
    assert sum(p.numel() for p in model.network.parameters()) == conv(3, 128) + blocks + 257
