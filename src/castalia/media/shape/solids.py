"""Chairs, tables, lamps and cars made by code: boxes and rounds of random proportions, whose parts are known.

A solid is a function of (seed, split, number). It can be had as voxels of any size, as a coloured mesh that knows which
triangle belongs to which part, and in words, which are therefore exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from castalia.core.rng import derive

KINDS = ("chair", "table", "lamp", "car")
"""The classes, in label order; solid number n is of class n modulo 4."""

SEGMENTS = 24
"""Corners of a round in a mesh."""

REACH = 0.25
"""A voxel is filled where a part comes so near to its centre, in voxels; a part that is thinner, from further."""

WOOD, STEEL, CLOTH, GLASS, RUBBER = (150, 105, 65), (140, 145, 150), (70, 95, 150), (120, 170, 190), (40, 40, 42)
PAINTS = ((176, 48, 44), (44, 82, 150), (220, 190, 70), (60, 120, 72), (228, 228, 224), (60, 62, 68))


class Part(NamedTuple):
    """A box, or what is round about an axis.

    Attributes:
        name: what it is: ``leg``, ``seat``. Several parts may have the same.
        centre: x, y (up), z.
        size: whole extents along x, y, z, all above 0.
        colour: red, green, blue, 0 to 255.
        axis: -1 for a box; of a round the axis along which it stands: 0 x, 1 y, 2 z.
        taper: of a round: how wide its upper end is, relative to its lower one.
    """

    name: str
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    colour: tuple[int, int, int] = WOOD
    axis: int = -1
    taper: float = 1.0


@dataclass(frozen=True)
class Solid:
    """A thing of parts.

    Attributes:
        label: its class, a position in :data:`KINDS`.
        parts: its parts.
        words: what it is, exactly: ``a chair with four legs, a panel back and arms``.
    """

    label: int
    parts: tuple[Part, ...]
    words: str

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner, ``float64`` (3,)."""
        centre, half = np.array([p.centre for p in self.parts]), np.array([p.size for p in self.parts]) / 2
        return (centre - half).min(0), (centre + half).max(0)


