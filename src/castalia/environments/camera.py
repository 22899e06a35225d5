"""Frames of CarRacing without pygame: the ground is looked up, the car is laid over it.

Geometry and colours are gymnasium's (``car_racing.py``, ``car_dynamics.py`` of version 1.x): a screen of 1000 by 800,
the car at (500, 200) above its lower edge with its nose up, made smaller by averaging. Here each pixel of the frame is
the mean of a few places of the ground (:attr:`Camera.samples` along each side); the car is computed once for each turn
of its wheels and kept. What differs: places are fewer than the pixels of the screen, wheels are turned in steps, and
the score in the lower left corner is not written. ``docs/media/episode.md`` says how much that is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from castalia.environments.track import BLOCK, CELLS, PAD, SIDE, Ground, unpacked

WIDTH, HEIGHT, BAR = 1000, 800, 100
"""Of gymnasium's screen, and of the bar at its lower edge that shows speed and steering."""
SCALE, ZOOM, FPS = 6.0, 2.7, 50
UNIT = 0.02
HULL = (
    ((-60, 130), (60, 130), (60, 110), (-60, 110)),
    ((-15, 120), (15, 120), (20, 20), (-20, 20)),
    ((25, 20), (50, -10), (50, -40), (20, -90), (-20, -90), (-50, -40), (-50, -10), (-25, 20)),
    ((-50, -120), (50, -120), (50, -90), (-50, -90)),
)
WHEELS = ((-55, 80), (55, 80), (-55, -82), (55, -82))
WHEEL_R, WHEEL_W = 27, 14
RED, BLACK, WHITE = (204, 0, 0), (0, 0, 0), (77, 77, 77)
STEER_STEP, PHASES = 0.025, 24
"""Wheels are turned in steps of so many radians, and rolled in so many of a round."""
FINE = 6
"""Places along the side of a pixel at which the car is looked at."""
DARKER = 2
"""Levels that pygame's averaging loses by cutting off fractions twice: its road is 100, not 102."""


@dataclass(frozen=True)
class Pose:
    """Where a car is.

    Attributes:
        x: of the hull, in the units of the field.
        y: of the hull.
        angle: of the hull, radians.
        steps: since the episode began; the camera comes down in the first fifty.
        steer: angles of the two front wheels against the hull.
        phases: how far the four wheels have rolled, radians.
        gauges: what the bar shows: speed, four wheels' turning, the steering joint's angle, the hull's turning.
    """

    x: float
    y: float
    angle: float
    steps: int
    steer: tuple[float, float]
    phases: tuple[float, float, float, float]
    gauges: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Sprite:
    """Something laid over a frame: how much of each pixel it covers (h, w, 1), and its colour times that (h, w, 3)."""

    rows: slice
    columns: slice
    cover: np.ndarray
    colour: np.ndarray


