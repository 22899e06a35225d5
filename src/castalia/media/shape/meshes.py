"""Meshes to voxels and back.

Meshes are read with trimesh. Their surface is sampled more densely than there are voxels, in pieces, so that neither
large triangles nor many take much memory; what the surface encloses is filled. Voxels become a mesh by marching cubes
(Lorensen & Cline 1987) of scikit-image.
"""

from __future__ import annotations

import io
import warnings
from types import ModuleType
from typing import NamedTuple

import numpy as np

from castalia.core.errors import DataError, MissingExtra
from castalia.media.shape.voxels import Up

SUFFIXES = frozenset({".obj", ".off", ".ply", ".stl", ".glb"})

MOST_FACES = 2_000_000
MOST_POINTS = 400_000_000
"""Places looked at on the surface of one mesh."""
AT_ONCE = 1 << 20
INSET = 0.25
"""Voxels by which the surface of a closed mesh is moved inwards, so that it does not grow by half of one."""
FARTHEST = 1e30
"""Coordinates beyond this are refused: their products are not finite."""


class Mesh(NamedTuple):
    """Triangles.

    Attributes:
        vertices: ``float64`` (V, 3): x, y (up), z.
        faces: ``int64`` (F, 3).
        closed: whether every edge belongs to exactly two triangles, so that there is an inside.
    """

    vertices: np.ndarray
    faces: np.ndarray
    closed: bool


