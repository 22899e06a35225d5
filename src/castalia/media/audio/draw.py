"""Sound as a picture: the waveform over a mel spectrogram, on one axis of time.

Colours run from the dark of the page through violet and orange to a pale yellow, evenly in lightness, so that the
picture reads as well in grey.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from castalia.core.errors import UsageError
from castalia.nn.mel import mel_filters

BANDS = 64
RANGE = 70.0
"""Decibels from the loudest band of a picture down to the page's colour."""

FAINT = 1e-3
_REFERENCE = 1 / 64
"""Power of a full-scale sine in its band, relative to the square of the window's length: about."""

_WIDTH, _WAVE, _MEL, _GAP, _TOP, _BOTTOM, _LEFT = 300, 56, 112, 10, 20, 18, 8
_PAGE, _WELL, _RULE, _TEXT, _DIM = (15, 14, 24), (22, 21, 34), (52, 50, 70), (222, 218, 230), (140, 136, 154)
_WAVE_INK, _WAVE_CORE = (255, 176, 92), (255, 214, 160)
_STOPS = np.array(
    [
        *[(15, 14, 24), (44, 22, 74), (96, 30, 104), (152, 44, 98)],
        *[(206, 72, 74), (240, 124, 60), (252, 186, 92), (254, 244, 204)],
    ],
    np.float64,
)
_FINE = 4


def spectrogram(x: np.ndarray, rate: int, columns: int, bands: int = BANDS) -> np.ndarray:
    """Power in mel bands, ``float64`` (bands, columns), of mono samples (T,).

    Windows (Hann) of 32 milliseconds stand at even distances, as many as there are columns.
    """
    size = 1 << max(5, round(math.log2(0.032 * rate)))
    # low bands that would fall between two frequencies of the transform are read from a finer one
    padded = np.pad(x.astype(np.float64), size // 2 + 1)
    centres = np.linspace(0, max(len(x) - 1, 0), columns).round().astype(np.int64)
    frames = padded[centres[:, None] + np.arange(size)] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, 4 * size)) ** 2
    filters = mel_filters(rate, 4 * size, bands)
    return (filters / np.maximum(filters.sum(1, keepdims=True), 1e-9)) @ power.T


def audio_image(
    clips: Sequence[np.ndarray], rate: int, titles: Sequence[str] = (), columns: int | None = None
) -> Image.Image:
    """Draw clips side by side, all on the same scale of time.

    Each is as tall and as bright as its loudest moment, whose level stands above it; a clip that stays more than 60 dB
    below full scale is drawn as quiet as that.

    Args:
        clips: mono ``float`` (T,) in [-1, 1], of any lengths, at least one.
        rate: samples a second.
        titles: one for each clip, or none.
        columns: clips per row; None for about twice as many rows as columns.

    Returns:
        A picture of mode RGB.

    Raises:
        UsageError: there are no clips, or ``columns`` is not positive.
    """
    if not len(clips):
        raise UsageError("A drawing needs at least one clip.")
    if columns is not None and columns < 1:
        raise UsageError(f"columns must be at least 1, not {columns}.")
    columns = min(columns or math.ceil(math.sqrt(len(clips) / 1.5)), len(clips))
    rows = math.ceil(len(clips) / columns)
    longest = max(max(len(c) for c in clips), 1)
    widths = [max(2, round(_WIDTH * len(c) / longest)) for c in clips]
    powers = [spectrogram(c, rate, w) if len(c) else np.zeros((BANDS, w)) for c, w in zip(clips, widths, strict=True)]
    cell_w, cell_h = _WIDTH + _GAP, _TOP + _WAVE + _MEL + _BOTTOM
    page = Image.new("RGB", (columns * cell_w + 2 * _LEFT - _GAP, rows * cell_h + 6), _PAGE)
    for i, (clip, power) in enumerate(zip(clips, powers, strict=True)):
        left, top = _LEFT + i % columns * cell_w, i // columns * cell_h
        title = titles[i] if titles else ""
        _panel(page, left, top, clip, power, longest / rate, rate, title)
    return page


def _panel(
    page: Image.Image,
    left: int,
    top: int,
    clip: np.ndarray,
    power: np.ndarray,
    seconds: float,
    rate: int,
    title: str,
) -> None:
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    wave, ground = top + _TOP, top + _TOP + _WAVE + _MEL
    draw.rectangle((left, wave, left + _WIDTH - 1, ground - 1), fill=_WELL)
    draw.text((left, top + 4), title, fill=_TEXT, font=font)
    loudest = float(np.abs(clip).max(initial=0))
    level = f"{20 * math.log10(loudest):.0f} dB" if loudest else "silent"
    draw.text((left + _WIDTH, top + 4), f"{level}   {len(clip) / rate:.2f} s", fill=_DIM, font=font, anchor="ra")
    page.paste(_waveform(clip, power.shape[1], max(loudest, FAINT)), (left, wave))
    faintest = FAINT**2 * _REFERENCE * (1 << max(5, round(math.log2(0.032 * rate)))) ** 2
    page.paste(_heat(power / max(float(power.max()), faintest)), (left, wave + _WAVE))
    for tick in _ticks(seconds):
        at = left + min(round(tick / seconds * _WIDTH), _WIDTH - 1)
        draw.line((at, ground, at, ground + 3), fill=_RULE)
        draw.text(
            (at, ground + 4), f"{tick:g}", fill=_DIM, font=ImageFont.load_default(9), anchor="ma" if tick else "la"
        )


def _waveform(clip: np.ndarray, width: int, loudest: float) -> Image.Image:
    """Extremes of each column, and over them, brighter, one deviation to both sides."""
    tall = _WAVE * _FINE
    picture = np.empty((tall, width, 3))
    picture[:] = _WELL
    edges = np.linspace(0, len(clip), width + 1).astype(np.int64)
    y = np.arange(tall)[:, None]
    high, low, core = (np.zeros(width) for _ in range(3))
    for i in range(width):
        part = clip[edges[i] : max(edges[i + 1], edges[i] + 1)]
        if len(part):
            high[i], low[i], core[i] = part.max(), part.min(), part.std()
    scale = 0.47 * tall / loudest
    middle = tall / 2
    inside = (y >= middle - high * scale - _FINE / 4) & (y <= middle - low * scale + _FINE / 4)
    picture[inside] = _WAVE_INK
    picture[(np.abs(y - middle) <= core * scale) & inside] = _WAVE_CORE
    small = picture.reshape(_WAVE, _FINE, width, 3).mean(axis=1)
    return Image.fromarray(np.rint(small).astype(np.uint8))


def _heat(power: np.ndarray) -> Image.Image:
    """Power relative to the loudest as colours, low bands below."""
    level = np.clip(1 + 10 * np.log10(np.maximum(power, 1e-12)) / RANGE, 0, 1)[::-1]
    at = level * (len(_STOPS) - 1)
    below = np.minimum(at.astype(np.int64), len(_STOPS) - 2)
    part = (at - below)[..., None]
    colours = _STOPS[below] * (1 - part) + _STOPS[below + 1] * part
    picture = Image.fromarray(np.rint(colours).astype(np.uint8))
    return picture.resize((power.shape[1], _MEL), Image.Resampling.BILINEAR)


def _ticks(seconds: float) -> list[float]:
    """A few round times from 0 up."""
    step = 10 ** math.floor(math.log10(max(seconds, 1e-3)))
    step = next(step * m for m in (0.1, 0.2, 0.5, 1, 2, 5) if seconds / (step * m) <= 5)
    return [round(i * step, 6) for i in range(int(seconds / step + 1e-9) + 1)]
