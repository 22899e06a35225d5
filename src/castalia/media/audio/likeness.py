"""How alike sounds are to one another, and which class they are heard as: by their log-mel spectra alone.

Nothing is downloaded and no network is trained: the features are fixed, and the listener is a support vector machine on
them. Call the distance "log-mel Fréchet distance" and never FAD, which is one of another network's features.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from castalia.core.data import Batch, Dataset, labels_of, some_of
from castalia.core.spec import LabelSpec
from castalia.core.specs.text import TextSpec
from castalia.estimators.distances import frechet
from castalia.estimators.metric import Metric, mean_metric, subset
from castalia.media.audio.clips import lengths_of
from castalia.media.audio.draw import spectrogram
from castalia.media.base import Work

BANDS, COLUMNS = 32, 16
SILENT = 40.0
"""Decibels below a clip's loudest column, from where on its ends are left out before it is stretched."""
FEWEST_OF_CLASS = 5
BETTER = 0.1
"""How much better than naming the commonest a listener of columns has to be on real clips."""
MOST_KINDS = 60
"""Captions of more kinds than these are no classes."""
MOST = 4_000
"""Training clips that the listener learns from."""
LEAST_FLOOR = 0.5
"""A listener that knows fewer of the real clips says nothing of samples."""


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
    """``class_heard``: share of samples that are heard as the class that was asked for; ``_floor``: of held-out clips.

    The listener is a support vector machine on the contours of training clips. Nothing is said without classes, or by a
    listener that knows less than half of the real clips.
    """
    assert work.samples is not None
    assert work.held_out is not None
    assert work.train is not None
    classes, rate = work.spec.classes, work.spec.rate
    real = work.held_out.batch(subset(len(work.held_out), 1_000, work.seed, "floor"))
    if len(classes) < 2 or work.samples.label is None or real.label is None:
        return {}
    listener = _listener(work.train, rate)
    if listener is None:
        return {}
    out = {}
    for suffix, batch, words in (("_floor", real, "held-out clips"), ("", work.samples, "samples")):
        assert batch.label is not None
        right = listener.predict(np.stack([contour(clip, rate) for clip in clips_of(batch)])) == batch.label.numpy()
        if suffix and right.mean() < LEAST_FLOOR:
            return {}
        detail = f"by a support vector machine on log-mel contours of training clips; {len(right)} {words}"
        name = "class_heard" + suffix
        out[name] = mean_metric(right.astype(np.float64), "share", "measured; interval: bootstrap", work.seed, detail)
    return out


def _listener(train: Dataset, rate: int):  # noqa: ANN202 (scikit-learn's pipelines have no types)
    ids = some_of(train, MOST)
    labels = labels_of(train, ids)
    if labels is None or len(labels.unique()) < 2 or int(labels.bincount().max()) < FEWEST_OF_CLASS:
        return None
    seen = [contour(clip, rate) for part in _parts(ids) for clip in clips_of(train.batch(part))]
    return _taught(seen, labels.numpy())


def _parts(ids: np.ndarray) -> list[np.ndarray]:
    return np.array_split(ids, max(1, len(ids) // 200))


def _taught(seen: list[np.ndarray], answers: np.ndarray):  # noqa: ANN202 (as above)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_pipeline(StandardScaler(), SVC(C=10.0)).fit(np.stack(seen), answers)


def columns_heard(work: Work) -> dict[str, Metric]:
    """``heard_speaker``, ``heard_caption``: share of samples in which is heard what they were given of held-out clips.

    For each column of names, and for captions where there are few different ones: a listener learns from training clips
    (voices from their spectra, words from their contours). One that is hardly better on real clips than naming the
    commonest says nothing.
    """
    assert work.samples is not None
    assert work.held_out is not None
    assert work.train is not None
    if work.asked is None:
        return {}
    rate, out = work.spec.rate, {}
    for name, column in work.spec.columns:
        if isinstance(column, TextSpec | LabelSpec):
            look = contour if isinstance(column, TextSpec) else spectrum
            out |= _column_heard(work, name, lambda clip, look=look: look(clip, rate))
    return out


def _column_heard(work: Work, name: str, look: Callable[[np.ndarray], np.ndarray]) -> dict[str, Metric]:
    assert work.samples is not None
    assert work.held_out is not None
    assert work.train is not None
    assert work.asked is not None
    seen: list[np.ndarray] = []
    said: list[str] = []
    for part in _parts(some_of(work.train, MOST)):
        batch = work.train.batch(part)
        said += _said(batch, name)
        if len(set(said)) > MOST_KINDS:
            return {}
        seen += [look(clip) for clip in clips_of(batch)]
    kinds = Counter(said)
    if len(kinds) < 2 or max(kinds.values()) < FEWEST_OF_CLASS:
        return {}
    listener = _taught(seen, np.array(said))
    real = work.held_out.batch(work.asked)
    truth, found = np.array(_said(real, name)), {}
    always = Counter(truth.tolist()).most_common(1)[0][1] / len(truth)
    for suffix, batch, words in (("_floor", real, "held-out clips"), ("", work.samples, "samples")):
        right = listener.predict(np.stack([look(clip) for clip in clips_of(batch)])) == truth[: len(batch)]
        if suffix and right.mean() < always + BETTER:
            return {}
        detail = f"by a support vector machine on log-mel spectra; {len(right)} {words}; {always:.3f} by the commonest"
        kind = "measured; interval: bootstrap"
        found[f"heard_{name}{suffix}"] = mean_metric(right.astype(np.float64), "share", kind, work.seed, detail)
    return found


def _said(batch: Batch, name: str) -> list[str]:
    """What a column says of each example, without padding."""
    rows = batch.extra[name].cpu().numpy()
    return [" ".join(str(value) for value in row if value >= 0) for row in rows.reshape(len(rows), -1).tolist()]
