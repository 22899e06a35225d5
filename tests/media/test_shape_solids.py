"""Solids made by code: the same for everybody, of known parts, as voxels, as meshes and in words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from castalia.core.errors import UsageError
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.shape import ShapeSpec
from castalia.media.shape.array import ShapeArray, packed
from castalia.media.shape.meshes import Mesh, voxelised
from castalia.media.shape.read import ShapeOptions
from castalia.media.shape.sets import open_set
from castalia.media.shape.solids import KINDS, Part, Solid, solid, solid_mesh, solid_voxels


def test_a_solid_is_a_function_of_its_number() -> None:
    assert solid(5) == solid(5)
    assert solid(5) != solid(9)
    assert solid(5) != solid(5, "test")
    assert solid(5) != solid(5, seed=1)
    assert [solid(n).label for n in range(8)] == [0, 1, 2, 3, 0, 1, 2, 3]


@pytest.mark.parametrize("size", [8, 16, 32])
def test_they_are_whole_centred_and_fill_the_cube(size: int) -> None:
    for number in range(60):
        voxels = solid_voxels(solid(number), size)
        _, pieces = ndimage.label(voxels, np.ones((3, 3, 3)))
        assert pieces == 1, (number, solid(number).words)
        spans = [np.flatnonzero(voxels.any(axis)) for axis in ((1, 2), (0, 2), (0, 1))]
        assert max(s[-1] - s[0] + 1 for s in spans) == size - 2
        assert all(abs((s[0] + s[-1]) - (size - 1)) <= 1 for s in spans), "not in the middle"


def test_words_are_of_the_parts() -> None:
    for number in range(200):
        thing = solid(number)
        names = [part.name for part in thing.parts]
        assert thing.words.startswith(f"a {KINDS[thing.label]}") or thing.label > 0
        assert ("four legs" in thing.words) == (names.count("leg") == 4)
        assert (" arms" in thing.words) == ("arm" in names)
        assert ("shelf" in thing.words) == ("shelf" in names)
        assert ("spoiler" in thing.words) == ("spoiler" in names)
        assert ("slatted" in thing.words) == (names.count("back") == 4)


def test_a_box_and_a_round_have_their_volumes() -> None:
    box = Solid(0, (Part("it", (0, 0, 0), (2, 1, 0.5)),), "")
    assert solid_voxels(box, 42).sum() == 40 * 20 * 10
    disc = Solid(0, (Part("it", (0, 0, 0), (2, 1, 2), axis=1),), "")
    volume = np.pi * 20.25**2 * 20
    assert solid_voxels(disc, 42).sum() == pytest.approx(volume, rel=0.01)
    cone = Solid(0, (Part("it", (0, 0, 0), (2, 2, 2), axis=1, taper=0.0),), "")
    filled = solid_voxels(cone, 42)
    widths = filled.sum((0, 2))  # from the floor up
    assert (np.diff(widths[1:-1].astype(int)) <= 0).all()
    assert filled.sum() == pytest.approx(np.pi * 20**2 * 40 / 3, rel=0.06)


def test_up_is_up_and_things_face_forward() -> None:
    chair = solid(0)
    voxels = solid_voxels(chair, 32)
    back = next(p for p in chair.parts if p.name == "back")
    assert back.centre[2] < 0
    top = voxels[:, 24:]
    assert top[:16].sum() > top[16:].sum(), "the back of a chair is high, and at the far end"


@pytest.mark.parametrize("turn", [90.0, 180.0, 270.0])
def test_quarter_turns_turn_voxels(turn: float) -> None:
    plain = solid_voxels(solid(3), 24)
    assert np.array_equal(solid_voxels(solid(3), 24, turn=turn), np.rot90(plain, int(turn / 90), (0, 2)))


def test_any_turn_keeps_the_thing() -> None:
    turned = solid_voxels(solid(1), 32, turn=30)
    _, pieces = ndimage.label(turned, np.ones((3, 3, 3)))
    assert pieces == 1
    assert turned.sum((0, 2)).max() > 0.5 * solid_voxels(solid(1), 32).sum((0, 2)).max() / 2


def test_meshes_are_closed_and_know_their_parts() -> None:
    for number in range(12):
        mesh, thing = solid_mesh(number), solid(number)
        assert mesh.names == tuple(p.name for p in thing.parts)
        assert mesh.faces.shape == (len(mesh.parts), 3)
        assert mesh.colours.shape == mesh.faces.shape
        for i, part in enumerate(thing.parts):
            faces = mesh.faces[mesh.parts == i]
            edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
            _, counts = np.unique(np.sort(edges, 1), axis=0, return_counts=True)
            assert (counts == 2).all()
            a, b, c = (mesh.vertices[faces[:, k]] for k in range(3))
            volume = np.einsum("tc,tc->", a, np.cross(b, c)) / 6
            box = float(np.prod(part.size))
            assert 0.2 * box < volume <= box * 1.0001, "triangles look outwards"
            assert (mesh.colours[mesh.parts == i] == np.array(part.colour)).all()


def test_mesh_and_voxels_are_the_same_thing() -> None:
    for number in range(8):
        mesh = solid_mesh(number)
        one = voxelised(Mesh(mesh.vertices, mesh.faces, True), 32)
        other = solid_voxels(solid(number), 32)
        assert (one & other).sum() / (one | other).sum() > 0.72, solid(number).words


def test_the_set() -> None:
    options = ShapeOptions(size=8, turns=4)
    data = open_set("few-solids", options, "train")
    assert len(data) == 4 * 48
    assert data.spec == ShapeSpec(8, KINDS)
    assert data.texts[0] == data.texts[3] == solid(0).words
    assert data.files[1] == "train/0000@90"
    x = data.batch(np.arange(2)).x
    assert x.shape == (2, 1, 8, 8, 8)
    assert x.dtype == torch.uint8
    assert np.array_equal(x[1, 0].numpy(), np.rot90(x[0, 0].numpy(), 1, (0, 2)))
    assert data.fingerprint == open_set("few-solids", options, "train").fingerprint
    assert data.fingerprint != open_set("few-solids", options, "test").fingerprint
    plain = open_set("few-solids", ShapeOptions(size=8, labels="none"), "train")
    assert plain.labels is None
    assert plain.spec.classes == ()


def test_views_are_a_column() -> None:
    options = ShapeOptions(size=8, views="picture", view_size=16)
    data = open_set("few-solids", options, "test")
    assert dict(data.spec.columns)["view"] == ImageSpec(1, 16, 16)
    batch = data.batch(np.arange(6))
    view = batch.extra["view"]
    assert view.shape == (6, 1, 16, 16)
    assert view.dtype == torch.uint8
    assert torch.equal(view, data.batch(np.arange(6)).extra["view"])
    assert torch.equal(view[3:4], data.batch(np.array([3])).extra["view"])
    depth = open_set("few-solids", ShapeOptions(size=8, views="depth", view_size=16), "test")
    assert not torch.equal(depth.batch(np.arange(6)).extra["view"], view)
    assert depth.fingerprint != data.fingerprint
    # read as a run was: with its size and its views
    again = open_set("few-solids", ShapeOptions(), "test", like=data.spec)
    assert again.spec == data.spec
    assert open_set("few-solids", ShapeOptions(views="depth"), "test", like=ShapeSpec(8, KINDS)).spec.columns == ()


def test_arrays_are_checked() -> None:
    with pytest.raises(ValueError, match="no bits"):
        ShapeArray(np.zeros((2, 3), np.uint8), 8, name="x")
    with pytest.raises(ValueError, match="labels"):
        ShapeArray(packed(np.ones((2, 4, 4, 4), np.uint8)), 4, name="x", labels=np.zeros(3))
    for wrong in ({"size": 3}, {"margin": 9}, {"turns": 0}, {"view_size": 1}, {"labels": "x"}):
        with pytest.raises(UsageError):
            ShapeOptions(**wrong)  # type: ignore[arg-type]
