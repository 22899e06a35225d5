"""Pictures in NumPy files: ``.npy`` and ``.npz``, of numbers only."""

from __future__ import annotations

import math
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from castalia.core.errors import DataError
from castalia.media.image.array import allocate
from castalia.media.image.tree import MAX_RATIO, brief
from castalia.media.splits import SPLITS, pick_split

MAX_ARRAY_BYTES = 16 << 30
MAX_LABEL_BYTES = 4 << 10
"""Of one label."""

PICTURES = ("images", "image", "x", "imgs", "img", "pictures", "data")
LABELS = ("labels", "label", "y", "targets", "target", "classes", "class")


@dataclass(frozen=True)
class ArrayListing:
    """Pictures that need no decoding.

    Attributes:
        pixels: ``uint8`` (N, H, W, C).
        labels: ``int64`` (N,), or None.
        classes: names of the labels.
        notes: what a person should know.
        split: which of the source's own splits this is; None where it has none.
        captions: a text for each picture; empty where there are none.
    """

    pixels: np.ndarray
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    split: str | None = None
    captions: tuple[str, ...] = ()


def read_npy(path: Path, memory_limit: int) -> ArrayListing:
    """Read an array of pictures from ``.npy``.

    Args:
        path: ``uint8``, bool, or float in [0, 1]; (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1, 3 or 4.
        memory_limit: conversions larger than this go to a temporary file.

    Raises:
        DataError: it is not such an array.
    """
    try:
        # Copy on write: the file is mapped, and nothing can alter it.
        array = np.load(path, mmap_mode="c", allow_pickle=False)  # safe: objects are refused
    except Exception as error:  # NumPy reads the header as Python text: syntax, tokens, nesting, memory
        raise DataError(f"{path}: not a .npy array that can be read ({_brief(error)}).") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: not a .npy array.")
    pixels, notes = _as_pixels(array, str(path), memory_limit)
    return ArrayListing(pixels, notes=notes)


