"""A differentiable rasteriser of triangles in plain PyTorch, for processors and accelerators alike.

Paper
    Chen et al. 2019, "Learning to Predict 3D Objects with an Interpolation-based Differentiable Renderer"
    (arXiv:1908.01210, DIB-R): eq. 1 and 2 (a pixel that a triangle covers is an interpolation of what stands at its
    corners, and the weights have gradients), eq. 3 to 5 (a pixel that none covers has a part in the silhouette that
    falls off with its distance).

What differs, and why
    Distances are in pixels, so that the softness of an edge is the same in pictures of any size. Weights are
    corrected for perspective. Beyond a reach, where its part is below :data:`LEAST`, a triangle has none; all within
    reach count, not the thirty nearest.

Only pixels in the box around a triangle are looked at, in pieces of :data:`AT_ONCE`, so that neither many triangles nor
large ones take much memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

AT_ONCE = 1 << 20
"""Pairs of a triangle and a pixel that are looked at at once: bounds the memory."""

NEAR = 1e-2
"""Triangles with a corner nearer to the camera than this are not drawn."""

LEAST = 1e-3
"""Parts in a silhouette that are smaller than this are left out."""


class Camera(NamedTuple):
    """Where pictures are taken from: towards the origin, y up.

    Attributes:
        azimuth: degrees around the upright axis, (B,); 0 looks from z, 90 from x.
        elevation: degrees from which it looks down, (B,).
        distance: from the origin, (B,).
        view: degrees that the shorter side of the picture spans.
    """

    azimuth: Tensor
    elevation: Tensor
    distance: Tensor
    view: float = 30.0


def project(vertices: Tensor, camera: Camera, height: int, width: int) -> Tensor:
    """Places (B, V, 3) in x, y (up), z as pixels: column and row, whole at the middle of a pixel, and how far away.

    Args:
        vertices: (B, V, 3), or (1, V, 3) for one shape seen by all cameras.
        camera: B cameras.
        height: rows of the picture.
        width: its columns.
    """
    a, e = torch.deg2rad(camera.azimuth), torch.deg2rad(camera.elevation)
    sin, cos, up, flat = a.sin(), a.cos(), e.sin(), e.cos()
    zero = torch.zeros_like(a)
    right = torch.stack([cos, zero, -sin], 1)
    above = torch.stack([-sin * up, flat, -cos * up], 1)
    towards = torch.stack([sin * flat, up, cos * flat], 1)
    seen = vertices @ torch.stack([right, above, towards], 2)  # (B, V, 3)
    away = camera.distance[:, None] - seen[..., 2]
    focal = 0.5 * min(height, width) / math.tan(math.radians(camera.view) / 2)
    # what lies behind the camera is not drawn, and must not divide by nothing
    scale = focal / torch.where(away > NEAR, away, torch.ones_like(away))
    return torch.stack([0.5 * (width - 1) + scale * seen[..., 0], 0.5 * (height - 1) - scale * seen[..., 1], away], 2)


def corners(screen: Tensor, faces: Tensor) -> Tensor:
    """The corners (B, F, 3, 3) of triangles (F, 3) among projected vertices (B, V, 3)."""
    return screen.index_select(1, faces.flatten()).unflatten(1, (len(faces), 3))


def _boxes(low: Tensor, high: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Pixels of boxes (N, 2) of whole columns and rows, in pieces: number of the box, column, row; each (n,)."""
    span = (high - low + 1).clamp(min=0)
    count = span[:, 0] * span[:, 1]
    there = count.nonzero()[:, 0]
    count = count[there]
    ends = count.cumsum(0)
    start, done = 0, 0
    while start < len(there):
        end = max(start + 1, int(torch.searchsorted(ends, done + AT_ONCE, right=True)))
        mine = count[start:end]
        box = torch.repeat_interleave(there[start:end], mine)
        first = torch.repeat_interleave(ends[start:end] - mine, mine)
        place = torch.arange(done, int(ends[end - 1]), device=low.device) - first
        wide = span[:, 0][box]
        yield box, low[:, 0][box] + place % wide, low[:, 1][box] + place // wide
        start, done = end, int(ends[end - 1])


