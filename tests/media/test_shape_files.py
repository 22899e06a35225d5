"""Shapes from files and back: arrays, binvox, meshes, folders, and what is wrong with them."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from castalia.core.data import Batch
from castalia.core.errors import DataError, MissingExtra, UsageError
from castalia.core.specs.shape import ShapeSpec
from castalia.media.rooms import room
from castalia.media.shape import meshes
from castalia.media.shape.meshes import mesh_files, read_mesh, surface, voxelised
from castalia.media.shape.read import ShapeOptions, is_shapes, open_shapes
from castalia.media.shape.solids import solid, solid_voxels
from castalia.media.shape.voxels import fit, read_arrays, read_binvox, upright

TRIANGLE = b"OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n"


def saved(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def binvox(voxels: np.ndarray) -> bytes:
    """A file of voxels (D, H, W)."""
    flat = voxels.transpose(2, 0, 1).reshape(-1)
    runs = b"".join(bytes([int(v), 1]) for v in flat)
    sides = " ".join(map(str, voxels.transpose(2, 0, 1).shape))
    return f"#binvox 1\ndim {sides}\ntranslate 0 0 0\nscale 1\ndata\n".encode() + runs


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


# voxels


def test_arrays_of_all_kinds() -> None:
    one = solid_voxels(solid(0), 8)
    for array in (one, one.astype(bool), one.astype(np.int32) * 7, one.astype(np.float32) * 0.9):
        assert np.array_equal(read_arrays(saved(array), "x")[0], one)
    many = np.stack([one, 1 - one])
    assert np.array_equal(read_arrays(saved(many[:, None]), "x"), many)
    out = io.BytesIO()
    np.savez_compressed(out, a=one, b=many, labels=np.arange(3))
    assert np.array_equal(read_arrays(out.getvalue(), "x"), np.concatenate([one[None], many]))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not an array"),
        (b"PK\x03\x04nothing", "not an .npz"),
        (saved(np.zeros((4, 4))), "no array of voxels"),
        (saved(np.zeros((0, 4, 4, 4))), "no array of voxels"),
        (saved(np.full((4, 4, 4), np.nan)), r"value at \[0, 0, 0, 0\] is not finite"),
        (saved(np.zeros((1, 1, 600), bool)), "too many"),
        (saved(np.array([["a"]])), "no array of voxels"),
    ],
)
def test_bad_arrays_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        read_arrays(data, "f.npy")
    assert "f.npy" in str(error.value)


def test_objects_are_never_unpickled() -> None:
    out = io.BytesIO()
    np.save(out, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="not an array that can be read"):
        read_arrays(out.getvalue(), "f.npy")


def test_binvox() -> None:
    one = solid_voxels(solid(3), 8)
    assert np.array_equal(read_binvox(binvox(one), "x"), one)
    for data, words in (
        (b"hello", "does not begin"),
        (b"#binvox 1\ndata\n", "no line 'dim"),
        (b"#binvox 1\ndim 9999 9999 9999\ndata\n\x01\x01", "a side has 1 to 512"),
        (binvox(one)[:-4], "cut off"),
        (binvox(one).replace(b"data\n\x00", b"data\n\x09"), "cut off"),
    ):
        with pytest.raises(DataError, match=words):
            read_binvox(data, "f.binvox")


def test_upright_turns_and_does_not_mirror() -> None:
    """The three axes keep their handedness: x cross y is z before and after."""
    for up, place in (("y", (1, 2, 3)), ("z", (-2, 3, 1)), ("x", (3, 1, -2))):
        voxels = np.zeros((9, 9, 9), np.uint8)
        voxels[4 + 3, 4 + 2, 4 + 1] = 1  # x = 1, y = 2, z = 3 from the middle
        d, h, w = np.argwhere(upright(voxels, up))[0] - 4
        if up == "y":
            assert (w, h, d) == place
        elif up == "z":  # what was z is height
            assert (w, h, d) == (1, 3, -2)
        else:  # what was x is height
            assert (w, h, d) == (-2, 1, 3)


def test_fit_pads_and_makes_coarser() -> None:
    thirty = np.ones((1, 30, 30, 30), np.uint8)
    padded = fit(thirty, 32, 1)
    assert padded.shape == (1, 32, 32, 32)
    assert padded[0, 1:-1, 1:-1, 1:-1].all()
    assert padded.sum() == 30**3
    fine = solid_voxels(solid(0), 64)[None]
    coarse = fit(fine, 32, 1)
    assert np.array_equal(coarse, fine.reshape(1, 32, 2, 32, 2, 32, 2).max((2, 4, 6)))
    odd = fit(np.ones((1, 33, 20, 7), np.uint8), 16, 1)
    assert odd.shape == (1, 16, 16, 16)
    assert odd.sum() == 11 * 7 * 3


# meshes


@pytest.mark.parametrize("kind", ["obj", "off", "ply", "stl", "glb"])
def test_a_ball_is_filled_whatever_its_file_and_units(kind: str) -> None:
    import trimesh

    ball = trimesh.creation.icosphere(3)
    ball.vertices *= 1e5
    ball.vertices += 3e6
    data = ball.export(file_type=kind)
    found = read_mesh(data.encode() if isinstance(data, str) else data, f".{kind}", "x")
    assert found.closed
    voxels = voxelised(found, 32)
    assert voxels.sum() == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.15)
    assert voxels[16, 16, 16]
    assert not voxels[0].any()


def test_marching_cubes_and_back() -> None:
    for number in range(4):
        voxels = solid_voxels(solid(number), 32)
        vertices, faces = surface(voxels)
        edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
        _, counts = np.unique(edges, axis=0, return_counts=True)
        assert (counts == 2).all(), "it is closed"
        a, b, c = (vertices[faces[:, k]] for k in range(3))
        volume = np.einsum("tc,tc->", a, np.cross(b, c)) / 6
        assert 0.6 * voxels.sum() < volume < voxels.sum(), "triangles look outwards"
        for suffix, data in mesh_files(voxels).items():
            mesh = read_mesh(data, suffix, "x")
            assert mesh.closed
            assert iou(voxelised(mesh, 32), voxels) > 0.9
            assert 0 <= mesh.vertices[:, 1].min() < mesh.vertices[:, 1].max() <= 1, "as wide as its cube is 1"


def test_a_ball_of_voxels_has_its_surface() -> None:
    at = np.arange(48) - 23.5
    ball = (at[:, None, None] ** 2 + at[None, :, None] ** 2 + at[None, None] ** 2 <= 20**2).astype(np.uint8)
    vertices, faces = surface(ball)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    assert np.einsum("tc,tc->", a, np.cross(b, c)) / 6 == pytest.approx(ball.sum(), rel=0.02)
    radius = np.linalg.norm(vertices - 24, axis=1)
    assert 19 < radius.min() < radius.max() < 21
    edges = np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1), axis=0)
    assert len(vertices) - len(edges) + len(faces) == 2, "Euler"
    empty, none = surface(np.zeros((4, 4, 4)))
    assert len(empty) == len(none) == 0
    assert mesh_files(np.zeros((4, 4, 4), np.uint8)) == {}


@pytest.mark.parametrize(
    ("data", "suffix", "words"),
    [
        (b"", ".off", "cannot|that can be read"),
        (b"hello", ".ply", "that can be read"),
        (b"\x00" * 40, ".glb", "that can be read"),
        (b"v 0 0 0\nv 1 1 1\n", ".obj", "no triangles"),
        (TRIANGLE.replace(b"0 0 1\n3 0 2 1", b"0 0 nan\n3 0 2 1"), ".off", "vertex 3 lies at .*no place"),
        (TRIANGLE.replace(b"0 0 1\n3 0 2 1", b"0 0 1e200\n3 0 2 1"), ".off", "no place"),
        (TRIANGLE.replace(b"3 0 2 1", b"3 0 2 9"), ".off", "vertex|outside"),
        (TRIANGLE.replace(b"1", b"0"), ".off", "one place|no triangles|be read"),
        (TRIANGLE[:40], ".off", "that can be read|no triangles"),
    ],
)
def test_bad_meshes_are_refused(data: bytes, suffix: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        read_mesh(data, suffix, "bad" + suffix)
    assert "bad" + suffix in str(error.value)


def test_too_many_triangles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meshes, "MOST_FACES", 3)
    with pytest.raises(DataError, match="4 triangles; simplify"):
        read_mesh(TRIANGLE, ".off", "x")
    monkeypatch.undo()
    monkeypatch.setattr(meshes, "MOST_POINTS", 100)
    with pytest.raises(DataError, match="simplify"):
        voxelised(read_mesh(TRIANGLE, ".off", "x"), 32)


def test_pieces_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = read_mesh(TRIANGLE, ".off", "x")
    whole = voxelised(mesh, 16)
    monkeypatch.setattr(meshes, "AT_ONCE", 1)
    assert np.array_equal(voxelised(mesh, 16), whole)


def test_an_open_mesh_stays_hollow(tmp_path: Path) -> None:
    (tmp_path / "open.off").write_bytes(TRIANGLE.replace(b"4 4 0", b"4 3 0").replace(b"3 1 2 3\n", b""))
    data = open_shapes(tmp_path / "open.off", ShapeOptions(size=16))
    (tmp_path / "closed.off").write_bytes(TRIANGLE)
    closed = open_shapes(tmp_path / "closed.off", ShapeOptions(size=16))
    assert any("not closed" in note for note in data.notes)
    assert not closed.notes
    assert data.voxels(np.array([0])).sum() < closed.voxels(np.array([0])).sum()


def test_without_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "trimesh", None)
    monkeypatch.setitem(sys.modules, "skimage.measure", None)
    with pytest.raises(MissingExtra, match=r"castalia\[shapes\]"):
        read_mesh(TRIANGLE, ".off", "x")
    with pytest.raises(MissingExtra, match=r"castalia\[shapes\]"):
        surface(np.ones((4, 4, 4)))
    # voxels are written and read all the same
    medium, spec = room("shape"), ShapeSpec(4)
    (path,) = medium.write(Batch.of(torch.ones(1, 1, 4, 4, 4, dtype=torch.uint8)), spec, tmp_path / "out")
    assert [p.name for p in path.parent.iterdir()] == ["0000.npy"]
    assert torch.equal(medium.read_file(path, spec), torch.ones(1, 4, 4, 4, dtype=torch.uint8))


# folders


def put(folder: Path, names: list[str]) -> None:
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(saved(solid_voxels(solid(i), 8)))


def test_folders_are_classes_and_splits(tmp_path: Path) -> None:
    put(tmp_path / "a", [f"{k}/{i}.npy" for k in ("chair", "table") for i in range(8)])
    data = open_shapes(tmp_path / "a", ShapeOptions(size=8))
    assert data.spec.classes == ("chair", "table")
    assert data.labels is not None
    assert data.labels.tolist() == [0] * 8 + [1] * 8
    train, test = (open_shapes(tmp_path / "a", ShapeOptions(size=8), split=s) for s in ("train", "test"))
    assert set(train.files) | set(test.files) == set(data.files)
    assert not set(train.files) & set(test.files)
    # ModelNet: splits below the classes
    put(tmp_path / "b", ["chair/train/1.npy", "chair/test/2.npy", "table/train/3.npy", "table/test/4.npy"])
    found = open_shapes(tmp_path / "b", ShapeOptions(size=8), split="test")
    assert list(found.files) == ["test/chair/2.npy", "test/table/4.npy"]
    assert found.spec.classes == ("chair", "table")
    put(tmp_path / "c", ["sofa/1.npy", "chair/1.npy"])
    with pytest.raises(DataError, match="'sofa'"):
        open_shapes(tmp_path / "c", ShapeOptions(), like=data.spec)


def test_one_file_of_many_is_split_by_position(tmp_path: Path) -> None:
    many = np.stack([solid_voxels(solid(i), 8) for i in range(120)])
    (tmp_path / "many.npy").write_bytes(saved(many))
    train, test = (open_shapes(tmp_path / "many.npy", ShapeOptions(size=8), split=s) for s in ("train", "test"))
    assert len(train) + len(test) == 120
    assert len(test) >= 1
    whole = open_shapes(tmp_path / "many.npy", ShapeOptions(size=8))
    assert np.array_equal(whole.voxels(np.arange(120)), many)
    assert whole.files[7] == "many.npy#7"


def test_zips_and_twins(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("tet/1.off", TRIANGLE)
        archive.writestr("box/1.npy", saved(np.ones((6, 6, 6), bool)))
    data = open_shapes(tmp_path / "z.zip", ShapeOptions(size=8))
    assert data.spec.classes == ("box", "tet")
    assert is_shapes(tmp_path / "z.zip")
    # what this medium wrote itself is read once, though each shape lies there as voxels and as two meshes
    medium, x = room("shape"), torch.from_numpy(np.stack([solid_voxels(solid(i), 8) for i in range(3)]))[:, None]
    medium.write(Batch.of(x), ShapeSpec(8), tmp_path / "out", recipe={"seed": 0})
    assert len(list((tmp_path / "out").iterdir())) == 12
    back = open_shapes(tmp_path / "out", ShapeOptions(size=8))
    assert torch.equal(back.batch(np.arange(3)).x, x)
    assert any("Left out 6 files" in note for note in back.notes)


def test_bad_files_are_named_or_skipped(tmp_path: Path) -> None:
    put(tmp_path / "a", ["1.npy", "2.npy"])
    (tmp_path / "a" / "0.off").write_bytes(b"nonsense")
    (tmp_path / "a" / "3.npy").write_bytes(saved(np.zeros((8, 8, 8), bool)))
    with pytest.raises(DataError, match=r"0\.off"):
        open_shapes(tmp_path / "a", ShapeOptions(size=8))
    data = open_shapes(tmp_path / "a", ShapeOptions(size=8, on_bad_file="skip"))
    assert len(data) == 2
    assert any("Skipped 1 files" in note for note in data.notes)
    assert any("no voxel is filled" in note for note in data.notes)
    with pytest.raises(DataError, match="none of its 1 files"):
        open_shapes(tmp_path / "a" / "3.npy", ShapeOptions(size=8))
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="holds no shape files"):
        open_shapes(tmp_path / "b", ShapeOptions())


def test_turns(tmp_path: Path) -> None:
    put(tmp_path, ["1.npy"])
    data = open_shapes(tmp_path / "1.npy", ShapeOptions(size=8, turns=4))
    x = data.voxels(np.arange(4))
    assert all(np.array_equal(x[k], np.rot90(x[0], k, (0, 2))) for k in range(4))
    with pytest.raises(UsageError, match="by quarters only"):
        open_shapes(tmp_path / "1.npy", ShapeOptions(size=8, turns=12))
    (tmp_path / "t.off").write_bytes(TRIANGLE)
    assert len(open_shapes(tmp_path / "t.off", ShapeOptions(size=8, turns=12))) == 12


def test_what_is_a_shape(tmp_path: Path) -> None:
    (tmp_path / "cube.npy").write_bytes(saved(np.ones((4, 4, 4), bool)))
    (tmp_path / "pictures.npy").write_bytes(saved(np.ones((5, 8, 8, 3), np.uint8)))
    np.savez(tmp_path / "cubes.npz", a=np.ones((2, 4, 4, 4)))
    np.savez(tmp_path / "rows.npz", a=np.ones((2, 4)))
    (tmp_path / "x.txt").write_text("hello")
    found = {p.name: is_shapes(p) for p in tmp_path.iterdir()}
    assert found == {"cube.npy": True, "pictures.npy": False, "cubes.npz": True, "rows.npz": False, "x.txt": False}
    assert is_shapes(tmp_path)
    with pytest.raises(UsageError, match="name a file: @chair"):
        room("shape").read("chair", ShapeSpec(8))
