"""Which class music is recognised as, a composer for example: by what a page of notes looks like, without a network.

The listener is a support vector machine on counts of a score: notes of the octave from the first of the key, steps from
note to note, lengths, waits, how many sound at once, register, loudness.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from castalia.core.data import Batch
from castalia.core.specs.music import MusicSpec
from castalia.estimators.metric import Metric
from castalia.media.base import Work
from castalia.media.music.measures import MAJOR
from castalia.media.music.score import Score
from castalia.media.music.scores import scores_of
from castalia.media.recognition import class_recognised

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


def class_heard(work: Work) -> dict[str, Metric]:
    """``class_recognised``: share of samples recognised as the class that was asked for."""
    return class_recognised("class_recognised", work, partial(_seen, spec=work.spec), by="counts of notes", c=1.0)


def _seen(batch: Batch, spec: MusicSpec) -> list[np.ndarray]:
    return [features(score) for score in scores_of(batch, spec)]
