"""A textured mesh as a GLB file (glTF 2.0, Khronos Group) that turns as long as one looks.

trimesh, which writes the meshes of voxels, knows no animations; this needs no library.
"""

from __future__ import annotations

import io
import json
import struct

import numpy as np
from PIL import Image

MAGIC, JSON, BINARY = 0x46546C67, 0x4E4F534A, 0x004E4942
FLOAT, UINT32 = 5126, 5125
VERTICES, INDICES = 34962, 34963
REPEAT, CLAMP, LINEAR = 10497, 33071, 9729
EIGHTHS = 8
"""Turns are told in eighths: between two rotations a viewer takes the shorter way."""


def textured_glb(
    vertices: np.ndarray, faces: np.ndarray, places: np.ndarray, texture: np.ndarray, seconds: float = 6.0
) -> bytes:
    """A mesh as the bytes of a ``.glb`` file.

    Args:
        vertices: floating (V, 3): x, y (up), z, finite.
        faces: whole numbers (F, 3), anticlockwise from outside.
        places: floating (F, 3, 2): u and v of each corner of each triangle, v from the top; u may exceed 1.
        texture: ``uint8`` (h, w, 3) or (h, w).
        seconds: of one turn about the upright axis; 0: it stands still.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite.
    """
    _check(vertices, faces, places, texture)
    # a vertex is one where place and texture place agree
    every = np.concatenate([vertices[faces.reshape(-1)], places.reshape(-1, 2)], 1).astype("<f4")
    rows, index = np.unique(every, axis=0, return_inverse=True)
    points, uv = np.ascontiguousarray(rows[:, :3]), np.ascontiguousarray(rows[:, 3:])
    normals = _normals(vertices, faces)[faces.reshape(-1)]
    normal = np.zeros((len(rows), 3), "<f4")
    normal[index.reshape(-1)] = normals
    file = _Buffer()
    attributes = {
        "POSITION": file.add(points, "VEC3", VERTICES, bounds=True),
        "NORMAL": file.add(normal, "VEC3", VERTICES),
        "TEXCOORD_0": file.add(uv, "VEC2", VERTICES),
    }
    indices = file.add(index.reshape(-1).astype("<u4"), "SCALAR", INDICES)
    png = io.BytesIO()
    Image.fromarray(texture if texture.ndim == 3 else np.repeat(texture[..., None], 3, 2)).save(png, "PNG")
    tree = {
        "asset": {"version": "2.0", "generator": "castalia"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "thing", "mesh": 0}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [
            {
                "name": "texture",
                "doubleSided": True,
                "pbrMetallicRoughness": {
                    "baseColorTexture": {"index": 0},
                    "metallicFactor": 0.0,
                    "roughnessFactor": 1.0,
                },
            }
        ],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [{"wrapS": REPEAT, "wrapT": CLAMP, "magFilter": LINEAR, "minFilter": LINEAR}],
        "images": [{"mimeType": "image/png", "bufferView": file.view(png.getvalue())}],
    }
    if seconds > 0:
        angle = np.linspace(0, np.pi, EIGHTHS + 1)  # half of the turn: what a quaternion holds
        turn = np.stack([0 * angle, np.sin(angle), 0 * angle, np.cos(angle)], 1).astype("<f4")
        when = np.linspace(0, seconds, EIGHTHS + 1).astype("<f4")
        sampler = {
            "input": file.add(when, "SCALAR", None, bounds=True),
            "output": file.add(turn, "VEC4", None),
            "interpolation": "LINEAR",
        }
        channel = {"sampler": 0, "target": {"node": 0, "path": "rotation"}}
        tree["animations"] = [{"name": "turn", "samplers": [sampler], "channels": [channel]}]
    return file.whole(tree)


def _check(vertices: np.ndarray, faces: np.ndarray, places: np.ndarray, texture: np.ndarray) -> None:
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3 or not len(faces):
        raise ValueError(f"vertices {vertices.shape} and faces {faces.shape} are no mesh")
    if places.shape != (len(faces), 3, 2):
        raise ValueError(f"places {places.shape} do not fit {len(faces)} triangles")
    if texture.dtype != np.uint8 or texture.ndim not in (2, 3) or texture.shape[2:] not in ((), (3,)):
        raise ValueError(f"{texture.dtype} {texture.shape} is no texture")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError("a triangle names a vertex that is not there")
    if not (np.isfinite(vertices).all() and np.isfinite(places).all()):
        raise ValueError("a place is not finite")


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Of vertices (V, 3), from the triangles about them, larger ones more."""
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    across = np.cross(b - a, c - a)
    sums = np.zeros((len(vertices), 3))
    for i in range(3):
        np.add.at(sums, faces[:, i], across)
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(length > 1e-12, sums / np.maximum(length, 1e-12), [0.0, 1.0, 0.0]).astype("<f4")


class _Buffer:
    """The binary part of a file, and the lists that say what lies where in it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, int]] = []
        self.accessors: list[dict[str, object]] = []

    def view(self, data: bytes, target: int | None = None) -> int:
        """Number of a stretch with these bytes."""
        self.data += b"\0" * (-len(self.data) % 4)
        told = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)}
        self.views.append(told if target is None else {**told, "target": target})
        self.data += data
        return len(self.views) - 1

    def add(self, values: np.ndarray, kind: str, target: int | None, bounds: bool = False) -> int:
        """Number of an accessor of these values."""
        told: dict[str, object] = {
            "bufferView": self.view(values.tobytes(), target),
            "componentType": UINT32 if values.dtype.kind == "u" else FLOAT,
            "count": len(values),
            "type": kind,
        }
        if bounds:
            flat = values.reshape(len(values), -1)
            told |= {"min": flat.min(0).tolist(), "max": flat.max(0).tolist()}
        self.accessors.append(told)
        return len(self.accessors) - 1

    def whole(self, tree: dict[str, object]) -> bytes:
        """The file."""
        self.data += b"\0" * (-len(self.data) % 4)
        tree |= {
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": len(self.data)}],
        }
        text = json.dumps(tree, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        parts = [
            struct.pack("<II", len(text), JSON),
            text,
            struct.pack("<II", len(self.data), BINARY),
            bytes(self.data),
        ]
        size = 12 + sum(map(len, parts))
        return struct.pack("<III", MAGIC, 2, size) + b"".join(parts)
