"""A score: notes with their places in time, whatever file or model they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

RESOLUTION = 480
"""Ticks to a quarter note, where nothing else is wanted: 480 holds thirty-seconds, triplets and quintuplets."""

FAMILIES: Mapping[str, tuple[range, int]] = {
    "piano": (range(8), 0),
    "chimes": (range(8, 16), 12),
    "organ": (range(16, 24), 19),
    "guitar": (range(24, 32), 24),
    "bass": (range(32, 40), 32),
    "strings": (range(40, 56), 48),
    "brass": (range(56, 64), 60),
    "reeds": (range(64, 72), 71),
    "flutes": (range(72, 80), 73),
    "others": (range(80, 128), 88),
}
"""Families of General MIDI: their programs, and the one that stands for them."""


@dataclass(frozen=True)
class Score:
    """Notes, sorted by onset, then track, then pitch.

    Attributes:
        onset: ticks, ``int64`` (N,).
        length: ticks, at least 1, ``int64`` (N,).
        pitch: MIDI numbers, ``int64`` (N,).
        velocity: 1 to 127, ``int64`` (N,).
        program: 0 to 127, ``int64`` (N,).
        drum: whether it is a sound of the drum kit, bool (N,).
        track: which track of the file it was in, ``int64`` (N,).
        resolution: ticks to a quarter note.
        tempo: quarter notes a minute, at the beginning.
        meters: (tick, numerator, denominator) of each change of the meter, the first at 0.
    """

    onset: np.ndarray
    length: np.ndarray
    pitch: np.ndarray
    velocity: np.ndarray
    program: np.ndarray
    drum: np.ndarray
    track: np.ndarray
    resolution: int = RESOLUTION
    tempo: float = 120.0
    meters: tuple[tuple[int, int, int], ...] = ((0, 4, 4),)

    @classmethod
    def of(cls, rows: Sequence[tuple[int, ...]] | np.ndarray, resolution: int, tempo: float = 120.0) -> Score:
        """From rows of (onset, length, pitch, velocity, program, drum, track), in any order."""
        table = np.asarray(rows, np.int64).reshape(-1, 7)
        table = table[np.lexsort((table[:, 2], table[:, 6], table[:, 0]))]
        onset, length, pitch, velocity, program, drum, track = table.T
        return cls(onset, length, pitch, velocity, program, drum.astype(bool), track, resolution, tempo)

    def __len__(self) -> int:
        return len(self.onset)

    def rows(self) -> np.ndarray:
        """The notes as rows (N, 7), as :meth:`of` takes them."""
        drum = self.drum.astype(np.int64)
        return np.stack([self.onset, self.length, self.pitch, self.velocity, self.program, drum, self.track], 1)

    @property
    def end(self) -> int:
        """Tick at which the last note ends."""
        return int((self.onset + self.length).max(initial=0))

    @property
    def seconds(self) -> float:
        """How long it sounds at its tempo."""
        return self.end / self.resolution * 60 / self.tempo

    def some(self, rows: np.ndarray) -> Score:
        """Only those notes (a mask, or numbers in order)."""
        kept = (v[rows] for v in (self.onset, self.length, self.pitch, self.velocity, self.program))
        onset, length, pitch, velocity, program = kept
        fields = {"onset": onset, "length": length, "pitch": pitch, "velocity": velocity, "program": program}
        return replace(self, **fields, drum=self.drum[rows], track=self.track[rows])

    def on_grid(self, steps: int) -> Score:
        """The same with ``steps`` ticks to a quarter note: onsets and ends go to the nearest tick, a note has one at
        least, and of equal notes that begin together one is left.
        """
        begin = np.floor(self.onset * steps / self.resolution + 0.5).astype(np.int64)
        end = np.floor((self.onset + self.length) * steps / self.resolution + 0.5).astype(np.int64)
        table = np.column_stack([begin, np.maximum(end - begin, 1), self.rows()[:, 2:]])
        key = table[:, [0, 2, 4, 5, 6]]
        order = np.lexsort((-table[:, 1], *key.T[::-1]))
        table, key = table[order], key[order]
        first = np.ones(len(table), bool)
        first[1:] = (key[1:] != key[:-1]).any(1)
        meters = tuple((round(tick * steps / self.resolution), n, d) for tick, n, d in self.meters)
        return replace(Score.of(table[first], steps, self.tempo), meters=meters)

    def untangled(self) -> Score:
        """The same where no note is struck while the same one of the same program still sounds: that one ends there."""
        table = self.rows()
        order = np.lexsort((table[:, 0], table[:, 2], table[:, 4], table[:, 5]))
        t = table[order]
        same = (t[1:, [2, 4, 5]] == t[:-1, [2, 4, 5]]).all(1)
        room = np.where(same, t[1:, 0] - t[:-1, 0], np.iinfo(np.int64).max)
        t[:-1, 1] = np.minimum(t[:-1, 1], room)
        return replace(Score.of(t[t[:, 1] > 0], self.resolution, self.tempo), meters=self.meters)

    def bar(self) -> int | None:
        """Ticks to a bar, where all bars are alike and a whole number of ticks; else None."""
        found = {4 * self.resolution * n / d for _, n, d in self.meters}
        one = found.pop()
        return int(one) if not found and one == int(one) else None

    def family(self) -> list[str]:
        """The family of each note's instrument; ``drums`` for the drum kit."""
        names = np.array([name for name, (programs, _) in FAMILIES.items() for _ in programs])
        return ["drums" if drum else str(name) for drum, name in zip(self.drum, names[self.program], strict=True)]
