"""Edits of styles: mixing keeps what it should, and a search finds pictures that the model can make."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from castalia import api, editing
from castalia.core.errors import UsageError
from castalia.core.model import build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.creative.edit import Film, Grid
from castalia.creative.edits.directions import components, weights
from castalia.creative.projection import SHAKEN, Settings, correlation, layers_of, middle, project, ramp, whiten
from castalia.models.adversarial.stylegan2 import StyleGAN2
from castalia.runs import Run
from castalia.training.loop import train
from tests.tools import small_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = small_recipe("stylegan2", steps=30)
    return train(recipe, api.training_data(recipe), tmp_path_factory.mktemp("runs") / "style", quiet=True)


def model_of(run: Run) -> StyleGAN2:
    model = run.model()[0]
    assert isinstance(model, StyleGAN2)
    return model.eval()


@torch.no_grad()
def test_mixing_takes_layers_from_both(run: Run) -> None:
    """The table by hand: a style of each, a third of the layers from above."""
    grid = editing.edit(run, "mix", rows=(0, 1), columns=(2, 3, 4), what="middle", psi=1.0)
    assert isinstance(grid, Grid)
    assert grid.columns == 4
    assert len(grid.examples) == 12
    model = model_of(run)
    z = SampleRng(0, range(5)).normal("latent", model.latent_dims)
    styles = model.styles(z)
    first, last = grid.recipe["layers"]
    assert (first, last) == (1, 2)  # of four
    mixed = styles[1:2].clone()
    mixed[:, first:last] = styles[4:5, first:last]
    for place, by_hand in ((3, styles[4:5]), (8, styles[1:2]), (11, mixed)):
        x = model.render(by_hand).round().clamp(0, 255)
        assert (grid.examples.x[place].float() - x[0]).abs().max() <= 1


def test_thirds_cover_all_layers(run: Run) -> None:
    found = [editing.edit(run, "mix", rows=(0,), columns=(1,), what=what).recipe["layers"] for what in THIRDS]
    assert found == [[0, 1], [1, 2], [2, 4]]


THIRDS = ("coarse", "middle", "fine")


def test_mixing_refuses_numbers_below_zero(run: Run) -> None:
    with pytest.raises(UsageError, match="from 0"):
        editing.edit(run, "mix", rows=(-1,))


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("noise", ["search", "constant"])
def test_a_search_finds_what_the_model_makes(run: Run, tmp_path: Path, each: bool, noise: str) -> None:
    """A picture that it drew: the error falls below a quarter of that of the mean picture."""
    model = model_of(run)
    with torch.no_grad():
        w = model.styles(BatchRng(9, total=1).normal("latent", model.latent_dims))
        mean = middle(model, None, model.device)[0].expand(1, model.style_layers, -1)
        x = model.render(w).round().clamp(0, 255)
        before = ((model.render(mean) - x) / 255).square().mean().item()
    Image.fromarray(x[0, 0].to(torch.uint8).numpy()).save(tmp_path / "a.png")
    film = editing.edit(run, "project", of=str(tmp_path / "a.png"), steps=150, frames=6, each=each, noise=noise)
    assert isinstance(film, Film)
    assert len(film.frames) == 6
    assert film.still is not None
    assert film.still.given == 1
    assert film.recipe["error of the mean picture"] == pytest.approx(before, rel=1e-5)
    assert film.recipe["error"] < 0.25 * before
    styles = torch.tensor(film.recipe["styles"])[None]
    assert styles.shape == (1, model.style_layers if each else 1, model.style_dims)
    assert ("noise" in film.recipe) == (noise == "search")
    maps = [torch.tensor(found)[None, None] for found in film.recipe["noise"]] if noise == "search" else None
    with torch.no_grad():
        again = model.render(styles.expand(-1, model.style_layers, -1).contiguous(), noise=maps)
    assert (again.round().clamp(0, 255) - film.frames.x[-1:].float()).abs().max() <= 1, "the picture is made again"


def target_of(model: StyleGAN2) -> Tensor:
    with torch.no_grad():
        return model.render(model.styles(BatchRng(9, total=1).normal("latent", model.latent_dims))).clamp(0, 255)


def test_styles_are_shaken_by_the_deviation_of_styles_as_a_whole(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each component of a style by 0.05 times the root of the mean squared distance, not a component's share of it."""
    model, seen = model_of(run), []
    target = target_of(model)
    mean, deviation = middle(model, None, model.device)
    z = BatchRng(1, total=20_000).normal("latent", model.latent_dims)
    distances = (model.styles(z)[:, 0] - mean).norm(dim=1)
    assert deviation.item() == pytest.approx(distances.square().mean().sqrt().item(), rel=0.02)
    plain = model.render
    monkeypatch.setattr(model, "render", lambda w, **more: (seen.append(w.detach()), plain(w, **more))[1])
    for seed in range(8):
        project(model, target, BatchRng(seed, total=1), Settings(steps=1, each=True, frames=2))
    first = torch.cat([w - mean for w in seen if not torch.equal(w, mean.expand_as(w))])
    assert first.square().mean().sqrt().item() == pytest.approx(SHAKEN * deviation.item(), rel=0.15)