class PartMesh(NamedTuple):
    """A mesh whose triangles know their part.

    Attributes:
        vertices: ``float64`` (V, 3): x, y (up), z.
        faces: ``int64`` (F, 3), anticlockwise from outside.
        colours: ``uint8`` (F, 3).
        parts: ``int64`` (F,): the number of the part of :attr:`names`.
        names: of the parts, in order.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray
    parts: np.ndarray
    names: tuple[str, ...]


def solid(number: int, split: str = "train", seed: int = 0) -> Solid:
    """Solid ``number``, from 0 on, of a split: always the same for the same three."""
    random = np.random.Generator(np.random.Philox(derive(seed, "solids", split, number)))
    label = number % len(KINDS)
    parts, words = _MAKERS[label](random)
    return Solid(label, tuple(parts), words)


# the four kinds; units are arbitrary, y is up, and things face along z


def _between(random: np.random.Generator, low: float, high: float) -> float:
    return float(random.uniform(low, high))


def _chair(random: np.random.Generator) -> tuple[list[Part], str]:
    width, depth = _between(random, 0.7, 1.1), _between(random, 0.7, 1.05)
    seat, thick = _between(random, 0.65, 0.95), _between(random, 0.1, 0.2)
    high, leg = _between(random, 0.6, 1.3), _between(random, 0.09, 0.15)
    cloth = PAINTS[int(random.integers(len(PAINTS)))]
    parts = [Part("seat", (0, seat, 0), (width, thick, depth), cloth)]
    below = seat - thick / 2
    if random.random() < 0.7:
        stand = "four legs"
        parts += _legs(width, depth, below, leg)
    else:
        stand = "a column on a round foot"
        foot = 0.75 * min(width, depth)
        parts += [
            Part("column", (0, below / 2 + 0.05, 0), (1.4 * leg, below - 0.1, 1.4 * leg), STEEL, 1),
            Part("foot", (0, 0.06, 0), (foot, 0.12, foot), STEEL, 1),
        ]
    back, behind = "panel", -(depth - 0.12) / 2
    if random.random() < 0.6:
        parts.append(Part("back", (0, seat + thick / 2 + high / 2, behind), (width, high, 0.12), cloth))
    else:
        back = "slatted"
        top = seat + thick / 2 + high
        parts += [
            Part("back", (x, seat + thick / 2 + high / 2, behind), (0.13, high, 0.12), WOOD)
            for x in (-(width - 0.13) / 2, 0, (width - 0.13) / 2)
        ]
        parts.append(Part("back", (0, top - 0.1, behind), (width, 0.2, 0.12), WOOD))
    words = f"a chair with {stand} and a {back} back"
    if random.random() < 0.45:
        words = f"a chair with {stand}, a {back} back and arms"
        arm, rise = 0.11, _between(random, 0.25, 0.4)
        for side in (-1, 1):
            x = side * (width + arm) / 2
            parts.append(Part("arm", (x, seat + rise, 0), (arm, 0.1, depth), WOOD))
            parts.append(Part("arm", (x, seat + rise / 2 - 0.05, depth / 2 - 0.08), (arm, rise + 0.1, 0.12), WOOD))
            parts.append(Part("arm", (x, seat + rise / 2 - 0.05, -depth / 2 + 0.08), (arm, rise + 0.1, 0.12), WOOD))
    return parts, words


def _legs(width: float, depth: float, height: float, thick: float) -> list[Part]:
    x, z = (width - thick) / 2, (depth - thick) / 2
    return [
        Part("leg", (i * x, height / 2, k * z), (thick, height, thick), WOOD)
        for i, k in ((-1, -1), (-1, 1), (1, -1), (1, 1))
    ]


def _table(random: np.random.Generator) -> tuple[list[Part], str]:
    width, depth = _between(random, 1.0, 1.9), _between(random, 0.8, 1.2)
    height, thick = _between(random, 0.55, 1.1), _between(random, 0.09, 0.18)
    leg = _between(random, 0.1, 0.17)
    circular = random.random() < 0.35
    if circular:
        depth = width = _between(random, 1.0, 1.5)
    top = Part("top", (0, height + thick / 2, 0), (width, thick, depth), WOOD, 1 if circular else -1)
    parts, shape = [top], "round" if circular else "rectangular"
    kind = int(random.integers(3))
    if kind == 2 and circular:
        kind = 0
    if kind == 0:
        stand, inner = "four legs", 0.68 if circular else 1.0
        parts += _legs(width * inner, depth * inner, height, leg)
    elif kind == 1:
        stand, foot = "a column on a foot", 0.6 * min(width, depth)
        parts += [
            Part("column", (0, height / 2, 0), (1.8 * leg, height, 1.8 * leg), STEEL, 1),
            Part("foot", (0, 0.06, 0), (foot, 0.12, foot), STEEL, 1),
        ]
    else:
        stand = "two side panels"
        parts += [
            Part("panel", (side * (width - 0.13) / 2, height / 2, 0), (0.13, height, depth), WOOD) for side in (-1, 1)
        ]
    words = f"a {shape} table on {stand}"
    if kind != 1 and not circular and random.random() < 0.4:
        words += " with a shelf"
        parts.append(Part("shelf", (0, _between(random, 0.3, 0.5) * height, 0), (width - 0.1, 0.1, depth - 0.1), WOOD))
    return parts, words


def _lamp(random: np.random.Generator) -> tuple[list[Part], str]:
    tall = random.random() < 0.5
    pole, thick = _between(random, 1.1, 1.8) if tall else _between(random, 0.4, 0.8), _between(random, 0.09, 0.14)
    foot, shade = _between(random, 0.45, 0.75), _between(random, 0.6, 1.0)
    high, paint = _between(random, 0.35, 0.65), PAINTS[int(random.integers(len(PAINTS)))]
    square = random.random() < 0.35
    taper = _between(random, 0.45, 0.85)
    form = "tapered"
    if random.random() < 0.25:
        taper, form = 1.0, "straight"
    parts = [
        Part("foot", (0, 0.07, 0), (foot, 0.14, foot), STEEL, -1 if square else 1),
        Part("pole", (0, 0.1 + pole / 2, 0), (thick, pole, thick), STEEL, 1),
        Part("shade", (0, pole + high / 2, 0), (shade, high, shade), paint, 1, taper),
    ]
    size, base = "floor" if tall else "table", "square" if square else "round"
    return parts, f"a {size} lamp with a {base} foot and a {form} shade"


def _car(random: np.random.Generator) -> tuple[list[Part], str]:
    length, width = _between(random, 1.8, 2.5), _between(random, 0.8, 1.05)
    body, wheel = _between(random, 0.28, 0.42), _between(random, 0.36, 0.5)
    ground, paint = 0.45 * wheel, PAINTS[int(random.integers(len(PAINTS)))]
    kind = ("saloon", "van", "pick-up")[int(random.integers(3))]
    cabin = _between(random, 0.26, 0.4)
    roof = ground + body + cabin / 2
    parts = [Part("body", (0, ground + body / 2, 0), (length, body, width), paint)]
    if kind == "saloon":
        parts.append(Part("cabin", (-0.05 * length, roof, 0), (0.5 * length, cabin, 0.86 * width), GLASS))
    elif kind == "van":
        cabin *= 1.5
        parts.append(
            Part("cabin", (-0.1 * length, ground + body + cabin / 2, 0), (0.8 * length, cabin, 0.94 * width), paint)
        )
    else:
        parts.append(Part("cabin", (0.12 * length, roof, 0), (0.3 * length, cabin, 0.88 * width), GLASS))
    out = width / 2 - 0.04
    parts += [
        Part("wheel", (i * 0.31 * length, wheel / 2, k * out), (wheel, wheel, 0.2), RUBBER, 2)
        for i, k in ((-1, -1), (-1, 1), (1, -1), (1, 1))
    ]
    words = f"a {kind}"
    if kind == "saloon" and random.random() < 0.35:
        words = "a saloon with a spoiler"
        back = -length / 2 + 0.12
        parts.append(Part("spoiler", (back, ground + body + 0.2, 0), (0.18, 0.1, width), paint))
        parts += [
            Part("spoiler", (back, ground + body + 0.09, k * 0.35 * width), (0.1, 0.2, 0.1), paint) for k in (-1, 1)
        ]
    # made along x; things face along z
    parts = [
        p._replace(
            centre=(-p.centre[2], p.centre[1], p.centre[0]),
            size=(p.size[2], p.size[1], p.size[0]),
            axis=0 if p.axis == 2 else p.axis,
        )
        for p in parts
    ]
    return parts, words


_MAKERS: tuple[Callable[[np.random.Generator], tuple[list[Part], str]], ...] = (_chair, _table, _lamp, _car)


# as voxels and as a mesh


def solid_voxels(thing: Solid, size: int, margin: int = 1, turn: float = 0.0) -> np.ndarray:
    """Voxels ``uint8`` (size, size, size) of depth, height, width: centred, as large as fits inside the margin.

    Args:
        thing: the solid.
        size: voxels along a side.
        margin: voxels that stay empty at each face.
        turn: degrees by which it is turned about the upright axis, seen from above anticlockwise.
    """
    low, high = thing.bounds()
    angle = np.deg2rad(turn)
    cos, sin = np.cos(angle), np.sin(angle)
    turned = turn % 360 != 0
    if turned:
        mesh = _mesh(thing)
        spun = mesh.vertices @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
        low, high = spun.min(0), spun.max(0)
    scale = (size - 2 * margin) / float((high - low).max())
    middle = (low + high) / 2
    out = np.zeros((size, size, size), np.uint8)
    centres = np.arange(size) + 0.5 - size / 2
    if not turned:
        for part in thing.parts:
            _fill(out, part, centres, (np.array(part.centre) - middle) * scale, np.array(part.size) * scale / 2)
        return out
    z, y, x = np.meshgrid(centres, centres, centres, indexing="ij")
    x, y, z = x + middle[0] * scale, y + middle[1] * scale, z + middle[2] * scale
    # back to where the parts stand
    x, z = cos * x - sin * z, sin * x + cos * z
    for part in thing.parts:
        centre, half = np.array(part.centre) * scale, np.array(part.size) * scale / 2
        out |= _inside(part, [x - centre[0], y - centre[1], z - centre[2]], half).astype(np.uint8)
    return out


def _inside(part: Part, at: list[np.ndarray], half: np.ndarray) -> np.ndarray:
    """Which places, relative to a part's middle, are within reach of it; half extents in voxels."""
    if _straight(part, half):
        near = [np.abs(c) <= _wide(h) for c, h in zip(at, half, strict=True)]
        return near[0] & near[1] & near[2]
    along, (first, second) = at[part.axis], [i for i in range(3) if i != part.axis]
    wide = 1 + (part.taper - 1) * np.clip((along / half[part.axis] + 1) / 2, 0, 1)
    square = (at[first] / (half[first] * wide + REACH)) ** 2 + (at[second] / (half[second] * wide + REACH)) ** 2
    return (square <= 1) & (np.abs(along) <= _wide(half[part.axis]))


