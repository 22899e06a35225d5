"""Pictures of solids from known sides."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from castalia.core.config import from_json, to_json
from castalia.core.errors import UsageError
from castalia.core.rng import BatchRng
from castalia.core.spec import LabelSpec
from castalia.core.specs.image import ImageSpec
from castalia.media.image import sets
from castalia.media.image.decode import ImageOptions
from castalia.media.image.solid_views import ABOVE, CAMERAS, DISTANCE, LENS, Seat, SolidViews, draw, seats
from castalia.media.shape.solids import Part, Solid, _mesh, solid_mesh


def opened(name: str = "few-car-views", split: str = "train", **options: object) -> SolidViews:
    data = sets.open_named(name, split, ImageOptions(**options))  # type: ignore[arg-type]
    assert isinstance(data, SolidViews)
    return data


@pytest.mark.parametrize("name", ["car-views", "solid-views", "few-car-views"])
def test_sets_are_what_the_table_says(name: str) -> None:
    for split in ("train", "test"):
        data = opened(name, split)
        assert data.spec.shape == sets.SETS[name].shape
        assert len(data) == sets.SETS[name].counts[split]
        batch = data.batch(np.array([0, len(data) - 1]))
        assert batch.x.shape == (2, *data.spec.shape)
        assert set(batch.extra) == {n for n, _ in data.spec.columns}
        for column, spec in data.spec.columns:
            field, part = spec.fields()["x"], batch.extra[column]
            assert part.dtype == field.dtype
            assert part.shape[1:] == field.shape
            assert field.high is None or part.max() <= field.high
    assert (data.labels is not None) == (name == "solid-views")
    assert from_json(ImageSpec, json.loads(json.dumps({**to_json(data.spec), "columns": []}))).shape == data.spec.shape


def test_what_a_person_says_of_cameras() -> None:
    """In thirties of degrees, never more than fifteen off; and no camera is exactly where it is said to be."""
    all_seats = seats()
    assert len(all_seats) == CAMERAS
    off = [(s.azimuth - s.said + 180) % 360 - 180 for s in all_seats]
    assert max(map(abs, off)) <= 15
    assert np.mean(np.abs(off)) > 3
    assert all(s.said % 30 == 0 and 0 <= s.said < 360 for s in all_seats)
    cameras = dict(opened().spec.columns)["view"]
    assert isinstance(cameras, LabelSpec)
    assert [int(name.split()[0]) for name in cameras.classes] == [s.said for s in all_seats]


def test_views_are_of_one_thing_by_the_cameras_that_are_named() -> None:
    data = opened(size=24)
    batch = data.batch(np.arange(len(data)))
    for i in (0, 9, 47):
        mesh = solid_mesh(data._numbers[i // data.views], "train")
        for picture, camera in (
            (batch.x[i], batch.extra["view"][i]),
            (batch.extra["other"][i], batch.extra["other_view"][i]),
        ):
            assert torch.equal(picture, draw(mesh, [data.seats[int(camera)]], 24, 24)[0])
        assert batch.extra["azimuth"][i].item() == pytest.approx(data.seats[int(batch.extra["view"][i])].azimuth)
    assert (batch.extra["view"] != batch.extra["other_view"]).all()
    # of each thing the cameras go around
    around = batch.extra["azimuth"].view(-1, data.views).sort(1).values
    assert (torch.diff(around, dim=1) < 65).all()
    assert torch.equal(batch.x, data.batch(np.arange(len(data))).x)


def test_in_training_the_other_view_is_any() -> None:
    data, seen = opened(), set()
    for seed in range(40):
        batch = data.batch(np.zeros(4, np.int64), BatchRng(seed, total=4))
        assert (batch.extra["other_view"] != batch.extra["view"]).all()
        seen |= set(batch.extra["other_view"].tolist())
    assert seen == set(data.cameras[0].tolist()) - {int(data.cameras[0, 0])}


def test_a_cube_is_where_it_should_be() -> None:
    """Seen from the front: a square of known size; from the left side (at x), the colour of that side's light."""
    cube = _mesh(Solid(3, (Part("cube", (5, 5, 5), (1, 1, 1), (200, 100, 50)),), "a cube"))
    front, left = draw(cube, [Seat(0, 0, 0), Seat(90, 0, 90)], 96, 96)
    half = ABOVE / np.sqrt(3)
    wide = 96 / 2 / np.tan(np.deg2rad(LENS / 2)) * half / (DISTANCE - half)
    rows = (front[3] > 127).any(1).sum().item()
    assert rows == pytest.approx(2 * wide, abs=1.5)
    assert rows == (front[3] > 127).any(0).sum().item()
    # light comes from above and the front; the sides have the least
    assert front[:3, 48, 48].tolist() == pytest.approx([200 * 0.82, 100 * 0.82, 50 * 0.82], abs=1)
    assert left[:3, 48, 48].tolist() == pytest.approx([110, 55, 27.5], abs=1)
    assert front[:, 0, 0].tolist() == [0, 0, 0, 0]


def test_splits_are_of_other_things() -> None:
    a, b = opened(), opened(split="test")
    assert a.fingerprint != b.fingerprint
    assert a.fingerprint == opened().fingerprint != opened(size=32).fingerprint
    assert not (a.batch(np.arange(24)).x.flatten(1)[:, None] == b.batch(np.arange(24)).x.flatten(1)[None]).all(2).any()


def test_fewer_channels_stand_on_a_background() -> None:
    rgba, rgb = opened().batch(np.arange(4)), opened(channels=3, background=(10, 20, 30)).batch(np.arange(4))
    clear, solid = rgba.x[:, 3] == 0, rgba.x[:, 3] == 255
    for c in range(3):
        assert (rgb.x[:, c][clear] == 10 * (c + 1)).all()
        assert torch.equal(rgb.x[:, c][solid], rgba.x[:, c][solid])
    grey = opened(channels=1).batch(np.arange(4)).x
    assert grey.shape[1] == 1
    assert (grey[:, 0][clear] == 255).all()


def test_mirrored_views_are_refused() -> None:
    with pytest.raises(UsageError, match="mirrored"):
        opened(flip=True)


def test_classes_are_in_turn() -> None:
    data = opened("solid-views")
    assert data.spec.classes == ("chair", "table", "lamp", "car")
    assert data.labels is not None
    assert data.labels[[0, 8, 16, 24, 32]].tolist() == [0, 1, 2, 3, 0]
    assert torch.equal(data.batch(np.array([8, 17])).label, torch.tensor([1, 2]))  # type: ignore[arg-type]


def test_opening_a_set_draws_nothing() -> None:
    data = opened("solid-views")
    assert not data._drawn
    data.batch(np.array([9, 10]))
    assert len(data._drawn) == 1
