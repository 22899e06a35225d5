"""The sphere that is deformed into shapes: its triangles, its place in a texture, its neighbours, its mirror image.

An icosahedron whose triangles are divided into four, again and again: 12, 42, 162, 642, 2,562 vertices. It is the same
left and right (x and -x).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Sphere(NamedTuple):
    """A triangulated sphere of radius 1.

    Attributes:
        vertices: ``float32`` (V, 3): x, y (up), z.
        faces: ``int64`` (F, 3), anticlockwise from outside.
        places: ``float32`` (F, 3, 2): u around the upright axis and v from the top to the bottom, of each corner of
            each triangle, 0 to 1; u beyond 1 where a triangle lies across the seam, which is at the back. The texture
            goes round. u of a place and 1 - u of its mirror image add up to a whole number.
        edges: ``int64`` (E, 2), each once.
        wings: ``int64`` (E, 2): the vertices opposite to each edge in its two triangles.
        mirror: ``int64`` (V,): the vertex that is the mirror image of each.
    """

    vertices: Tensor
    faces: Tensor
    places: Tensor
    edges: Tensor
    wings: Tensor
    mirror: Tensor

    @property
    def degree(self) -> Tensor:
        """How many neighbours each vertex has, ``float32`` (V,)."""
        return torch.bincount(self.edges.flatten(), minlength=len(self.vertices)).float()


def sphere(divisions: int) -> Sphere:
    """The sphere after so many divisions, 0 to 5."""
    g = (1 + math.sqrt(5)) / 2
    corners = [(s * a, t * b, 0.0) for a, b in ((1.0, g),) for s in (-1, 1) for t in (-1, 1)]
    vertices = np.array([np.roll(c, k) for k in range(3) for c in corners])
    faces = _hull(vertices)
    for _ in range(divisions):
        vertices, faces = _divided(vertices, faces)
    vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    inward = np.einsum("fc,fc->f", np.cross(b - a, c - a), a) < 0
    faces[inward] = faces[inward][:, ::-1]
    edges, wings = _edges(faces)
    flipped = vertices * np.array([-1.0, 1.0, 1.0])
    mirror = np.linalg.norm(flipped[:, None] - vertices[None], axis=2).argmin(1)
    return Sphere(
        torch.from_numpy(vertices).float(),
        torch.from_numpy(faces),
        torch.from_numpy(_places(vertices, faces)).float(),
        torch.from_numpy(edges),
        torch.from_numpy(wings),
        torch.from_numpy(mirror),
    )


def _hull(vertices: np.ndarray) -> np.ndarray:
    """The twenty triangles of an icosahedron: three vertices of which each two are neighbours."""
    apart = np.linalg.norm(vertices[:, None] - vertices[None], axis=2)
    near = (apart > 0) & (apart < 1.01 * apart[apart > 0].min())
    n = len(vertices)
    found = [
        (i, j, k)
        for i in range(n)
        for j in range(i + 1, n)
        for k in range(j + 1, n)
        if near[i, j] and near[j, k] and near[i, k]
    ]
    return np.array(found, np.int64)


def _divided(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each triangle in four; the new vertices on the sphere."""
    pairs = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    edges, which = np.unique(pairs, axis=0, return_inverse=True)
    middle = vertices[edges].mean(1)
    middle *= np.linalg.norm(vertices[0]) / np.linalg.norm(middle, axis=1, keepdims=True)
    ab, bc, ca = len(vertices) + which.reshape(3, -1)
    a, b, c = faces.T
    four = [np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
    return np.concatenate([vertices, middle]), np.concatenate(four)


def _edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges (E, 2), and the vertices opposite to them."""
    pairs = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    opposite = np.concatenate([faces[:, 2], faces[:, 0], faces[:, 1]])
    edges, which = np.unique(pairs, axis=0, return_inverse=True)
    order = np.argsort(which.reshape(-1), kind="stable")  # of a closed surface each edge is there twice
    return edges, opposite[order].reshape(-1, 2)


def _places(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Places of each corner (F, 3, 2) in the texture."""
    x, y, z = vertices[faces].transpose(2, 0, 1)  # each (F, 3)
    u = np.arctan2(x, z) / (2 * np.pi) + 0.5  # 0.5 at the front
    v = np.arccos(np.clip(y, -1, 1)) / np.pi
    # a pole, if there is a vertex, has no u of its own, and lies between the others
    pole = np.hypot(x, z) < 1e-6
    u[(u.max(1) - u.min(1)) > 0.5] = _across(u[(u.max(1) - u.min(1)) > 0.5])
    count = (~pole).sum(1, keepdims=True)
    mean = np.where(pole, 0.0, u).sum(1, keepdims=True) / count
    return np.stack([np.where(pole, mean, u), v], 2)


def _across(u: np.ndarray) -> np.ndarray:
    return np.where(u < 0.5, u + 1, u)


def smoothed(values: Tensor, mesh_edges: Tensor, degree: Tensor) -> Tensor:
    """Of values (B, V, C) at vertices the mean over neighbours minus their own: the uniform Laplacian, (B, V, C)."""
    first, second = mesh_edges.unbind(1)
    sums = torch.zeros_like(values)
    sums = sums.index_add(1, first, values.index_select(1, second)).index_add(1, second, values.index_select(1, first))
    return sums / degree[:, None] - values


def folds(vertices: Tensor, edges: Tensor, wings: Tensor) -> Tensor:
    """How far surfaces (B, V, 3) are folded at their edges: (B, E), cosine of the angle between the sides, plus 1.

    0 where the surface is flat, 2 where it is folded onto itself.
    """
    start = vertices.index_select(1, edges[:, 0])
    along = vertices.index_select(1, edges[:, 1]) - start
    along = along / along.norm(dim=2, keepdim=True).clamp(min=1e-6)
    sides = []
    for k in range(2):
        side = vertices.index_select(1, wings[:, k]) - start
        side = side - (side * along).sum(2, keepdim=True) * along
        sides.append(side / side.norm(dim=2, keepdim=True).clamp(min=1e-6))
    return (sides[0] * sides[1]).sum(2) + 1
