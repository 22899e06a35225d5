"""Which class music is recognised as, a composer for example: by what a page of notes looks like, without a network.

The listener is a support vector machine on counts of a score: notes of the octave from the first of the key, steps from
note to note, lengths, waits, how many sound at once, register, loudness.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from castalia.core.data import Batch, Dataset, labels_of, some_of
from castalia.core.specs.music import MusicSpec
from castalia.estimators.metric import Metric, mean_metric, subset
from castalia.media.base import Work
from castalia.media.music.measures import MAJOR
from castalia.media.music.score import Score
from castalia.media.music.scores import scores_of

MOST = 4_000
"""Training examples that the listener learns from."""
FEWEST_OF_CLASS = 5
BETTER = 0.1
"""A listener whose share of held-out pieces is no more than this above that of the commonest class says nothing."""
_TIMES = np.array([1 / 12, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 1, 3 / 2, 2, 3, 4])
"""Edges of lengths and waits, in quarter notes."""

FEATURES = 12 + 25 + 2 * (len(_TIMES) + 1) + 8 + 16 + 4 + 11


def features(score: Score) -> np.ndarray:
    """Shares of what a score is made of, ``float64`` (:data:`FEATURES`,); all zero for an empty one."""
    notes = score.some(~score.drum)
    if not len(notes):
        return np.zeros(FEATURES)
    classes = np.bincount(notes.pitch % 12, minlength=12).astype(float)
    key = max(range(12), key=lambda k: classes[np.roll(MAJOR, k)].sum())
    steps = np.clip(np.diff(notes.pitch), -12, 12) + 12
    onsets, together = np.unique(notes.onset, return_counts=True)
    where = np.clip(notes.pitch // 8, 0, 15)
    parts = [
        np.roll(classes, -key),
        np.bincount(steps, minlength=25),
        np.bincount(np.digitize(notes.length / notes.resolution, _TIMES), minlength=len(_TIMES) + 1),
        np.bincount(np.digitize(np.diff(onsets) / notes.resolution, _TIMES), minlength=len(_TIMES) + 1),
        np.bincount(np.clip(together, 1, 8) - 1, minlength=8),
        np.bincount(where, minlength=16),
    ]
    shares = [np.asarray(part, float) / max(part.sum(), 1) for part in parts]
    quarters = max(notes.end / notes.resolution, 1)
    spread = [notes.pitch.mean() / 128, notes.pitch.std() / 32, len(notes) / quarters / 8, len(onsets) / quarters / 4]
    loud = np.bincount(np.clip(notes.velocity // 12, 0, 10), minlength=11) / len(notes)
    return np.concatenate([*shares, spread, loud])


def class_recognised(work: Work) -> dict[str, Metric]:
    """``class_recognised``: share of samples recognised as the class that was asked for; ``_floor``: of held-out music.

    Nothing is said without classes, or by a listener that is hardly better than naming the commonest class.
    """
    assert work.samples is not None
    assert work.held_out is not None
    assert work.train is not None
    spec: MusicSpec = work.spec
    real = work.held_out.batch(subset(len(work.held_out), 1_000, work.seed, "floor"))
    if len(spec.classes) < 2 or work.samples.label is None or real.label is None:
        return {}
    listener = _listener(work.train, spec)
    if listener is None:
        return {}
    out = {}
    commonest = float(real.label.bincount().max()) / len(real.label)
    for suffix, batch, words in (("_floor", real, "held-out pieces"), ("", work.samples, "samples")):
        assert batch.label is not None
        right = listener.predict(_seen(batch, spec)) == batch.label.numpy()
        if suffix and right.mean() < BETTER + commonest:
            return {}
        always = float(batch.label.bincount().max()) / len(batch.label)
        detail = f"by a support vector machine on counts of notes; {len(right)} {words}; {always:.3f} by the commonest"
        name = "class_recognised" + suffix
        out[name] = mean_metric(right.astype(np.float64), "share", "measured; interval: bootstrap", work.seed, detail)
    return out


def _seen(batch: Batch, spec: MusicSpec) -> np.ndarray:
    return np.stack([features(score) for score in scores_of(batch, spec)])


def _listener(train: Dataset, spec: MusicSpec):  # noqa: ANN202 (scikit-learn's pipelines have no types)
    ids = some_of(train, MOST)
    labels = labels_of(train, ids)
    if labels is None or len(labels.unique()) < 2 or int(labels.bincount().max()) < FEWEST_OF_CLASS:
        return None
    seen = [_seen(train.batch(part), spec) for part in np.array_split(ids, max(1, len(ids) // 200))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_pipeline(StandardScaler(), SVC()).fit(np.concatenate(seen), labels.numpy())
