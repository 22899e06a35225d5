"""What a musician would count in samples, beside real music.

Most are the measures of MuseGAN (Dong et al. 2018, section "Objective metrics") and of muspy, per piece.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from castalia.core.data import Batch
from castalia.core.specs.music import MusicSpec
from castalia.estimators.metric import Metric
from castalia.media.base import Measure, Work
from castalia.media.measures import beside
from castalia.media.music.score import Score
from castalia.media.music.scores import scores_of

MAJOR = np.array([1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1], bool)
_FIFTHS = np.arange(12) * 7 * math.pi / 6
_THIRDS = np.arange(12) * 3 * math.pi / 2
_MAJOR_THIRDS = np.arange(12) * 2 * math.pi / 3
TONNETZ = np.stack(
    [
        *(np.sin(_FIFTHS), np.cos(_FIFTHS)),
        *(np.sin(_THIRDS), np.cos(_THIRDS)),
        *(0.5 * np.sin(_MAJOR_THIRDS), 0.5 * np.cos(_MAJOR_THIRDS)),
    ]
)
"""Harte, Sandler and Gasser 2006: a chroma vector times this is a point in the space of tones."""


def bars_of(score: Score, bar: int) -> list[Score]:
    """The notes that begin in each bar."""
    count = max(1, -(-score.end // bar))
    where = score.onset // bar
    return [score.some((where == b) & ~score.drum) for b in range(count)]


def empty_bars(score: Score, bar: int) -> float:
    """Share of bars in which nothing sounds."""
    count = max(1, -(-score.end // bar))
    full = np.zeros(count, bool)
    for onset, end in zip(score.onset, score.onset + score.length, strict=True):
        full[onset // bar : -(-end // bar)] = True
    return float(1 - full.mean())


def pitch_classes(score: Score, bar: int) -> float:
    """Mean number of different notes of the octave that begin in a bar which has any."""
    found = [len(set((b.pitch % 12).tolist())) for b in bars_of(score, bar)]
    used = [n for n in found if n]
    return float(np.mean(used)) if used else math.nan


def notes_per_bar(score: Score, bar: int) -> float:
    """Mean number of notes that begin in a bar."""
    return (~score.drum).sum() / max(1, -(-score.end // bar)) if len(score) else 0.0


def in_scale(score: Score) -> float:
    """Share of notes in the major scale (or its natural minor) that fits best."""
    classes = np.bincount(score.pitch[~score.drum] % 12, minlength=12)
    if not classes.sum():
        return math.nan
    return max(float(classes[np.roll(MAJOR, k)].sum()) for k in range(12)) / float(classes.sum())


def qualified(score: Score, bar: int) -> float:
    """Share of notes that last at least a sixteenth of a bar of four quarters, and are no fragments."""
    lengths = score.length[~score.drum]
    return float((lengths >= score.resolution / 4).mean()) if len(lengths) else math.nan


def entropy(score: Score) -> float:
    """Entropy of the notes of the octave, bits; 3.58 at most."""
    p = np.bincount(score.pitch[~score.drum] % 12, minlength=12).astype(float)
    if not p.sum():
        return math.nan
    p = p[p > 0] / p.sum()
    return float(-(p * np.log2(p)).sum())


def tonal_distance(score: Score, bar: int) -> float:
    """Mean distance of pairs of tracks in the space of tones, half a bar at a time; nan where there is one track."""
    tracks = sorted(set(score.track[~score.drum].tolist()))
    half = max(bar // 2, 1)
    count = max(1, -(-score.end // half))
    points = np.full((len(tracks), count, 6), np.nan)
    for i, track in enumerate(tracks):
        mine = score.some((score.track == track) & ~score.drum)
        chroma = np.zeros((count, 12))
        for onset, length, pitch in zip(mine.onset, mine.length, mine.pitch, strict=True):
            for part in range(int(onset // half), int(-(-(onset + length) // half))):
                inside = min(onset + length, (part + 1) * half) - max(onset, part * half)
                chroma[part, pitch % 12] += inside
        there = chroma.sum(1) > 0
        points[i, there] = chroma[there] / chroma[there].sum(1, keepdims=True) @ TONNETZ.T
    gaps = [
        np.linalg.norm(points[i] - points[j], axis=1) for i in range(len(tracks)) for j in range(i + 1, len(tracks))
    ]
    gaps = [g[~np.isnan(g)] for g in gaps]
    whole = np.concatenate(gaps) if gaps else np.zeros(0)
    return float(whole.mean()) if len(whole) else math.nan


def _measure(name: str, count: Callable[[Score, int], float], unit: str, what: str) -> Measure:
    def run(work: Work) -> dict[str, Metric]:
        spec: MusicSpec = work.spec

        def per_example(batch: Batch) -> np.ndarray:
            scores = scores_of(batch, spec)
            bars = [spec.bar * s.resolution // spec.steps for s in scores]
            return np.array([count(s, bar) if len(s) else math.nan for s, bar in zip(scores, bars, strict=True)])

        return beside(name, per_example, work, unit, what)

    return Measure(name, ("samples", "held-out"), run)


MEASURES = (
    _measure("empty_bars", empty_bars, "share", "bars in which nothing sounds"),
    _measure("pitch_classes", pitch_classes, "per bar", "different notes of the octave that begin in a bar"),
    _measure("notes_per_bar", notes_per_bar, "per bar", "notes that begin in a bar"),
    _measure("qualified_notes", qualified, "share", "notes of a sixteenth at least"),
    _measure("in_scale", lambda s, bar: in_scale(s), "share", "notes in the best fitting major scale"),
    _measure("pitch_entropy", lambda s, bar: entropy(s), "bits", "entropy of the notes of the octave"),
    _measure("tonal_distance", tonal_distance, "tonnetz", "mean distance of two tracks in the space of tones"),
)
