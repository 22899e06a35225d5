"""Rows as pictures: what values each column has, and pairs of numbers."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from castalia.core.errors import UsageError
from castalia.core.specs.table import Part, TableSpec
from castalia.media.table.kinds import text_of

_PAGE, _WELL, _BAR, _DOT, _TEXT, _DIM = (
    (15, 14, 24),
    (22, 21, 34),
    (118, 196, 255),
    (255, 176, 92),
    (222, 218, 230),
    (140, 136, 154),
)
_WIDE, _TALL, _GAP, _HEAD = 260, 110, 14, 20
_SHOWN, _BARS, _BINS, _PAIRS = 24, 8, 26, 6


def table_image(x: np.ndarray, missing: np.ndarray, spec: TableSpec, columns: int | None = None) -> Image.Image:
    """Draw the marginals of up to 24 columns, and scatter plots of the first pairs of numbers.

    Args:
        x: ``float64`` (N, C), N at least 1.
        missing: (N, C).
        spec: their shape.
        columns: panels per row; None for about a square.
    """
    if not len(x):
        raise UsageError("A drawing needs at least one row.")
    if columns is not None and columns < 1:
        raise UsageError(f"columns must be at least 1, not {columns}.")
    numbers = [j for j, part in enumerate(spec.parts) if not part.listed]
    pairs = [(a, b) for i, a in enumerate(numbers) for b in numbers[i + 1 :]][:_PAIRS]
    panels = min(len(spec.parts), _SHOWN) + len(pairs)
    columns = min(columns or math.ceil(math.sqrt(panels)), panels)
    rows = math.ceil(panels / columns)
    size = (columns * (_WIDE + _GAP) + _GAP, rows * (_HEAD + _TALL + _GAP) + _GAP)
    page = Image.new("RGB", size, _PAGE)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)

    def place(i: int) -> tuple[int, int]:
        return _GAP + i % columns * (_WIDE + _GAP), _GAP + i // columns * (_HEAD + _TALL + _GAP)

    for j, part in enumerate(spec.parts[:_SHOWN]):
        left, top = place(j)
        there = x[missing[:, j] == 0, j]
        draw.text((left, top), part.name[:30], fill=_TEXT, font=font)
        gone = 1 - len(there) / len(x)
        if gone:
            draw.text((left + _WIDE, top), f"{gone:.0%} missing", fill=_DIM, font=font, anchor="ra")
        box = (left, top + _HEAD, left + _WIDE, top + _HEAD + _TALL)
        draw.rectangle(box, fill=_WELL)
        (_bars if part.listed else _histogram)(draw, box, there, part)
    for k, (a, b) in enumerate(pairs, min(len(spec.parts), _SHOWN)):
        left, top = place(k)
        draw.text((left, top), f"{spec.parts[a].name[:14]} / {spec.parts[b].name[:14]}", fill=_TEXT, font=font)
        box = (left, top + _HEAD, left + _WIDE, top + _HEAD + _TALL)
        draw.rectangle(box, fill=_WELL)
        both = (missing[:, a] == 0) & (missing[:, b] == 0)
        _dots(draw, box, x[both][:, [a, b]], spec.parts[a], spec.parts[b])
    return page


Box = tuple[int, int, int, int]


def _histogram(draw: ImageDraw.ImageDraw, box: Box, values: np.ndarray, part: Part) -> None:
    font = ImageFont.load_default(10)
    low, high = part.low, max(part.high, part.low + 1e-9)
    counts, _ = np.histogram(values, _BINS, (low, high))
    most, wide = max(int(counts.max(initial=0)), 1), (box[2] - box[0]) / _BINS
    for i, count in enumerate(counts.tolist()):
        if count:
            tall = (_TALL - 18) * count / most
            draw.rectangle(
                (box[0] + i * wide + 1, box[3] - 14 - tall, box[0] + (i + 1) * wide - 1, box[3] - 14), fill=_BAR
            )
    draw.text((box[0] + 3, box[3] - 12), _brief(low, part), fill=_DIM, font=font)
    draw.text((box[2] - 3, box[3] - 12), _brief(high, part), fill=_DIM, font=font, anchor="ra")


def _bars(draw: ImageDraw.ImageDraw, box: Box, values: np.ndarray, part: Part) -> None:
    font = ImageFont.load_default(10)
    counts = np.bincount(values.astype(int), minlength=len(part.values))
    order = np.argsort(-counts, kind="stable")[:_BARS]
    tall = (box[3] - box[1]) / max(len(order), 4)
    most = max(int(counts.max(initial=0)), 1)
    for row, i in enumerate(order.tolist()):
        top = box[1] + row * tall
        draw.rectangle(
            (box[0], top + 1, box[0] + (box[2] - box[0]) * int(counts[i]) / most, top + tall - 2), fill=(52, 82, 118)
        )
        draw.text((box[0] + 4, top + tall / 2), part.values[i][:30], fill=_TEXT, font=font, anchor="lm")


def _dots(draw: ImageDraw.ImageDraw, box: Box, points: np.ndarray, a: Part, b: Part) -> None:
    for x, y in points[:1500].tolist():
        at = box[0] + 4 + (box[2] - box[0] - 8) * (x - a.low) / max(a.high - a.low, 1e-9)
        up = box[3] - 4 - (box[3] - box[1] - 8) * (y - b.low) / max(b.high - b.low, 1e-9)
        draw.point((at, up), fill=_DOT)


def _brief(value: float, part: Part) -> str:
    return text_of(value, part)[:12] if part.kind == "date" else f"{value:.6g}"
