"""Writes that survive kill -9, a power cut and a full disk."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import stat
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from castalia.core.errors import CastaliaError, DataError, RunError

SEAL = "sha256"
"""The field of a sealed JSON file that holds the SHA-256 of all others."""


def disk_error(path: Path, error: OSError) -> CastaliaError:
    """Turn an operating system error met while writing ``path`` into one that says what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(f"The disk is full while writing {path}. Nothing already saved was touched; free some space.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return RunError(f"{path} cannot be written ({error.strerror}). Choose another --out or change its permissions.")
    return RunError(f"{path} cannot be written: {error.strerror or error}.")


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries (renames, new names) to disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove(temporary: Path) -> None:
    """Remove what was half written, where that can be done; a read-only file system refuses even what is not there."""
    with suppress(OSError):
        temporary.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` so that a reader sees the old or the new contents, never a part.

    Raises:
        RunError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        remove(temporary)
        raise disk_error(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by readable JSON; floats keep every bit, NaN and infinity are refused."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def open_plain(path: Path) -> io.BufferedReader:
    """Open a plain file, or a link to one, for reading bytes. Every file that may come from elsewhere is opened here.

    Raises:
        OSError: it cannot be opened, or is a folder, a pipe or a device: a pipe would wait for a writer, and a device
            might never end.
    """
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a null byte in the name
        raise OSError(errno.EINVAL, "its name is none that a file can have") from error
    try:
        kind = os.fstat(fd).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, "it is not a plain file", str(path))
        return open(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


UNPACKED_RATIO = 200
"""How many times its packed size a file of rows may unpack to, beside the next number: a table or a text never does."""
UNPACKED_LEAST = 64 << 20


class Unpacked(io.RawIOBase):
    """What a gzip file holds, of which no more is given than a file of its size may honestly hold.

    Args:
        file: the packed file, at its beginning; it can be sought, and is closed with this one.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._packed = file
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        self._file = gzip.GzipFile(fileobj=file)
        self._left = UNPACKED_RATIO * size + UNPACKED_LEAST

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._file.read(len(buffer))
        self._left -= len(block)
        if self._left < 0:
            raise OSError(
                errno.EFBIG, "it unpacks to far more than it is (a bomb?); unpack it, if it is what you meant"
            )
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
            self._packed.close()
        super().close()


def unpacked(file: BinaryIO) -> BinaryIO:
    """A buffered :class:`Unpacked`; reading raises ``OSError`` past its bound."""
    return cast(BinaryIO, io.BufferedReader(Unpacked(file), 1 << 16))


def read_bounded(path: Path, limit: int) -> bytes:
    """The contents of a plain file of at most ``limit`` bytes.

    Raises:
        RunError: it cannot be read, is larger, or is a pipe or a device, which might never end.
    """
    try:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
            # room for what is there, and for what may be added meanwhile: a read takes memory for all that it asks for
            data = file.read(min(limit, size + (1 << 16)) + 1) if size <= limit else None
        if data is None or len(data) > limit:
            raise RunError(f"{path} is larger than {_size(limit)}.")
        return data
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from error


def json_lines(path: Path, limit: int) -> list[tuple[str, dict[str, Any]]]:
    """The objects in a file of JSON lines of at most ``limit`` bytes, each with its file and line in words.

    Raises:
        RunError: it cannot be read, or is larger.
        DataError: a line is no JSON object, or there is none; the text names file and line.
    """
    try:
        lines = read_bounded(path, limit).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start:,} is not UTF-8.") from error
    found: list[tuple[str, dict[str, Any]]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} is not JSON ({str(error)[:100]}).") from error
        if not isinstance(data, dict):
            raise DataError(f"{where}: expected a JSON object.")
        found.append((where, data))
    if not found:
        raise DataError(f"{path} has no lines.")
    return found


def read_json(path: Path, limit: int = 16 << 20, *, finite: bool = False) -> Any:
    """Read JSON from a file of at most ``limit`` bytes.

    NaN and infinity, which are no JSON but are written by others, are errors with ``finite``.

    Raises:
        RunError: it is missing, too large or not JSON; the text gives file and line.
    """

    def refuse(constant: str) -> None:
        raise RunError(f"{path} holds {constant}, which is not a finite number, and no JSON.")

    try:
        return json.loads(read_bounded(path, limit).decode("utf-8"), parse_constant=refuse if finite else None)
    except json.JSONDecodeError as error:
        raise RunError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}).") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, a number of thousands of digits, endless nesting
        raise RunError(f"{path} is not a JSON text file.") from error


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """:func:`write_json` with the SHA-256 of the contents among them, so that :func:`read_sealed` notices damage."""
    write_json(path, {SEAL: _seal(value), **value})


def read_sealed(path: Path, limit: int = 16 << 20) -> Any:
    """Read what :func:`write_sealed` wrote, without its seal; a file that has none is read as it is.

    Raises:
        RunError: it cannot be read, or its contents are not those that were written.
    """
    data = read_json(path, limit, finite=True)
    if not isinstance(data, dict):
        return data
    if SEAL in data:
        whole = _seals(data, SEAL)
        del data[SEAL]
    else:  # never sealed, or damaged in the one place that no seal covers: the name of the first field
        first = next(iter(data), None)
        whole = first is None or not _seals(data, first)
    if not whole:
        raise RunError(
            f"{path} is damaged or was edited: its contents do not match the SHA-256 stored in it. Put back a copy; "
            f"where you edited it on purpose, remove its line {SEAL!r}."
        )
    return data


def _seals(data: Mapping[str, Any], field: str) -> bool:
    """Whether a field holds the seal of all others."""
    value = data[field]
    with suppress(ValueError, RecursionError):  # nested deeper than can be written
        return isinstance(value, str) and len(value) == 64 and value == _seal(data, field)
    return False


def _seal(value: Mapping[str, Any], field: str = SEAL) -> str:
    """The SHA-256 of all but one field."""
    text = json.dumps({key: v for key, v in value.items() if key != field}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(limit: int) -> str:
    return f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit >> 10} KiB"
