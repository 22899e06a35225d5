"""Shapes as one sees them: rays through voxels, three lights, no library.

Rays are parallel. Each is followed through the voxels, interpolated between their centres, until these are filled
enough. The surface there faces down the slope of the voxels, blurred a little, so that light falls on it smoothly.
Where there is much of the shape around a place, less light reaches it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from castalia.core.errors import UsageError

FRAME = 1.32
"""Half the width of a picture, where the cube's is 1: its upright edges stay inside as it turns, seen from a little
above."""

REACH = 1.75
"""How far before and behind the middle rays are followed: further than the corners of the cube."""

PER_VOXEL = 2.0
"""Steps of a ray to a voxel."""

LEVEL = 0.3
"""The surface: how full it is there. Less than half, or what is one voxel thin would fade between the rays."""

AT_ONCE = 1 << 22
"""Places looked at at once: bounds the memory."""

LIGHTS = (((-0.45, 0.75, 0.6), 0.75), ((0.8, 0.25, 0.35), 0.28), ((0.1, -0.3, -0.9), 0.12))
"""Where they are, seen by who looks (right, up, towards), and how bright."""

AMBIENT, TINT = 0.34, (0.62, 0.74, 0.90)


class Hits(NamedTuple):
    """Where rays meet shapes.

    Attributes:
        hit: bool (B, side, side): whether they do.
        depth: ``float32`` (B, side, side): how far before the middle, -REACH to REACH; nearer is more.
        normal: ``float32`` (B, side, side, 3): of the surface, in the looker's right, up, towards.
        open: ``float32`` (B, side, side): 0 to 1, how little of the shape lies around.
    """

    hit: Tensor
    depth: Tensor
    normal: Tensor
    open: Tensor


def axes_of(turn: Tensor, lift: float) -> Tensor:
    """Right, up and towards of a looker, ``float32`` (B, 3, 3) in x, y, z, from degrees around and above."""
    a, e = torch.deg2rad(turn.float()), math.radians(lift)
    sin, cos, zero, one = a.sin(), a.cos(), torch.zeros_like(a), torch.ones_like(a)
    right = torch.stack([cos, zero, -sin], 1)
    towards = torch.stack([sin * math.cos(e), one * math.sin(e), cos * math.cos(e)], 1)
    return torch.stack([right, torch.linalg.cross(towards, right), towards], 1)


@torch.no_grad()
def cast(x: Tensor, turn: Tensor, lift: float, side: int) -> Hits:
    """Follow the rays of a picture.

    Args:
        x: voxels (B, 1, S, S, S), 0 to 1.
        turn: degrees around each shape from which it is seen, (B,); 0 is from the front.
        lift: degrees from which they are looked down on.
        side: pixels along each side.
    """
    rays = math.ceil(2 * REACH * x.shape[-1] / 2 * PER_VOXEL)
    step = max(1, AT_ONCE // (side * side * rays))
    parts = [_cast(x[i : i + step], turn[i : i + step], lift, side, rays) for i in range(0, len(x), step)]
    return Hits(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _cast(x: Tensor, turn: Tensor, lift: float, side: int, rays: int) -> Hits:
    solid = x.float().cpu()
    axes = axes_of(turn.cpu(), lift)
    right, up, towards = (axes[:, i, None, None, None, :] for i in range(3))
    across = (torch.arange(side) + 0.5) / side * 2 * FRAME - FRAME
    plane = across[None, None, None, :, None] * right + across.flip(0)[None, None, :, None, None] * up
    along = torch.linspace(REACH, -REACH, rays)
    places = plane + along[None, :, None, None, None] * towards  # (B, rays, side, side, 3)
    full = F.grid_sample(solid, places, align_corners=False)[:, 0]
    inside = full > LEVEL
    hit = inside.any(1)
    first = inside.float().argmax(1, keepdim=True)
    # between the last place outside and the first inside
    before, after = full.gather(1, (first - 1).clamp(min=0))[:, 0], full.gather(1, first)[:, 0]
    share = ((LEVEL - before) / (after - before).clamp(min=1e-6)).clamp(0, 1)
    gap = 2 * REACH / (rays - 1)
    depth = REACH - gap * (first[:, 0] - 1 + share)
    at = plane[:, 0] + depth[..., None] * axes[:, 2, None, None, :]
    blurred = F.avg_pool3d(F.pad(solid, (2,) * 6), 3, 1, 1)[:, :, 1:-1, 1:-1, 1:-1]
    blurred = F.avg_pool3d(blurred, 3, 1)
    slope = torch.cat([_slope(blurred, axis) for axis in (4, 3, 2)], 1)  # along x, y, z
    normal = -F.grid_sample(slope, at[:, None], align_corners=False, padding_mode="border")[:, :, 0].movedim(1, -1)
    normal = F.normalize(normal, dim=-1)
    wide = F.avg_pool3d(F.pad(blurred, (2,) * 6), 5, 1)
    off = at + normal * (4.0 / x.shape[-1])
    crowd = F.grid_sample(wide, off[:, None], align_corners=False)[:, 0, 0]
    seen = torch.einsum("bhwc,bkc->bhwk", normal, axes)
    return Hits(hit, torch.where(hit, depth, -REACH), seen, (1 - 1.3 * crowd).clamp(0, 1))


def _slope(x: Tensor, axis: int) -> Tensor:
    """Central differences along one axis of (B, 1, S, S, S), zeros outside."""
    pad = [0] * 6
    pad[2 * (4 - axis)] = pad[2 * (4 - axis) + 1] = 1
    wide, n = F.pad(x, pad), x.shape[axis]
    return wide.narrow(axis, 2, n) - wide.narrow(axis, 0, n)


def shaded(x: Tensor, turn: Tensor, lift: float = 24.0, side: int = 128) -> Tensor:
    """Pictures of shapes on white, ``uint8`` (B, 3, side, side); arguments as of :func:`cast`."""
    found = cast(x, turn, lift, side)
    light = AMBIENT * found.open
    for where, bright in LIGHTS:
        direction = F.normalize(torch.tensor(where), dim=0)
        light = light + bright * (found.normal @ direction).clamp(min=0) * (0.35 + 0.65 * found.open)
    colour = (light[:, None] * torch.tensor(TINT).view(1, 3, 1, 1)).clamp(0, 1)
    colour = torch.where(found.hit[:, None], colour, 1.0)
    return (colour * 255).round().to(torch.uint8)


def depth_map(x: Tensor, turn: Tensor, lift: float, side: int) -> Tensor:
    """How near shapes are, ``uint8`` (B, 1, side, side): 255 in front of all, falling to 1; 0 where nothing is."""
    found = cast(x, turn, lift, side)
    near = 1 + 254 * (found.depth + REACH) / (2 * REACH)
    return torch.where(found.hit, near, 0.0).round().clamp(0, 255).to(torch.uint8)[:, None]


def turntable(x: Tensor, lift: float = 24.0, side: int = 192) -> Tensor:
    """Shapes (T, 1, S, S, S), one after the other, from all around: ``uint8`` (T, 3, side, side)."""
    return shaded(x, 30 + 360 * torch.arange(len(x)) / max(len(x), 1), lift, side)


def shapes_image(x: Tensor, titles: list[str], columns: int | None = None, side: int = 112) -> Image.Image:
    """All shapes in one picture, each from the front, a little from the right and from above.

    Args:
        x: voxels (N, 1, S, S, S), N >= 1.
        titles: a word for each, or none.
        columns: shapes in a row; None for about a square.
        side: pixels of one.

    Raises:
        UsageError: there are none.
    """
    if not len(x):
        raise UsageError("A drawing needs at least one shape.")
    columns = min(columns or math.ceil(math.sqrt(len(x))), len(x))
    rows, room = math.ceil(len(x) / columns), 16 if titles else 0
    pictures = shaded(x, torch.full((len(x),), 35.0), side=side)
    whole = Image.new("RGB", (columns * side, rows * (side + room)), "white")
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(11)
    for i, picture in enumerate(pictures):
        left, top = i % columns * side, i // columns * (side + room)
        whole.paste(Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()), (left, top))
        if titles:
            draw.text((left + side / 2, top + side), titles[i][:18], fill=(60, 60, 60), font=font, anchor="mt")
    return whole
