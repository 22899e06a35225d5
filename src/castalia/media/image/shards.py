"""Pictures that stay on the disk: a data set that decodes what a batch asks for, and nothing else.

A :class:`Source` knows where each picture lies (:mod:`castalia.media.image.webdataset`,
:mod:`castalia.media.image.parquet_shards`). :class:`ImageShards` is the table over it. Since ``batch(ids)`` is all that
the loop uses, processes read their own rows only, and a resumed run reads what an uninterrupted one would have read.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Literal, final

import numpy as np
import torch
from torch import Tensor

from castalia.core.captions import CAPTION
from castalia.core.data import Batch, Blocks, Dataset, spread
from castalia.core.errors import DataError
from castalia.core.files import open_plain
from castalia.core.rng import Rng
from castalia.core.specs.image import ImageSpec
from castalia.media.captions import caption_bytes, caption_columns
from castalia.media.image.array import mirror
from castalia.media.image.decode import DARK, Head, ImageOptions, dark_note, decode_image, inspect_image
from castalia.media.image.tree import Item

MIXED = 1 << 14
"""Examples that a window should mix at least, where memory allows it."""

MIXED_BLOCKS = 8
"""Blocks that a window mixes at least, where memory allows it."""

# What is looked at when a set is opened: a few pictures of a few blocks.
_BLOCKS_SEEN, _PICTURES_SEEN = 4, 16
# Larger pictures are worth a thread; see sources.py.
_WORTH_THREADS = 128 * 128
_THREADS = 4
_PREAD = hasattr(os, "pread")  # not on Windows


class Source(ABC):
    """Encoded pictures at known places, in blocks.

    Attributes:
        blocks: how they are laid out.
        labels: class numbers ``int32`` (N,), or None.
        classes: names of the labels over all splits.
        captions: there are captions.
        notes: what a person should know.
    """

    blocks: Blocks
    labels: np.ndarray | None
    classes: tuple[str, ...]
    captions: bool
    notes: list[str]

    def __len__(self) -> int:
        return int(self.blocks.sizes.sum())

    @abstractmethod
    def read(self, i: int) -> bytes:
        """The picture file of example ``i``; empty where there is none. Safe to call from several threads.

        Raises:
            DataError: the shard cannot be read, or is not what it was when it was opened.
        """

    @abstractmethod
    def text(self, i: int) -> str:
        """The caption of example ``i``; empty where it has none."""

    @abstractmethod
    def name(self, i: int) -> str:
        """The shard and the name of example ``i`` in it."""

    @abstractmethod
    def digest(self) -> bytes:
        """A hash of names, sizes and a sample of the contents."""


@final
class Lazy:
    """A column of texts that are made when they are looked at."""

    def __init__(self, size: int, make: Callable[[int], str]) -> None:
        self._size, self._make = size, make

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int, /) -> str:
        if not 0 <= index < self._size:
            raise IndexError(index)
        return self._make(int(index))

    def __iter__(self) -> Iterator[str]:
        return map(self._make, range(self._size))


@final
class ImageShards(Dataset):
    """Pictures that are read from their shards and decoded when a batch asks for them.

    Size and channels are those of ``options``. Where these leave them open, they are settled by a few pictures of a
    few blocks, because looking at all would be to read everything.

    A picture that cannot be decoded is an error, or with ``on_bad_file="skip"`` gives way to the next one of its block
    that can. Which one depends on nothing but the files, so processes and resumed runs agree.

    Args:
        source: where the pictures are.
        options: how to read them.
        name: what to call the data.
        where: its path, for errors.

    Attributes:
        labels: ``int32`` (N,) class numbers, or None.

    Raises:
        DataError: pictures that were looked at cannot be read, or differ in size while ``options`` name none.
    """

    def __init__(self, source: Source, options: ImageOptions, *, name: str, where: str) -> None:
        self.source, self.options, self.name, self.where = source, options, name, where
        self.labels: Tensor | None = None if source.labels is None else torch.from_numpy(source.labels)
        self.blocks = source.blocks
        self.notes = tuple(source.notes)
        self.files = Lazy(len(source), source.name)
        if source.captions:
            self.texts = Lazy(len(source), source.text)
        self._ends = np.cumsum(source.blocks.sizes)
        self._lock, self._replaced, self._said = threading.Lock(), set[int](), 0
        self._pools: dict[int, ThreadPoolExecutor] = {}
        self._ahead: ThreadPoolExecutor | None = None
        self._expected: tuple[np.ndarray, Future[tuple[np.ndarray, np.ndarray]]] | None = None
        heads = self._look()
        if not heads:
            raise DataError(f"{where}: none of the pictures that were looked at can be read.")
        height, width = options.height_width or _one_size(heads, source, where)
        channels: Literal[1, 3, 4] = options.channels or self._common_channels(heads)
        # Narrower than the base class says, and never set again.
        self.captions = options.captions if source.captions else 0
        self.spec: ImageSpec = ImageSpec(  # pyright: ignore[reportIncompatibleVariableOverride]
            channels, height, width, source.classes, columns=caption_columns(self.captions)
        )
        self._channels: Literal[1, 3, 4] = channels
        deep = [i for i, head in heads.items() if head.deep]
        if deep and all(self._darkest(i) for i in deep):
            self.notes += (dark_note(len(deep)),)
        pixels = sum(head.height * head.width for head in heads.values()) / len(heads)
        self._threads = min(_THREADS, os.cpu_count() or 1) if pixels > _WORTH_THREADS else 1
        open_ = [what for what, given in (("size", options.size), ("channels", options.channels)) if given is None]
        self.notes += ("Pictures are read from their shards while they are used.",)
        if open_ and len(heads) < len(source):
            self.notes += (
                f"Settled by {len(heads)} of {len(source):,} pictures: {' and '.join(open_)} "
                f"({channels} x {height} x {width}).",
            )
        digest = hashlib.blake2b(repr((len(source), self.spec.shape, source.classes)).encode(), digest_size=16)
        digest.update(source.digest())
        if source.labels is not None:
            digest.update(source.labels.data)
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        """Return the examples ``ids`` (``int64`` (B,)).

        With ``flip``, example i of the batch is mirrored where ``rng.uniform("flip")[i] < 0.5``.

        Raises:
            DataError: a shard cannot be read or has changed; without ``on_bad_file="skip"``, a picture is damaged.
        """
        index = torch.from_numpy(ids)
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(self):
            raise IndexError(f"{self.name} has no examples {ids.min()} to {ids.max()}")
        expected, self._expected = self._expected, None
        if expected is not None and np.array_equal(expected[0], ids):
            out, used = expected[1].result()
        else:
            if expected is not None:
                expected[1].cancel()
            out, used = self._read(ids, self._threads)
        if len(self._replaced) > self._said:
            self._say()
        x = torch.from_numpy(out)
        if self.options.flip and rng is not None:
            x = mirror(x, rng)
        label = None if self.labels is None else self.labels.index_select(0, torch.from_numpy(used)).long()
        if not self.captions:
            return Batch(x, index, label)
        return Batch(x, index, label, {CAPTION: caption_bytes(self.texts, used.tolist(), self.captions)})

    def expect(self, ids: np.ndarray, threads: int) -> None:
        """Read and decode ``ids`` beside the caller; the next :meth:`batch` takes them if it is of the same."""
        if self._ahead is None:
            self._ahead = ThreadPoolExecutor(1, "ahead")
        if self._expected is not None:
            self._expected[1].cancel()
        self._expected = ids, self._ahead.submit(self._read, ids, min(threads, self._threads))

    def _read(self, ids: np.ndarray, threads: int) -> tuple[np.ndarray, np.ndarray]:
        """Pictures ``uint8`` (B, C, H, W), and of which example each is."""
        out = np.empty((len(ids), *self.spec.shape), np.uint8)
        used = np.empty(len(ids), np.int64)

        def put(positions: np.ndarray) -> None:
            for k in positions.tolist():
                used[k], pixels = self._picture(int(ids[k]))
                out[k] = pixels.transpose(2, 0, 1)

        order = np.argsort(ids, kind="stable")  # as they lie on the disk
        if threads > 1 and len(ids) > 1:
            with self._lock:
                pool = self._pools.setdefault(threads, ThreadPoolExecutor(threads))  # idle ones have no threads
            list(pool.map(put, np.array_split(order, min(len(ids), 4 * threads))))
        else:
            put(order)
        return out, used

    def _picture(self, i: int) -> tuple[int, np.ndarray]:
        """Example ``i`` (H, W, C), or the one that takes its place; and which it is."""
        block = int(np.searchsorted(self._ends, i, side="right"))
        size = int(self.source.blocks.sizes[block])
        first = int(self._ends[block]) - size
        for step in range(size):
            j = first + (i - first + step) % size
            data = self.source.read(j)  # a shard that cannot be read is no bad picture
            try:
                pixels = self._decode(data, j)
            except DataError:
                if self.options.on_bad_file == "error":
                    raise
                with self._lock:
                    self._replaced.add(j)
            else:
                return j, pixels
        raise DataError(f"{self._named(i)}: neither it nor any other picture of its block can be read.")

    def _decode(self, data: bytes, i: int) -> np.ndarray:
        self._check_there(data, i)
        try:
            pixels = decode_image(data, "", self.options, self._channels)
        except DataError as error:  # names are dear to look up, so only now
            raise DataError(f"{self._named(i)}{error}") from error
        if pixels.shape[:2] != (self.spec.height, self.spec.width):
            raise DataError(
                f"{self._named(i)}: it is {pixels.shape[1]} x {pixels.shape[0]}, while the first are "
                f"{self.spec.width} x {self.spec.height}; pass a size, for example size = 64."
            )
        return pixels

    def _check_there(self, data: bytes, i: int) -> None:
        if not data:
            raise DataError(f"{self._named(i)}: holds no picture bytes (only a path?); embed the files.")

    def _named(self, i: int) -> str:
        return f"{self.where}: {self.source.name(i)}"

    def _say(self) -> None:
        """Count the pictures that gave way in the notes; warn once, because notes are read before training."""
        with self._lock:
            replaced = sorted(self._replaced)
        first, self._said = not self._said, len(replaced)
        some = ", ".join(self.source.name(i) for i in replaced[:3])
        note = f"Gave way to their neighbours because they cannot be read: {len(replaced)} pictures ({some})."
        self.notes = (*(n for n in self.notes if not n.startswith("Gave way")), note)
        if first:
            warnings.warn(f"{self.name}: {note} Further ones are counted in silence.", stacklevel=3)

    def _look(self) -> dict[int, Head]:
        """The headers of some pictures, by example."""
        found: dict[int, Head] = {}
        sizes = self.source.blocks.sizes
        there = np.flatnonzero(sizes)  # a split may leave nothing of a small block
        for block in there[spread(len(there), _BLOCKS_SEEN)].tolist():
            for i in spread(int(sizes[block]), _PICTURES_SEEN) + int(self._ends[block] - sizes[block]):
                data = self.source.read(int(i))
                try:
                    self._check_there(data, int(i))
                    found[int(i)] = inspect_image(io.BytesIO(data), self._named(int(i)), self.options)
                except DataError:
                    if self.options.on_bad_file == "error":
                        raise
        return found

    def _darkest(self, i: int) -> bool:
        """Whether a picture of 16 bits is nearly black."""
        try:
            return bool((decode_image(self.source.read(i), self._named(i), self.options, 1) <= DARK).all())
        except DataError:
            return True

    def _common_channels(self, heads: Mapping[int, Head]) -> Literal[1, 3, 4]:
        """The fewest that hold the pictures that were looked at; alpha only where any of it is transparent."""
        found: set[Literal[1, 3, 4]] = {head.channels for head in heads.values()}
        for i in (i for i, head in heads.items() if head.channels == 4):
            try:
                if (decode_image(self.source.read(i), self._named(i), self.options, 4)[:, :, 3] < 255).any():
                    return 4
            except DataError:
                if self.options.on_bad_file == "error":
                    raise
        return 1 if found == {1} else 3


def _one_size(heads: Mapping[int, Head], source: Source, where: str) -> tuple[int, int]:
    first = next(iter(heads.values()))
    for i, head in heads.items():
        if (head.height, head.width) != (first.height, first.width):
            known = source.name(next(iter(heads)))
            raise DataError(
                f"{where}: the pictures differ in size ({known} is {first.width} x {first.height}, {source.name(i)} is "
                f"{head.width} x {head.height}); pass a size, for example size = 64."
            )
    return first.height, first.width


def items_of(source: Source) -> list[Item]:
    """The same pictures for the reader that decodes all of them into memory."""
    known: dict[str, str] = {}  # equal captions share their memory

    def opened(i: int) -> BinaryIO:
        data = source.read(i)
        if not data:
            raise DataError(f"{source.name(i)}: holds no picture bytes (only a path?); embed the files.")
        return io.BytesIO(data)

    def item(i: int) -> Item:
        label = None if source.labels is None else int(source.labels[i])
        text = source.text(i) if source.captions else None
        return Item(source.name(i), lambda: opened(i), label, text if text is None else known.setdefault(text, text))

    return [item(i) for i in range(len(source))]


def window_of(sizes: np.ndarray, most: int | None = None) -> int:
    """How many blocks of ``sizes`` (K,) a window mixes; at most ``most``, at least 1."""
    window = max(MIXED_BLOCKS, -(-MIXED * len(sizes) // max(int(sizes.sum()), 1)))
    return min(window, len(sizes), max(1, most or window))


def number_labels(
    parts: Sequence[tuple[np.ndarray, Sequence[str | int]]],
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Number classes alike over all shards, in sorted order: whole numbers by value, else texts.

    Args:
        parts: for each shard the position of each label, ``int32`` (N,), in its own list of values; -1 for none.

    Returns:
        For each shard its class numbers ``int32`` (N,), -1 for none, and the names.
    """
    values = sorted({value for _, own in parts for value in own}, key=lambda v: (isinstance(v, str), v))
    classes = tuple(dict.fromkeys(str(v) for v in values))
    number = {name: i for i, name in enumerate(classes)}
    return [np.array([*(number[str(v)] for v in own), -1], np.int32)[codes] for codes, own in parts], classes


