"""Things seen from several sides, told by the names of their files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from castalia import api, recipes
from castalia.core.data import Dataset
from castalia.core.errors import DataError, UsageError
from castalia.core.rng import BatchRng
from castalia.core.spec import LabelSpec
from castalia.media.image.decode import ImageOptions
from castalia.media.image.medium import ImageMedium
from castalia.media.image.sets import open_named
from castalia.media.image.views import PictureViews, thing_and_degrees
from castalia.training.loop import train

PATTERN = "{thing}_{degrees}"


def folder(path: Path, things: int = 30, sides: tuple[int, ...] = (0, 30, 120, 330)) -> Path:
    path.mkdir(parents=True)
    for thing in range(things):
        for side in sides:
            pixels = np.full((8, 8, 3), (thing, side % 250, 7), np.uint8)
            Image.fromarray(pixels).save(path / f"car-{thing:02d}_{side:03d}.png")
    return path


def opened(path: Path, split: str | None = None, like: Dataset | None = None, **options: object) -> PictureViews:
    settings = ImageOptions(**{"views": PATTERN, **options})  # type: ignore[arg-type]
    data = ImageMedium().open(path, settings, split, None if like is None else like.spec)
    assert isinstance(data, PictureViews)
    return data


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("car-07_030.png", PATTERN, ("/car-07", 30)),
        ("car_07_030.jpg", PATTERN, ("/car_07", 30)),
        ("train/vans/7_12.5.png", PATTERN, ("train/vans/7", 12.5)),
        ("a_360.png", PATTERN, ("/a", 0)),
        ("shoe/045.png", "{thing}/{degrees}", ("/shoe", 45)),
        ("x/shoe/045.png", "{thing}/{degrees}", ("x/shoe", 45)),
        ("az090-shoe.png", "az{degrees}-{thing}", ("/shoe", 90)),
        ("shoe.png", PATTERN, None),
        ("shoe_361.png", PATTERN, None),
        ("shoe_-5.png", PATTERN, None),
        ("shoe_5deg.png", PATTERN, None),
    ],
)
def test_names(name: str, pattern: str, expected: tuple[str, float] | None) -> None:
    assert thing_and_degrees(name, pattern) == expected


def test_columns(tmp_path: Path) -> None:
    data = opened(folder(tmp_path / "cars"))
    assert len(data) == 120
    cameras = dict(data.spec.columns)["view"]
    assert isinstance(cameras, LabelSpec)
    assert cameras.classes == ("0 degrees", "30 degrees", "120 degrees", "330 degrees")
    batch = data.batch(np.arange(120))
    thing, side = batch.x[:, 0, 0, 0], batch.x[:, 1, 0, 0]
    assert torch.equal(batch.extra["other"][:, 0, 0, 0], thing)
    assert (batch.extra["other"][:, 1, 0, 0] != side).all()
    degrees = torch.tensor([0, 30, 120, 330])
    assert torch.equal(degrees[batch.extra["view"]] % 250, side.long())
    assert torch.equal(degrees[batch.extra["other_view"]] % 250, batch.extra["other"][:, 1, 0, 0].long())
    assert any("30 things from 4 viewpoints" in note for note in data.notes)


def test_in_training_the_other_view_is_any(tmp_path: Path) -> None:
    data = opened(folder(tmp_path / "cars", 1))
    seen = {v for s in range(30) for v in data.batch(np.array([2]), BatchRng(s, total=1)).extra["other_view"].tolist()}
    assert seen == {0, 1, 3}


def test_things_are_whole_in_one_split(tmp_path: Path) -> None:
    path = folder(tmp_path / "cars")
    parts = [opened(path, split) for split in ("train", "test")]
    things = [set(p.batch(np.arange(len(p))).x[:, 0, 0, 0].tolist()) for p in parts]
    assert len(parts[0]) + len(parts[1]) == 120
    assert things[1]
    assert not things[0] & things[1]
    # viewpoints are numbered as those of the training data
    few = folder(tmp_path / "few", 3, (120, 330))
    assert opened(few, like=parts[0]).batch(np.arange(2)).extra["view"].tolist() == [2, 3]
    with pytest.raises(DataError, match="45 degrees"):
        opened(folder(tmp_path / "more", 2, (0, 45)), like=parts[0])


def test_a_thing_that_is_seen_once_is_its_own_other_view(tmp_path: Path) -> None:
    path = folder(tmp_path / "cars", 2)
    Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save(path / "one_030.png")
    data = opened(path)
    alone = [i for i, name in enumerate(data.files) if name.startswith("one")]
    for rng in (None, BatchRng(0, total=1)):
        batch = data.batch(np.array(alone), rng)
        assert torch.equal(batch.extra["other"], batch.x)
    assert any("1 of them are seen once" in note for note in data.notes)


def test_classes_stand_beside_views(tmp_path: Path) -> None:
    for kind in ("van", "bus"):
        folder(tmp_path / "cars" / kind, 2)
    data = opened(tmp_path / "cars")
    assert data.spec.classes == ("bus", "van")
    label = data.batch(np.arange(len(data))).label
    assert label is not None
    assert label.bincount().tolist() == [8, 8]
    like = opened(tmp_path / "cars")
    like.spec = replace(like.spec, classes=("van", "truck", "bus"))
    again = opened(tmp_path / "cars", like=like)
    turned = again.batch(np.arange(len(again))).label
    assert torch.equal(turned, torch.tensor([2, 0])[label])  # type: ignore[arg-type]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "cars", 2)
    with pytest.raises(UsageError, match="once each"):
        ImageOptions(views="{thing}")
    with pytest.raises(UsageError, match="mirrored"):
        opened(path, flip=True)
    with pytest.raises(DataError, match="others, too"):
        opened(folder(tmp_path / "one-side", 2, (0,)))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path / "stray.png")
    with pytest.raises(DataError, match=r"stray\.png does not fit"):
        opened(path)
    np.save(tmp_path / "a.npy", np.zeros((4, 8, 8, 3), np.uint8))
    with pytest.raises(DataError, match="no names"):
        opened(tmp_path / "a.npy")


def test_a_system_learns_from_them(tmp_path: Path) -> None:
    """Files of the views of solids, without transparency, named by what a person says of their cameras."""
    data = open_named("few-car-views", "train", ImageOptions(channels=3))
    (tmp_path / "cars").mkdir()
    batch = data.batch(np.arange(len(data)))
    said = [name.split()[0] for name in dict(data.spec.columns)["view"].classes]  # type: ignore[attr-defined]
    for i, (x, view) in enumerate(zip(batch.x, batch.extra["view"].tolist(), strict=True)):
        Image.fromarray(x.permute(1, 2, 0).numpy()).save(tmp_path / "cars" / f"{i // 8}_{said[view]}.png")
    recipe = recipes.tiny("ganverse3d")
    options = recipes.recipe("ganverse3d-views").data.options
    recipe = replace(
        recipe, data=replace(recipe.data, source=str(tmp_path / "cars"), options=replace(options, size=16))
    )
    recipe = replace(recipe, training=replace(recipe.training, steps=3))
    run = train(recipe, api.training_data(recipe), tmp_path / "run", quiet=True)
    assert api.sample(run, 2).x.shape == (2, 3, 16, 16)
    assert api.open_data(str(tmp_path / "cars"), options=recipe.data.options, like=run).spec.columns == run.spec.columns
