"""Points as a picture: scatter plots with equal axes, or a histogram on the line.

Dots are translucent, so that density shows where they overlap, and are drawn at three times the size and averaged,
so that their edges are smooth.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from castalia.core.errors import UsageError

_SIDE = 440  # pixels of the plot itself
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 30, 34
_FINE = 3
_INK = np.array([24, 78, 160])
_FRAME = (120, 120, 120)
_RULE = (232, 232, 232)
_TEXT = (60, 60, 60)
_FONT_SIZE = 13
_BINS = 55  # _SIDE / _BINS is whole
_PAIRS = ((0, 1), (0, 2), (1, 2))


def points_image(x: Tensor) -> Image.Image:
    """Draw points.

    One coordinate gives a histogram; two a scatter plot; more give three plots, of each pair of the first three.
    Both axes of a plot have the same unit length. Points with a coordinate that is not finite cannot be drawn; the
    picture says how many there are.

    Args:
        x: float (N, D), N >= 1, D >= 1.

    Returns:
        A picture of mode RGB.

    Raises:
        UsageError: there are no points.
    """
    values = x.detach().cpu().double().numpy()
    if values.ndim != 2 or not values.shape[1]:
        raise ValueError(f"points must have shape (N, D) with D >= 1, not {values.shape}")
    n, dims = values.shape
    if n == 0:
        raise UsageError("A drawing needs at least one point.")
    finite = values[np.isfinite(values).all(axis=1)]
    title = f"{n:,} point{'s' if n > 1 else ''}"
    if len(finite) < n:
        title += f", {n - len(finite):,} of them not finite"
    if dims > 3:
        title += f"; 3 of {dims} coordinates"
    if dims == 1:
        panels = [_histogram(finite[:, 0], title)]
    else:
        pairs = _PAIRS if dims > 2 else _PAIRS[:1]
        panels = [_scatter(finite[:, pair], pair, title if pair == pairs[0] else "") for pair in pairs]
    whole = Image.new("RGB", (sum(p.width for p in panels), panels[0].height), "white")
    left = 0
    for panel in panels:
        whole.paste(panel, (left, 0))
        left += panel.width
    return whole


def _scatter(points: np.ndarray, pair: tuple[int, int], title: str) -> Image.Image:
    """One plot of ``float64`` (N, 2)."""
    low, high = (points.min(axis=0), points.max(axis=0)) if len(points) else (-np.ones(2), np.ones(2))
    middle = low + (high - low) / 2
    half = _half(float((high - low).max()), float(np.abs(middle).max()))
    panel = _panel((middle[0] - half, middle[0] + half), (middle[1] - half, middle[1] + half))
    _name(panel, f"x{pair[0]}", f"x{pair[1]}", title)
    place = (points - (middle - half)) / (2 * half) * _SIDE
    place[:, 1] = _SIDE - place[:, 1]
    cover = _dots(place)[:, :, None]
    box = (_LEFT, _TOP, _LEFT + _SIDE, _TOP + _SIDE)
    paper = np.asarray(panel.crop(box), np.float64)
    panel.paste(Image.fromarray(np.rint(paper * (1 - cover) + _INK * cover).astype(np.uint8)), box)
    return panel


def _dots(place: np.ndarray) -> np.ndarray:
    """How much ink lies on each pixel, ``float64`` (_SIDE, _SIDE) in 0 to 1, from places (N, 2) in pixels."""
    n = max(len(place), 1)
    alpha = min(max(20 / math.sqrt(n), 0.08), 0.9)
    radius = min(max(2.6 * (1000 / n) ** 0.25, 1.2), 4) * _FINE
    side = _SIDE * _FINE
    reach = np.arange(-math.ceil(radius), math.ceil(radius) + 1)
    dy, dx = (part.ravel() for part in np.meshgrid(reach, reach, indexing="ij"))
    disc = dx * dx + dy * dy <= radius * radius
    centre = np.floor(place * _FINE).astype(np.int64)
    column, row = centre[:, :1] + dx[disc], centre[:, 1:] + dy[disc]
    inside = (column >= 0) & (column < side) & (row >= 0) & (row < side)
    count = np.bincount((row * side + column)[inside], minlength=side * side)
    cover = 1 - (1 - alpha) ** count
    return cover.reshape(_SIDE, _FINE, _SIDE, _FINE).mean(axis=(1, 3))


def _histogram(values: np.ndarray, title: str) -> Image.Image:
    """Counts of ``float64`` (N,) in bins of equal width."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (-1.0, 1.0)
    middle = low + (high - low) / 2
    half = _half(high - low, abs(middle))
    edges = np.linspace(middle - half, middle + half, _BINS + 1)
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    top = max(1.0, 1.08 * counts.max())
    panel = _panel((middle - half, middle + half), (0, top))
    _name(panel, "x0", "points per bar", title)
    draw = ImageDraw.Draw(panel)
    width, ground = _SIDE // _BINS, _TOP + _SIDE
    for i, count in enumerate(counts.tolist()):
        if count:
            left = _LEFT + i * width
            tall = max(1, round(count / top * _SIDE))
            draw.rectangle((left, ground - tall, left + width - 2, ground - 1), fill=tuple(_INK.tolist()))
    return panel


