"""Music as a medium."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.core.files import disk_error, read_bounded
from castalia.core.spec import Spec
from castalia.core.specs.music import MusicSpec
from castalia.media.audio.write import wav_bytes
from castalia.media.base import Measure, Medium, Rate
from castalia.media.image.medium import energy
from castalia.media.image.write import replace_file
from castalia.media.music.draw import music_image
from castalia.media.music.likeness import class_heard
from castalia.media.music.measures import MEASURES
from castalia.media.music.midi import LARGEST, midi_bytes, read_midi
from castalia.media.music.read import MusicOptions, is_music, open_music, values_of
from castalia.media.music.render import RATE, render
from castalia.media.music.score import Score
from castalia.media.music.scores import scores_of
from castalia.media.music.sets import SETS, open_set, tunes
from castalia.media.sets import NamedData, Progress

_NAMES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11, "h": 11}
_NOTE = re.compile(r"(?:([a-hA-H])([#b]?)(-?\d)|[rR])(?::(\d{1,4}))?")


@final
class MusicMedium(Medium):
    """Music: voices on a grid, or rows of tokens, written as MIDI with a WAV beside, drawn as piano rolls."""

    name: ClassVar[str] = "music"
    spec: ClassVar[type[Spec]] = MusicSpec
    options: ClassVar[type[Config]] = MusicOptions
    shown: ClassVar[int] = 12
    reading: ClassVar[str] = "a folder, a .zip or one file of MIDI"
    measures: ClassVar[tuple[Measure, ...]] = (
        *MEASURES,
        Measure("class_recognised", ("samples", "train", "held-out"), class_heard),
    )

    def reads(self, path: Path) -> bool:
        return is_music(path)

    def open(
        self,
        path: Path,
        options: MusicOptions,
        split: str | None,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        return open_music(path, options, split=split, like=like, progress=progress)

    def named(self) -> Mapping[str, NamedData]:
        return SETS

    def open_named(
        self,
        name: str,
        options: MusicOptions,
        split: str,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        return open_set(name, options, split, like, progress)

    def tiny(self) -> Dataset:
        return tunes("test")

    def read(self, text: str, spec: MusicSpec) -> Tensor:
        """Notes by name, with their steps: ``C4:4 E4:4 G4:8 r:4``; ``#`` and ``b`` as usual, ``r`` rests."""
        rows, at = [], 0
        for word in text.split():
            found = _NOTE.fullmatch(word)
            if found is None:
                raise UsageError(f"{word!r} is no note: write names with octave and steps, like C4:4 F#4:2 r:2.")
            steps = int(found[4] or spec.steps)
            if found[1]:
                shift = {"#": 1, "b": -1, "": 0}[found[2]]
                pitch = 12 * (int(found[3]) + 1) + _NAMES[found[1].lower()] + shift
                if not 0 <= pitch <= 127 or not steps:
                    raise UsageError(f"{word!r} is not one of MIDI's notes (C-1 to G9), or has no length.")
                rows.append((at, steps, pitch, 90, 0, 0, 0))
            at += steps
        if not rows:
            raise UsageError("Write at least one note, like C4:4, or give a file: @beginning.mid.")
        return torch.from_numpy(values_of(Score.of(rows, spec.steps, spec.tempo), spec))

    def read_file(self, path: Path, spec: MusicSpec) -> Tensor:
        return torch.from_numpy(values_of(read_midi(read_bounded(path, LARGEST), str(path)), spec))

    def write(
        self, batch: Batch, spec: MusicSpec, folder: Path, start: int = 0, recipe: Mapping[str, Any] | None = None
    ) -> list[Path]:
        """Write ``0000.mid``, ..., each with a WAV and its recipe beside it; return the paths of the MIDI files."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(folder, error) from error
        paths = []
        for number, score in enumerate(scores_of(batch, spec), start=start):
            path = folder / f"{number:04d}.mid"
            replace_file(path, midi_bytes(score))
            replace_file(path.with_suffix(".wav"), wav_bytes(render(score), RATE))
            if recipe is not None:
                whole = json.dumps({**recipe, "index": number}, indent=2)
                replace_file(path.with_suffix(".json"), (whole + "\n").encode())
            paths.append(path)
        return paths

    def picture(self, batch: Batch, spec: MusicSpec, columns: int | None = None) -> Image:
        titles = [] if batch.label is None or not spec.classes else [spec.classes[i] for i in batch.label.tolist()]
        bar = spec.bar if spec.kind != "events" else None
        return music_image(scores_of(batch, spec), bar, titles, columns)

    def rates(self, batch: Batch, spec: MusicSpec) -> Mapping[str, Rate]:
        """Nats per step of the grid, all voices together; or nats per token, the head not counted.

        Of the encoding ``cells`` a token is one note of one voice, ended pieces aside.
        """
        if spec.kind != "events":
            return {"nats_per_step": Rate("nats/step", math.e, torch.full((len(batch),), float(spec.length)).double())}
        there = (batch.x[:, spec.head :] >= 0).sum(1).double().cpu()
        return {"nats_per_token": Rate("nats/token", math.e, there)}

    def distance(self, a: Batch, b: Batch, spec: MusicSpec) -> float:
        """Energy distance between counts of notes, lengths, notes of the octave and steps of the melody."""
        return energy(*(torch.stack([_features(s) for s in scores_of(x, spec)]) for x in (a, b)))


def _features(score: Score) -> Tensor:
    pitch, quarter = score.pitch, score.resolution
    if not len(pitch):
        return torch.zeros(12 + 25 + 8 + 2)
    classes = np.bincount(pitch % 12, minlength=12) / len(pitch)
    moves = np.bincount(np.clip(np.diff(pitch), -12, 12) + 12, minlength=25) / max(len(pitch) - 1, 1)
    lengths = np.bincount(np.clip(4 * score.length // quarter, 0, 7), minlength=8) / len(pitch)
    rest = [pitch.mean() / 64, len(pitch) / max(score.end / quarter, 1) / 4]
    return torch.from_numpy(np.concatenate([classes, moves, lengths, rest])).float()