@final
class Files:
    """A few open files, read at given places from any thread."""

    def __init__(self, most: int = 32) -> None:
        self._most, self._lock, self._open = most, threading.Lock(), dict[Path, _Handle]()

    def read(self, path: Path, offset: int, size: int, total: int) -> bytes:
        """``size`` bytes from ``offset`` of a file that had ``total`` bytes when it was listed.

        Raises:
            DataError: it cannot be read, or has another size now.
        """
        data = b""
        try:
            with self._lock:
                file = self._open.pop(path, None)
                if file is None:
                    file = _Handle(path)
                    if os.fstat(file.number).st_size != total:
                        raise DataError(f"{path} has changed since it was opened. Start again.")
                self._open[path] = file
                if len(self._open) > self._most:  # closed when the last thread lets go of it
                    self._open.pop(next(iter(self._open)))
                if not _PREAD:
                    os.lseek(file.number, offset, os.SEEK_SET)
                    data = os.read(file.number, size)
            if _PREAD:
                data = os.pread(file.number, size, offset)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}).") from error
        if len(data) != size:
            raise DataError(f"{path} has changed since it was opened: it ends early. Start again.")
        return data


class _Handle:
    """An open file that closes when nobody holds it any more."""

    def __init__(self, path: Path) -> None:
        self._file = open_plain(path)
        self.number = self._file.fileno()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
