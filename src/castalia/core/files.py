"""Writes that survive kill -9, a power cut and a full disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

from castalia.core.errors import CastaliaError, RunError


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
        temporary.unlink(missing_ok=True)
        raise disk_error(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by readable JSON; floats keep every bit, NaN and infinity are refused."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path, limit: int = 16 << 20) -> Any:
    """Read JSON from a file of at most ``limit`` bytes.

    Raises:
        RunError: it is missing, too large or not JSON; the text gives file and line.
    """
    try:
        if path.stat().st_size > limit:
            raise RunError(f"{path} is larger than {limit >> 20} MiB; this is not a file that Castalia wrote.")
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise RunError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}).") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, a number of thousands of digits, endless nesting
        raise RunError(f"{path} is not a JSON text file.") from error
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from error


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