def _wide(half: float) -> float:
    """How far from the middle of a part the centres of its voxels lie: there is always one."""
    return max(half + REACH, 0.5)


def _straight(part: Part, half: np.ndarray) -> bool:
    """Whether a part is a box, or a round so thin that it might slip between the centres of voxels."""
    return part.axis < 0 or min(h for axis, h in enumerate(half) if axis != part.axis) < 0.75


def _fill(out: np.ndarray, part: Part, centres: np.ndarray, middle: np.ndarray, half: np.ndarray) -> None:
    """Fill the voxels of a part that stands straight: only those of its box are looked at."""
    spans = []
    for axis in range(3):
        there = np.flatnonzero(np.abs(centres - middle[axis]) <= _wide(half[axis]))
        if not len(there):
            return
        spans.append(slice(int(there[0]), int(there[-1]) + 1))
    x, y, z = spans
    block = out[z, y, x]
    if _straight(part, half):
        block[...] = 1
        return
    at = [
        (centres[x] - middle[0])[None, None, :],
        (centres[y] - middle[1])[None, :, None],
        (centres[z] - middle[2])[:, None, None],
    ]
    block |= _inside(part, at, half).astype(np.uint8)


def solid_mesh(number: int, split: str = "train", seed: int = 0) -> PartMesh:
    """Solid ``number`` as a coloured mesh of closed parts, in units of its own (a chair is about 2 high)."""
    return _mesh(solid(number, split, seed))


