"""From a path to a data set of sound: which files, which split, which labels."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from castalia.core.captions import CAPTION
from castalia.core.errors import DataError, UsageError
from castalia.core.files import read_bounded as bounded
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.audio import AudioSpec
from castalia.media.arranged import FEW_FILES, Found, arrange, by_pattern, class_numbers, holds, in_order, list_files
from castalia.media.audio.clips import FULL_SCALE, AudioClips, Pack
from castalia.media.audio.decode import SUFFIXES, AudioOptions, Head, decode_audio, inspect_audio, trim_ends
from castalia.media.captions import caption_columns
from castalia.media.image.array import Progress
from castalia.media.image.tree import Item, file_opener, read_bounded
from castalia.media.splits import hashed_split


def is_audio(path: Path) -> bool:
    """Whether a path is a sound file, or a folder or zip that has one among its first files."""
    return holds(path, SUFFIXES)


def open_audio(
    path: Path,
    options: AudioOptions,
    *,
    split: str | None = None,
    like: Spec | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> AudioClips:
    """Read sound from a folder, a zip or a single file, everything once.

    Folders named ``train``, ``test``, ``validation`` are splits, and None means ``train``. Where there are none, None
    means everything, and ``train`` and ``test`` are nine tenths and one tenth, told apart by a hash of each file's
    name, or of each piece's where there are fewer than ten files.

    Args:
        path: what to read.
        options: how to read it.
        split: ``train``, ``test``, ``validation``, or None.
        like: an :class:`AudioSpec` whose rate, channels, length and classes are to be taken.
        name: what to call the data; None for the last part of the path.
        progress: called with (done, total) while decoding.

    Raises:
        DataError: it cannot be read; the text names the file.
        MissingExtra: a package that reads it is not installed.
    """
    path = Path(path)
    assert like is None or isinstance(like, AudioSpec)
    with ExitStack() as stack:
        items, notes = list_files(path, SUFFIXES, "sound", stack)
        found = arrange(items, options.labels, str(path), split)
        by_file = len(found.items) >= FEW_FILES
        chosen = found
        if by_file:
            rows, more = hashed_split(split, found.split, [item.name for item in found.items], str(path), "files")
            chosen = found if rows is None else found.of(rows.tolist())
            notes += more
        reader = _Reader(path, chosen, options, like, progress)
        reader.read()
    labels = class_numbers(reader.labels, found.classes if like is None else like.classes, str(path))
    kept, names = np.arange(len(reader.names)), reader.names
    if not by_file:
        rows, more = hashed_split(split, found.split, names, str(path), "pieces")
        kept = kept if rows is None else rows
        notes += more
    classes = () if labels is None else like.classes if like is not None else found.classes
    length = options.samples(reader.rate) if like is None else like.length
    speakers = _speakers(reader.names, options, like, str(path))
    texts = _texts(reader, path) if options.words or _words(like) else []
    columns: tuple[tuple[str, Spec], ...] = ()
    if like is not None:
        columns = like.columns
    else:
        columns = () if speakers is None else (("speaker", LabelSpec(speakers[1])),)
        columns += caption_columns(options.words)
    samples, ends = _some(reader.pack.array().reshape(-1, reader.channels), np.cumsum(reader.lengths), kept)
    return AudioClips(
        samples,
        ends,
        AudioSpec(reader.rate, reader.channels, length, classes, columns=columns),
        name=name or path.name,
        labels=None if labels is None else labels[kept],
        files=[names[i] for i in kept],
        speakers=None if speakers is None else speakers[0][kept],
        texts=[texts[i] for i in kept] if texts else (),
        notes=[*notes, *found.notes, *reader.notes()],
    )


def read_clip(path: Path, spec: AudioSpec) -> Tensor:
    """One file as an example, ``float32`` (channels, T).

    Raises:
        DataError: it cannot be read.
    """
    options = AudioOptions(rate=spec.rate, channels=1 if spec.channels == 1 else 2)
    with file_opener(path)() as file:
        inspect_audio(file, str(path), options)
    with file_opener(path)() as file:
        samples = decode_audio(file, str(path), spec.rate, spec.channels, options.max_seconds)
    return torch.from_numpy(samples.T.astype(np.float32) / FULL_SCALE)


def _speakers(
    names: Sequence[str], options: AudioOptions, like: AudioSpec | None, where: str
) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """Numbers of who is heard in each clip, and their names; None where nobody is told."""
    if not options.speakers:
        return None
    heard = [by_pattern(name.partition("#")[0], options.speakers, where, "speakers") for name in names]
    wanted = dict(like.columns).get("speaker") if like is not None else None
    classes = wanted.classes if isinstance(wanted, LabelSpec) else in_order(set(heard))
    numbers = class_numbers(heard, classes, where)
    return None if numbers is None else (numbers, classes)


def _words(like: AudioSpec | None) -> bool:
    return like is not None and CAPTION in dict(like.columns)


def _texts(reader: _Reader, path: Path) -> list[str]:
    """What is said in each clip: the text beside its file, else the name of its class."""
    texts = []
    for i, name in enumerate(reader.names):
        beside = path / posixpath.splitext(name.partition("#")[0])[0] if path.is_dir() else None
        found = beside.with_suffix(".txt") if beside is not None else None
        if found is not None and found.is_file():
            texts.append(bounded(found, 1 << 20).decode("utf-8", "replace").strip())
        else:
            texts.append(reader.labels[i] if reader.labels else "")
    return texts


def _some(samples: np.ndarray, ends: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The samples and ends of some of the clips."""
    if len(kept) == len(ends):
        return samples, ends
    starts = np.concatenate([[0], ends[:-1]])
    pieces = [samples[starts[i] : ends[i]] for i in kept]
    return np.concatenate(pieces), np.cumsum([len(piece) for piece in pieces])


