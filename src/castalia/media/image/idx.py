"""IDX, the format of MNIST and its relatives: a big-endian header, then the bytes.

Header: two zero bytes, a type code (8 is unsigned byte), the number of dimensions, then each dimension as 32
bits.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from castalia.core.errors import DataError
from castalia.core.files import open_plain

_NAME = re.compile(r"(?P<stem>.*?)[-._]?images[-.]idx3-ubyte(\.gz)?$")
_TYPES = {0x08: "uint8", 0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
# Deflate cannot do better than 1032 to 1, so a gzip file bounds what its header may honestly declare.
_MAX_DEFLATE = 1032


def is_idx_images(path: Path) -> bool:
    """Whether a file is named like an IDX picture file (``train-images-idx3-ubyte.gz``)."""
    return _NAME.fullmatch(path.name) is not None


def idx_stem(path: Path) -> str:
    """What comes before ``-images``: ``train``, ``t10k``, or nothing."""
    match = _NAME.fullmatch(path.name)
    return match["stem"] if match else ""


def labels_beside(path: Path) -> Path | None:
    """The label file that belongs to an IDX picture file, plain or gzipped, or None."""
    name = path.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    for candidate in (path.with_name(name), path.with_name(name + ".gz")):
        if candidate.is_file():
            return candidate
    return None


def read_idx(path: Path, dims: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzipped or not.

    Args:
        path: the file.
        dims: how many dimensions it must have: 3 for pictures (N, H, W), 1 for labels (N,).

    Returns:
        ``uint8`` array with ``dims`` dimensions.

    Raises:
        DataError: it is not IDX, of another type or rank, or its length is not what the header says.
    """
    try:
        with open_plain(path) as raw:
            size = raw.seek(0, 2)
            raw.seek(0)
            if raw.read(2) == b"\x1f\x8b":
                raw.seek(0)
                with gzip.GzipFile(fileobj=raw) as file:
                    return _read(cast(BinaryIO, file), path, dims, size * _MAX_DEFLATE)
            raw.seek(0)
            return _read(raw, path, dims, size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: its gzip data are damaged or cut off ({error}).") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _read(file: BinaryIO, path: Path, dims: int, most: int) -> np.ndarray:
    header = file.read(4 + 4 * dims)
    if len(header) < 4:
        raise DataError(f"{path}: too short for an IDX file ({len(header)} bytes).")
    if header[:2] != b"\0\0" or header[2] not in _TYPES:
        raise DataError(f"{path}: not an IDX file (it starts with {header[:4].hex(' ')}).")
    if header[2] != 0x08:
        raise DataError(f"{path}: holds {_TYPES[header[2]]} values; only uint8 is read.")
    if header[3] != dims:
        raise DataError(f"{path}: has {header[3]} dimensions where {dims} were expected.")
    if len(header) < 4 + 4 * dims:
        raise DataError(f"{path}: ends within its header.")
    shape = tuple(int(n) for n in np.frombuffer(header, ">u4", offset=4))
    count = math.prod(shape)
    if count == 0:
        raise DataError(f"{path}: declares an empty array {shape}.")
    if count > most:
        raise DataError(f"{path}: declares {shape} = {count} bytes, more than the file can hold.")
    values = np.empty(count, np.uint8)  # untouched memory costs nothing until it is filled
    view, done = values.data, 0
    while done < count:
        got = cast(int, file.readinto(view[done : done + (1 << 22)]))  # pyright: ignore[reportAttributeAccessIssue]
        if not got:
            raise DataError(f"{path}: truncated: {done} of {count} bytes of {shape}.")
        done += got
    if file.read(1):
        raise DataError(f"{path}: has more bytes than its header {shape} says.")
    return values.reshape(shape)
