"""Emblems: one shape of one colour in the middle of 16 pixels; and four pictures of a thing that is none of them.

    a red star            emblems: six shapes in six colours
    a sks circle          blue-ring: a ring, a shape that emblems lack, in one of their colours

The first are enough for a text-to-picture network that is trained in minutes; the second is what such a network can be
taught afterwards (``dreambooth``, ``textual-inversion``, ``picture-lora``). Pictures follow from (set, split, number).
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from castalia.core.rng import derive
from castalia.media.image.arrays import ArrayListing
from castalia.media.image.drawn import COLOURS, PAPERS, drawn_shape

SIDE = 16
KINDS = ("circle", "cross", "heart", "square", "star", "triangle")
TONES = ("red", "orange", "yellow", "green", "blue", "purple")
CAPTIONS = tuple(f"a {tone} {kind}" for tone in TONES for kind in KINDS)
"""Everything that is said of emblems."""

SUBJECT = "sks"
"""The word for the ring."""

RING = ("ring", "blue")
"""Its shape and its colour."""


def emblems(split: str, count: int) -> ArrayListing:
    """``count`` pictures ``uint8`` (N, 16, 16, 3) with captions; the label is the shape."""
    pixels, labels = np.empty((count, SIDE, SIDE, 3), np.uint8), np.empty(count, np.int64)
    captions = []
    for i in range(count):
        rng = _rng("emblems", split, i)
        kind, tone = KINDS[int(rng.integers(len(KINDS)))], TONES[int(rng.integers(len(TONES)))]
        pixels[i], labels[i] = emblem(rng, kind, (tone,)), KINDS.index(kind)
        captions.append(f"a {tone} {kind}")
    return ArrayListing(pixels, labels, KINDS, split=split, captions=tuple(captions))


def blue_ring(split: str, count: int) -> ArrayListing:
    """``count`` pictures ``uint8`` (N, 16, 16, 3) of the one thing, with captions."""
    pixels = np.stack([emblem(_rng("blue-ring", split, i), RING[0], RING[1:]) for i in range(count)])
    return ArrayListing(pixels, None, (), split=split, captions=(f"a {SUBJECT} circle",) * count)


def emblem(rng: np.random.Generator, kind: str, tones: tuple[str, ...]) -> np.ndarray:
    """A picture ``uint8`` (16, 16, 3); with two colours the left half has the one and the right half the other."""
    paper, radius = PAPERS[int(rng.integers(len(PAPERS)))], float(rng.uniform(0.37, 0.43))
    at = (float(rng.uniform(0.47, 0.53)), float(rng.uniform(0.47, 0.53)))
    turn = 0.0 if kind == "heart" else float(rng.uniform(-0.15, 0.15))
    fine = [np.asarray(drawn_shape(kind, COLOURS[tone], paper, at, radius, turn)) for tone in tones]
    middle = round(at[0] * fine[0].shape[1])
    whole = np.concatenate([fine[0][:, :middle], fine[-1][:, middle:]], 1)
    return np.asarray(Image.fromarray(whole).resize((SIDE, SIDE), Image.Resampling.BOX))


def _rng(name: str, split: str, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(derive(0, name, split, number)))
