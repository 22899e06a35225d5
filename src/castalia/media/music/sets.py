"""Sets of music that have a name, and the tiny one that is built in."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from castalia.core.data import Dataset
from castalia.core.errors import DataError
from castalia.core.rng import derive
from castalia.core.spec import Spec
from castalia.core.specs.music import MusicSpec
from castalia.media.music.grid import joined, line_of, score_of
from castalia.media.music.read import MusicOptions, Piece, open_music, spec_for, written
from castalia.media.music.score import Score
from castalia.media.sets import DataFile, NamedData, Progress, find

CHORALES, NOTTINGHAM, SCORES, TINY = "jsb-chorales", "nottingham", "asap-scores", "tunes"
SATB = ("soprano", "alto", "tenor", "bass voice")
_CHOIR = 52

SETS: Mapping[str, NamedData] = {
    CHORALES: NamedData(
        "four-part chorales by J. S. Bach on a grid of sixteenths, in the split of Boulanger-Lewandowski et al. 2012",
        "none stated by its publisher; the music is in the public domain",
        (),
        {"train": 229, "test": 77, "validation": 76},
        {
            "all": (
                DataFile(
                    "Jsb16thSeparated.json.gz",
                    "79294cc374f9252e95ef4b703161524c1c53dc1f712c236f00f1c1f5d54af5a7",
                    packed=("2364a16bfe3316f09f017f232ccfd7c3a7d245408fbb10ef6c192cc8b0f1aabd",),
                    inside=1666444,
                ),
            )
        },
        "Jsb16thSeparated.json of https://github.com/czhuang/JSB-Chorales-dataset, packed with gzip",
    ),
    NOTTINGHAM: NamedData(
        "melodies of British and American folk tunes",
        "GPL-3",
        (),
        {"train": 941, "test": 93},
        {"all": (DataFile("midi.zip", "09bc1b2e99eb19e9698ebbda54fef9af909498a24fae94b43606cc669b4bdf41"),)},
        "the folder MIDI of https://github.com/jukedeck/nottingham-dataset can be opened by its path",
    ),
    SCORES: NamedData(
        "piano scores by sixteen composers, who are the classes",
        "CC BY-NC-SA 4.0",
        (),
        {"train": 212, "test": 23},
        {"all": (DataFile("midi.zip", "7c802098cdac9fad62748265536de275fdf26a78ed3714bd456cc603199a1e66"),)},
        "the MIDI scores of https://github.com/fosfrancesco/asap-dataset, in folders of their composers",
    ),
    TINY: NamedData(
        "tunes of four bars made by a rule: a phrase, its answer, and both again a little changed",
        "none needed: computed",
        (),
        {"train": 480, "test": 48},
        {},
    ),
}


def open_set(name: str, options: MusicOptions, split: str, like: Spec | None, progress: Progress | None) -> Dataset:
    """Open a named set."""
    assert like is None or isinstance(like, MusicSpec)
    if name == TINY:
        return tunes(split, options, like)
    entry = SETS[name]
    path = find(name, entry, entry.files["all"][0], progress)
    if name == CHORALES:
        return _chorales(path.read_bytes(), options, split, like)
    if name == NOTTINGHAM:
        return open_music(path, options, split=split, like=like, name=name, progress=progress, within="melody")
    return open_music(path, options, split=split, like=like, name=name, progress=progress)


def _chorales(data: bytes, options: MusicOptions, split: str, like: MusicSpec | None) -> Dataset:
    try:
        rows = json.loads(gzip.decompress(data))["valid" if split == "validation" else split]
        grids = [
            np.array([[-1 if p is None or p < 0 else p for p in step] for step in piece], np.int64) for piece in rows
        ]
    except (ValueError, KeyError, TypeError, OSError, EOFError) as error:
        raise DataError(f"{CHORALES} is damaged ({error}). Remove it to have it fetched again.") from error
    pieces = [Piece(f"{split}/{i:03d}", _sung(grid)) for i, grid in enumerate(grids)]
    if like is None:
        # a choir, not a piano, and the voices by their names
        options = replace(options, voices="tracks", tracks=4) if options.voices != "melody" else options
        like = spec_for(pieces, options, ())
        if len(like.voices) == 4:
            like = replace(like, voices=SATB, programs=(_CHOIR,) * 4, tempo=80.0)
    return written(pieces, like, options, CHORALES, [], CHORALES)


def _sung(grid: np.ndarray) -> Score:
    """The score of notes (T, 4) on a grid of sixteenths, MIDI numbers, -1 for silence."""
    spec = MusicSpec("voices", len(grid), 4, 16, SATB, (_CHOIR,) * 4, 0, 127, tempo=80.0)
    return score_of(joined([line_of(grid[:, v], spec) for v in range(4)]), spec)


def tunes(split: str = "train", options: MusicOptions | None = None, like: MusicSpec | None = None) -> Dataset:
    """Tunes of four bars, by a rule; each in one of six keys, in the first voice, and a bass below on request."""
    options = options or MusicOptions()
    rng = np.random.Generator(np.random.Philox(derive(11, split)))
    pieces = [
        Piece(f"{split}/{i:03d}", tune(rng, bass=options.voices == "trio")) for i in range(SETS[TINY].counts[split])
    ]
    spec = like if like is not None else spec_for(pieces, options, ())
    return written(pieces, spec, options, TINY, [], TINY)


def tune(rng: np.random.Generator, bass: bool = False) -> Score:
    """A tune of four bars in 4/4: a phrase of one bar, an answer, the phrase again, an ending on the key note."""
    scale = np.array([0, 2, 4, 5, 7, 9, 11, 12, 14, 16])
    key = 60 + int(rng.choice([0, 2, 4, 5, 7, 9])) - 12 * int(rng.integers(0, 2))
    rhythms = ((4, 4, 4, 4), (4, 2, 2, 4, 4), (6, 2, 4, 4), (2, 2, 2, 2, 4, 4), (8, 4, 4))
    first, second = (rhythms[int(rng.integers(len(rhythms)))] for _ in range(2))

    def phrase(rhythm: tuple[int, ...], start: int) -> list[int]:
        degrees = [start]
        for _ in rhythm[1:]:
            degrees.append(int(np.clip(degrees[-1] + rng.choice([-2, -1, -1, 1, 1, 2]), 0, 9)))
        return degrees

    one, two = phrase(first, int(rng.choice([0, 2, 4]))), phrase(second, int(rng.choice([3, 4, 5])))
    last = [*two[:-1], int(rng.choice([0, 7]))]
    rows, at = [], 0
    for rhythm, degrees in ((first, one), (second, two), (first, one), (second, last)):
        for steps, degree in zip(rhythm, degrees, strict=True):
            rows.append((at, steps, key + int(scale[degree]), 90, 0, 0, 0))
            at += steps
    if bass:
        rows += [(16 * bar, 16, key - 24 + (0, 7, 0, 0)[bar], 90, 32, 0, 1) for bar in range(4)]
        rows += [(4 * beat, 1, 36 if beat % 2 == 0 else 38, 100, 0, 1, 2) for beat in range(16)]
        rows += [(2 * eighth, 1, 42, 80, 0, 1, 2) for eighth in range(32)]
    return Score.of(rows, 4, 110.0)
