"""What an ear would say first: how high, how loud, how much silence. Simple measures, for looking at samples."""

from __future__ import annotations

import math

import numpy as np

FRAME = 0.04
"""Seconds of sound that a pitch is found in: two periods of the lowest voice."""

LOWEST, HIGHEST = 60.0, 500.0
VOICED = 0.5
QUIET = -50.0
"""Decibels below full scale under which a frame counts as silent."""


def loudness(x: np.ndarray) -> float:
    """Root mean square in decibels relative to full scale of samples (..., T); -inf for silence."""
    power = float(np.square(x, dtype=np.float64).mean()) if x.size else 0.0
    return 10 * math.log10(power) if power > 0 else -math.inf


def silence(x: np.ndarray, rate: int, below: float = QUIET) -> float:
    """Share of hundredths of a second whose root mean square lies ``below`` decibels, of mono samples (T,)."""
    frames = _frames(x, max(1, round(0.01 * rate)))
    return float((np.square(frames, dtype=np.float64).mean(1) < 10 ** (below / 10)).mean()) if len(frames) else 1.0


def pitch(x: np.ndarray, rate: int) -> float:
    """Median fundamental frequency of the voiced parts in Hz, of mono samples (T,); nan where nothing is voiced.

    The highest peak of the normalised autocorrelation of each frame, between 60 and 500 Hz; a frame is voiced where
    that peak is at least one half. The first peak nearly as high as the highest is taken: twice a period fits as well.
    """
    size = round(FRAME * rate)
    shortest, longest = math.ceil(rate / HIGHEST), min(math.floor(rate / LOWEST), size - 2)
    found = []
    for frame in _frames(x, size, size // 2):
        if loudness(frame) < QUIET:
            continue
        centred = frame.astype(np.float64) - frame.mean()
        spectrum = np.fft.rfft(centred, 2 * size)
        correlation = np.fft.irfft(np.abs(spectrum) ** 2)[:size]
        power = np.concatenate([[0.0], np.cumsum(centred**2)])
        lags = np.arange(size)
        norm = np.sqrt((power[size - lags] - power[0]) * (power[size] - power[lags]))
        correlation = correlation / np.maximum(norm, 1e-12)
        part = correlation[shortest : longest + 1]
        inner = correlation[shortest - 1 : longest + 2]
        peaks = np.flatnonzero((inner[1:-1] >= inner[:-2]) & (inner[1:-1] >= inner[2:]))
        if not len(peaks) or part[peaks].max() < VOICED:
            continue
        best = peaks[part[peaks] >= 0.9 * part[peaks].max()][0]
        found.append(rate / (shortest + best))
    return float(np.median(found)) if found else math.nan


def _frames(x: np.ndarray, size: int, hop: int | None = None) -> np.ndarray:
    """Whole frames (N, size) of samples (T,); a last piece that is shorter is left out."""
    if len(x) < size:
        return x[:0].reshape(0, size)
    return np.lib.stride_tricks.sliding_window_view(x, size)[:: hop or size]