def _half(span: float, magnitude: float) -> float:
    """Half the length of an axis that holds ``span`` with a margin; never too short to tell its ends apart."""
    return max(0.54 * span, 1e-6 * magnitude) or 1.0


def _panel(x: tuple[float, float], y: tuple[float, float]) -> Image.Image:
    """An empty plot with ticks and rules."""
    panel = Image.new("RGB", (_LEFT + _SIDE + _RIGHT, _TOP + _SIDE + _BOTTOM), "white")
    draw, font = ImageDraw.Draw(panel), ImageFont.load_default(_FONT_SIZE)
    right, ground = _LEFT + _SIDE, _TOP + _SIDE
    for value, text in ticks(*x):
        at = _LEFT + (value - x[0]) / (x[1] - x[0]) * _SIDE
        draw.line((at, _TOP, at, ground), fill=_RULE)
        draw.line((at, ground, at, ground + 4), fill=_FRAME)
        draw.text((at, ground + 7), text, fill=_TEXT, font=font, anchor="mt")
    for value, text in ticks(*y):
        at = ground - (value - y[0]) / (y[1] - y[0]) * _SIDE
        draw.line((_LEFT, at, right, at), fill=_RULE)
        draw.line((_LEFT - 4, at, _LEFT, at), fill=_FRAME)
        draw.text((_LEFT - 7, at), text, fill=_TEXT, font=font, anchor="rm")
    draw.rectangle((_LEFT - 1, _TOP - 1, right, ground), outline=_FRAME)
    return panel


def _name(panel: Image.Image, x: str, y: str, title: str) -> None:
    """Write the names of the axes and the title around a plot."""
    draw, font = ImageDraw.Draw(panel), ImageFont.load_default(_FONT_SIZE)
    draw.text((_LEFT + _SIDE, _TOP + _SIDE + _BOTTOM - 2), x, fill=_TEXT, font=font, anchor="rb")
    draw.text((_LEFT, _TOP - 8), y, fill=_TEXT, font=font, anchor="ls")
    draw.text((_LEFT + _SIDE, _TOP - 8), title, fill=_TEXT, font=font, anchor="rs")


def ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Round numbers between ``low`` and ``high``, at least two and at most eight, with their texts."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    first, last = math.ceil(low / step), math.floor(high / step)
    largest = max(abs(low), abs(high))
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if largest >= 1e5 or decimals > 4:
        digits = max(1, math.floor(math.log10(largest / step) + 1e-9) + 2)
        return [(i * step, f"{i * step:.{digits}g}") for i in range(first, last + 1)]
    return [(i * step, f"{i * step:.{decimals}f}") for i in range(first, last + 1)]
