"""Pictures drawn by a grammar, at 32 pixels, with nothing to download: coloured shapes with captions, and letters.

Picture number i of a split follows from (set, split, i) alone. Everything is drawn four times as large and shrunk, so
that edges are smooth.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from castalia.core.rng import derive
from castalia.media.image.arrays import ArrayListing

SIZE = 32
FINE = 4
"""Drawn so many times as large."""

COLOURS = {
    "red": (222, 60, 62),
    "orange": (240, 146, 42),
    "yellow": (245, 205, 66),
    "green": (64, 166, 92),
    "blue": (58, 112, 208),
    "purple": (142, 84, 186),
    "pink": (238, 130, 172),
    "brown": (134, 92, 62),
}
SIZES = {"small": 0.22, "large": 0.36}
"""Radius as a share of the picture's side."""

SHAPES = ("circle", "cross", "heart", "moon", "ring", "square", "star", "triangle")
PAPERS = ((250, 246, 236), (236, 243, 250), (242, 248, 238), (248, 240, 246))
"""Backgrounds: pale, so that every colour stands out."""

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
LEAST_SIZE, MOST_SIZE = 20, 30
"""Of letters, in pixels of the finished picture."""


def shapes(split: str, count: int) -> ArrayListing:
    """``count`` pictures of one shape each, ``uint8`` (N, 32, 32, 3); the label is the shape, the caption says all."""
    pixels = np.empty((count, SIZE, SIZE, 3), np.uint8)
    labels, captions = np.empty(count, np.int64), []
    for i in range(count):
        rng = _rng("shapes", split, i)
        kind, colour, size = (str(rng.choice(tuple(names))) for names in (SHAPES, COLOURS, SIZES))
        column, row = int(rng.integers(3)), int(rng.integers(3))
        radius = SIZES[size] * float(rng.uniform(0.9, 1.1))
        free = 0.5 - radius - 0.02  # how far from the middle it may lie
        across, down = ((place - 1) * free + float(rng.uniform(-0.02, 0.02)) for place in (column, row))
        paper = PAPERS[int(rng.integers(len(PAPERS)))]
        turn = 0.0 if kind in ("moon", "heart") else float(rng.uniform(-0.3, 0.3))
        picture = drawn_shape(kind, COLOURS[colour], paper, (0.5 + across, 0.5 + down), radius, turn)
        pixels[i], labels[i] = np.asarray(picture), SHAPES.index(kind)
        captions.append(f"a {size} {colour} {kind} {place_named(column, row)}")
    return ArrayListing(pixels, labels, SHAPES, split=split, captions=tuple(captions))


def letters(split: str, count: int) -> ArrayListing:
    """``count`` pictures of one capital letter each, dark on light, ``uint8`` (N, 32, 32, 1), in Pillow's own font."""
    pixels, labels = np.empty((count, SIZE, SIZE, 1), np.uint8), np.arange(count) % len(LETTERS)
    for i in range(count):
        pixels[i, :, :, 0] = np.asarray(_letter(LETTERS[labels[i]], _rng("letters", split, i)))
    return ArrayListing(pixels, labels.astype(np.int64), LETTERS, split=split)


def _rng(name: str, split: str, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(derive(0, name, split, number)))


def place_named(column: int, row: int) -> str:
    """Where on the picture, in words."""
    if column == row == 1:
        return "in the middle"
    high, wide = ("top", "middle", "bottom")[row], ("left", "middle", "right")[column]
    return f"at the {wide if row == 1 else high if column == 1 else f'{high} {wide}'}"


def drawn_shape(
    kind: str,
    colour: tuple[int, int, int],
    paper: tuple[int, int, int],
    centre: tuple[float, float],
    radius: float,
    turn: float,
) -> Image.Image:
    """A picture of one shape; centre and radius are shares of its side, the turn is in radians."""
    side = SIZE * FINE
    picture = Image.new("RGB", (side, side), paper)
    draw = ImageDraw.Draw(picture)
    x, y, r = centre[0] * side, centre[1] * side, radius * side

    def points(*polar: tuple[float, float]) -> list[tuple[float, float]]:
        """(angle from the top, share of the radius) on the picture."""
        return [(x + s * r * math.sin(a + turn), y - s * r * math.cos(a + turn)) for a, s in polar]

    box = (x - r, y - r, x + r, y + r)
    if kind == "circle":
        draw.ellipse(box, fill=colour)
    elif kind == "ring":
        draw.ellipse(box, fill=colour)
        draw.ellipse((x - r / 2, y - r / 2, x + r / 2, y + r / 2), fill=paper)
    elif kind == "moon":
        draw.ellipse(box, fill=colour)
        draw.ellipse((x - 0.45 * r, y - 0.95 * r, x + 1.35 * r, y + 0.85 * r), fill=paper)
    elif kind == "square":
        draw.polygon(points(*((math.pi * (0.25 + k / 2), 1.1) for k in range(4))), fill=colour)
    elif kind == "triangle":
        draw.polygon(points(*((math.pi * 2 * k / 3, 1.1) for k in range(3))), fill=colour)
    elif kind == "star":
        draw.polygon(points(*((math.pi * k / 5, 1.1 if k % 2 == 0 else 0.45) for k in range(10))), fill=colour)
    elif kind == "cross":
        narrow = math.atan2(1, 3)  # arms a third as wide as they are long
        corners = [(math.pi * k / 2 + sign * narrow, 1.0) for k in range(4) for sign in (-1, 1)]
        inner = [(math.pi * (k / 2 + 0.25), 0.447) for k in range(4)]
        draw.polygon(points(*(p for k in range(4) for p in (*corners[2 * k : 2 * k + 2], inner[k]))), fill=colour)
    else:
        curve = [(16 * math.sin(t) ** 3, _heart(t)) for t in np.linspace(0, 2 * math.pi, 60)]
        draw.polygon([(x + a * r / 16, y - (b + 2) * r / 16) for a, b in curve], fill=colour)
    return picture.resize((SIZE, SIZE), Image.Resampling.BOX)


def _heart(t: float) -> float:
    """Height of the usual curve of a heart, -17 to 12."""
    return 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # which a size asks for
    return font


def _letter(letter: str, rng: np.random.Generator) -> Image.Image:
    """A letter, turned, slanted, stretched, thinner or bolder, as hands and fonts would have it."""
    side = SIZE * FINE
    font = _font(FINE * int(rng.integers(LEAST_SIZE, MOST_SIZE)))
    stroke = int(rng.integers(0, 2 * FINE))
    ink, paper = int(rng.integers(10, 60)), int(rng.integers(235, 256))
    picture = Image.new("L", (side, side), paper)
    ImageDraw.Draw(picture).text(
        (side / 2, side / 2), letter, fill=ink, font=font, anchor="mm", stroke_width=stroke, stroke_fill=ink
    )
    turn, slant = float(rng.uniform(-0.15, 0.15)), float(rng.uniform(-0.1, 0.3))
    wide, high = float(rng.uniform(0.8, 1.1)), float(rng.uniform(0.9, 1.1))
    forward = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    forward = forward @ np.array([[wide, -slant * wide], [0.0, high]])
    back = np.linalg.inv(forward)
    moved = side / 2 - back @ (side / 2 + rng.uniform(-FINE, FINE, 2))
    matrix = (back[0, 0], back[0, 1], moved[0], back[1, 0], back[1, 1], moved[1])
    turned = picture.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=paper)
    return turned.resize((SIZE, SIZE), Image.Resampling.BOX)
