"""Music as a picture: piano rolls, a colour for each voice or instrument, a line at each bar."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from castalia.core.errors import UsageError
from castalia.media.music.score import Score

_WIDTH, _TALL, _GAP, _TOP, _LEFT = 340, 120, 12, 20, 8
_PAGE, _WELL, _BAR, _BEAT, _TEXT, _DIM = (
    (15, 14, 24),
    (22, 21, 34),
    (70, 68, 92),
    (36, 35, 52),
    (222, 218, 230),
    (140, 136, 154),
)
_BLACK = (18, 17, 28)
_VOICES = ((255, 176, 92), (118, 196, 255), (168, 224, 130), (240, 124, 160), (190, 160, 255), (250, 226, 110))
_SHARPS = (1, 3, 6, 8, 10)


def music_image(
    scores: Sequence[Score], bar: int | None = None, titles: Sequence[str] = (), columns: int | None = None
) -> Image.Image:
    """Draw piano rolls side by side.

    Args:
        scores: at least one.
        bar: ticks to a bar of all of them; None for their meters.
        titles: one for each, or none.
        columns: rolls per row; None for about twice as many rows as columns.

    Returns:
        A picture of mode RGB.
    """
    if not len(scores):
        raise UsageError("A drawing needs at least one piece.")
    if columns is not None and columns < 1:
        raise UsageError(f"columns must be at least 1, not {columns}.")
    columns = min(columns or math.ceil(math.sqrt(len(scores) / 2)), len(scores))
    rows = math.ceil(len(scores) / columns)
    page = Image.new("RGB", (columns * (_WIDTH + _GAP) + 2 * _LEFT - _GAP, rows * (_TOP + _TALL + _GAP) + 4), _PAGE)
    for i, score in enumerate(scores):
        left, top = _LEFT + i % columns * (_WIDTH + _GAP), i // columns * (_TOP + _TALL + _GAP)
        _roll(page, left, top, score, bar or score.bar() or 4 * score.resolution, titles[i] if titles else "")
    return page


def _roll(page: Image.Image, left: int, top: int, score: Score, bar: int, title: str) -> None:
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    well = top + _TOP
    draw.rectangle((left, well, left + _WIDTH - 1, well + _TALL - 1), fill=_WELL)
    sung = score.pitch[~score.drum]
    low, high = (int(sung.min()), int(sung.max())) if len(sung) else (60, 72)
    spare = max(24 - (high - low), 4) / 2
    low, high = math.floor(low - spare), math.ceil(high + spare)
    drums = 14 if score.drum.any() else 0
    tall = (_TALL - drums) / (high - low + 1)
    whole = max(math.ceil(score.end / bar), 1) * bar

    def x(tick: float) -> float:
        return left + tick / whole * (_WIDTH - 1)

    for pitch in range(low, high + 1):
        if pitch % 12 in _SHARPS:
            y = well + (high - pitch) * tall
            draw.rectangle((left, round(y), left + _WIDTH - 1, round(y + tall) - 1), fill=_BLACK)
    if whole / score.resolution <= 64:
        for beat in range(0, whole, score.resolution):
            draw.line((x(beat), well, x(beat), well + _TALL - 1), fill=_BEAT)
    for line in range(0, whole + 1, bar * max(1, math.ceil(whole / bar / 64))):
        draw.line((x(line), well, x(line), well + _TALL - 1), fill=_BAR)
    tracks = sorted(set(zip(score.track.tolist(), score.program.tolist(), strict=True)))
    for onset, length, pitch, velocity, program, drum, track in score.rows().tolist():
        ink = np.array(_VOICES[tracks.index((track, program)) % len(_VOICES)]) * (0.55 + 0.45 * velocity / 127)
        colour = tuple(int(c) for c in ink)
        a, b = x(onset), max(x(onset + length) - 1, x(onset) + 1)
        if drum:
            y = well + _TALL - 3 - (pitch % 9)
            draw.rectangle((round(a), y, round(a) + 1, y + 1), fill=colour)
        else:
            y = well + (high - pitch) * tall
            draw.rectangle((round(a), round(y), round(b), max(round(y + tall) - 1, round(y) + 1)), fill=colour)
    draw.text((left, top + 4), title, fill=_TEXT, font=font)
    said = f"{len(score)} notes   {score.seconds:.0f} s" if len(score) else "silent"
    draw.text((left + _WIDTH, top + 4), said, fill=_DIM, font=font, anchor="ra")
