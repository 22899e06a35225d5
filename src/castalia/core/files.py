"""Writes that survive kill -9, a power cut and a full disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from castalia.core.errors import CastaliaError, RunError

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


def read_bounded(path: Path, limit: int) -> bytes:
    """The contents of a plain file of at most ``limit`` bytes.

    Raises:
        RunError: it cannot be read, is larger, or is a pipe or a device, which might never end.
    """
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # opening a pipe would wait for a writer
        with open(fd, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise RunError(f"{path} is not a plain file.")
            if found.st_size > limit:
                raise RunError(f"{path} is larger than {limit >> 20} MiB.")
            return file.read(limit + 1)[:limit]
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from error


def read_json(path: Path, limit: int = 16 << 20) -> Any:
    """Read JSON from a file of at most ``limit`` bytes.

    Raises:
        RunError: it is missing, too large or not JSON; the text gives file and line.
    """
    try:
        found = path.stat()
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):  # a pipe or a device would never end
            raise RunError(f"{path} is not a plain file.")
        if found.st_size > limit:
            raise RunError(f"{path} is larger than {limit >> 20} MiB; this is not a file that Castalia wrote.")
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise RunError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}).") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, a number of thousands of digits, endless nesting
        raise RunError(f"{path} is not a JSON text file.") from error
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from error


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """:func:`write_json` with the SHA-256 of the contents among them, so that :func:`read_sealed` notices damage."""
    write_json(path, {SEAL: _seal(value), **value})


def read_sealed(path: Path, limit: int = 16 << 20) -> Any:
    """Read what :func:`write_sealed` wrote, without its seal; a file that has none is read as it is.

    Raises:
        RunError: it cannot be read, or its contents are not those that were written.
    """
    data = read_json(path, limit)
    if not isinstance(data, dict):
        return data
    if SEAL in data:
        whole = _seals(data, SEAL)
        del data[SEAL]
    else:  # never sealed, or damaged in the one place that no seal covers: the name of the field
        whole = not any(_seals(data, key) for key in data)
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
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