def read_npz(path: Path, split: str | None, memory_limit: int) -> ArrayListing:
    """Read pictures, and labels where there are any, from ``.npz``.

    Arrays are told by their names: ``images``, ``x`` and their like, or the only one with three or four dimensions;
    ``labels``, ``y`` and their like beside, or ``arr_1`` beside ``arr_0``; with ``train``, ``test`` or ``val`` in the
    names they are splits (``x_train``, ``test_images``). Headers are read first, and only what is used after them.

    Raises:
        DataError: it is damaged, too large, holds no pictures, or several arrays that could be the pictures.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_npz(archive, path, split, memory_limit)
    except DataError:
        raise
    except Exception as error:  # zip, zlib and NumPy errors share no base class
        raise DataError(f"{path}: not an .npz archive that can be read ({_brief(error)}).") from error


def _read_npz(archive: zipfile.ZipFile, path: Path, split: str | None, memory_limit: int) -> ArrayListing:
    entries = [entry for entry in (_entry(archive, info, path) for info in archive.infolist()) if entry is not None]
    notes: list[str] = []
    images = _by_split([e for e in entries if len(e.shape) in (3, 4)], PICTURES, path, notes)
    if not images:
        shapes = ", ".join(map(str, entries[:20])) or "nothing"
        raise DataError(f"{path}: no array of pictures (N, H, W) or (N, H, W, C); it holds {shapes}.")
    own = "" not in images
    named = [e for e in entries if len(e.shape) < 3 and _rank(e.key, LABELS) < len(LABELS)]
    if not named and own is False and images[""].key == "arr_0":  # np.savez(file, pictures, labels)
        named = [
            e for e in entries if e.key == "arr_1" and e.shape in (images[""].shape[:1], (*images[""].shape[:1], 1))
        ]
    labels = _by_split(named, LABELS, path, notes, strict=False)
    chosen, entry, more = pick_split(images, split if own else "", str(path))
    raw = _load(archive, entry, path, memory_limit)
    pixels, scaled = _as_pixels(raw, f"{path}: {brief(entry.key)}", memory_limit)
    found: dict[str, np.ndarray] = {}
    for part, one in labels.items():
        if part not in images:
            notes.append(f"{one} is left out: there are no pictures for it.")
            continue
        at = f"{path}: {brief(one.key)}"
        if len(one.shape) not in (1, 2) or (len(one.shape) == 2 and one.shape[1] != 1):
            raise DataError(f"{at}: labels must be one number per picture, not {one.shape}.")
        pictures = images[part]
        if one.shape[0] != pictures.shape[0]:
            text = f"{pictures.shape[0]} pictures in {pictures.key!a} but {one.shape[0]} labels in {one.key!a}"
            raise DataError(f"{path}: {text}.")
        if one.dtype.kind not in "iuUSbf" or not 0 < one.dtype.itemsize <= MAX_LABEL_BYTES:
            notes.append(f"{one} is left out: labels are whole numbers, texts or truth values.")
            continue
        values = _as_labels(_load(archive, one, path, memory_limit), notes, one)
        if values is not None:
            found[part] = values
    notes += [*more, *scaled]
    mine = found.get(chosen)
    if mine is None:
        return ArrayListing(pixels, notes=notes, split=chosen if own else None)
    kinds = {values.dtype.kind in "iu" for values in found.values()}
    if len(kinds) > 1:
        raise DataError(f"{path}: labels are numbers in one split and texts in another.")
    classes = np.unique(np.concatenate([np.unique(values) for values in found.values()]))
    numbers = np.searchsorted(classes, mine)
    return ArrayListing(pixels, numbers, tuple(map(str, classes)), notes, chosen if own else None)


@dataclass(frozen=True)
class _Entry:
    """An array in an ``.npz``, as its header declares it.

    Attributes:
        info: where it is.
        key: its name.
        shape: of the array.
        dtype: of its values; never objects.
        fortran: the first dimension varies fastest.
        offset: bytes before the values.
    """

    info: zipfile.ZipInfo
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    offset: int

    def __str__(self) -> str:
        return f"{brief(self.key)} {self.dtype.str} {self.shape}"


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> _Entry | None:
    """What an entry's header says; None where it is no array of plain values.

    Raises:
        DataError: it declares more than it can hold.
    """
    if not info.filename.endswith(".npy"):
        return None
    try:
        with archive.open(info) as file:
            version = npy.read_magic(file)
            read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
            shape, fortran, dtype = read(file)
            offset = file.tell()
    except Exception:  # NumPy reads the header as Python text, which fails in many ways
        return None
    if dtype.hasobject:
        return None
    size = math.prod(shape) * dtype.itemsize
    found = _Entry(info, info.filename[:-4], shape, dtype, fortran, offset)
    if size > MAX_ARRAY_BYTES:
        raise DataError(f"{path}: {found} declares {size:,} bytes; too large.")
    if size != info.file_size - offset or min(shape, default=0) < 0:
        raise DataError(f"{path}: {found} is damaged: it has {info.file_size - offset:,} bytes, not {size:,}.")
    if info.file_size > MAX_RATIO * info.compress_size + (64 << 20):
        raise DataError(
            f"{path}: refused, because {brief(info.filename)} declares {info.file_size:,} bytes out of "
            f"{info.compress_size:,}, more than an array would (a zip bomb?)."
        )
    return found


def _load(archive: zipfile.ZipFile, entry: _Entry, path: Path, memory_limit: int) -> np.ndarray:
    """The values of an array; large ones in a temporary file."""
    size = math.prod(entry.shape) * entry.dtype.itemsize
    raw = allocate((size,), memory_limit)
    with archive.open(entry.info) as file:
        file.read(entry.offset)
        done = 0
        while done < size:
            block = file.read(min(1 << 20, size - done))
            if not block:
                raise DataError(f"{path}: {entry} is truncated.")
            raw[done : done + len(block)] = np.frombuffer(block, np.uint8)
            done += len(block)
    return raw.view(entry.dtype).reshape(entry.shape, order="F" if entry.fortran else "C")


def _words(key: str) -> list[str]:
    return re.split(r"[^a-z0-9]+", key.lower())


def _rank(key: str, names: tuple[str, ...]) -> int:
    """The place of the first of ``names`` that is a word of ``key``; their number where none is."""
    words = _words(key)
    return next((i for i, name in enumerate(names) if name in words), len(names))


def _by_split(
    entries: list[_Entry], names: tuple[str, ...], path: Path, notes: list[str], strict: bool = True
) -> dict[str, _Entry]:
    """For each split the array with the best name; the others are said.

    Raises:
        DataError: ``strict``, and several of no or of the same name are there.
    """
    found: dict[str, list[_Entry]] = {}
    for entry in entries:
        split = next((SPLITS[word] for word in _words(entry.key) if word in SPLITS), "")
        found.setdefault(split, []).append(entry)
    if (
        "" in found
        and len(found) > 1
        and any(_rank(e.key, names) < len(names) for s, es in found.items() if s for e in es)
    ):
        rest = found.pop("")  # x_train, x_test and something else
        notes.append(f"Left out: {', '.join(map(str, rest[:5]))}.")
    best: dict[str, _Entry] = {}
    for split, some in found.items():
        some.sort(key=lambda entry: _rank(entry.key, names))
        alike = [e for e in some if _rank(e.key, names) == _rank(some[0].key, names)]
        if strict and len(alike) > 1:
            raise DataError(
                f"{path}: {', '.join(map(str, alike[:5]))} could all be the pictures; call the one 'images', or 'x'."
            )
        best[split] = some[0]
        if len(some) > 1:
            notes.append(f"Taken: {some[0]}. Left out: {', '.join(map(str, some[1:6]))}.")
    return best


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _as_labels(array: np.ndarray, notes: list[str], entry: _Entry) -> np.ndarray | None:
    """Labels ``int64`` or texts (N,); None where they are no classes, which is noted."""
    array = array.reshape(len(array))
    if array.dtype.kind == "f":
        if not (np.isfinite(array) & (array == np.floor(array)) & (np.abs(array) < 2**53)).all():
            notes.append(f"{entry} is left out: its numbers are not whole, and so no classes.")
            return None
        return array.astype(np.int64)
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind == "u" and array.dtype.itemsize == 8:
        return array.astype(array.dtype.newbyteorder("="))
    return array.astype(str) if array.dtype.kind in "bU" else array.astype(np.int64)


def _as_pixels(array: np.ndarray, where: str, memory_limit: int) -> tuple[np.ndarray, list[str]]:
    """``uint8`` (N, H, W, C) and notes."""
    notes = []
    if array.ndim == 3:
        array = array[..., None]
    elif array.ndim == 4 and array.shape[3] not in (1, 3, 4) and array.shape[1] in (1, 3, 4):
        notes.append(f"{where}: {array.shape} is read as (N, C, H, W).")
        array = np.moveaxis(array, 1, 3)
    if array.ndim != 4 or array.shape[3] not in (1, 3, 4) or 0 in array.shape:
        raise DataError(f"{where}: shape {array.shape} is not (N, H, W) or (N, H, W, C) with C 1, 3 or 4.")
    if array.dtype == np.uint8:
        return array, notes
    if array.dtype.kind not in "fb":
        raise DataError(f"{where}: holds {array.dtype}; pictures are uint8 (0 to 255) or float (0 to 1).")
    out = allocate(array.shape, memory_limit)
    for start in range(0, len(array), 256):
        part = np.asarray(array[start : start + 256], np.float32)
        if not (part.min() >= 0 and part.max() <= 1):  # also false for NaN
            raise DataError(f"{where}: float pictures must lie in 0 to 1; found {part.min():g} to {part.max():g}.")
        out[start : start + 256] = np.rint(part * 255)
    return out, [*notes, f"{where}: {array.dtype} values 0 to 1 were scaled to 0 to 255."]
