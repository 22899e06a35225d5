"""Shapes as they are drawn, filmed and measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.specs.shape import ShapeSpec
from castalia.media.base import Work
from castalia.media.rooms import room
from castalia.media.shape.array import ShapeArray, packed
from castalia.media.shape.cast import FRAME, REACH, axes_of, cast, depth_map, shaded, shapes_image, turntable
from castalia.media.shape.measures import (
    MEASURES,
    Surfaces,
    chamfer,
    connected,
    iou_distance,
    surfaces,
)
from castalia.media.shape.read import ShapeOptions
from castalia.media.shape.sets import open_set

FRONT = torch.zeros(1)


def ball(size: int = 48, radius: float = 20.0) -> Tensor:
    at = torch.arange(size) - (size - 1) / 2
    square = at[:, None, None] ** 2 + at[None, :, None] ** 2 + at[None, None] ** 2
    return (square <= radius**2).to(torch.uint8)[None, None]


def block(size: int, d: slice, h: slice, w: slice) -> Tensor:
    x = torch.zeros(1, 1, size, size, size, dtype=torch.uint8)
    x[:, :, d, h, w] = 1
    return x


# drawn


def test_axes_are_a_frame() -> None:
    axes = axes_of(torch.tensor([0.0, 30.0, 200.0]), 25.0)
    torch.testing.assert_close(axes @ axes.mT, torch.eye(3).expand(3, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(axes), torch.ones(3))
    torch.testing.assert_close(axes_of(FRONT, 0.0)[0], torch.eye(3), atol=1e-6, rtol=0)  # right x, up y, towards z


def test_a_ball_is_a_disc_from_everywhere() -> None:
    """Its outline has the area that it must have, its nearest place lies where it must, and it faces outwards."""
    x = ball()
    radius = 20.25 / 24  # in halves of the cube; the surface lies a little outside the outermost centres
    for turn, lift in ((0.0, 0.0), (33.0, 20.0), (250.0, -40.0)):
        found = cast(x, torch.tensor([turn]), lift, 96)
        area = found.hit.float().mean() * (2 * FRAME) ** 2
        assert area == pytest.approx(np.pi * radius**2, rel=0.04)
        assert found.depth.max() == pytest.approx(radius, abs=0.04)
        middle = found.normal[0, 48, 48]
        torch.testing.assert_close(middle, torch.tensor([0.0, 0.0, 1.0]), atol=0.12, rtol=0)
        # left of the middle it faces left, above it up
        assert found.normal[0, 48, 28, 0] < -0.4
        assert found.normal[0, 28, 48, 1] > 0.4


def test_what_is_near_hides_what_is_behind() -> None:
    near = block(16, slice(13, 15), slice(4, 12), slice(4, 12))
    far = block(16, slice(2, 4), slice(4, 12), slice(4, 12))
    both = near | far
    assert torch.equal(cast(both, FRONT, 0.0, 32).depth, cast(near, FRONT, 0.0, 32).depth)
    behind = torch.tensor([180.0])
    assert torch.equal(cast(both, behind, 0.0, 32).depth, cast(far, behind, 0.0, 32).depth)


def test_up_is_up_and_right_is_right() -> None:
    x = block(16, slice(6, 10), slice(10, 14), slice(1, 5))  # high, and at small x: left
    hit = cast(x, FRONT, 0.0, 64).hit[0]
    rows, columns = torch.nonzero(hit).float().mean(0).tolist()
    assert rows < 28
    assert columns < 28
    # from the right side (+x) depth points left: z, which is 0 here, stays in the middle
    side = cast(x, torch.tensor([90.0]), 0.0, 64)
    assert torch.nonzero(side.hit[0]).float().mean(0)[1] == pytest.approx(31.5, abs=1)
    assert side.depth.max() < 0, "it lies on the far side"


def test_depths() -> None:
    near, far = (block(16, d, slice(4, 12), slice(4, 12)) for d in (slice(12, 15), slice(1, 4)))
    a, b = (depth_map(x, FRONT, 0.0, 32) for x in (near, far))
    assert a.dtype == torch.uint8
    assert a.shape == (1, 1, 32, 32)
    assert a.amax() > b.amax() > 0
    assert a[0, 0, 0, 0] == 0
    nearest = 1 + 254 * (7 / 8 + REACH) / (2 * REACH)
    assert a.amax().item() == pytest.approx(nearest, abs=4)


def test_pictures_are_light_on_white() -> None:
    pictures = shaded(torch.cat([ball(16, 6), torch.zeros(1, 1, 16, 16, 16, dtype=torch.uint8)]), torch.zeros(2))
    assert pictures.shape == (2, 3, 128, 128)
    assert (pictures[1] == 255).all(), "nothing is white"
    shade = pictures[0].float().mean(0)
    hit = shade < 255
    rows = torch.arange(128)[:, None].expand(128, 128)
    assert shade[hit & (rows < 60)].mean() > 1.2 * shade[hit & (rows > 68)].mean(), "light comes from above"


def test_drawing_does_not_depend_on_neighbours() -> None:
    data = open_set("few-solids", ShapeOptions(size=8), "train")
    x, turn = data.batch(np.arange(5)).x, torch.linspace(0, 200, 5)
    assert torch.equal(shaded(x, turn, side=32)[3:4], shaded(x[3:4], turn[3:4], side=32))


def test_a_turntable_goes_around() -> None:
    """A thing that looks alike from four sides comes back after a quarter."""
    x = block(16, slice(4, 12), slice(0, 12), slice(4, 12)).expand(8, -1, -1, -1, -1)
    film = turntable(x, side=48).float()
    assert film.shape == (8, 3, 48, 48)
    assert (film[0] - film[1]).abs().mean() > 1
    shapes = (film < 255).any(1)
    assert torch.equal(shapes[0], shapes[2]) or (shapes[0] != shapes[2]).float().mean() < 0.01


def test_titles_and_rows() -> None:
    x = ball(8, 3).expand(5, -1, -1, -1, -1)
    plain = shapes_image(x, [], columns=3, side=20)
    assert plain.size == (60, 40)
    assert shapes_image(x, ["ball"] * 5, columns=5, side=20).size == (100, 36)
    with pytest.raises(UsageError, match="at least one"):
        shapes_image(x[:0], [])


def test_the_medium_films_and_draws(tmp_path: Path) -> None:
    medium, spec = room("shape"), ShapeSpec(8)
    batch = Batch.of(ball(8, 3).expand(3, -1, -1, -1, -1).contiguous())
    film = medium.film(batch, spec)
    assert film is not None
    assert film.shape[0] == 3
    assert medium.film(Batch.of(torch.cat(list(batch.x), -1)[None]), spec) is None, "a row of shapes is no cube"
    medium.draw(batch, spec, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size[0] > 100
    assert room("points").film(batch, spec) is None


# measured


def test_iou_of_boxes() -> None:
    a = block(8, slice(0, 4), slice(0, 4), slice(0, 4))
    half = block(8, slice(0, 4), slice(0, 4), slice(0, 2))
    beside = block(8, slice(4, 8), slice(0, 4), slice(0, 4))
    nothing = torch.zeros_like(a)
    found = iou_distance(torch.cat([a, nothing]), torch.cat([a, half, beside, nothing]))
    assert found.tolist() == [[0.0, 0.5, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0]]


def test_chamfer_by_counting() -> None:
    """Against all pairs of surface voxels, one by one."""
    data = open_set("few-solids", ShapeOptions(size=8), "train")
    a, b = data.batch(np.arange(3)).x, data.batch(np.arange(3, 7)).x
    found = chamfer(Surfaces(a), Surfaces(b))
    for i, one in enumerate(surfaces(a)):
        for j, other in enumerate(surfaces(b)):
            p, q = (torch.from_numpy(np.argwhere(s)).double() for s in (one, other))
            gaps = torch.cdist(p, q) / 8
            expected = gaps.amin(1).mean() + gaps.amin(0).mean()
            assert found[i, j].item() == pytest.approx(expected.item(), rel=1e-5)


def test_chamfer_of_a_moved_box_and_of_nothing() -> None:
    plate = block(16, slice(3, 4), slice(2, 14), slice(2, 14))
    moved = block(16, slice(7, 8), slice(2, 14), slice(2, 14))
    nothing = torch.zeros_like(plate)
    found = chamfer(Surfaces(torch.cat([plate, nothing])), Surfaces(torch.cat([plate, moved, nothing])))
    torch.testing.assert_close(found[0, :2], torch.tensor([0.0, 2 * 4 / 16]))
    assert found[0, 2] == pytest.approx(2 * 3**0.5)
    assert found[1].tolist() == pytest.approx([2 * 3**0.5, 2 * 3**0.5, 0.0])


def test_the_surface_of_a_cube() -> None:
    cube = block(8, slice(2, 6), slice(2, 6), slice(2, 6))
    assert surfaces(cube).sum() == 4**3 - 2**3
    whole = torch.ones(1, 1, 4, 4, 4, dtype=torch.uint8)
    assert surfaces(whole).sum() == 4**3 - 2**3, "the edge of the cube is empty beyond"


def test_connected() -> None:
    two = block(8, slice(0, 2), slice(0, 2), slice(0, 2)) | block(8, slice(5, 6), slice(5, 6), slice(5, 6))
    touching = block(8, slice(0, 2), slice(0, 2), slice(0, 2)) | block(8, slice(2, 3), slice(2, 3), slice(2, 3))
    found = connected(Batch.of(torch.cat([two, touching, torch.zeros_like(two)])))
    assert found[:2].tolist() == [8 / 9, 1.0]
    assert np.isnan(found[2])


def work_of(samples: Tensor) -> Work:
    train, held = (open_set("solids", ShapeOptions(size=8), s) for s in ("train", "test"))
    return Work(train.spec, Batch.of(samples), train, held)


def measured(samples: Tensor) -> dict[str, float]:
    work = work_of(samples)
    return {name: m.value for one in MEASURES for name, m in one.run(work).items()}


def test_measures_tell_good_from_bad() -> None:
    train, held = (open_set("solids", ShapeOptions(size=8), s) for s in ("train", "test"))
    real = measured(train.batch(np.arange(800, 900)).x)
    alike = measured(held.batch(np.zeros(100, np.int64)).x)
    random = torch.Generator().manual_seed(0)
    noise = measured((torch.rand(100, 1, 8, 8, 8, generator=random) < 0.1).to(torch.uint8))
    for kind in ("iou", "chamfer"):
        assert 0.3 < real[f"set_nna_{kind}"] < 0.7
        assert noise[f"set_nna_{kind}"] > 0.8
        assert noise[f"set_mmd_{kind}"] > 2 * real[f"set_mmd_{kind}"]
        assert alike[f"set_coverage_{kind}"] <= 0.02
        assert real[f"set_coverage_{kind}"] > 0.35
        assert real[f"set_mmd_{kind}_floor"] == pytest.approx(real[f"set_mmd_{kind}"], rel=0.4)
    assert real["nearest_train_iou"] == 1.0, "they are of the training set"
    assert real["nearest_train_iou_floor"] < 1.0
    assert noise["nearest_train_iou"] < 0.4
    assert real["connected"] == 1.0
    assert noise["connected"] < 1.0
    assert noise["volume"] == pytest.approx(0.1, abs=0.01)
    assert alike["volume_error"] > real["volume_error"]


def test_volume_error_is_exact() -> None:
    """Two sets of which one is twice as large."""
    small, large = (
        ShapeArray(packed(np.stack([block(8, slice(0, n), slice(0, 2), slice(0, 2))[0, 0].numpy()] * 4)), 8, name="x")
        for n in (2, 4)
    )
    (measure,) = (m for m in MEASURES if m.name == "volume")
    found = measure.run(Work(small.spec, large.batch(np.arange(4)), small, small))
    assert found["volume_error"].value == pytest.approx(1.0)
    assert found["volume_error_floor"].value == pytest.approx(0.0)
