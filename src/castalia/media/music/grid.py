"""Scores on a grid of time by voices, and back.

The values of a voice are those of MusicVAE's melodies (see :class:`castalia.core.specs.music.MusicSpec`); where several
notes begin together in a voice, the highest is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from castalia.core.specs.music import DRUMS, FIRST, NOTHING, OFF, MusicSpec
from castalia.media.music.score import Score

KIT: tuple[tuple[int, tuple[int, ...]], ...] = (
    (36, (35, 36)),
    (38, (37, 38, 39, 40)),
    (42, (42, 44, 54, 69, 70, 82)),
    (46, (46, 67, 78)),
    (45, (41, 43, 45)),
    (48, (47, 48, 61, 64)),
    (50, (50, 60, 62, 63)),
    (49, (49, 52, 55, 57)),
    (51, (51, 53, 56, 59)),
)
"""The nine sounds of drums: the note that is written, and those that are taken for it. Others are left out."""


def voice_of(score: Score, spec: MusicSpec, steps: int) -> np.ndarray:
    """One voice, ``int64`` (steps,), of a score whose tick is a step: the highest note of those that begin together.

    A note ends where the next begins. Notes outside of the spec's range go to the octave next to it.
    """
    line = np.full(steps, NOTHING, np.int64)
    order = np.lexsort((-score.pitch, score.onset))
    onset, pitch, length = score.onset[order], score.pitch[order], score.length[order]
    first = np.ones(len(onset), bool)
    first[1:] = onset[1:] != onset[:-1]
    onset, pitch, length = onset[first], fold(pitch[first], spec.lowest, spec.highest), length[first]
    inside = onset < steps
    onset, pitch, length = onset[inside], pitch[inside], length[inside]
    ends = np.minimum(onset + length, np.append(onset[1:], steps))
    rest = (ends < np.append(onset[1:], steps)) & (ends < steps)
    line[ends[rest]] = OFF
    line[onset] = FIRST + pitch - spec.lowest
    return line


def fold(pitch: np.ndarray, lowest: int, highest: int) -> np.ndarray:
    """Notes moved by octaves into a range (of an octave at least)."""
    up = -np.floor_divide(pitch - lowest, 12) * 12
    down = np.floor_divide(highest - pitch, 12) * 12
    moved = np.where(pitch < lowest, pitch + up, np.where(pitch > highest, pitch + down, pitch))
    return np.clip(moved, lowest, highest)


def drums_of(score: Score, steps: int) -> np.ndarray:
    """Which of nine sounds are hit in each step, as bits, ``int64`` (steps,)."""
    line = np.zeros(steps, np.int64)
    bit = np.zeros(128, np.int64)
    for i, (_, taken) in enumerate(KIT):
        bit[list(taken)] = 1 << i
    inside = score.onset < steps
    np.bitwise_or.at(line, score.onset[inside], bit[score.pitch[inside]])
    return line


def pitches(line: np.ndarray, spec: MusicSpec) -> np.ndarray:
    """The note that sounds in each step of a sung voice, as MIDI number, -1 for silence, ``int64`` (T,)."""
    new = np.where(line != NOTHING, np.arange(len(line)), -1)
    last = np.maximum.accumulate(new)
    value = np.where(last >= 0, line[np.maximum(last, 0)], OFF)
    return np.where(value >= FIRST, value - FIRST + spec.lowest, -1)


def line_of(sounding: np.ndarray, spec: MusicSpec) -> np.ndarray:
    """The voice in which these notes sound (MIDI numbers, -1 for silence, (T,)); equal neighbours are one note."""
    line = np.full(len(sounding), NOTHING, np.int64)
    before = np.concatenate([[-1], sounding[:-1]])
    new = sounding != before
    line[new] = np.where(sounding[new] < 0, OFF, FIRST + sounding[new] - spec.lowest)
    return line


def struck_at(grid: np.ndarray, start: int, spec: MusicSpec) -> np.ndarray:
    """The values of step ``start`` (V,), with notes that sound on from before struck anew."""
    row = grid[start].copy()
    for v, name in enumerate(spec.voices):
        if name != DRUMS and row[v] == NOTHING:
            sung = pitches(grid[: start + 1, v], spec)[-1]
            row[v] = NOTHING if sung < 0 else FIRST + sung - spec.lowest
    return row


def score_of(grid: np.ndarray, spec: MusicSpec) -> Score:
    """The score of a grid ``int64`` (T, V). A value that a voice cannot have counts as nothing new."""
    rows: list[tuple[int, ...]] = []
    for v, name in enumerate(spec.voices):
        column = grid[:, v]
        if name == DRUMS:
            for step in np.flatnonzero(column):
                bits = int(column[step])
                rows += [(int(step), 1, KIT[i][0], 100, 0, 1, v) for i in range(len(KIT)) if bits >> i & 1]
            continue
        events = np.flatnonzero((column != NOTHING) & (column < spec.sizes[v]))
        ends = np.append(events[1:], len(column))[: len(events)]
        for at, end in zip(events.tolist(), ends.tolist(), strict=True):
            if column[at] >= FIRST:
                note = int(column[at]) - FIRST + spec.lowest
                rows.append((at, end - at, note, 90, spec.programs[v], 0, v))
    score = Score.of(rows, spec.steps, spec.tempo)
    return Score(**{**score.__dict__, "meters": ((0, *meter_of(spec)),)})


def roll_of(score: Score, spec: MusicSpec, steps: int, drum: bool = False) -> np.ndarray:
    """Which notes of a score (a tick is a step) sound in each step, ``uint8`` (steps, notes).

    Those outside of the range go to the octave next to it; of drums they are left out.
    """
    roll = np.zeros((steps, spec.notes), np.uint8)
    pitch = score.pitch if drum else fold(score.pitch, spec.lowest, spec.highest)
    inside = (pitch >= spec.lowest) & (pitch <= spec.highest)
    for onset, length, note in zip(score.onset[inside], score.length[inside], pitch[inside], strict=True):
        roll[onset : onset + (1 if drum else length), note - spec.lowest] = 1
    return roll


def score_of_rolls(rolls: np.ndarray, spec: MusicSpec) -> Score:
    """The score of rolls (V, T, notes): what sounds in neighbouring steps is one note."""
    rows: list[tuple[int, ...]] = []
    for v, name in enumerate(spec.voices):
        drum = name == DRUMS
        edges = np.diff(np.pad(rolls[v].astype(np.int8), ((1, 1), (0, 0))), axis=0)
        notes, begins = np.nonzero(edges.T == 1)
        ends = np.nonzero(edges.T == -1)[1]
        for note, begin, end in zip(notes.tolist(), begins.tolist(), ends.tolist(), strict=True):
            rows.append((begin, end - begin, note + spec.lowest, 90, spec.programs[v], drum, v))
    score = Score.of(rows, spec.steps, spec.tempo)
    return Score(**{**score.__dict__, "meters": ((0, *meter_of(spec)),)})


def meter_of(spec: MusicSpec) -> tuple[int, int]:
    """Numerator and denominator of a bar of so many steps."""
    for denominator in (4, 8, 16, 32):
        numerator = spec.bar * denominator / (4 * spec.steps)
        if numerator == int(numerator) and 1 <= numerator <= 64:
            return int(numerator), denominator
    return 4, 4


def joined(lines: Sequence[np.ndarray]) -> np.ndarray:
    """Voices side by side, (T, V)."""
    return np.stack(list(lines), 1)