class _Reader:
    """Reads the chosen files one after another into one pack, and counts what it did to them."""

    def __init__(
        self, path: Path, found: Found, options: AudioOptions, like: AudioSpec | None, progress: Progress | None
    ) -> None:
        self.path, self.found, self.options, self.progress = path, found, options, progress
        self.bad: list[DataError] = []
        self.names: list[str] = []
        self.labels: list[str] = []
        self.lengths: list[int] = []
        self.pack = Pack()
        self.trimmed = self.total = self.silent = self.cut = self.resampled = 0
        heads = [self._tried(lambda item=item: self._head(item)) for item in found.items]
        self.good = [(i, head) for i, head in enumerate(heads) if head is not None]
        self._check_any(len(self.good))
        rates, channels = {head.rate for _, head in self.good}, {head.channels for _, head in self.good}
        rate = options.rate if like is None else like.rate
        if rate is None and len(rates) > 1:
            raise DataError(
                f"{path}: the files differ in rate ({', '.join(map(str, sorted(rates)))} samples a second); choose "
                "one, for example rate = 16000."
            )
        self.rate = rate if rate is not None else rates.pop()
        self.channels: int = like.channels if like is not None else options.channels or (1 if channels == {1} else 2)

    def read(self) -> None:
        for done, (i, head) in enumerate(self.good, start=1):
            item = self.found.items[i]
            samples = self._tried(lambda item=item: self._decode(item))
            if samples is not None:
                self.resampled += head.rate != self.rate
                self._add(item.name, self.found.labels[i] if self.found.labels else None, samples)
            if self.progress is not None:
                self.progress(done, len(self.good))
        self._check_any(len(self.names))

    def _tried(self, work):  # noqa: ANN001, ANN202 (None where the file is to be left out)
        try:
            return work()
        except DataError as error:
            if self.options.on_bad_file == "error":
                raise
            self.bad.append(error)
            return None

    def _check_any(self, count: int) -> None:
        if not count:
            first = f" The first: {self.bad[0]}" if self.bad else ""
            raise DataError(f"{self.path}: none of its {len(self.found.items)} sound files can be used.{first}")

    def _where(self, item: Item) -> str:
        return str(self.path) if self.path.name == item.name else f"{self.path}: {item.name}"

    def _opened(self, item: Item) -> BinaryIO:
        file = item.open()
        if self.path.suffix.lower() != ".zip":
            return file
        with file:  # libsndfile seeks back and forth, which a compressed stream does slowly
            return io.BytesIO(read_bounded(file, self._where(item)))

    def _head(self, item: Item) -> Head:
        with self._opened(item) as file:
            return inspect_audio(file, self._where(item), self.options)

    def _decode(self, item: Item) -> np.ndarray:
        with self._opened(item) as file:
            return decode_audio(file, self._where(item), self.rate, self.channels, self.options.max_seconds)

    def _add(self, name: str, label: str | None, samples: np.ndarray) -> None:
        self.total += len(samples)
        if self.options.trim:
            kept = trim_ends(samples, self.rate, self.options.trim)
            self.trimmed += len(samples) - len(kept)
            samples = kept
        if not len(samples):
            self.silent += 1
            return
        size = round(self.options.cut * self.rate) or len(samples)
        pieces = [samples[start : start + size] for start in range(0, len(samples), size)]
        self.cut += len(pieces) > 1
        for number, piece in enumerate(pieces):
            self.names.append(name if len(pieces) == 1 else f"{name}#{number}")
            self.lengths.append(len(piece))
            self.pack.append(piece)
            self.labels += [] if label is None else [label]

    def notes(self) -> list[str]:
        """What was done, in sentences."""
        said = []
        if self.resampled:
            said.append(f"{self.resampled} files were resampled to {self.rate} samples a second.")
        if self.options.trim:
            said.append(
                f"Trimming dropped {self.trimmed / self.rate:.1f} of {self.total / self.rate:.1f} seconds "
                f"({100 * self.trimmed / max(self.total, 1):.1f} %)."
            )
        if self.silent:
            said.append(f"Left out {self.silent} files that are silent all through.")
        if self.cut:
            said.append(f"{self.cut} files were cut into pieces of {self.options.cut:g} seconds.")
        if self.bad:
            said.append(f"Skipped {len(self.bad)} files that cannot be read: " + " ".join(map(str, self.bad[:3])))
        return said


def typed(text: str) -> Tensor:
    """Nobody can type a sound.

    Raises:
        UsageError: always; the text says what to do.
    """
    raise UsageError(f"{text[:60]!r} is not a sound. Give a file: @{text[:60] or 'beginning.wav'}.")
