"""Motion as pictures: stick figures, the frames of a motion side by side or as a film."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from castalia.core.errors import UsageError
from castalia.core.specs.motion import MotionSpec
from castalia.nn.skeletons import Skeleton, bones, mirrored

_PAGE, _GROUND, _LEFT, _RIGHT, _MIDDLE, _PATH, _TEXT = (
    (15, 14, 24),
    (46, 44, 62),
    (118, 196, 255),
    (255, 176, 92),
    (222, 218, 230),
    (90, 86, 120),
    (170, 166, 182),
)
_WIDE, _TALL, _SHOWN = 560, 170, 9
_TURN, _TILT = math.radians(35), math.radians(12)


def places_of(x: Tensor, spec: MotionSpec) -> np.ndarray:
    """Where joints and ends are, ``float64`` (N, T, joints + ends, 3)."""
    return Skeleton(spec).double()(x.double().cpu()).numpy()


def _seen(places: np.ndarray) -> np.ndarray:
    """Places (..., 3) seen from the side and a little from above: (..., 2), y up."""
    x, y, z = places[..., 0], places[..., 1], places[..., 2]
    across = math.cos(_TURN) * z - math.sin(_TURN) * x
    deep = math.sin(_TURN) * z + math.cos(_TURN) * x
    return np.stack([across, y * math.cos(_TILT) - deep * math.sin(_TILT)], -1)


def _sides(spec: MotionSpec) -> dict[int, tuple[int, int, int]]:
    colours: dict[int, tuple[int, int, int]] = {}
    for left, right in mirrored([joint.name for joint in spec.joints]):
        colours[left], colours[right] = _LEFT, _RIGHT
    for i, end in enumerate(spec.ends):
        colours[len(spec.joints) + i] = colours.get(end[0], _MIDDLE)
    return colours


def motions_image(x: Tensor, spec: MotionSpec, titles: Sequence[str] = (), columns: int | None = None) -> Image.Image:
    """Draw motions, each a row of figures at even times along the way of the root.

    Args:
        x: (N, T, numbers), N at least 1.
        spec: their shape.
        titles: one for each, or none.
        columns: motions beside each other; None for two where there are several.
    """
    if not len(x):
        raise UsageError("A drawing needs at least one motion.")
    if columns is not None and columns < 1:
        raise UsageError(f"columns must be at least 1, not {columns}.")
    columns = min(columns or 2, len(x))
    page = Image.new("RGB", (columns * _WIDE, -(-len(x) // columns) * _TALL), _PAGE)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    places = places_of(x, spec)
    for i, one in enumerate(places):
        left, top = i % columns * _WIDE, i // columns * _TALL
        frames = np.unique(np.linspace(0, len(one) - 1, _SHOWN).round().astype(int))
        size = max(float(np.ptp(one[0], axis=0).max()), 1e-6)
        _figures(draw, (left, top), one[frames], size, spec)
        draw.text((left + 6, top + 4), titles[i] if titles else "", fill=_TEXT, font=font)
        draw.text((left + _WIDE - 6, top + 4), f"{spec.seconds:.1f} s", fill=_TEXT, font=font, anchor="ra")
    return page


def _figures(draw: ImageDraw.ImageDraw, at: tuple[int, int], places: np.ndarray, size: float, spec: MotionSpec) -> None:
    """Figures beside each other, evenly spaced: each stands where it is above the ground, not where it has gone."""
    scale, step = (_TALL - 46) / (1.25 * size), _WIDE / (len(places) + 0.4)
    ground = at[1] + _TALL - 14
    draw.line((at[0] + 8, ground, at[0] + _WIDE - 8, ground), fill=_GROUND)
    low = float(np.quantile(places[..., 1].min(1), 0.1))
    colours = _sides(spec)
    for i, frame in enumerate(places):
        moved = frame - np.array([frame[0, 0], low, frame[0, 2]])
        flat = _seen(moved)
        middle = at[0] + (i + 0.7) * step
        for a, b in bones(spec):
            ends = [(middle + scale * flat[j, 0], ground - scale * flat[j, 1]) for j in (a, b)]
            draw.line((*ends[0], *ends[1]), fill=colours.get(b, _MIDDLE), width=2)


def film(x: Tensor, spec: MotionSpec, side: int = 240) -> bytes:
    """One motion ``float32`` (T, numbers) as an animated GIF: a camera that follows, a ground with marks."""
    places = places_of(x[None], spec)[0]
    size = max(float(np.ptp(places[0], axis=0).max()), 1e-6)
    low, scale = float(np.quantile(places[..., 1].min(1), 0.1)), 0.62 * side / size
    colours, every = _sides(spec), max(1, round(spec.fps / 25))
    frames = []
    for frame in places[::every]:
        page = Image.new("RGB", (side, side), _PAGE)
        draw = ImageDraw.Draw(page)
        centre = np.array([frame[0, 0], low, frame[0, 2]])
        for mark in _marks(centre, size):
            a, b = (_seen(p - centre) * scale for p in mark)
            draw.line((side / 2 + a[0], 0.86 * side - a[1], side / 2 + b[0], 0.86 * side - b[1]), fill=_GROUND)
        flat = _seen(frame - centre) * scale
        for a, b in bones(spec):
            ends = [(side / 2 + flat[j, 0], 0.86 * side - flat[j, 1]) for j in (a, b)]
            draw.line((*ends[0], *ends[1]), fill=colours.get(b, _MIDDLE), width=3)
        frames.append(page.quantize(32))
    out = io.BytesIO()
    pace = round(1000 * every / spec.fps)
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=pace, loop=0)
    return out.getvalue()


def _marks(centre: np.ndarray, size: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Lines on the ground, which stay where they are while the camera moves."""
    step, reach = 0.5 * size, 1.5 * size
    lines = []
    for k in (0, 2):
        start = math.floor((centre[k] - reach) / step) * step
        for value in np.arange(start, centre[k] + reach, step):
            a, b = centre.copy(), centre.copy()
            a[k] = b[k] = value
            a[2 - k] -= reach
            b[2 - k] += reach
            lines.append((a, b))
    return lines