def test_all_convolutions_of_the_critic_are_compared(run: Run) -> None:
    """The demo's critic at 8 pixels: one of 1x1, a level of three, and the last; at 16 a level more."""
    for side, count in ((8, 5), (16, 8)):
        config = replace(run.recipe.config, conditional=False, critic="residual")  # type: ignore[type-var]
        model = build(StyleGAN2, config, ImageSpec(1, side, side), 0)
        network = next(iter(model.perceive().values()))  # type: ignore[attr-defined]
        assert len(layers_of(network)(torch.zeros(1, 1, side, side))) == count


def test_correlations_of_noise() -> None:
    """By hand on 4x4, wrapped around; on 16x16 also of the means of four, times two."""
    noise = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    n = noise[0, 0].tolist()
    across = sum(n[i][j] * n[i][(j + 1) % 4] for i in range(4) for j in range(4)) / 16
    down = sum(n[i][j] * n[(i + 1) % 4][j] for i in range(4) for j in range(4)) / 16
    assert correlation(noise).item() == pytest.approx(across**2 + down**2, rel=1e-5)
    large = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    half = large.unflatten(2, (8, 2)).unflatten(4, (8, 2)).sum((3, 5)) / 2
    single = sum((large * large.roll(1, axis)).mean().square() for axis in (2, 3))
    assert correlation(large).item() == pytest.approx(float(single + correlation(half)), rel=1e-5)
    smooth = large + large.roll(1, 2)
    whiten([smooth])
    assert correlation(smooth) > 0.2 > 2 * correlation(large)


def test_noise_that_is_found_is_white(run: Run) -> None:
    """Mean 0, variance 1, and no correlation between neighbours, though the target would have it otherwise."""
    model = model_of(run)
    with torch.no_grad():
        for module in model.modules():
            if hasattr(module, "strength"):
                module.strength.fill_(0.5)  # type: ignore[operator]
    target = target_of(model).roll((2, 3), (2, 3))
    found = project(model, target, BatchRng(0, total=1), Settings(steps=60, frames=2))
    assert found.noise is not None
    assert [tuple(noise.shape[2:]) for noise in found.noise] == list(model.noise_sizes)
    for noise in found.noise:
        assert noise.mean().abs() < 1e-5
        assert noise.square().mean().item() == pytest.approx(1, abs=1e-4)
        assert correlation(noise) < 1e-3
    constant = project(model, target, BatchRng(0, total=1), Settings(steps=60, frames=2, noise=False))
    assert constant.noise is None
    assert found.error != constant.error


@pytest.mark.parametrize(("steps", "frames"), [(3, 9), (1, 2), (10, 4)])
def test_films_are_as_long_as_asked_for(run: Run, steps: int, frames: int) -> None:
    model = model_of(run)
    found = project(model, target_of(model), BatchRng(0, total=1), Settings(steps=steps, frames=frames))
    assert len(found.frames) == frames
    assert len({tuple(row.flatten().tolist()) for row in found.frames}) <= steps + 1


def test_a_search_begins_with_the_class_asked_for(run: Run, tmp_path: Path) -> None:
    """The demo learns digits by class: the mean picture, and with it the error, is the class's own."""
    model = model_of(run)
    Image.fromarray(target_of(model)[0, 0].to(torch.uint8).numpy()).save(tmp_path / "a.png")
    told = [
        editing.edit(run, "project", of=str(tmp_path / "a.png"), steps=1, frames=2, label=label).recipe
        for label in ("3", "7")
    ]
    assert told[0]["error of the mean picture"] != told[1]["error of the mean picture"]
    with pytest.raises(UsageError, match="class"):
        editing.edit(run, "project", of=str(tmp_path / "a.png"), steps=1, label="eleven")


def test_a_search_refuses_a_negative_weight(run: Run, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="negative"):
        editing.edit(run, "project", of=str(tmp_path / "a.png"), seen=-1.0)


def test_the_rate_goes_up_and_down() -> None:
    assert ramp(0.0) < 0.05
    assert ramp(0.5) == 1.0
    assert ramp(0.875) == pytest.approx(0.5)
    assert ramp(1.0) == pytest.approx(0.0, abs=1e-9)


def test_directions(run: Run) -> None:
    """The middle of every row is the picture itself; directions are orthogonal, the strongest first."""
    grid = editing.edit(run, "directions", count=3, frames=5, how="components")
    assert isinstance(grid, Grid)
    assert (len(grid.examples), grid.columns) == (15, 5)
    x = grid.examples.x.float()
    assert (x[2] - x[7]).abs().max() <= 1
    assert (x[2] - x[12]).abs().max() <= 1
    assert not torch.equal(x[0], x[4])
    styles = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 2.0, 0.1])
    found = components(styles)
    torch.testing.assert_close(found @ found.T, torch.eye(4), atol=1e-5, rtol=0)
    assert found.abs().argmax(1).tolist() == [1, 2, 0, 3]
    model = model_of(run)
    matrix = torch.cat([p for name, p in model.named_parameters() if name.endswith("affine.weight")]).detach()
    strengths = (matrix @ weights(model).T).norm(dim=0)
    assert bool((strengths.diff() <= 1e-3).all())
    torch.testing.assert_close(strengths[0], torch.linalg.matrix_norm(matrix, 2), rtol=1e-4, atol=0)
