"""Pictures in NumPy files: ``.npy`` and ``.npz``, of numbers only."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from castalia.core.errors import DataError
from castalia.media.image.array import allocate
from castalia.media.splits import SPLITS, pick_split

MAX_ARRAY_BYTES = 16 << 30


@dataclass(frozen=True)
class ArrayListing:
    """Pictures that need no decoding.

    Attributes:
        pixels: ``uint8`` (N, H, W, C).
        labels: ``int64`` (N,), or None.
        classes: names of the labels.
        notes: what a person should know.
        split: which of the source's own splits this is; None where it has none.
    """

    pixels: np.ndarray
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    split: str | None = None


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

    Arrays are told by their names: ``x``, ``images`` or the only one with three or four dimensions; ``y`` or
    ``labels`` beside; with ``train``, ``test`` or ``val`` in the names they are splits (``x_train``,
    ``test_images``).

    Raises:
        DataError: it is damaged, too large, or holds no pictures.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.file_size > MAX_ARRAY_BYTES:
                    raise DataError(f"{path}: {info.filename!a} declares {info.file_size} bytes; too large.")
        with np.load(path, allow_pickle=False) as archive:  # safe: objects are refused
            found = {key: archive[key] for key in archive.files}
            arrays = {key: a for key, a in found.items() if isinstance(a, np.ndarray)}  # other files are bytes
    except DataError:
        raise
    except Exception as error:  # zip, zlib and NumPy errors share no base class
        raise DataError(f"{path}: not an .npz archive that can be read ({_brief(error)}).") from error
    images = {_split_of(key): key for key, a in arrays.items() if _kind(key, a) == "images"}
    labels = {_split_of(key): key for key, a in arrays.items() if _kind(key, a) == "labels"}
    if not images:
        shapes = ", ".join(f"{key} {a.dtype} {a.shape}" for key, a in arrays.items()) or "nothing"
        raise DataError(f"{path}: no array of pictures (N, H, W) or (N, H, W, C); it holds {shapes}.")
    own = "" not in images
    chosen, key, notes = pick_split(images, split if own else "", str(path))
    pixels, more = _as_pixels(arrays[key], f"{path}: {key}", memory_limit)
    found = {s: _as_labels(arrays[k], f"{path}: {k}") for s, k in labels.items()}
    values = np.unique(np.concatenate(list(found.values()))) if found else np.empty(0)
    mine = found.get(chosen)
    if mine is None:
        return ArrayListing(pixels, notes=notes + more, split=chosen if own else None)
    if len(mine) != len(pixels):
        raise DataError(f"{path}: {len(pixels)} pictures in {key!r} but {len(mine)} labels in {labels[chosen]!r}.")
    numbers = np.searchsorted(values, mine)
    return ArrayListing(pixels, numbers, tuple(map(str, values)), notes + more, chosen if own else None)


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _split_of(key: str) -> str:
    return next((SPLITS[word] for word in re.split(r"[^a-z0-9]+", key.lower()) if word in SPLITS), "")


def _kind(key: str, array: np.ndarray) -> str:
    if array.ndim in (3, 4):
        return "images"
    words = set(re.split(r"[^a-z]+", key.lower()))
    if words & {"y", "label", "labels", "target", "targets"} and array.dtype.kind in "iuU":
        return "labels"
    return ""


def _as_labels(array: np.ndarray, where: str) -> np.ndarray:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{where}: labels must be one number per picture, not {array.shape}.")
    return array


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