class Camera:
    """Takes frames.

    Args:
        size: pixels along each side.
        bar: with the bar at the lower edge, as gymnasium's frames of 96 by 96 are; without it what lies above is seen,
            as Ha & Schmidhuber show it to their network.
        samples: places of the ground for each pixel, along each side.
    """

    def __init__(self, size: int = 64, bar: bool = False, samples: int = 2) -> None:
        self.size, self.bar, self.samples = size, bar, samples
        self.high = HEIGHT if bar else HEIGHT - BAR
        s = samples
        places = np.arange(s)[:, None] + 0.5
        fine = (np.arange(size)[None, :] + places / s) / size
        across, down = fine * WIDTH - 500, 600 - fine * self.high  # (s, size): from the car, y up
        self._u = np.broadcast_to(across[None, :, None, :], (s, s, 1, size)).reshape(s * s, 1, size)
        self._v = np.broadcast_to(down[:, None, :, None], (s, s, size, 1)).reshape(s * s, size, 1)
        self._spacing = max(WIDTH, self.high) / size / s
        self._hulls: dict[int, _Sprite] = {}
        self._wheels: dict[tuple[int, int, int, int], _Sprite] = {}

    def frame(self, ground: Ground, pose: Pose) -> np.ndarray:
        """One frame ``uint8`` (3, size, size)."""
        zoom = _zoom(pose.steps)
        one = CELLS / BLOCK * 65536.0
        c, s = math.cos(pose.angle) / zoom * one, math.sin(pose.angle) / zoom * one
        left = (20 + PAD) * CELLS * 65536.0
        x = _sum(c * self._u + (pose.x * one + left), -s * self._v)
        y = _sum(s * self._u + (pose.y * one + left), c * self._v)
        most = (SIDE << 23) - 1
        for places in (x, y):
            corners = places[..., :: self.size - 1, :: self.size - 1]
            if corners.min() < 0 or corners.max() > most:
                np.clip(places, 0, most, out=places)
        seen = ground.look(x, y, self._spacing / zoom * CELLS / BLOCK)
        out = unpacked(seen.sum(0)) * np.float32(1 / self.samples**2)
        self._lay(out, self._hull(min(pose.steps, FPS)))
        for wheel in range(4):
            self._lay(out, self._wheel(min(pose.steps, FPS), wheel, pose))
        if self.bar:
            self._gauges(out, pose.gauges)
        out = np.maximum(out - np.float32(DARKER - 0.5), 0)
        return np.ascontiguousarray(out.astype(np.uint8).transpose(2, 0, 1))

    def _lay(self, out: np.ndarray, sprite: _Sprite) -> None:
        part = out[sprite.rows, sprite.columns]
        part -= part * sprite.cover
        part += sprite.colour

    def _box(self, zoom: float, low: tuple[float, float], high: tuple[float, float]) -> tuple[slice, slice, np.ndarray]:
        """Pixels around a box given from the car in units, and where their fine places are: (h, F, w, F, 2)."""
        wide, tall = WIDTH / self.size, self.high / self.size
        columns = [int(np.floor((500 + low[0] * zoom) / wide)) - 1, int(np.ceil((500 + high[0] * zoom) / wide)) + 1]
        rows = [int(np.floor((600 - high[1] * zoom) / tall)) - 1, int(np.ceil((600 - low[1] * zoom) / tall)) + 1]
        columns, rows = (np.clip(ends, 0, self.size).tolist() for ends in (columns, rows))
        fine = (np.arange(FINE) + 0.5) / FINE
        u = ((np.arange(*columns)[:, None] + fine) * wide - 500) / zoom
        v = (600 - (np.arange(*rows)[:, None] + fine) * tall) / zoom
        at = np.stack(np.broadcast_arrays(u[None, None], v[:, :, None, None]), -1)
        return slice(*rows), slice(*columns), at

    def _hull(self, key: int) -> _Sprite:
        if key not in self._hulls:
            zoom = _zoom(key)
            rows, columns, at = self._box(zoom, (-1.3, -2.5), (1.3, 2.7))
            self._hulls[key] = _sprite(rows, columns, [(_in_hull(at, zoom), RED)])
        return self._hulls[key]

    def _wheel(self, key: int, wheel: int, pose: Pose) -> _Sprite:
        """What is seen of a wheel beside the hull, which lies above it."""
        much = 1 if key == FPS else 4  # while the camera comes down, wheels are small and all sizes are needed once
        turned = much * round(pose.steer[wheel] / STEER_STEP / much) if wheel < 2 else 0
        rolled = much * int(pose.phases[wheel] / (2 * math.pi) * PHASES / much) % PHASES
        name = key, wheel, turned, rolled
        if name not in self._wheels:
            zoom, (cx, cy) = _zoom(key), (UNIT * v for v in WHEELS[wheel])
            rows, columns, at = self._box(zoom, (cx - 0.7, cy - 0.7), (cx + 0.7, cy + 0.7))
            c, s = math.cos(turned * STEER_STEP), math.sin(turned * STEER_STEP)
            away = at - np.array([cx, cy])
            own = np.stack([c * away[..., 0] + s * away[..., 1], c * away[..., 1] - s * away[..., 0]], -1)
            room = 0.5 / zoom
            free = ~_in_hull(at, zoom)
            black = free & _in_box(own, WHEEL_W * UNIT, -WHEEL_R * UNIT, WHEEL_R * UNIT, room)
            parts = [(black, BLACK)]
            strip = _strip((rolled + 0.5) / PHASES * 2 * math.pi)
            if strip is not None:
                low, high = (WHEEL_R * UNIT * v for v in strip)
                white = free & _in_box(own, WHEEL_W * UNIT, low, high, room)
                parts = [(black & ~white, BLACK), (white, WHITE)]
            self._wheels[name] = _sprite(rows, columns, parts)
        return self._wheels[name]

    def _gauges(self, out: np.ndarray, gauges: Sequence[float]) -> None:
        """The bar at the lower edge: black, with what the gauges show."""
        self._fill(out, 0, WIDTH, HEIGHT - BAR, HEIGHT, BLACK)
        if not gauges:
            return
        s, h = WIDTH / 40, HEIGHT / 40
        speed, *turning, joint, spin = gauges
        blue, violet = (0, 0, 255), (51, 0, 255)
        upright = [(5, 0.02 * speed, (255, 255, 255)), (7, 0.01 * turning[0], blue), (8, 0.01 * turning[1], blue)]
        upright += [(9, 0.01 * turning[2], violet), (10, 0.01 * turning[3], violet)]
        for (place, value, colour), raw in zip(upright, (speed, *turning), strict=True):
            if abs(raw) > 1e-4:
                self._fill(out, place * s, (place + 1) * s, HEIGHT - h - h * value, HEIGHT - h, colour)
        for place, value, colour, raw in ((20, -10 * joint, (0, 255, 0), joint), (30, -0.8 * spin, (255, 0, 0), spin)):
            if abs(raw) > 1e-4:
                self._fill(out, place * s, (place + value) * s, HEIGHT - 4 * h, HEIGHT - 2 * h, colour)

    def _fill(self, out: np.ndarray, x0: float, x1: float, y0: float, y1: float, colour: Sequence[int]) -> None:
        """A rectangle of the screen, ends in any order, with the share of each pixel that it covers."""
        ends = [(min(x0, x1), max(x0, x1) + 1, WIDTH), (min(y0, y1), max(y0, y1) + 1, self.high)]
        edges = [np.arange(self.size + 1) * whole / self.size for _, _, whole in ends]
        across, down = (
            np.clip((np.minimum(e[1:], math.floor(high)) - np.maximum(e[:-1], math.floor(low))) / (e[1] - e[0]), 0, 1)
            for e, (low, high, _) in zip(edges, ends, strict=True)
        )
        cover = (down[:, None] * across[None, :])[..., None].astype(np.float32)
        out -= out * cover
        out += cover * np.array(colour, np.float32)


