"""Textured meshes that turn, as files."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest

from castalia.media.shape.glb import textured_glb
from castalia.models.shapes.meshes import sphere

TRIMESH = pytest.importorskip("trimesh")


def ball() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    found = sphere(2)
    texture = np.zeros((8, 16, 3), np.uint8)
    texture[:, 8:] = (200, 30, 10)
    return found.vertices.numpy(), found.faces.numpy(), found.places.numpy(), texture


def tree_of(data: bytes) -> tuple[dict[str, object], bytes]:
    magic, version, size = struct.unpack("<III", data[:12])
    assert (magic, version, size) == (0x46546C67, 2, len(data))
    length, kind = struct.unpack("<II", data[12:20])
    assert kind == 0x4E4F534A
    assert length % 4 == 0
    return json.loads(data[20 : 20 + length]), data[28 + length :]


def values(tree: dict[str, object], rest: bytes, number: int) -> np.ndarray:
    accessor = tree["accessors"][number]  # type: ignore[index]
    view = tree["bufferViews"][accessor["bufferView"]]  # type: ignore[index]
    width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[accessor["type"]]
    kind = {5126: "<f4", 5125: "<u4"}[accessor["componentType"]]
    assert view["byteOffset"] % 4 == 0
    flat = np.frombuffer(rest[view["byteOffset"] : view["byteOffset"] + view["byteLength"]], kind)
    return flat.reshape(accessor["count"], width)


def test_it_opens_with_its_texture() -> None:
    vertices, faces, places, texture = ball()
    scene = TRIMESH.load_scene(io.BytesIO(textured_glb(vertices, faces, places, texture)), file_type="glb")
    (mesh,) = scene.geometry.values()
    assert len(mesh.faces) == len(faces)
    assert mesh.area == pytest.approx(TRIMESH.Trimesh(vertices, faces).area, rel=1e-5)
    found = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"))
    assert (found == texture).all()
    # each corner where it was: its colour is that of its side
    corner, uv = mesh.vertices[mesh.faces], mesh.visual.uv[mesh.faces]
    red = np.abs(corner[..., 0]) > 0.3
    assert (((uv[..., 0] % 1) > 0.5) == (corner[..., 0] > 0))[red].all()
    assert mesh.is_winding_consistent


def test_it_turns_once_about_the_upright_axis() -> None:
    tree, rest = tree_of(textured_glb(*ball(), seconds=4.0))
    (animation,) = tree["animations"]  # type: ignore[misc]
    (channel,) = animation["channels"]
    assert channel["target"] == {"node": 0, "path": "rotation"}
    sampler = animation["samplers"][channel["sampler"]]
    when, turn = values(tree, rest, sampler["input"])[:, 0], values(tree, rest, sampler["output"])
    assert when[0] == 0
    assert when[-1] == 4
    assert (np.diff(when) > 0).all()
    np.testing.assert_allclose(np.linalg.norm(turn, axis=1), 1, atol=1e-6)
    assert (turn[:, [0, 2]] == 0).all()
    angle = 2 * np.degrees(np.unwrap(np.arctan2(turn[:, 1], turn[:, 3])))
    np.testing.assert_allclose(angle, np.linspace(0, 360, len(when)), atol=1e-3)
    assert (np.diff(angle) < 180).all()  # a viewer takes the shorter way
    # bounds that a viewer needs
    accessor = tree["accessors"][sampler["input"]]  # type: ignore[index]
    assert (accessor["min"], accessor["max"]) == ([0.0], [4.0])


def test_it_may_stand_still_and_be_grey() -> None:
    vertices, faces, places, texture = ball()
    tree, _ = tree_of(textured_glb(vertices, faces, places, texture[..., 0], seconds=0))
    assert "animations" not in tree


@pytest.mark.parametrize("fault", ["places", "face", "nan", "texture", "none"])
def test_what_is_no_mesh_is_refused(fault: str) -> None:
    vertices, faces, places, texture = ball()
    if fault == "places":
        places = places[1:]
    elif fault == "face":
        faces = faces + 1
    elif fault == "nan":
        vertices = vertices.copy()
        vertices[3, 1] = np.nan
    elif fault == "texture":
        texture = texture.astype(np.float32)  # type: ignore[assignment]
    else:
        faces, places = faces[:0], places[:0]
    with pytest.raises(ValueError, match=r"mesh|places|vertex|finite|texture"):
        textured_glb(vertices, faces, places, texture)
