"""Edits of styles: mixing keeps what it should, and a search finds pictures that the model can make."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from castalia import api, editing
from castalia.core.errors import UsageError
from castalia.core.rng import BatchRng, SampleRng
from castalia.creative.edit import Film, Grid
from castalia.creative.edits.directions import components, weights
from castalia.creative.edits.project import ramp
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
def test_a_search_finds_what_the_model_makes(run: Run, tmp_path: Path, each: bool) -> None:
    """A picture that it drew: the error falls below a quarter of that of the mean picture."""
    model = model_of(run)
    with torch.no_grad():
        w = model.styles(BatchRng(9, total=1).normal("latent", model.latent_dims))
        mean = model.styles(BatchRng(0, total=4096).normal("mean style", model.latent_dims)).mean(0, keepdim=True)
        x = model.render(w).round().clamp(0, 255)
        before = ((model.render(mean) - x) / 255).square().mean().item()
    Image.fromarray(x[0, 0].to(torch.uint8).numpy()).save(tmp_path / "a.png")
    film = editing.edit(run, "project", of=str(tmp_path / "a.png"), steps=150, frames=6, each=each)
    assert isinstance(film, Film)
    assert len(film.frames) == 6
    assert film.still is not None
    assert film.still.given == 1
    assert film.recipe["error"] < 0.25 * before
    styles = torch.tensor(film.recipe["styles"])[None]
    assert styles.shape == (1, model.style_layers if each else 1, model.style_dims)
    with torch.no_grad():
        again = model.render(styles.expand(-1, model.style_layers, -1).contiguous()).round().clamp(0, 255)
    assert (again - film.frames.x[-1:].float()).abs().max() <= 1, "the styles found make the picture again"


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
