"""What the Python interface and the command line do with points."""

import json

import numpy as np
import pytest
import torch

import castalia
from castalia import api
from castalia.cli.main import main
from castalia.configuration import Data, Recipe
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.media.image.decode import ImageOptions
from castalia.media.image.medium import as_read
from castalia.media.image.write import read_recipe
from castalia.models.autoencoders.vae import VAEConfig
from castalia.runs import Run


def test_data_lists_and_describes_points(tmp_path, capsys):
    assert main(["data"]) == 0
    assert "points of 2 coordinates; 100,000 train, 10,000 test" in capsys.readouterr().out
    assert main(["data", "ring-8", "--split", "test", "--grid", str(tmp_path / "look.png"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["examples"] == 10_000
    assert found["spec"] == {"dims": 2, "classes": list("01234567")}
    assert sum(found["class_counts"].values()) == 10_000
    assert read_recipe(tmp_path / "look.png") == {"data": "ring-8"}
    (tmp_path / "a.csv").write_text("1,2\n3,x\n")
    assert main(["data", str(tmp_path / "a.csv")]) == 1
    assert "a.csv, line 2: 'x' is not a number" in capsys.readouterr().err
    assert main(["data", "ring-8", "--size", "8"]) == 2
    assert "--size is for other media; ring-8 holds points" in capsys.readouterr().err


def test_a_thousand_classes_are_counted_not_listed(tmp_path, capsys):
    assert main(["data", "stacked-digits", "--split", "test", "--grid", str(tmp_path / "x.png")]) == 0
    out = capsys.readouterr().out
    assert "'classes': '1000 (000 to 999)'" in out
    assert "class_counts: 1000 classes of " in out
    assert len(out) < 1000
    assert (tmp_path / "x.png").exists()


def test_the_model_must_make_the_medium():
    recipe = Recipe("vae", VAEConfig(), Data("ring-8", medium="points"))
    with pytest.raises(UsageError, match="ring-8 is of the medium 'points'; vae makes only image"):
        api.training_data(recipe)


def test_pictures_are_read_as_the_run_read_them(tmp_path):
    assert as_read(ImageOptions(flip=True, resize="pad"), ImageSpec(3, 5, 7)) == ImageOptions(
        size=(5, 7), channels=3, resize="pad"
    )
    recipe = Recipe("vae", VAEConfig(), Data("digits", options=ImageOptions(flip=True)))
    run = Run(tmp_path, recipe, ImageSpec(3, 5, 7), "")
    assert api.open_data("digits", like=run).batch(np.arange(2)).x.shape == (2, 3, 5, 7)


def test_samples_of_both_media_are_saved(tmp_path):
    some = castalia.open_data("grid-25", split="test").batch(np.arange(5))
    paths = castalia.save(some, PointsSpec(2), tmp_path / "points")
    assert [p.name for p in paths] == ["points.csv", "grid.png"]
    assert castalia.open_data(str(paths[0])).batch(np.arange(5)).x.equal(some.x)
    pictures = Batch.of(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
    paths = castalia.save(pictures, ImageSpec(1, 4, 4), tmp_path / "p")
    assert [p.name for p in paths] == ["0000.png", "0001.png", "grid.png"]
    assert all(p.exists() for p in paths)
