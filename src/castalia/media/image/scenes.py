"""Scenes of one or two coloured shapes, what is said of them, and a reader that tells from a picture what is true.

The grammar is that of ``drawn.py``: size, colour, shape, place. A scene of two has one thing on each side, or one above
the other:

    a large red star at the top left
    a small blue ring and a large green heart
    a small pink moon above a small brown cross

Pictures and captions follow from (set, split, number) alone. Eight pairs of colour and shape, each colour and each
shape once, are in no training picture; every thing of the test pictures is one of them, so that a model is asked for
what it has seen only in other company.

The reader knows colours, outlines and nothing else: it is no network, and what it says can be checked by hand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image
from scipy import ndimage

from castalia.core.rng import derive
from castalia.media.image.arrays import ArrayListing
from castalia.media.image.drawn import COLOURS, PAPERS, SHAPES, SIZE, SIZES, drawn_shape, place_named

TWO = {"small": 0.12, "large": 0.19}
"""Radius of one of two things, as a share of the picture's side."""

SIDE = 24
"""Outlines are compared in squares of this side."""

TURNS = (-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3)
LEAST = 9
"""Fewer pixels of a colour are no thing."""

NEAR = 120.0
"""Distance in RGB above which a colour is none of those that there are."""


@dataclass(frozen=True)
class Thing:
    """One thing as words: of ``SIZES``, ``COLOURS``, ``SHAPES``."""

    size: str
    colour: str
    kind: str

    def __str__(self) -> str:
        return f"a {self.size} {self.colour} {self.kind}"


@dataclass(frozen=True)
class Scene:
    """What is on a picture, and how its things lie.

    Attributes:
        things: one, or two: the left or upper one first.
        where: of one thing its place; of two ``and`` (side by side) or ``above``.
    """

    things: tuple[Thing, ...]
    where: str

    def __str__(self) -> str:
        words = list(map(str, self.things))
        return f" {self.where} ".join(words) if len(words) > 1 else f"{words[0]} {self.where}"


def apart(colour: str, kind: str) -> bool:
    """Whether the pair is kept out of the training pictures."""
    return list(COLOURS).index(colour) == SHAPES.index(kind)


def scenes(split: str, count: int) -> ArrayListing:
    """``count`` pictures ``uint8`` (N, 32, 32, 3) with captions; half of them of two things."""
    pixels, captions = np.empty((count, SIZE, SIZE, 3), np.uint8), []
    for i in range(count):
        pixels[i], scene = scene_of(
            np.random.Generator(np.random.Philox(derive(0, "scenes", split, i))), split != "train"
        )
        captions.append(str(scene))
    return ArrayListing(pixels, None, (), split=split, captions=tuple(captions))


def scene_of(rng: np.random.Generator, new: bool) -> tuple[np.ndarray, Scene]:
    """A scene, drawn; with ``new`` only of things that are kept out of training, else of none of them."""
    pairs = [(c, k) for c in COLOURS for k in SHAPES if apart(c, k) == new]
    two = bool(rng.integers(2))
    things, paper = [], PAPERS[int(rng.integers(len(PAPERS)))]
    for _ in range(1 + two):
        colour, kind = pairs[int(rng.integers(len(pairs)))]
        things.append(Thing(str(rng.choice(tuple(SIZES))), colour, kind))
    if two and things[0].colour == things[1].colour and things[0].kind == things[1].kind:
        other = [p for p in pairs if p != (things[0].colour, things[0].kind)]
        things[1] = Thing(things[1].size, *other[int(rng.integers(len(other)))])
    picture = Image.new("RGB", (SIZE, SIZE), paper)
    if two:
        where = ("and", "above")[int(rng.integers(2))]
        centres = [(0.25, 0.5), (0.75, 0.5)] if where == "and" else [(0.5, 0.25), (0.5, 0.75)]
    else:
        column, row = int(rng.integers(3)), int(rng.integers(3))
        free = 0.5 - SIZES[things[0].size] - 0.02
        where, centres = place_named(column, row), [(0.5 + (column - 1) * free, 0.5 + (row - 1) * free)]
    pixels = np.asarray(picture).astype(np.int16)
    for thing, centre in zip(things, centres, strict=True):
        radius = (TWO if two else SIZES)[thing.size] * float(rng.uniform(0.93, 1.07))
        at = tuple(float(c + rng.uniform(-0.02, 0.02)) for c in centre)
        turn = 0.0 if thing.kind in ("moon", "heart") else float(rng.uniform(-0.3, 0.3))
        drawn = np.asarray(drawn_shape(thing.kind, COLOURS[thing.colour], paper, (at[0], at[1]), radius, turn))
        pixels += drawn.astype(np.int16) - np.asarray(paper, np.int16)
    return np.clip(pixels, 0, 255).astype(np.uint8), Scene(tuple(things), where)


