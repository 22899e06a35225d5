"""Shapes from views: what is measured of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from castalia import api, editing
from castalia.configuration import Data
from castalia.core.data import Batch
from castalia.creative.edit import Film
from castalia.evaluation.shapes import rebuilds, reconstruction
from castalia.media.shape.read import ShapeOptions
from castalia.media.shape.sets import open_set
from castalia.training.loop import train
from tests.tools import small_recipe


class Known:
    """Believes what it is told to."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def rebuilt(self, batch: Batch) -> Tensor:
        x = batch.x.float()
        if self.answer == "true":
            return 0.2 + 0.6 * x
        if self.answer == "half":  # the lower half of each shape, and nothing above
            low = x.clone()
            low[:, :, :, 4:] = 0
            return low
        return torch.full_like(x, 0.3)


def test_known_answers() -> None:
    data = open_set("few-solids", ShapeOptions(size=8, views="depth", view_size=16), "test")
    ids = np.arange(12)
    found = reconstruction(Known("true"), data, ids)
    assert found["view_ap"].value == found["view_iou"].value == 1.0
    x = data.batch(ids).x.float().flatten(1)
    nothing = reconstruction(Known("nothing"), data, ids)
    assert nothing["view_iou"].value == 0.0
    assert nothing["view_ap"].value == pytest.approx(x.mean(1).mean().item()), "chance is how full the cube is"
    low = data.batch(ids).x[:, :, :, :4].float().flatten(1).sum(1) / x.sum(1)
    half = reconstruction(Known("half"), data, ids)
    assert half["view_iou"].value == pytest.approx(low.mean().item())
    expected = low + (1 - low) * x.mean(1)
    assert half["view_ap"].value == pytest.approx(expected.mean().item(), rel=1e-6)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run with views, of solids and their captions."""
    from dataclasses import replace

    base = small_recipe("iwgan3d")
    options = ShapeOptions(size=8, views="depth", view_size=16)
    config = replace(base.config, view=True, view_width=4, encoder_steps=1)
    recipe = replace(base, config=config, data=Data("few-solids", medium="shape", options=options))
    folder = tmp_path_factory.mktemp("views") / "run"
    train(recipe, api.training_data(recipe), folder, quiet=True)
    return folder


def test_a_run_with_views_is_measured(run: Path) -> None:
    table = api.evaluate(run, drawn=20)["metrics"]
    assert 0 <= table["view_iou"]["value"] < table["view_ap"]["value"] <= 1
    for kind in ("iou", "chamfer"):
        assert table[f"set_nna_{kind}"]["n"] == 20
        assert {f"set_coverage_{kind}", f"set_mmd_{kind}", f"set_mmd_{kind}_floor"} <= set(table)
    model = api.load(run).model()[0]
    assert rebuilds(model)  # type: ignore[arg-type]
    assert set(model.accepts()) == {"label", "view"}  # type: ignore[attr-defined]


def test_a_run_of_shapes_is_edited(run: Path, tmp_path: Path) -> None:
    """Films go around what they show; a shape is written as any of its files."""
    spec = api.load(run).spec
    walk = editing.edit(run, "walk", points=2, frames=6)
    assert isinstance(walk, Film)
    editing.write(walk, spec, tmp_path / "walk.gif", {"seed": 0})
    editing.write(walk, spec, tmp_path / "walk.png")
    solids = open_set("few-solids", ShapeOptions(size=8), "test")
    from castalia.media.rooms import room

    (path,) = room("shape").write(solids.batch(np.array([5])), solids.spec, tmp_path / "mine")
    turn = editing.edit(run, "turn", of=str(path), frames=5)
    assert isinstance(turn, Film)
    assert torch.equal(turn.frames.x[4], solids.batch(np.array([5])).x[0])
    for name in ("turn.gif", "turn.png", "turn.glb", "turn.obj", "turn.npy"):
        editing.write(turn, spec, tmp_path / name, {"of": "mine"})
        assert (tmp_path / name).stat().st_size > 100
    from PIL import Image

    with Image.open(tmp_path / "turn.gif") as film:
        assert film.n_frames == 5  # type: ignore[attr-defined]
    other = room("shape").write(solids.batch(np.array([6])), solids.spec, tmp_path / "other")[0]
    morph = editing.edit(run, "interpolate", start=str(path), end=str(other), frames=3)
    assert isinstance(morph, Film)
    assert morph.frames.x.shape == (3, 1, 8, 8, 8)
    total = editing.edit(run, "arithmetic", a=str(path), b=str(other), c=str(other))
    editing.write(total, spec, tmp_path / "sum.png")
    made = editing.edit(run, "turn", frames=2, seed=3)
    assert isinstance(made, Film)
    assert torch.equal(made.frames.x[0], api.sample(run, 1, seed=3).x[0])
    assert "turn" in editing.possible(api.load(run).model()[0], spec)
    picture = api.load(run).model()[0]
    assert not {"dream", "mix"} & set(editing.possible(picture, spec))