def _zoom(steps: int) -> float:
    t = min(steps / FPS, 1.0)
    return 0.1 * SCALE * (1 - t) + ZOOM * SCALE * t


def _sum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a.astype(np.int32) + b.astype(np.int32)


def _in_hull(at: np.ndarray, zoom: float) -> np.ndarray:
    found = np.zeros(at.shape[:-1], bool)
    for corners in HULL:
        found |= _in_polygon(at, UNIT * np.array(corners, np.float64), 0.5 / zoom)
    return found


def _in_polygon(at: np.ndarray, corners: np.ndarray, room: float) -> np.ndarray:
    """Whether places (..., 2) lie in a convex polygon (K, 2) made wider by ``room``."""
    x, y = corners.T
    turn = np.sign((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
    inside = np.ones(at.shape[:-1], bool)
    for a, b in zip(corners, np.roll(corners, -1, 0), strict=True):
        n = turn * np.array([a[1] - b[1], b[0] - a[0]])
        inside &= (at - a) @ n >= -room * np.hypot(*n)
    return inside


def _in_box(at: np.ndarray, half: float, low: float, high: float, room: float) -> np.ndarray:
    low, high = min(low, high), max(low, high)
    return (np.abs(at[..., 0]) <= half + room) & (at[..., 1] >= low - room) & (at[..., 1] <= high + room)


def _strip(phase: float) -> tuple[float, float] | None:
    """From where to where, in radii, the white strip of a wheel is seen; None where it is below."""
    s1, s2, c1, c2 = math.sin(phase), math.sin(phase + 1.2), math.cos(phase), math.cos(phase + 1.2)
    if s1 > 0 and s2 > 0:
        return None
    return float(np.sign(c1)) if s1 > 0 else c1, float(np.sign(c2)) if s2 > 0 else c2


def _sprite(rows: slice, columns: slice, parts: list[tuple[np.ndarray, tuple[int, int, int]]]) -> _Sprite:
    """What covers pixels, from masks (h, F, w, F) that do not overlap, each of one colour."""
    covers = [mask.mean((1, 3))[..., None].astype(np.float32) for mask, _ in parts]
    cover = np.zeros_like(covers[0])
    colour = np.zeros((*cover.shape[:2], 3), np.float32)
    for one, (_, of) in zip(covers, parts, strict=True):
        cover += one
        colour += one * np.array(of, np.float32)
    return _Sprite(rows, columns, cover, colour)