# words


_THING = rf"an? ({'|'.join(SIZES)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
_ONE = re.compile(rf"{_THING} (in the middle|at the (?:left|right|top|bottom|(?:top|bottom) (?:left|right)))\.?")
_TWO = re.compile(rf"{_THING} (and|above) {_THING}\.?")


def read_caption(text: str) -> Scene | None:
    """What a caption of this grammar says; None for others."""
    text = text.strip().lower()
    if one := _ONE.fullmatch(text):
        size, colour, kind, where = one.groups()
        return Scene((Thing(size, colour, kind),), where)
    if two := _TWO.fullmatch(text):
        first, where, second = two.groups()[:3], two[4], two.groups()[4:]
        return Scene((Thing(*first), Thing(*second)), str(where))
    return None


# pictures


def read_picture(pixels: np.ndarray) -> Scene | None:
    """What is on a picture ``uint8`` (H, W, 3); None where it is not one or two things of the grammar."""
    side = pixels.shape[0]
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).astype(np.float64)
    paper = np.median(border, 0)
    values = pixels.astype(np.float64)
    ink = np.linalg.norm(values - paper, axis=-1) > 45
    tones = np.array(list(COLOURS.values()), np.float64)
    nearest = np.linalg.norm(values[:, :, None] - tones, axis=-1)
    found: list[tuple[Thing, float, float]] = []
    groups: np.ndarray = ndimage.label(ink, np.ones((3, 3)))[0]  # pyright: ignore[reportIndexIssue, reportAssignmentType]
    for number in range(1, int(groups.max()) + 1):
        mask = groups == number
        if mask.sum() < LEAST:
            continue
        inner = ndimage.binary_erosion(mask) if ndimage.binary_erosion(mask).sum() >= 4 else mask
        distance = np.median(nearest[inner], 0)
        if distance.min() > NEAR:
            return None
        cover = _cover(values, paper, tones[distance.argmin()]) * ndimage.binary_dilation(mask)
        kind, radius, x, y = _outline(cover)
        found.append((Thing(str(radius / side), tuple(COLOURS)[int(distance.argmin())], kind), x / side, y / side))
    if not 1 <= len(found) <= 2:
        return None
    sizes = SIZES if len(found) == 1 else TWO
    named = [(_sized(thing, sizes), x, y) for thing, x, y in found]
    if len(named) == 1:
        thing, x, y = named[0]
        free = 0.5 - sizes[thing.size] - 0.02
        column, row = (min(max(round((v - 0.5) / free) + 1, 0), 2) for v in (x, y))
        return Scene((thing,), place_named(column, row))
    beside = abs(named[0][1] - named[1][1]) > abs(named[0][2] - named[1][2])
    named.sort(key=lambda entry: entry[1] if beside else entry[2])
    return Scene(tuple(entry[0] for entry in named), "and" if beside else "above")


