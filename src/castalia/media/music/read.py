"""From a path to a data set of music: which files, which split, which labels, which form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from castalia.core.config import Config
from castalia.core.data import Dataset
from castalia.core.errors import DataError, UsageError
from castalia.core.spec import Spec
from castalia.core.specs.music import DRUMS, MusicSpec
from castalia.media.arranged import arrange, class_numbers, holds, list_files, set_aside
from castalia.media.image.tree import read_bounded
from castalia.media.music.encodings import NAMES, encoding_of, size_for
from castalia.media.music.grid import drums_of, joined, roll_of, voice_of
from castalia.media.music.midi import LARGEST, SUFFIXES, read_midi
from castalia.media.music.pieces import Events, Grids, Rolls, Written
from castalia.media.music.score import FAMILIES, Score
from castalia.media.sets import Progress

LINES = {
    "melody": (("melody", 0),),
    "trio": (("melody", 0), ("bass", 32), (DRUMS, 0)),
    "band": ((DRUMS, 0), ("piano", 0), ("guitar", 24), ("bass", 32), ("strings", 48)),
}
"""Voices by name, with their programs."""


@dataclass(frozen=True)
class MusicOptions(Config):
    """How music is read. Plain values, so that it survives a JSON round trip.

    Attributes:
        kind: ``voices``, a grid of time by voices of one note each; ``rolls``, piano rolls of tracks of many; or
            ``events``, a row of tokens.
        length: steps of the grid in one example, or tokens that a row predicts.
        steps: of the grid to a quarter note.
        bar: ``voices``: steps to a bar. Pieces with other bars are left out; 0 takes all, and cuts them as if they had
            bars of four quarters.
        hop: ``voices``: an example begins at every so many bars.
        voices: ``melody``: the highest notes of the track that lies highest. ``trio``: that, the bass (programs 32 to
            39) and drums. ``drums``. ``tracks``: each track of the file is a voice; pieces with another number of them
            are left out. ``band``: drums, piano, guitar, bass and strings, as of the Lakh piano rolls; anything else
            counts as strings, and an instrument that is missing is silent.
        tracks: how many, for ``tracks``.
        transpose: in training an example is moved by up to so many half-tones (not with miditok's encodings).
        lowest: lowest note (MIDI number); what lies below is moved up by octaves.
        highest: highest note.
        encoding: ``events``: ``musenet``, ``cells`` (a grid of ``tracks`` voices, cell by cell), or miditok's ``remi``,
            ``tsd``, ``structured``.
        loudness: ``musenet``: how many levels of loudness are told apart.
        labels: ``folders``: the folder of a file is its class, a composer for example; ``none``; or a pattern for file
            names, as for sound.
        on_bad_file: ``error`` stops at the first file that cannot be read, ``skip`` leaves it out and says so.
    """

    kind: Literal["voices", "rolls", "events"] = "voices"
    length: int = 32
    steps: int = 4
    bar: int = 16
    hop: int = 1
    voices: Literal["melody", "trio", "drums", "tracks", "band"] = "melody"
    tracks: int = 4
    transpose: int = 0
    lowest: int = 21
    highest: int = 108
    encoding: str = "musenet"
    loudness: int = 8
    labels: str = "folders"
    on_bad_file: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        if not (1 <= self.length <= 1 << 20 and 1 <= self.steps <= 96 and 0 <= self.bar <= 4096 and self.hop >= 1):
            raise UsageError("length, steps and hop are positive, steps at most 96, bar at most 4,096.")
        if not (0 <= self.lowest < self.highest <= 127) or self.highest - self.lowest < 12:
            raise UsageError("lowest and highest are MIDI notes from 0 to 127, an octave apart at least.")
        if self.encoding not in NAMES:
            raise UsageError(f"encoding is one of {', '.join(NAMES)}, not {self.encoding!r}.")
        if not (1 <= self.loudness <= 127 and 1 <= self.tracks <= 16 and 0 <= self.transpose <= 24):
            raise UsageError("loudness is 1 to 127 levels, tracks 1 to 16, transpose 0 to 24 half-tones.")
        if self.labels not in ("folders", "none") and self.labels.count("{label}") != 1:
            raise UsageError(f"labels is folders, none, or a pattern with {{label}} in it, not {self.labels!r}.")

    @property
    def lines(self) -> tuple[tuple[str, int], ...]:
        """The voices, and their programs."""
        if self.voices == "tracks":
            return tuple((f"voice {i + 1}", 0) for i in range(self.tracks))
        return ((DRUMS, 0),) if self.voices == DRUMS else LINES[self.voices]


@dataclass(frozen=True)
class Piece:
    """A piece of music before it has a form.

    Attributes:
        name: of its file.
        score: its notes.
        label: class number, or -1.
    """

    name: str
    score: Score
    label: int = -1


def is_music(path: Path) -> bool:
    """Whether a path is a MIDI file, or a folder or zip that has one among its first files."""
    return holds(path, SUFFIXES)


def open_music(
    path: Path,
    options: MusicOptions,
    *,
    split: str | None = None,
    like: Spec | None = None,
    name: str | None = None,
    progress: Progress | None = None,
    within: str | None = None,
) -> Dataset:
    """Read MIDI files from a folder, a zip or a single file.

    Folders named ``train``, ``test``, ``validation`` are splits. Where there are none, ``train`` and ``test`` are nine
    tenths and one tenth, by a hash of each file's name.

    Args:
        path: what to read.
        options: how to read it.
        split: ``train``, ``test``, ``validation``, or None.
        like: a :class:`MusicSpec` that is to be taken as it is.
        name: what to call the data; None for the last part of the path.
        progress: called with (done, total) while reading.
        within: only files of that folder of the source; empty for those of its top.

    Raises:
        DataError: it cannot be read; the text names the file.
        MissingExtra: a package that reads it is not installed.
    """
    path = Path(path)
    assert like is None or isinstance(like, MusicSpec)
    with ExitStack() as stack:
        items, notes = list_files(path, SUFFIXES, "MIDI", stack)
        if within is not None:
            items = [item for item in items if item.name.rpartition("/")[0] == within]
        found = arrange(items, options.labels, str(path), split)
        chosen, more = set_aside(found, split, str(path), "files")
        notes = notes + more
        classes = found.classes if like is None else like.classes
        labels = class_numbers(chosen.labels, classes, str(path))
        pieces, bad = [], []
        for i, item in enumerate(chosen.items):
            where = str(path) if path.name == item.name else f"{path}: {item.name}"
            try:
                with item.open() as file:
                    score = read_midi(read_bounded(file, where, LARGEST), where)
                pieces.append(Piece(item.name, score, -1 if labels is None else int(labels[i])))
            except DataError as error:
                if options.on_bad_file == "error":
                    raise
                bad.append(str(error))
            if progress is not None:
                progress(i + 1, len(chosen.items))
    if bad:
        notes = [*notes, f"Skipped {len(bad)} files that cannot be read: " + " ".join(bad[:3])]
    if not pieces:
        raise DataError(f"{path}: none of its {len(chosen.items)} MIDI files can be used. {' '.join(bad[:1])}")
    spec = like if like is not None else spec_for(pieces, options, () if labels is None else classes)
    return written(pieces, spec, options, name or path.name, [*notes, *found.notes], str(path))


def spec_for(pieces: Sequence[Piece], options: MusicOptions, classes: tuple[str, ...]) -> MusicSpec:
    """The spec that fits some pieces and options."""
    tempo = round(float(np.median([piece.score.tempo for piece in pieces])), 1)
    lines = options.lines
    spec = MusicSpec(
        options.kind,
        options.length,
        options.steps,
        options.bar or 4 * options.steps,
        tuple(name for name, _ in lines),
        tuple(program for _, program in lines),
        options.lowest,
        options.highest,
        tempo=tempo,
        classes=classes,
        encoding=options.encoding if options.kind == "events" else "",
        size=1 if options.kind == "events" else 0,
    )
    if options.kind != "events":
        return spec
    if options.encoding == "musenet":
        families = Counter(name for piece in pieces for name in set(piece.score.family()))
        order = [name for name in (*FAMILIES, DRUMS) if name in families]
        loud = np.concatenate([piece.score.velocity for piece in pieces])
        levels = np.unique(np.quantile(loud, (np.arange(options.loudness) + 0.5) / options.loudness).round())
        spec = replace(spec, voices=(), programs=(), instruments=tuple(order), loudness=tuple(int(v) for v in levels))
    elif options.encoding != "cells":
        spec = replace(spec, voices=(), programs=())
    elif options.voices != "tracks":
        names = tuple(f"voice {i + 1}" for i in range(options.tracks))
        spec = replace(spec, voices=names, programs=(0,) * options.tracks)
    return replace(spec, size=size_for(spec))


def written(
    pieces: Sequence[Piece], spec: MusicSpec, options: MusicOptions, name: str, notes: Sequence[str], where: str
) -> Dataset:
    """Pieces in the form of a spec.

    Raises:
        DataError: none of them has that form.
    """
    left: Counter[str] = Counter()
    kept: list[Written] = []
    for piece in pieces:
        playing = frozenset(piece.score.family())
        if spec.kind == "events":
            why = _refused(piece.score, spec) if spec.encoding == "cells" else ""
            if not why:
                kept.append(Written(piece.name, encoding_of(spec).encode(piece.score), playing, piece.label))
        else:
            why = _refused(piece.score, spec, options.bar)
            if not why:
                form = grid_of if spec.kind == "voices" else rolls_of
                kept.append(Written(piece.name, form(piece.score, spec), playing, piece.label))
        if why:
            left[why] += 1
    said = [*notes, *(f"Left out {n} of {len(pieces)} pieces: {why}." for why, n in sorted(left.items()))]
    if not kept:
        raise DataError(f"{where}: no piece can be used. " + " ".join(said[-len(left) :]))
    if spec.kind == "events":
        return Events(kept, spec, name=name, transpose=options.transpose, notes=said)
    table = Grids if spec.kind == "voices" else Rolls
    return table(kept, spec, name=name, hop=options.hop, transpose=options.transpose, notes=said)


def _refused(score: Score, spec: MusicSpec, bar: int = 0) -> str:
    """Why a piece has no such form; empty where it has."""
    ours = score.bar()
    if bar and (ours is None or ours * spec.steps != spec.bar * score.resolution):
        return f"not all their bars have {spec.bar} steps"
    if "piano" in spec.voices:
        return ""  # a band may lack anybody
    if spec.voices and spec.voices[0] not in ("melody", DRUMS) and len(set(score.track.tolist())) != len(spec.voices):
        return f"they do not have {len(spec.voices)} tracks"
    if DRUMS in spec.voices and not score.drum.any():
        return "nobody drums"
    if "bass" in spec.voices and not (~score.drum & (score.program >= 32) & (score.program < 40)).any():
        return "they have no bass"
    if "melody" in spec.voices and not _singing(score).any():
        return "they have no melody"
    return ""


def _singing(score: Score) -> np.ndarray:
    """Which notes may be of a melody: not of drums or basses."""
    return ~score.drum & ((score.program < 32) | (score.program >= 40))


def grid_of(score: Score, spec: MusicSpec) -> np.ndarray:
    """A score as a grid ``int64`` (T, V) of whole bars."""
    score = score.on_grid(spec.steps)
    steps = max(1, -(-score.end // spec.bar)) * spec.bar
    parts = [score.some(_belongs(score, spec, v)) for v in range(len(spec.voices))]
    return joined(
        [
            drums_of(part, steps) if name == DRUMS else voice_of(part, spec, steps)
            for name, part in zip(spec.voices, parts, strict=True)
        ]
    )


def rolls_of(score: Score, spec: MusicSpec) -> np.ndarray:
    """A score as piano rolls ``uint8`` (T, V, notes) of whole bars."""
    score = score.on_grid(spec.steps)
    steps = max(1, -(-score.end // spec.bar)) * spec.bar
    parts = [score.some(_belongs(score, spec, v)) for v in range(len(spec.voices))]
    rolls = [roll_of(part, spec, steps, name == DRUMS) for name, part in zip(spec.voices, parts, strict=True)]
    return np.stack(rolls, 1)


def _belongs(score: Score, spec: MusicSpec, v: int) -> np.ndarray:
    """Which notes of a score belong to a voice, bool (N,)."""
    name, program, drum = spec.voices[v], score.program, score.drum
    bass = ~drum & (program >= 32) & (program < 40)
    if name == DRUMS:
        return drum
    if name == "bass":
        return bass
    if name == "piano":
        return ~drum & (program < 16)
    if name == "guitar":
        return ~drum & (program >= 24) & (program < 32)
    if name == "strings":
        return ~drum & ~bass & (program >= 16) & ~((program >= 24) & (program < 32))
    if name == "melody":
        singing = _singing(score)
        if not singing.any():
            return singing
        heights = {t: score.pitch[singing & (score.track == t)].mean() for t in set(score.track[singing].tolist())}
        return singing & (score.track == max(heights, key=lambda t: (heights[t], -t)))
    tracks = sorted(set(score.track.tolist()))
    return score.track == tracks[v] if v < len(tracks) else np.zeros(len(score), bool)


def values_of(score: Score, spec: MusicSpec) -> np.ndarray:
    """One score as an example's ``x``: the first ``length`` steps of its grid, or all its tokens behind their head."""
    from castalia.media.music.encodings import head

    if spec.kind == "events":
        playing = set(score.family())
        front = head(spec, True, {name: name in playing for name in spec.instruments})
        return np.concatenate([front, encoding_of(spec).encode(score)])
    if spec.kind == "rolls":
        rolls = rolls_of(score, spec)[: spec.length]
        padded = np.zeros((spec.length, len(spec.voices), spec.notes), np.uint8)
        padded[: len(rolls)] = rolls
        return np.ascontiguousarray(padded.transpose(1, 0, 2))
    grid = grid_of(score, spec)[: spec.length]
    out = np.zeros((spec.length, len(spec.voices)), np.int64)
    out[: len(grid)] = grid
    if len(grid) < spec.length:
        out[len(grid), [v for v, name in enumerate(spec.voices) if name != DRUMS]] = 1
    return out
