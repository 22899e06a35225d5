"""Proteins as a picture: the trace of the backbone beside the map of its distances; sequences as rows of letters."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from castalia.core.errors import UsageError
from castalia.core.specs.protein import LETTERS
from castalia.media.protein.chains import Chain

_SIDE, _GAP, _TOP, _FINE = 200, 14, 18, 3
_PAGE, _WELL, _TEXT = (250, 250, 252), (255, 255, 255), (70, 72, 84)
_SURE = ((0, 83, 214), (101, 203, 243), (255, 219, 19), (255, 125, 69))
_FAR = 20.0


def proteins_image(chains: Sequence[Chain], columns: int | None = None) -> Image.Image:
    """Draw chains: each as seen along its shortest axis, nearer parts in front, and the distances of its CA atoms.

    Real ones are coloured from blue at the first residue to red at the last; predicted ones by confidence: above 90,
    70, 50 and below. On maps, what is nearer than 8 Å is dark.

    Args:
        chains: at least one.
        columns: per row; None for about a square.

    Returns:
        A picture of mode RGB.

    Raises:
        UsageError: there are none.
    """
    if not chains:
        raise UsageError("A drawing needs at least one protein.")
    columns = columns or max(1, round(math.sqrt(len(chains) / 2)))
    rows = -(-len(chains) // columns)
    wide, tall = 2 * _SIDE + 2 * _GAP, _SIDE + _TOP + _GAP
    page = Image.new("RGB", (columns * wide + _GAP, rows * tall + _GAP), _PAGE)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for i, chain in enumerate(chains):
        left, top = _GAP + (i % columns) * wide, _GAP + (i // columns) * tall
        predicted = bool((chain.confidence < 100).any())
        known = chain.there[:, 1] > 0
        title = f"{len(chain.residues)} residues"
        if predicted:
            title += f", confidence {chain.confidence[known].mean():.0f}"
        pen.text((left, top), title, _TEXT, font)
        page.paste(_trace(chain, predicted), (left, top + _TOP))
        page.paste(_map(chain.x[:, 1], known), (left + _SIDE + _GAP // 2, top + _TOP))
    return page


def _colours(chain: Chain, predicted: bool) -> list[tuple[int, int, int]]:
    if predicted:
        return [_SURE[int(np.searchsorted((-90, -70, -50), -sure))] for sure in chain.confidence]
    n = max(len(chain.x) - 1, 1)
    hues = [colorsys.hsv_to_rgb(0.66 * (1 - i / n), 0.75, 0.9) for i in range(len(chain.x))]
    return [(int(255 * r), int(255 * g), int(255 * b)) for r, g, b in hues]


def _trace(chain: Chain, predicted: bool) -> Image.Image:
    size = _SIDE * _FINE
    panel = Image.new("RGB", (size, size), _WELL)
    pen = ImageDraw.Draw(panel)
    known = np.flatnonzero(chain.there[:, 1])
    points = chain.x[known, 1].astype(np.float64)
    if not len(points) or not np.isfinite(points).all():
        return panel.resize((_SIDE, _SIDE))
    points = points - points.mean(0)
    _, _, axes = np.linalg.svd(points, full_matrices=False) if len(points) > 2 else (0, 0, np.eye(3))
    if np.linalg.det(axes) < 0:
        axes[2] *= -1  # a mirror image would be another protein
    seen = points @ axes.T
    scale = 0.44 * size / max(np.abs(seen[:, :2]).max(), 6.0)
    flat = seen[:, :2] * scale * [1, -1] + size / 2
    colours = _colours(chain, predicted)
    smooth, depth, hue = [], [], []
    for a, b in zip(range(len(known) - 1), range(1, len(known)), strict=True):
        if known[b] - known[a] > 1:
            continue  # nobody knows what is between
        smooth.append((tuple(flat[a]), tuple(flat[b])))
        depth.append(seen[a, 2] + seen[b, 2])
        hue.append(colours[int(known[a])])
    width = max(int(1.6 * scale), 4)
    for k in np.argsort(depth):
        (a, b), colour = smooth[k], hue[k]
        pen.line([a, b], (60, 62, 74), width + 3 * _FINE)
        pen.line([a, b], colour, width)
        for x, y in (a, b):
            r = width / 2
            pen.ellipse([x - r, y - r, x + r, y + r], colour)
    return panel.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)


def _map(ca: np.ndarray, known: np.ndarray) -> Image.Image:
    far = np.linalg.norm(ca[:, None].astype(np.float64) - ca[None], axis=-1)
    shade = np.clip(far / _FAR, 0, 1)
    rgb = np.stack([40 + 215 * shade, 60 + 190 * shade, 110 + 140 * shade], -1)
    rgb[far < 8] = (24, 28, 60)
    rgb[~(known[:, None] & known[None])] = (235, 235, 240)
    rgb = np.nan_to_num(rgb)
    return Image.fromarray(rgb.astype(np.uint8)).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)


def sequences_image(rows: Sequence[np.ndarray]) -> Image.Image:
    """Draw sequences as rows of letters, each letter in a colour of its own.

    Raises:
        UsageError: there are none.
    """
    if not rows:
        raise UsageError("A drawing needs at least one sequence.")
    cell, tall = 9, 16
    width = min(max(len(row) for row in rows), 160)
    page = Image.new("RGB", (2 * _GAP + cell * width, 2 * _GAP + tall * len(rows)), _PAGE)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for y, row in enumerate(rows):
        for x, value in enumerate(row[:width]):
            r, g, b = colorsys.hsv_to_rgb(int(value) / 21, 0.6, 0.6)
            where = (_GAP + cell * x, _GAP + tall * y)
            pen.text(where, LETTERS[int(value)], (int(255 * r), int(255 * g), int(255 * b)), font)
    return page