def _sized(thing: Thing, sizes: dict[str, float]) -> Thing:
    """The thing with its size in words in place of its radius."""
    radius = float(thing.size)
    return Thing(min(sizes, key=lambda name: abs(math.log(max(radius, 1e-3) / sizes[name]))), thing.colour, thing.kind)


def _cover(values: np.ndarray, paper: np.ndarray, tone: np.ndarray) -> np.ndarray:
    """How much of each pixel the colour covers, 0 to 1, (H, W)."""
    line = tone - paper
    return np.clip(((values - paper) @ line) / (line @ line), 0, 1)


def _outline(cover: np.ndarray) -> tuple[str, float, float, float]:
    """The kind of shape that covers so much of each pixel, its radius and its centre, in pixels."""
    box = _box(cover)
    top, bottom, left, right = box
    crop = _square(cover, box)
    best: tuple[float, str, float, float, float] = (-1.0, "", 0.0, 0.0, 0.0)
    wide, high = right - left, bottom - top
    for kind, template, (t_high, t_wide, up, aside) in _templates():
        both, either = np.minimum(crop, template).sum(), np.maximum(crop, template).sum()
        shape = abs(math.log((wide / high) / (t_wide / t_high)))
        score = float(both / max(either, 1e-9)) - 0.3 * shape
        if score > best[0]:
            radius = 0.5 * (high / t_high + wide / t_wide)
            best = (score, kind, radius, left + aside * radius, top + up * radius)
    return best[1:]


def _box(cover: np.ndarray) -> tuple[float, float, float, float]:
    """Top, bottom, left and right of what is covered, in fractions of pixels: rows that are half covered count half."""
    edges: list[float] = []
    for axis in (1, 0):
        most = cover.max(axis)
        rows = np.nonzero(most > 0.1)[0]
        first, last = int(rows[0]), int(rows[-1])
        edges += [first + 1 - min(1.0, float(most[first])), last + min(1.0, float(most[last]))]
    return edges[0], max(edges[1], edges[0] + 1), edges[2], max(edges[3], edges[2] + 1)


def _square(cover: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    top, bottom, left, right = box
    picture = Image.fromarray((cover * 255).astype(np.uint8))
    cut = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    return np.asarray(cut, np.float64) / 255


@cache
def _templates() -> Sequence[tuple[str, np.ndarray, tuple[float, float, float, float]]]:
    """Every kind at every turn: its outline, height and width in radii, and the centre's distance from top and left."""
    made, radius = [], 0.3
    for kind in SHAPES:
        for turn in (0.0,) if kind in ("moon", "heart", "circle", "ring") else TURNS:
            picture = drawn_shape(kind, (0, 0, 0), (255, 255, 255), (0.5, 0.5), radius, turn)
            cover = 1 - np.asarray(picture.convert("L"), np.float64) / 255
            top, bottom, left, right = box = _box(cover)
            r = radius * SIZE
            sizes = ((bottom - top) / r, (right - left) / r, (SIZE / 2 - top) / r, (SIZE / 2 - left) / r)
            made.append((kind, _square(cover, box), sizes))
    return made


# how well a picture does what was asked


def obeyed(asked: Scene, seen: Scene | None) -> dict[str, float]:
    """Which attributes of what was asked for are right, 0 to 1: ``colour``, ``shape``, ``size``, ``place``, ``all``.

    Things are compared in their order; a picture with more or fewer of them has nothing right.
    """
    names = ("colour", "shape", "size", "place", "all")
    if seen is None or len(seen.things) != len(asked.things):
        return dict.fromkeys(names, 0.0)
    pairs = list(zip(asked.things, seen.things, strict=True))
    each = {
        "colour": float(np.mean([a.colour == b.colour for a, b in pairs])),
        "shape": float(np.mean([a.kind == b.kind for a, b in pairs])),
        "size": float(np.mean([a.size == b.size for a, b in pairs])),
        "place": float(asked.where == seen.where),
    }
    return {**each, "all": float(min(each.values()) == 1.0)}