def _whole(triangles: Tensor, height: int, width: int, reach: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes of pixels around triangles (N, 3, 3), low and high (N, 2), empty where one is not drawn; and which are."""
    flat = triangles[..., :2]
    drawn = triangles.isfinite().flatten(1).all(1) & (triangles[..., 2] > NEAR).all(1)
    flat = torch.where(drawn[:, None, None], flat, 0.0)
    most = flat.new_tensor([width - 1, height - 1])
    low = torch.minimum((flat.amin(1) - reach).clamp(min=-1.0), most + 1).ceil().clamp(min=0).long()
    high = torch.minimum((flat.amax(1) + reach).clamp(min=-1.0), most).floor().long()
    high = torch.where(drawn[:, None], high, low - 1)
    return low, torch.where((high < low).any(1, keepdim=True), low - 1, high), drawn


def _weights(flat: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (n, 3) of the corners (n, 3, 2) at places, which add up to 1 along the picture; and twice the area."""
    (ax, ay), (bx, by), (cx, cy) = (flat[:, i].unbind(1) for i in range(3))
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    safe = torch.where(area.abs() > 1e-9, area, torch.ones_like(area))
    second = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / safe
    third = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / safe
    return torch.stack([1 - second - third, second, third], 1), area


@torch.no_grad()
def visible(triangles: Tensor, height: int, width: int) -> Tensor:
    """Which triangle is nearest at each pixel: ``int64`` (B, height, width), -1 where there is none.

    Triangles are seen from both sides. Of several that are equally near it is the first.

    Args:
        triangles: projected corners (B, F, 3, 3).
        height: rows of the picture.
        width: its columns.
    """
    pictures, count = triangles.shape[:2]
    triangles = triangles.detach().flatten(0, 1)
    low, high, _ = _whole(triangles, height, width)
    far = triangles.new_full((pictures * height * width,), math.inf)
    found = torch.full(far.shape, count, dtype=torch.int64, device=far.device)
    for row, column, line in _boxes(low, high):
        mine = triangles[row]
        weights, area = _weights(mine[..., :2], column.to(far.dtype), line.to(far.dtype))
        inside = ((weights >= 0).all(1) & (area.abs() > 1e-9)).nonzero()[:, 0]
        depth = 1 / (weights[inside] / mine[inside, :, 2]).sum(1)
        face, at = row[inside] % count, (row[inside] // count * height + line[inside]) * width + column[inside]
        before = far.clone()
        far.scatter_reduce_(0, at, depth, "amin")
        found = torch.where(far < before, count, found)
        nearest = depth == far[at]
        found.scatter_reduce_(0, at[nearest], face[nearest], "amin")
    return torch.where(found < count, found, -1).view(pictures, height, width)


def interpolate(triangles: Tensor, seen: Tensor, values: Tensor) -> Tensor:
    """What stands at the corners of the visible triangles, at each pixel: (B, height, width, A); 0 where none is.

    Gradients flow to the values and, through the weights, to the places of the corners.

    Args:
        triangles: projected corners (B, F, 3, 3).
        seen: what :func:`visible` says.
        values: (F, 3, A), of each corner of each triangle, or (B, F, 3, A).
    """
    pictures, height, width = seen.shape
    count = triangles.shape[1]
    there = (seen.flatten() >= 0).nonzero()[:, 0]
    face = seen.flatten()[there]
    row = there // (height * width) * count + face
    mine = triangles.flatten(0, 1).flatten(1).index_select(0, row).unflatten(1, (3, 3))
    x, y = (there % width).to(mine.dtype), (there // width % height).to(mine.dtype)
    weights, _ = _weights(mine[..., :2], x, y)
    weights = weights / mine[..., 2]
    weights = weights / weights.sum(1, keepdim=True)
    if values.ndim == 3:
        own = values.flatten(1).index_select(0, face)
    else:
        own = values.flatten(0, 1).flatten(1).index_select(0, row)
    out = (weights[..., None] * own.unflatten(1, (3, -1))).sum(1)
    whole = out.new_zeros(pictures * height * width, out.shape[1]).index_copy(0, there, out)
    return whole.view(pictures, height, width, -1)


def silhouette(triangles: Tensor, seen: Tensor, softness: float = 1.5) -> Tensor:
    """How far each pixel belongs to the shape: (B, height, width), 1 where it is covered.

    Elsewhere 1 - prod over triangles of (1 - exp(-d^2 / softness^2)), d the distance in pixels. Gradients flow to the
    places of the corners. Where triangles are as small as pixels many are near, and the shape seems larger than it is,
    by about the softness: it should fall as a shape is fitted.

    Args:
        triangles: projected corners (B, F, 3, 3).
        seen: what :func:`visible` says.
        softness: pixels at which one triangle's part has fallen to 1 / e.
    """
    pictures, height, width = seen.shape
    count = triangles.shape[1]
    free = (seen < 0).flatten()
    reach = softness * math.sqrt(-math.log(LEAST))
    flat = triangles.flatten(0, 1)
    fixed = flat.detach()
    with torch.no_grad():
        low, high, drawn = _whole(fixed, height, width, reach)
        # triangles around which everything is covered have no part
        sums = F.pad(free.view(pictures, height, width).long().cumsum(1).cumsum(2), (1, 0, 1, 0))
        of = torch.arange(len(fixed), device=free.device) // count
        left, top, right, bottom = low[:, 0], low[:, 1], high[:, 0] + 1, high[:, 1] + 1
        any_free = sums[of, bottom, right] - sums[of, top, right] - sums[of, bottom, left] + sums[of, top, left]
        high = torch.where((drawn & (any_free > 0))[:, None], high, low - 1)
    gaps = flat.new_zeros(pictures * height * width)
    for row, column, line in _boxes(low, high):
        at = (row // count * height + line) * width + column
        with torch.no_grad():
            open_ = free[at].nonzero()[:, 0]
            row, at = row[open_], at[open_]
            x, y = column[open_].to(fixed.dtype), line[open_].to(fixed.dtype)
            near = (_apart(fixed[row, :, :2], x, y) < reach**2).nonzero()[:, 0]
            row, at, x, y = row[near], at[near], x[near], y[near]
        own = flat.flatten(1).index_select(0, row).unflatten(1, (3, 3))[..., :2]
        part = torch.log((-torch.expm1(-_apart(own, x, y) / softness**2)).clamp(min=1e-6))
        gaps = gaps.index_add(0, at, part)
    return torch.where(free, (-torch.expm1(gaps)).abs(), torch.ones_like(gaps)).view(pictures, height, width)


def _apart(flat: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Square distance (n,) of places to the nearest edge of triangles (n, 3, 2)."""
    begin, end = flat, flat.roll(-1, 1)
    along = end - begin
    to = torch.stack([x, y], 1)[:, None] - begin
    share = ((to * along).sum(2) / along.square().sum(2).clamp(min=1e-12)).clamp(0, 1)
    return (to - share[..., None] * along).square().sum(2).amin(1)


def textured(texture: Tensor, places: Tensor) -> Tensor:
    """A texture (B, C, h, w) at places (B, H, W, 2): (B, C, H, W), interpolated.

    A place is u, along the width, where the texture goes round, and v, down its height, both from 0 to 1.
    """
    width = texture.shape[3]
    around = F.pad(texture, (1, 1, 0, 0), mode="circular")
    u, v = places[..., 0], places[..., 1]
    u = (u - u.detach().floor()) * width + 1  # in pixels of the padded one
    return F.grid_sample(
        around,
        torch.stack([2 * u / (width + 2) - 1, 2 * v - 1], 3),
        padding_mode="border",
        align_corners=False,
    )


class Rendered(NamedTuple):
    """Pictures of textured meshes.

    Attributes:
        colour: (B, C, H, W), 0 where nothing is.
        covered: bool (B, H, W): where a triangle is.
        alpha: (B, H, W): the soft silhouette.
    """

    colour: Tensor
    covered: Tensor
    alpha: Tensor


def render(
    vertices: Tensor,
    faces: Tensor,
    places: Tensor,
    texture: Tensor,
    camera: Camera,
    height: int,
    width: int,
    softness: float = 1.5,
) -> Rendered:
    """Pictures of meshes that share their triangles.

    Args:
        vertices: (B, V, 3).
        faces: ``int64`` (F, 3).
        places: (F, 3, 2): where in the texture each corner of each triangle lies.
        texture: (B, C, h, w).
        camera: B cameras.
        height: rows of the picture.
        width: its columns.
        softness: as of :func:`silhouette`; 0: the silhouette is what is covered.
    """
    triangles = corners(project(vertices, camera, height, width), faces)
    seen = visible(triangles, height, width)
    covered = seen >= 0
    colour = textured(texture, interpolate(triangles, seen, places.to(texture.dtype)))
    alpha = silhouette(triangles, seen, softness) if softness > 0 else covered.to(texture.dtype)
    return Rendered(colour * covered[:, None], covered, alpha)
