"""From a path to a data set of sound: which files, which split, which labels."""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from castalia.core.errors import DataError, UsageError, near
from castalia.core.spec import Spec
from castalia.core.specs.audio import AudioSpec
from castalia.media.audio.clips import FULL_SCALE, AudioClips, Pack
from castalia.media.audio.decode import SUFFIXES, AudioOptions, Head, decode_audio, inspect_audio, trim_ends
from castalia.media.image.array import Progress
from castalia.media.image.tree import Item, brief, file_opener, list_folder, list_zip, read_bounded
from castalia.media.splits import SPLITS, hashed_split, pick_split

FEW_FILES = 10
"""Fewer files than this are split by their pieces, because a tenth of them would be none."""

LOOKED_AT = 500
"""Names looked at to tell whether a folder or zip holds sound."""


def is_audio(path: Path) -> bool:
    """Whether a path is a sound file, or a folder or zip that has one among its first files."""
    if path.is_dir():
        from castalia.media.image.tree import walk

        names = (name for name, _ in zip(walk(path), range(LOOKED_AT), strict=False))
        return any(is_sound(name) for name in names)
    if path.suffix.lower() == ".zip" and path.is_file():
        try:
            with ExitStack() as stack:
                return any(is_sound(item.name) for item in list_zip(path, stack)[:LOOKED_AT])
        except DataError:
            return False
    return is_sound(path.name) and path.is_file()


def is_sound(name: str) -> bool:
    """Whether a file's name ends like that of a sound file."""
    return posixpath.splitext(name)[1].lower() in SUFFIXES


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
        items, notes = _list(path, stack)
        found = _arrange(items, options, str(path), split)
        by_file = len(found.items) >= FEW_FILES
        chosen = found
        if by_file:
            rows, more = hashed_split(split, found.split, [item.name for item in found.items], str(path), "files")
            chosen = found if rows is None else found.of(rows.tolist())
            notes += more
        reader = _Reader(path, chosen, options, like, progress)
        reader.read()
    labels = _numbers(reader.labels, found, like, str(path))
    kept, names = np.arange(len(reader.names)), reader.names
    if not by_file:
        rows, more = hashed_split(split, found.split, names, str(path), "pieces")
        kept = kept if rows is None else rows
        notes += more
    classes = () if labels is None else like.classes if like is not None else found.classes
    length = options.samples(reader.rate) if like is None else like.length
    samples, ends = _some(reader.pack.array().reshape(-1, reader.channels), np.cumsum(reader.lengths), kept)
    return AudioClips(
        samples,
        ends,
        AudioSpec(reader.rate, reader.channels, length, classes),
        name=name or path.name,
        labels=None if labels is None else labels[kept],
        files=[names[i] for i in kept],
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


@dataclass(frozen=True)
class _Found:
    """The files of one split, in a fixed order.

    Attributes:
        items: the files.
        labels: name of each one's class; empty where there are none.
        classes: names of the classes over all splits, in order.
        notes: what a person should know.
        split: which of the source's own splits this is; None where it has none.
    """

    items: list[Item]
    labels: list[str]
    classes: tuple[str, ...]
    notes: list[str]
    split: str | None

    def of(self, rows: Sequence[int]) -> _Found:
        labels = [self.labels[i] for i in rows] if self.labels else []
        return _Found([self.items[i] for i in rows], labels, self.classes, self.notes, self.split)


def _list(path: Path, stack: ExitStack) -> tuple[list[Item], list[str]]:
    """Every sound file of a source, and notes."""
    if path.is_dir():
        items, notes = list_folder(path)
    elif not path.is_file():
        raise DataError(f"{path} does not exist." if not path.exists() else f"{path} is neither a file nor a folder.")
    elif path.suffix.lower() == ".zip":
        items, notes = list_zip(path, stack), []
    else:
        items, notes = [Item(path.name, file_opener(path))], []
    sounds = [item for item in items if is_sound(item.name)]
    if not sounds:
        raise DataError(f"{path} holds no sound files ({', '.join(sorted(SUFFIXES))}).")
    if len(sounds) < len(items):
        notes = [*notes, f"Ignored {len(items) - len(sounds)} files that are not sound."]
    return sounds, notes


def _arrange(items: list[Item], options: AudioOptions, where: str, split: str | None) -> _Found:
    """Find splits and labels in the names of files."""
    base = _wrapper([item.name for item in items])
    heads = [_first(item.name, base) for item in items]
    own = all(head.lower() in SPLITS for head in heads)
    below = [f"{base}{head}/" if own else base for head in heads]
    labels: list[str] = []
    if options.labels == "folders":
        labels = [_first(item.name, start) for item, start in zip(items, below, strict=True)]
        labels = labels if all(labels) else []
    elif options.labels != "none":
        labels = [_by_pattern(item.name, options.labels, where) for item in items]
    notes = []
    if not own and any(head.lower() in ("train", "test") for head in heads):
        notes.append(f"Folders {', '.join(sorted(set(heads))[:6])} are not taken as splits: not all of them are.")
    whole = _Found(items, labels, _in_order(set(labels)), notes, None)
    if not own:
        return whole
    rows: dict[str, list[int]] = {}
    for i, head in enumerate(heads):
        rows.setdefault(SPLITS[head.lower()], []).append(i)
    chosen, mine, more = pick_split(rows, split, where)
    part = whole.of(mine)
    return _Found(part.items, part.labels, part.classes, [*notes, *more], chosen)


def _first(name: str, base: str) -> str:
    """The first folder of a name below ``base``; empty for a file that lies in it."""
    head, slash, _ = name[len(base) :].partition("/")
    return head if slash else ""


def _wrapper(names: list[str]) -> str:
    """The folders that hold everything and mean nothing; a single folder of files is one as well."""
    base = ""
    while True:
        heads = {_first(name, base) for name in names}
        head = next(iter(heads))
        if len(heads) > 1 or not head or head.lower() in SPLITS:
            return base
        base = f"{base}{head}/"


def _by_pattern(name: str, pattern: str, where: str) -> str:
    parts = [re.escape(part).replace(r"\*", ".*?") for part in pattern.split("{label}")]
    found = re.fullmatch(f"{parts[0]}(?P<label>.+?){parts[1]}", posixpath.splitext(posixpath.basename(name))[0])
    if found is None:
        raise DataError(
            f"{where}: the name {brief(name)} does not fit the pattern labels = {pattern!r}; give another pattern, or "
            "none."
        )
    return found["label"]


def _in_order(labels: set[str]) -> tuple[str, ...]:
    """Whole numbers by value, anything else by its text."""
    if all(re.fullmatch("[0-9]{1,18}", label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def _numbers(labels: list[str], found: _Found, like: AudioSpec | None, where: str) -> np.ndarray | None:
    """Class numbers, ``int64`` (N,), or None."""
    if not labels or (like is not None and not like.classes):
        return None
    classes = found.classes if like is None else like.classes
    number = {label: i for i, label in enumerate(classes)}
    unknown = next((label for label in labels if label not in number), None)
    if unknown is not None:
        raise DataError(f"{where}: the class {brief(unknown)} is not one of the run's. {near(unknown, classes)}")
    return np.array([number[label] for label in labels], np.int64)


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
        self, path: Path, found: _Found, options: AudioOptions, like: AudioSpec | None, progress: Progress | None
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