def _mesh(thing: Solid) -> PartMesh:
    vertices, faces, colours, parts, count = [], [], [], [], 0
    for i, part in enumerate(thing.parts):
        v, f = _box() if part.axis < 0 else _round(part.axis, part.taper)
        vertices.append(v * np.array(part.size) / 2 + np.array(part.centre))
        faces.append(f + count)
        colours.append(np.tile(np.array(part.colour, np.uint8), (len(f), 1)))
        parts.append(np.full(len(f), i))
        count += len(v)
    names = tuple(part.name for part in thing.parts)
    return PartMesh(
        np.concatenate(vertices), np.concatenate(faces), np.concatenate(colours), np.concatenate(parts), names
    )


def _box() -> tuple[np.ndarray, np.ndarray]:
    """The box from -1 to 1."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
    quads = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
    return corners, np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))], np.int64)


def _round(axis: int, taper: float) -> tuple[np.ndarray, np.ndarray]:
    """A round from -1 to 1 about an axis."""
    angle = 2 * np.pi * np.arange(SEGMENTS) / SEGMENTS
    ring = np.stack([np.cos(angle), np.sin(angle)], 1)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    vertices = np.zeros((2 * SEGMENTS + 2, 3))
    for end, wide in ((0, 1.0), (1, taper)):
        rows = slice(end * SEGMENTS, (end + 1) * SEGMENTS)
        vertices[rows, axis] = 2 * end - 1
        vertices[rows, first], vertices[rows, second] = wide * ring[:, 0], wide * ring[:, 1]
        vertices[2 * SEGMENTS + end, axis] = 2 * end - 1
    i = np.arange(SEGMENTS)
    j, low, high = (i + 1) % SEGMENTS, np.full(SEGMENTS, 2 * SEGMENTS), np.full(SEGMENTS, 2 * SEGMENTS + 1)
    sides = ((i, j, j + SEGMENTS), (i, j + SEGMENTS, i + SEGMENTS), (low, j, i), (high, i + SEGMENTS, j + SEGMENTS))
    return vertices, np.concatenate([np.stack(side, 1) for side in sides]).astype(np.int64)
