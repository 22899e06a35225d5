"""The joint energy model: its two losses, its energies, its classes, its size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from castalia import recipes
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.energy.ebm import EBMOptions
from castalia.models.energy.jem import JEM, JEMConfig
from castalia.models.energy.langevin import langevin
from tests.tools import Table

SPEC = ImageSpec(1, 8, 8, ("a", "b", "c"))


def jem(**config: Any) -> JEM:
    settings: dict[str, Any] = {"widths": (8, 16), "hidden": 16, "replay": 64, "steps": 5, "draw_steps": 10} | config
    made = build(JEM, JEMConfig(**settings), SPEC)
    assert isinstance(made, JEM)
    x = torch.randint(0, 256, (32, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    made.initialise(Table(x, SPEC, torch.arange(32) % 3), BatchRng(0, total=1), {})
    return made


def batch(n: int = 16) -> Batch:
    x = torch.randint(0, 256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return Batch(x, torch.arange(n), torch.arange(n) % 3)


@torch.no_grad()
def test_energies_marginalise_over_classes() -> None:
    model = jem().eval()
    x = torch.rand(5, 1, 8, 8)
    each = torch.stack([model.energy(x, torch.full((5,), y)) for y in range(3)], 1)
    torch.testing.assert_close(model.energy(x, None), -torch.logsumexp(-each, 1))
    torch.testing.assert_close(torch.softmax(-each, 1), torch.softmax(model.network(x), 1))


@pytest.mark.parametrize("by_class", [False, True])
def test_the_gradient_is_that_of_both_terms(by_class: bool) -> None:
    """Of log p(x) (or of log p(x, y), where chains are led by class) by samples, and of log p(y | x)."""
    model = jem(alpha=0.0, generative=0.7, by_class=by_class)
    given, rng, progress = batch(), BatchRng(0, total=16), Progress(0, 10)
    loss, logs = model.contrast(given, rng, progress)
    found = torch.autograd.grad(loss, list(model.network.parameters()))
    real = model.inward(given.x, rng)
    made = model.inward(model.replay.x[model.replay.mine(rng, progress)], rng.at("made"))
    assert given.label is not None
    discriminative = F.cross_entropy(model.network(real), given.label)
    if by_class:
        named = model.replay.label[model.replay.mine(rng, progress)]
        generative = model.energy(real, given.label).mean() - model.energy(made, named).mean()
    else:
        generative = torch.logsumexp(model.network(made), 1).mean() - torch.logsumexp(model.network(real), 1).mean()
    expected = torch.autograd.grad(discriminative + 0.7 * generative, list(model.network.parameters()))
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)
    assert set(logs) == {"real", "made", "classified", "accuracy"}


@torch.no_grad()
def test_chains_follow_the_marginal_and_are_named_by_where_they_are() -> None:
    model = jem(restart=0.0, by_class=False)
    model.walk(batch(), BatchRng(0, total=16), Progress(0, 10))
    places = model.replay.mine(BatchRng(0, total=16), Progress(0, 10))
    x = (model.replay.x[places].float() + 0.5) / 256
    likeliest = model.eval().network(x).argmax(1)
    assert (model.replay.label[places] == likeliest).float().mean() > 0.8  # rounding to 8 bits may change few


def test_classes_can_be_asked_for_and_told() -> None:
    model = jem().eval()
    p = model.classify(batch())
    assert p.shape == (16, 3)
    x = model.inward(batch().x, None)
    each = torch.stack([model.energy(x, torch.full((16,), y)) for y in range(3)], 1)
    torch.testing.assert_close(p, torch.softmax(-each, 1))
    rng, options = SampleRng(0, range(4)), EBMOptions(steps=30)
    drawn = [model.sample(4, {"label": torch.full((4,), y)}, rng=rng, options=options).x for y in (0, 2)]
    assert not torch.equal(*drawn)


def test_data_without_labels_are_refused() -> None:
    with pytest.raises(UsageError, match="no labels"):
        build(JEM, JEMConfig(), ImageSpec(1, 8, 8))
    with pytest.raises(ValueError, match="take ebm"):
        JEMConfig(conditional=False)


def test_the_size_of_the_paper() -> None:
    """A wide residual network of 28 layers, ten times as wide, with biases and without normalisation."""
    config = recipes.recipe("jem-cifar-paper").config
    with torch.device("meta"):
        model = JEM(config, ImageSpec(3, 32, 32, tuple("0123456789")))  # type: ignore[arg-type]

    def conv(a: int, b: int, k: int) -> int:
        return a * b * k * k + b

    total, channels = conv(3, 16, 3), 16
    for wide in (160, 320, 640):
        total += conv(channels, wide, 3) + conv(wide, wide, 3) + conv(channels, wide, 1)
        total += 3 * 2 * conv(wide, wide, 3)
        channels = wide
    assert sum(p.numel() for p in model.network.parameters()) == total + 640 * 10 + 10
    assert total + 6410 == pytest.approx(36.5e6, rel=0.01)  # as published for WRN-28-10


def test_the_walk_of_the_paper_in_our_units() -> None:
    """A step of 1 with noise of 0.01 on pictures in [-1, 1] (algorithm 1; the authors' settings)."""
    config = recipes.recipe("jem-cifar-paper").config
    assert isinstance(config, JEMConfig)

    def energy(x: torch.Tensor) -> torch.Tensor:
        return x.pow(3).flatten(1).sum(1)

    x = torch.rand(4, 1, 8, 8) - 0.5
    how: dict[str, Any] = {"steps": 1, "clip": config.clip}
    theirs = langevin(energy, x, BatchRng(0, total=4), step=1.0, noise=0.01, **how)
    ours = langevin(
        lambda u: energy(2 * u - 1), (x + 1) / 2, BatchRng(0, total=4), step=config.step, noise=config.noise, **how
    )
    torch.testing.assert_close(2 * ours - 1, theirs, atol=1e-5, rtol=1e-5)
    assert config.steps == 20


@torch.no_grad()
def test_energies_are_kept_small_by_their_squares_and_data_get_noise() -> None:
    given, rng, progress = batch(), BatchRng(0, total=16), Progress(0, 10)
    losses = []
    for alpha in (0.0, 0.3):
        model = jem(alpha=alpha, generative=0.7, by_class=False)
        losses.append(model.contrast(given, rng, progress))
    model = jem()
    real = model.energy(model.inward(given.x, rng), None)
    made = model.energy(model.inward(model.replay.x[model.replay.mine(rng, progress)], rng.at("made")), None)
    square = real.square().mean() + made.square().mean()
    torch.testing.assert_close(losses[1][0] - losses[0][0], 0.7 * 0.3 * square, atol=1e-5, rtol=1e-4)
    noisy = jem(noise_in=0.3, by_class=False).contrast(given, rng, progress)[1]
    moved = model.inward(given.x, rng) + 0.3 * rng.normal("noise in", 1, 8, 8)
    torch.testing.assert_close(noisy["real"], model.energy(moved, None).mean())
    assert float(noisy["made"]) == pytest.approx(float(losses[0][1]["made"]), rel=1e-5)


@pytest.mark.parametrize("wrong", [{"depth": 27}, {"widen": 0}, {"generative": -1.0}, {"noise_in": -0.1}])
def test_wrong_configurations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        JEMConfig(**wrong)
