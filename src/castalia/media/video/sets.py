"""Sets of video that have a name: digits that move about and bounce, made by code.

After Srivastava, Mansimov & Salakhutdinov 2015 (arXiv:1502.04681), whose Moving MNIST has two digits of 28 pixels on
64; here one of scikit-learn's digits moves, so that a clip has a class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from castalia.core.rng import derive
from castalia.core.specs.video import VideoSpec
from castalia.media.classes import match_classes
from castalia.media.sets import NamedData
from castalia.media.video.read import Clips

MOVING, FEW = "moving-digits", "few-moving-digits"

SETS: Mapping[str, NamedData] = {
    MOVING: NamedData(
        "scikit-learn's digits, enlarged, moving and bouncing: 16 frames of 32 pixels; the digit is the class",
        "CC BY 4.0",
        (),
        {"train": 3000, "test": 500},
        {},
    ),
    FEW: NamedData("the same in 4 frames of 12 pixels, for tests", "CC BY 4.0", (), {"train": 200, "test": 60}, {}),
}

SHAPES = {MOVING: (16, 32, 2), FEW: (4, 12, 1)}
"""Frames, pixels along a side, and how many times a digit is enlarged."""


def open_set(name: str, split: str, like: VideoSpec | None = None) -> Clips:
    """A named set; the two splits have other digits."""
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    bunch: Any = load_digits()
    rows = slice(None, 1297) if split == "train" else slice(1297, None)
    pictures = np.rint(bunch.images[rows] * (255 / 16)).astype(np.uint8)
    targets = bunch.target[rows].astype(np.int64)
    frames, side, times = SHAPES[name]
    count = SETS[name].counts[split]
    x, labels = np.zeros((count, frames, 1, side, side), np.uint8), np.empty(count, np.int64)
    for i in range(count):
        rng = np.random.Generator(np.random.Philox(derive(0, "moving", split, i)))
        number = int(rng.integers(len(pictures)))
        labels[i] = targets[number]
        digit = pictures[number].repeat(times, 0).repeat(times, 1)
        for t, (row, column) in enumerate(path(rng, frames, side - len(digit), times)):
            x[i, t, 0, row : row + len(digit), column : column + len(digit)] = digit
    classes = tuple(map(str, range(10)))
    data = Clips(x, VideoSpec(1, frames, side, side, 10.0, classes), name=name, labels=labels)
    match_classes(data, like)
    return data


def path(rng: np.random.Generator, frames: int, room: int, times: int) -> list[tuple[int, int]]:
    """Corners (row, column) of something that moves at even speed within 0 to ``room``, and bounces."""
    at, speed = rng.uniform(0, room, 2), rng.uniform(0.5, 1.5, 2) * times * rng.choice([-1, 1], 2)
    out = []
    for _ in range(frames):
        out.append((round(at[0]), round(at[1])))
        at = at + speed
        for axis in (0, 1):
            if not 0 <= at[axis] <= room:
                speed[axis] = -speed[axis]
                at[axis] = -at[axis] if at[axis] < 0 else 2 * room - at[axis]
    return out