def trimesh() -> ModuleType:
    """The package that reads and writes meshes.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import trimesh as package
    except ImportError as error:
        raise MissingExtra("Reading and writing meshes", "shapes") from error
    return package


def read_mesh(data: bytes, suffix: str, where: str, up: Up = "y") -> Mesh:
    """A mesh from an OBJ, OFF, PLY, STL or GLB file; the parts of a scene are one mesh.

    Args:
        data: the file. Other files that it names (materials, pictures) are not read.
        suffix: which kind: ``.obj``.
        where: what to call it in errors.
        up: which axis of the file points up.

    Raises:
        DataError: it is none, has no triangles or too many, or vertices that are not finite or all in one place.
        MissingExtra: trimesh is not installed.
    """
    package = trimesh()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scene = package.load_scene(
                io.BytesIO(data), file_type=suffix.removeprefix("."), process=False, skip_materials=True
            )
            found = scene.to_mesh()
            vertices, faces = np.asarray(found.vertices, np.float64), np.asarray(found.faces, np.int64)
    except Exception as error:  # trimesh lets errors of many kinds through, of numpy and of its own
        raise DataError(f"{where}: not a {suffix} mesh that can be read ({_brief(error)}).") from error
    if vertices.ndim != 2 or vertices.shape[1:] != (3,) or not len(vertices) or not len(faces):
        raise DataError(f"{where}: holds no triangles; points alone are no shape.")
    if len(faces) > MOST_FACES:
        raise DataError(f"{where}: {len(faces):,} triangles; simplify it to at most {MOST_FACES:,}.")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise DataError(f"{where}: a triangle names vertex {int(faces.max())}, and there are {len(vertices)}.")
    used = np.unique(faces)
    bad = used[~(np.abs(vertices[used]) <= FARTHEST).all(1)]  # also true of nan
    if len(bad):
        raise DataError(f"{where}: vertex {int(bad[0])} lies at {vertices[bad[0]].tolist()}, which is no place.")
    if not (np.ptp(vertices[used], axis=0) > 0).any():
        raise DataError(f"{where}: all its vertices lie in one place.")
    return Mesh(_upright(vertices, up), faces, _closed(vertices, faces))


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]


def _upright(vertices: np.ndarray, up: Up) -> np.ndarray:
    x, y, z = vertices.T
    if up == "z":
        return np.stack([x, z, -y], 1)
    return np.stack([-y, x, z], 1) if up == "x" else vertices


def _closed(vertices: np.ndarray, faces: np.ndarray) -> bool:
    """Whether each edge has two triangles, where vertices of one place are one."""
    _, same = np.unique(vertices, axis=0, return_inverse=True)
    joined = same.reshape(-1)[faces]
    edges = np.sort(np.concatenate([joined[:, [0, 1]], joined[:, [1, 2]], joined[:, [2, 0]]]), 1)
    edges = edges[edges[:, 0] != edges[:, 1]]
    _, counts = np.unique(edges, axis=0, return_counts=True)
    return bool((counts == 2).all())


def voxelised(mesh: Mesh, size: int, margin: int = 1, turn: float = 0.0, *, where: str = "the mesh") -> np.ndarray:
    """A mesh as voxels ``uint8`` (size, size, size) of depth, height, width.

    It is put into the middle and made as large as fits inside the margin. A voxel is filled where the surface passes
    through it (of a closed mesh: a quarter of a voxel below the surface), or where it lies inside: it cannot be reached
    from outside through voxels that are empty.

    Args:
        mesh: its triangles.
        size: voxels along a side.
        margin: voxels that stay empty at each face.
        turn: degrees by which it is turned about the upright axis, seen from above anticlockwise.
        where: what to call it in errors.

    Raises:
        DataError: its triangles are so many and so large that looking at them would take too long.
    """
    from scipy import ndimage

    angle = np.deg2rad(turn)
    cos, sin = np.cos(angle), np.sin(angle)
    used = mesh.vertices[mesh.faces.reshape(-1)]
    used = used - used.mean(0)  # far from the origin differences would be lost
    places = used @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    low, high = places.min(0), places.max(0)
    room = size - 2 * margin
    places = (places - (low + high) / 2) * (room / (high - low).max())
    corners = places.reshape(-1, 3, 3)
    out = np.zeros((size, size, size), np.uint8)
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(1)
    parts = np.maximum(np.ceil(2 * longest), 1).astype(np.int64)
    points = (parts + 1) * (parts + 2) // 2
    if int(points.sum()) > MOST_POINTS:
        raise DataError(f"{where}: its triangles overlap so much that filling voxels would take too long; simplify it.")
    inner = room / 2 - 1e-6
    if mesh.closed:
        corners = _inset(corners)
    for n in np.unique(parts).tolist():
        mine = corners[parts == n]
        i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
        i, j = i[i + j <= n] / n, j[i + j <= n] / n
        weights = np.stack([1 - i - j, i, j], 1)
        for start in range(0, len(mine), step := max(1, AT_ONCE // len(weights))):
            at = np.einsum("pk,tkc->tpc", weights, mine[start : start + step]).reshape(-1, 3)
            x, y, z = np.floor(np.clip(at, -inner, inner) + size / 2).astype(np.int64).T
            out[z, y, x] = 1
    return np.asarray(ndimage.binary_fill_holes(out), np.uint8)


def _inset(corners: np.ndarray) -> np.ndarray:
    """Triangles (F, 3, 3) of a closed mesh whose planes lie :data:`INSET` further inside, as far as that can be.

    A corner is moved so that it lies so much below all planes that meet there, by least squares.
    """
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outwards = np.sign(np.einsum("tc,tc->", corners[:, 0], across)) or 1.0  # of the volume: some meshes are inside out
    length = np.linalg.norm(across, axis=1, keepdims=True)
    normal = outwards * across / np.where(length > 0, length, 1)
    _, at = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
    at, every = at.reshape(-1), np.repeat(normal, 3, axis=0)
    count = int(at.max()) + 1

    def added(values: np.ndarray) -> np.ndarray:
        return np.bincount(at, values, count)

    planes = np.stack([np.stack([added(every[:, i] * every[:, k]) for k in range(3)], 1) for i in range(3)], 1)
    pull = -INSET * np.stack([added(every[:, i]) for i in range(3)], 1)
    steady = 1e-3 * np.trace(planes, axis1=1, axis2=2) + 1e-12
    move = np.linalg.solve(planes + steady[:, None, None] * np.eye(3), pull[:, :, None])[:, :, 0]
    far = np.linalg.norm(move, axis=1, keepdims=True)
    move *= np.minimum(1, 2 * INSET / np.maximum(far, 1e-12))  # a sharp point would fly off
    return corners + move[at].reshape(-1, 3, 3)


def surface(voxels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The surface of a shape by marching cubes.

    Args:
        voxels: (D, H, W), 0 and 1, or anything between.

    Returns:
        Vertices ``float64`` (V, 3) as x, y (up), z in voxels, and faces ``int64`` (F, 3), anticlockwise from outside;
        both empty where nothing is filled. The mesh is closed.

    Raises:
        MissingExtra: scikit-image is not installed.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise MissingExtra("Making meshes of voxels", "shapes") from error
    if not (voxels > 0.5).any():
        return np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    vertices, faces, _, _ = marching_cubes(np.pad(voxels.astype(np.float32), 1), 0.5)
    # (d, h, w) is (z, y, x); the middle of the first voxel lies at 1 in the padded array, and at 0.5 here
    return vertices[:, ::-1].astype(np.float64) - 0.5, faces.astype(np.int64)


def mesh_files(voxels: np.ndarray) -> dict[str, bytes]:
    """A shape as mesh files, by their endings: ``.glb`` and ``.obj``; as wide as its cube is 1, y up, on the floor.

    Returns:
        Nothing where no voxel is filled.

    Raises:
        MissingExtra: trimesh or scikit-image is not installed.
    """
    vertices, faces = surface(voxels)
    if not len(faces):
        return {}
    size = max(voxels.shape)
    mesh = trimesh().Trimesh(vertices / size - np.array([0.5, 0.0, 0.5]), faces, process=False)
    found = {}
    for kind in ("glb", "obj"):
        data = mesh.export(file_type=kind)
        found[f".{kind}"] = data.encode() if isinstance(data, str) else bytes(data)
    return found
