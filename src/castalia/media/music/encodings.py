"""Scores as rows of tokens, and back.

``musenet`` is the encoding of MuseNet (OpenAI 2019): a token is a wait, or an instrument, a loudness and a note in one,
where loudness 0 ends the note. ``cells`` reads a grid of voices step by step, each cell a token (Huang et al. 2019 on
chorales). ``remi``, ``tsd`` and ``structured`` are miditok's.

Behind an encoding's own tokens come an end, two that say whether a row begins a piece or goes on in one, and three for
each instrument: it plays, it does not, nobody says.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any, final

import numpy as np

from castalia.core.errors import MissingExtra
from castalia.core.specs.music import MusicSpec
from castalia.media.music.grid import fold, joined, line_of, pitches, score_of, voice_of
from castalia.media.music.midi import midi_bytes, read_midi, symusic
from castalia.media.music.score import FAMILIES, RESOLUTION, Score

MIDITOK = {"remi": "REMI", "tsd": "TSD", "structured": "Structured"}
NAMES = ("musenet", "cells", *MIDITOK)
PLAYS, SILENT, UNKNOWN = 0, 1, 2


class Encoding(ABC):
    """One way to write a score as tokens.

    Attributes:
        events: how many tokens it has, the end and what stands in a head not counted.
        unit: a row begins at a multiple of so many tokens.
    """

    events: int
    unit: int = 1

    @abstractmethod
    def prepare(self, score: Score) -> Score:
        """What remains of a score when it is encoded and decoded."""

    @abstractmethod
    def encode(self, score: Score) -> np.ndarray:
        """Tokens ``int64`` (T,) below :attr:`events`."""

    @abstractmethod
    def decode(self, tokens: np.ndarray) -> Score:
        """The score of tokens; every note ends, and what makes no sense is passed over."""

    def notes(self, tokens: np.ndarray) -> np.ndarray:
        """The note in each token that can be transposed by adding to it, counted from the lowest; else -1."""
        return np.full(len(tokens), -1)

    @abstractmethod
    def times(self, tokens: np.ndarray) -> np.ndarray:
        """Steps that have passed before each token, ``int64`` (T,)."""


@lru_cache(maxsize=16)
def encoding_of(spec: MusicSpec) -> Encoding:
    """The encoding of a spec of events.

    Raises:
        MissingExtra: it is miditok's, which is not installed.
    """
    if spec.encoding == "musenet":
        return MuseNetEncoding(spec)
    if spec.encoding == "cells":
        return Cells(spec)
    return MidiTok(spec)


def head(spec: MusicSpec, begins: bool, playing: dict[str, bool] | None = None) -> np.ndarray:
    """What stands before the tokens of a row, ``int64`` (1 + instruments,).

    Args:
        spec: of events.
        begins: whether the piece begins here.
        playing: whether an instrument plays, where anybody knows.
    """
    end = spec.end
    flags = [SILENT if playing is not None else UNKNOWN] * len(spec.instruments)
    for i, name in enumerate(spec.instruments):
        if playing is not None and playing.get(name):
            flags[i] = PLAYS
    return np.array([*(end + 3 + 3 * i + flag for i, flag in enumerate(flags)), end + (1 if begins else 2)])


def size_for(spec: MusicSpec) -> int:
    """How many tokens there are in all, for a spec whose size is not known yet."""
    return encoding_of(spec).events + 3 + 3 * len(spec.instruments)


@final
class MuseNetEncoding(Encoding):
    """Waits, and instrument, loudness and note in one.

    Waits of up to a whole note are tokens 0 to 4 ``steps`` - 1. Then come, for each instrument and each loudness (0
    first), the notes from the lowest up.
    """

    def __init__(self, spec: MusicSpec) -> None:
        self.spec = spec
        self.longest = 4 * spec.steps
        self.levels = np.array((0, *spec.loudness))
        self.events = self.longest + len(spec.instruments) * len(self.levels) * spec.notes

    def prepare(self, score: Score) -> Score:
        """On the grid; one program for each family; the nearest loudness; no note inside its like."""
        s = self.spec
        known = {name: i for i, name in enumerate(s.instruments)}
        kept = np.array([name in known for name in score.family()], bool)
        score = score.some(kept).on_grid(s.steps)
        table = score.rows()
        family = np.array([known[name] for name in score.family()], np.int64)
        table[:, 2] = np.where(table[:, 5] > 0, table[:, 2], fold(table[:, 2], s.lowest, s.highest))
        table[:, 2] = np.clip(table[:, 2], s.lowest, s.highest)
        gap = np.abs(table[:, 3][:, None] - self.levels[None, 1:])
        table[:, 3] = self.levels[1 + gap.argmin(1)]
        programs = np.array([FAMILIES[n][1] if n in FAMILIES else 0 for n in s.instruments], np.int64)
        table[:, 4], table[:, 6] = programs[family], family
        clean = Score.of(table, s.steps, s.tempo).on_grid(s.steps).untangled()
        return Score(**{**clean.__dict__, "meters": score.meters})

    def encode(self, score: Score) -> np.ndarray:
        score = self.prepare(score)
        s, levels = self.spec, len(self.levels)
        level = np.searchsorted(self.levels, score.velocity)
        base = self.longest + (score.track * levels) * s.notes + score.pitch - s.lowest
        events = [(int(t + d), 0, int(b)) for t, d, b in zip(score.onset, score.length, base, strict=True)]
        on = base + level * s.notes
        events += [(int(t), 1, int(b)) for t, b in zip(score.onset, on, strict=True)]
        out, now = [], 0
        for time, _, token in sorted(events):
            while now < time:
                step = min(time - now, self.longest)
                out.append(step - 1)
                now += step
            out.append(token)
        return np.array(out, np.int64)

    def decode(self, tokens: np.ndarray) -> Score:
        s, levels = self.spec, len(self.levels)
        sounding: dict[tuple[int, int], tuple[int, int]] = {}
        rows: list[tuple[int, ...]] = []
        now = 0

        def close(key: tuple[int, int]) -> None:
            if key in sounding:
                begun, loud = sounding.pop(key)
                name = s.instruments[key[0]]
                program = FAMILIES[name][1] if name in FAMILIES else 0
                if now > begun:
                    rows.append((begun, now - begun, key[1], loud, program, name == "drums", key[0]))

        for token in tokens.tolist():
            if not 0 <= token < self.events:
                continue
            if token < self.longest:
                now += token + 1
                continue
            rest, pitch = divmod(token - self.longest, s.notes)
            instrument, level = divmod(rest, levels)
            key = (instrument, pitch + s.lowest)
            close(key)
            if level:
                sounding[key] = (now, int(self.levels[level]))
        now += 1 if any(begun == now for begun, _ in sounding.values()) else 0
        for key in list(sounding):
            close(key)
        return Score.of(rows, s.steps, s.tempo)

    def notes(self, tokens: np.ndarray) -> np.ndarray:
        rest = tokens - self.longest
        instrument = rest // (self.spec.notes * len(self.levels))
        drums = self.spec.instruments.index("drums") if "drums" in self.spec.instruments else -1
        sung = (rest >= 0) & (tokens < self.events) & (instrument != drums)
        return np.where(sung, rest % self.spec.notes, -1)

    def times(self, tokens: np.ndarray) -> np.ndarray:
        waits = np.where((tokens >= 0) & (tokens < self.longest), tokens + 1, 0)
        return np.cumsum(waits) - waits


@final
class Cells(Encoding):
    """A grid of voices, step by step, voice after voice: 0 is silence, then the notes from the lowest up.

    Whether a note is held or struck again is not told.
    """

    def __init__(self, spec: MusicSpec) -> None:
        self.spec = spec
        self.events = spec.notes + 1
        self.unit = len(spec.voices) * spec.bar

    def prepare(self, score: Score) -> Score:
        return self.decode(self.encode(score))

    def encode(self, score: Score) -> np.ndarray:
        s = self.spec
        score = score.on_grid(s.steps)
        steps = -(-score.end // s.bar) * s.bar
        lines = [pitches(voice_of(score.some(score.track == v), s, steps), s) for v in range(len(s.voices))]
        sounding = joined(lines)
        return np.where(sounding < 0, 0, sounding - s.lowest + 1).reshape(-1)

    def decode(self, tokens: np.ndarray) -> Score:
        s = self.spec
        tokens = np.where((tokens >= 0) & (tokens < self.events), tokens, 0)
        whole = tokens[: len(tokens) // len(s.voices) * len(s.voices)].reshape(-1, len(s.voices))
        sounding = np.where(whole == 0, -1, whole - 1 + s.lowest)
        lines = [line_of(sounding[:, v], s) for v in range(len(s.voices))]
        return score_of(joined(lines), s)

    def notes(self, tokens: np.ndarray) -> np.ndarray:
        return np.where((tokens > 0) & (tokens < self.events), tokens - 1, -1)

    def times(self, tokens: np.ndarray) -> np.ndarray:
        return np.arange(len(tokens)) // len(self.spec.voices)


@final
class MidiTok(Encoding):
    """One of miditok's tokenisers, without training: its tokens are known from its settings alone."""

    def __init__(self, spec: MusicSpec) -> None:
        self.spec = spec
        self.tokeniser = _tokeniser(spec.encoding, spec.lowest, spec.highest, spec.steps)
        self.events = len(self.tokeniser)
        kinds = [str(self.tokeniser[i]) for i in range(self.events)]
        self._bar = np.array([kind.startswith("Bar_") for kind in kinds])

    def prepare(self, score: Score) -> Score:
        return _from_symusic(self.tokeniser.preprocess_score(_to_symusic(score))).on_grid(self.spec.steps)

    def encode(self, score: Score) -> np.ndarray:
        found = self.tokeniser.encode(_to_symusic(score))
        found = found[0] if isinstance(found, list) else found
        return np.array(found.ids, np.int64)

    def decode(self, tokens: np.ndarray) -> Score:
        kept = tokens[(tokens >= 0) & (tokens < self.events)].tolist()
        score = _from_symusic(self.tokeniser.decode(kept)) if kept else Score.of([], RESOLUTION)
        return Score(**{**score.on_grid(self.spec.steps).__dict__, "tempo": self.spec.tempo})

    def times(self, tokens: np.ndarray) -> np.ndarray:
        """To the bar only, where the encoding has bars; else nothing is known."""
        bars = self._bar[np.clip(tokens, 0, self.events - 1)]
        return np.maximum(np.cumsum(bars) - 1, 0) * self.spec.bar


@lru_cache(maxsize=8)
def _tokeniser(name: str, lowest: int, highest: int, steps: int) -> Any:
    try:
        import miditok
    except ImportError as error:
        raise MissingExtra(f"The encoding {name}", "music") from error
    config = miditok.TokenizerConfig(
        pitch_range=(lowest, highest + 1),
        beat_res={(0, 16): steps},
        num_velocities=32,
        use_programs=True,
        programs=list(range(-1, 128)),
    )
    return getattr(miditok, MIDITOK[name])(config)


def _to_symusic(score: Score) -> Any:
    return symusic().Score.from_midi(midi_bytes(score))


def _from_symusic(score: Any) -> Score:
    if not any(len(track.notes) for track in score.tracks):
        return Score.of([], RESOLUTION)
    return read_midi(score.dumps_midi(), "decoded tokens")
