"""Built-in points whose distribution is known.

The ring and the grid are those of PacGAN (Lin et al. 2018, arXiv:1712.04086); the roll is the toy of Gulrajani et al.
2017 (arXiv:1704.00028). A point is a function of (name, split, its number), so nothing has to be stored or downloaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product

import numpy as np

from castalia.core.rng import derive
from castalia.media.points.array import PointsArray

COUNTS: Mapping[str, int] = {"train": 100_000, "test": 10_000}
"""Points by split, the same for every set."""

RING = np.array([[math.cos(2 * math.pi * k / 8), math.sin(2 * math.pi * k / 8)] for k in range(8)])
"""Centres of ``ring-8``, counter-clockwise from (1, 0)."""

GRID = np.array(list(product((-4.0, -2.0, 0.0, 2.0, 4.0), repeat=2)))
"""Centres of ``grid-25``; the second coordinate changes fastest."""

RING_STD = 0.01
GRID_STD = 0.05
ROLL_NOISE = 0.25
ROLL_SCALE = 7.5
MOONS_NOISE = 0.05


def toy(name: str, split: str) -> PointsArray:
    """Return a built-in set.

    Args:
        name: a key of ``TOYS``.
        split: ``train`` or ``test``.
    """
    generator = np.random.Generator(np.random.Philox(derive(0, "points", name, split)))
    return TOYS[name](name, COUNTS[split], generator)


def _mixture(modes: np.ndarray, std: float) -> Callable[[str, int, np.random.Generator], PointsArray]:
    """Equally likely round Gaussians of standard deviation ``std`` around ``modes`` (M, D); the label is the mode."""

    def make(name: str, n: int, generator: np.random.Generator) -> PointsArray:
        labels = generator.integers(0, len(modes), n)
        points = modes[labels] + std * generator.standard_normal((n, modes.shape[1]))
        classes = [str(i) for i in range(len(modes))]
        return PointsArray(
            points.astype(np.float32), name=name, labels=labels, classes=classes, modes=modes, mode_std=std
        )

    return make


def _swiss_roll(name: str, n: int, generator: np.random.Generator) -> PointsArray:
    """A spiral of radius 1.5 pi to 4.5 pi with noise 0.25, all divided by 7.5."""
    angle = 1.5 * math.pi * (1 + 2 * generator.random(n))
    points = np.stack([angle * np.cos(angle), angle * np.sin(angle)], axis=1)
    points += ROLL_NOISE * generator.standard_normal((n, 2))
    return PointsArray((points / ROLL_SCALE).astype(np.float32), name=name)


def _two_moons(name: str, n: int, generator: np.random.Generator) -> PointsArray:
    """Two half circles of radius 1 that reach into each other, with noise 0.05; the label is the moon."""
    labels = generator.integers(0, 2, n)
    angle = math.pi * generator.random(n)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = np.where(labels[:, None] == 0, upper, np.array([1.0, 0.5]) - upper)
    points += MOONS_NOISE * generator.standard_normal((n, 2))
    return PointsArray(points.astype(np.float32), name=name, labels=labels, classes=("upper", "lower"))


def _checkerboard(name: str, n: int, generator: np.random.Generator) -> PointsArray:
    """The dark squares of a board of 4 by 4, uniformly; a square has side 1, the board is centred."""
    column = generator.integers(0, 4, n)
    row = 2 * generator.integers(0, 2, n) + column % 2
    points = np.stack([column, row], axis=1) + generator.random((n, 2)) - 2
    return PointsArray(points.astype(np.float32), name=name)


TOYS: Mapping[str, Callable[[str, int, np.random.Generator], PointsArray]] = {
    "ring-8": _mixture(RING, RING_STD),
    "grid-25": _mixture(GRID, GRID_STD),
    "swiss-roll": _swiss_roll,
    "two-moons": _two_moons,
    "checkerboard": _checkerboard,
}
