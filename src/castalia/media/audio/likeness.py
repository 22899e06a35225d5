"""How alike sounds are to one another, and which class they are heard as: by their log-mel spectra alone.

Nothing is downloaded and no network is trained: the features are fixed, and the listener is a support vector machine on
them. Call the distance "log-mel Fréchet distance" and never FAD, which is one of another network's features.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from castalia.core.data import Batch
from castalia.core.spec import LabelSpec
from castalia.core.specs.text import TextSpec
from castalia.estimators.distances import frechet
from castalia.estimators.metric import Metric, subset
from castalia.media.audio.clips import lengths_of
from castalia.media.audio.draw import spectrogram
from castalia.media.base import Work
from castalia.media.recognition import Look, class_recognised, recognised

BANDS, COLUMNS = 32, 16
SILENT = 40.0
"""Decibels below a clip's loudest column, from where on its ends are left out before it is stretched."""
C = 10.0
"""Weight of a listener's errors."""


def levels(clip: np.ndarray, rate: int, columns: int, bands: int = BANDS) -> np.ndarray:
    """Log-power (bands, columns) of mono samples (T,), decibels below full scale, -80 at least."""
    power = spectrogram(clip, rate, columns, bands) / (0.016 * rate) ** 2
    return 10 * np.log10(np.maximum(power, 1e-8))


def spectrum(clip: np.ndarray, rate: int) -> np.ndarray:
    """Mean and deviation over time of each band, ``float64`` (2 bands,)."""
    found = levels(clip, rate, max(2, round(100 * len(clip) / rate)))
    return np.concatenate([found.mean(1), found.std(1)])


def contour(clip: np.ndarray, rate: int) -> np.ndarray:
    """A clip without its silent ends, stretched to one length: levels over time, and how long it was."""
    fine = levels(clip, rate, max(COLUMNS, round(100 * len(clip) / rate)))
    loud = fine.max(0)
    there = np.flatnonzero(loud > loud.max() - SILENT)
    kept = fine[:, there[0] : there[-1] + 1]
    at = np.linspace(0, kept.shape[1] - 1, COLUMNS)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, kept.shape[1] - 1)
    even = kept[:, low] * (1 - at + low) + kept[:, high] * (at - low)
    return np.concatenate([(even - even.max()).ravel(), [kept.shape[1] / 10]])


def clips_of(batch: Batch) -> list[np.ndarray]:
    """Each clip (T,) without its padding, channels mixed; none shorter than a few samples."""
    x = batch.x.float().cpu().numpy()
    return [row[:, : max(n, 32)].mean(0) for row, n in zip(x, lengths_of(batch).tolist(), strict=True)]


def logmel_frechet(work: Work) -> dict[str, Metric]:
    """``logmel_frechet``: from samples to held-out clips; ``_floor``: from as many training clips to them."""
    assert work.samples is not None
    assert work.held_out is not None
    assert work.train is not None
    rate = work.spec.rate
    real = _features(work.held_out.batch(subset(len(work.held_out), 2_000, work.seed, "reference")), rate)
    count = len(work.samples)
    out = {}
    for suffix, batch, words in (
        ("", work.samples, "samples"),
        ("_floor", work.train.batch(subset(len(work.train), count, work.seed, "floor")), "training clips"),
    ):
        found = frechet(_features(batch, rate), real)
        detail = (
            f"mean and deviation of {BANDS} mel bands in decibels; {len(batch)} {words} to {len(real)} held-out clips"
        )
        out["logmel_frechet" + suffix] = Metric(
            found.value, "dB^2", "estimate (biased upwards)", len(batch), work.seed, found.interval(low=0.0), detail
        )
    return out


def _features(batch: Batch, rate: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([spectrum(clip, rate) for clip in clips_of(batch)]))


def class_heard(work: Work) -> dict[str, Metric]:
    """``class_heard``: share of samples that are heard as the class that was asked for, by their contours."""
    return class_recognised("class_heard", work, _by(contour, work.spec.rate), by="log-mel contours", c=C)


def columns_heard(work: Work) -> dict[str, Metric]:
    """``heard_speaker``, ``heard_caption``: share of samples in which is heard what they were given of held-out clips.

    For each column of names, and for captions where there are few different ones: voices are heard by their spectra,
    words by their contours.
    """
    assert work.samples is not None
    assert work.held_out is not None
    if work.asked is None:
        return {}
    real, out = work.held_out.batch(work.asked), {}
    for column, spec in work.spec.columns:
        if isinstance(spec, TextSpec | LabelSpec):
            words = isinstance(spec, TextSpec)
            look, answer = _by(contour if words else spectrum, work.spec.rate), partial(_said, column=column)
            asked, by = answer(real)[: len(work.samples)], "log-mel " + ("contours" if words else "spectra")
            out |= recognised(f"heard_{column}", work, look, answer, real, asked, by=by, c=C)
    return out


def _by(look: Callable[[np.ndarray, int], np.ndarray], rate: int) -> Look:
    return lambda batch: [look(clip, rate) for clip in clips_of(batch)]


def _said(batch: Batch, column: str) -> list[str]:
    """What a column says of each example, without padding."""
    rows = batch.extra[column].cpu().numpy()
    return [" ".join(str(value) for value in row if value >= 0) for row in rows.reshape(len(rows), -1).tolist()]
