"""Parquet that stays on the disk: row groups are read while their pictures are used (``castalia[parquet]``)."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from castalia.core.data import Blocks
from castalia.core.errors import DataError
from castalia.media.image.parquet import open_file, parquet_paths, picture_bytes
from castalia.media.image.shards import Files, Source, number_labels, window_of
from castalia.media.splits import hashed_split, names_telling_splits, own_split

MAX_TEXT = 1 << 20
"""Characters of a caption."""

KEPT_BYTES = 512 << 20
"""Row groups held while pictures are read from the disk: at most this, or one if that is larger."""
# Of each file, for the fingerprint: its end, where the footer is, and pieces spread over it.
_FOOTER_BYTES, _PIECES, _PIECE_BYTES = 64 << 10, 8, 4 << 10


@dataclass(frozen=True)
class _Part:
    """What is kept of one file while it is closed.

    Attributes:
        path: of the file.
        total: its bytes.
        image: name of the picture column.
        text: name of the caption column, or None.
        rows: in each row group, ``int64`` (K,).
        largest: bytes of the largest row group, unpacked.
        names: of the classes, where the file declares them.
        codes: position of each label in ``values``, ``int32`` (N,), -1 where it is unknown; None without labels.
        values: the labels that may occur.
        notes: what a person should know of other columns.
    """

    path: Path
    total: int
    image: str
    text: str | None
    rows: np.ndarray
    largest: int
    names: list[str] | None
    codes: np.ndarray | None
    values: list[str | int]
    notes: tuple[str, ...]

    @staticmethod
    def of(path: Path) -> _Part:
        with open_file(path) as file:
            metadata = file.file.metadata
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            names = file.class_names() if file.label else None
            codes, values = file.labels()
            return _Part(
                path,
                path.stat().st_size,
                file.image,
                file.text,
                np.array([group.num_rows for group in groups], np.int64),
                # not of the pictures' column alone: pyarrow aborts the process on damaged metadata of columns
                max((max(group.total_byte_size, 0) for group in groups), default=0),
                names,
                codes,
                values,
                tuple(file.notes),
            )


@final
class ParquetShards(Source):
    """The pictures of one Parquet file, or of all below a folder, read by row group while they are used.

    Opening reads the footers and the labels.

    Args:
        path: of the file or folder.
        split: ``train``, ``test``, ``validation`` or None, as in :func:`castalia.media.image.sources.open_images`.

    Raises:
        MissingExtra: pyarrow is not installed.
        DataError: a file is no Parquet or has no picture column, labels are not valid, or there is no such split.
    """

    def __init__(self, path: Path, split: str | None) -> None:
        every = [_Part.of(one) for one in parquet_paths(path)]
        labels, self.classes = _numbered(every)
        names = names_telling_splits(path, [part.path for part in every])
        own, chosen, notes = own_split(list(zip(every, labels, strict=True)), names, split, str(path))
        self.parts = [part for part, _ in chosen]
        counts = np.concatenate([part.rows for part in self.parts])
        if not counts.sum():
            raise DataError(f"{path} holds no rows.")
        self._ends = np.cumsum(counts)
        self._part = np.repeat(np.arange(len(self.parts)), [len(part.rows) for part in self.parts])
        self._first = np.cumsum([0, *(len(part.rows) for part in self.parts)])
        rows = (f"{part.path.name} row {i}" for part in self.parts for i in range(int(part.rows.sum())))
        self._rows, more = hashed_split(split, own, rows, str(path))
        self.notes = [*notes, *more, *dict.fromkeys(note for part in every for note in part.notes)]
        mine = [codes for _, codes in chosen if codes is not None]
        self.labels = np.concatenate(mine) if mine and len(mine) == len(chosen) else None
        if self.labels is not None and self._rows is not None:
            self.labels = self.labels[self._rows]
        if self.labels is not None and (self.labels < 0).any():
            self.labels = None
        self.captions = all(part.text for part in self.parts)
        most = KEPT_BYTES // max(1, max(part.largest for part in self.parts))
        self.blocks = Blocks(counts, window_of(counts, most))
        if self._rows is not None:
            self.blocks = self.blocks.of(self._rows)
        self.files = Files()
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, str], Any] = OrderedDict()

    def _at(self, i: int) -> tuple[int, int, int]:
        """Row group, row in it, row in the file."""
        row = i if self._rows is None else int(self._rows[i])
        group = int(np.searchsorted(self._ends, row, side="right"))
        part = int(self._part[group])
        before = int(self._ends[self._first[part] - 1]) if self._first[part] else 0
        start = int(self._ends[group - 1]) if group else 0
        return group, row - start, row - before

    def _column(self, group: int, name: str) -> Any:
        """A column of a row group; the last ones used are kept."""
        key = group, name
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            number = int(self._part[group])
            part = self.parts[number]
            try:
                changed = part.path.stat().st_size != part.total
            except OSError as error:
                raise DataError(f"{part.path} cannot be read ({error.strerror}).") from error
            if changed:
                raise DataError(f"{part.path} has changed since it was opened. Start again.")
            while self._kept and sum(c.nbytes for c in self._kept.values()) + part.largest > KEPT_BYTES:
                self._kept.popitem(last=False)  # before the next one is read, so that both are never held
            local = group - int(self._first[number])
            with open_file(part.path) as file:
                column = file.group(local, name)
            if len(column) != part.rows[local]:
                raise DataError(f"{part.path} has changed since it was opened. Start again.")
            self._kept[key] = column
            return column

    def read(self, i: int) -> bytes:
        """The picture file of example ``i``; empty where there is none."""
        group, row, _ = self._at(i)
        return picture_bytes(self._column(group, self.parts[self._part[group]].image)[row]) or b""

    def text(self, i: int) -> str:
        """The caption of example ``i``; empty where it has none."""
        group, row, _ = self._at(i)
        name = self.parts[self._part[group]].text
        if not name:
            return ""
        try:
            text = self._column(group, name)[row].as_py() or ""
            if len(text) <= MAX_TEXT:
                return text
        except UnicodeDecodeError as error:
            raise DataError(f"{self.name(i)}: {name!r} is not valid UTF-8; the file is damaged.") from error
        raise DataError(f"{self.name(i)}: {name!r} has {len(text):,} characters, more than {MAX_TEXT:,}.")

    def name(self, i: int) -> str:
        """The file and row of example ``i``."""
        group, _, row = self._at(i)
        return f"{self.parts[self._part[group]].path.name} row {row}"

    def digest(self) -> bytes:
        """A hash of the footers (sizes, places and, as a rule, extremes of all columns) and of pieces of the files."""
        digest = hashlib.blake2b(repr([part.path.name for part in self.parts]).encode(), digest_size=16)
        for part in self.parts:
            tail = min(_FOOTER_BYTES, part.total)
            digest.update(self.files.read(part.path, part.total - tail, tail, part.total))
            for start in np.linspace(0, max(0, part.total - _PIECE_BYTES), _PIECES).astype(np.int64).tolist():
                digest.update(self.files.read(part.path, start, min(_PIECE_BYTES, part.total), part.total))
        if self._rows is not None:
            digest.update(self._rows.data)
        return digest.digest()


def _numbered(parts: list[_Part]) -> tuple[list[np.ndarray | None], tuple[str, ...]]:
    """Class numbers of each file, ``int32`` (N,), and the names: those that the first file declares, if any."""
    if any(part.codes is None for part in parts):
        return [None] * len(parts), ()
    declared = parts[0].names
    for part in parts:
        whole = any(isinstance(value, int) for value in (*part.values, *parts[0].values))
        if whole and (part.names is None) != (declared is None):
            named, other = (parts[0], part) if part.names is None else (part, parts[0])
            raise DataError(f"{other.path} has numbers for labels, and no names for them as {named.path.name} has.")
    if declared is None:
        numbers, classes = number_labels([(part.codes, part.values) for part in parts if part.codes is not None])
        return list(numbers), classes
    number = {name: i for i, name in enumerate(declared)}
    found: list[np.ndarray | None] = []
    for part in parts:
        unknown = [v for v in part.values if str(v) not in number]
        if unknown:
            raise DataError(f"{part.path}: its class {unknown[0]!r} is not among those of {parts[0].path.name}.")
        table = np.array([*(number[str(v)] for v in part.values), -1], np.int32)
        found.append(None if part.codes is None else table[part.codes])
    return found, tuple(declared)
