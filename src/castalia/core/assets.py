"""Large things that only the data know, kept as files: a vocabulary, a table of column modes.

An :class:`Asset` is the name of such a file by its contents. It may be a field of a spec or a configuration, so that
these stay small, and the contents can be had wherever they are needed: whoever makes an asset hands its contents in, a
run stores those of its own, and opening a run makes them readable. Contents never differ from their name, so it does
not matter where they are found.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from castalia.core.errors import RunError
from castalia.core.files import read_bounded, write_bytes

LARGEST = 256 << 20
"""Bytes of one asset."""

_HELD: dict[str, bytes] = {}
_FOLDERS: dict[Path, None] = {}


@dataclass(frozen=True)
class Asset:
    """A file by its contents.

    Attributes:
        sha256: of the contents, in lower-case hexadecimal digits.
        name: what to call it, for people.
    """

    sha256: str
    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError("sha256 must be 64 hexadecimal digits")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", self.name):
            raise ValueError("an asset's name has up to 64 letters, digits, dots, dashes and underscores")

    @property
    def file(self) -> str:
        """The name of its file in a folder of assets."""
        return f"{self.sha256}-{self.name}"


def keep(data: bytes, name: str) -> Asset:
    """Make an asset of contents; they can be read from now on."""
    asset = Asset(hashlib.sha256(data).hexdigest(), name)
    _HELD[asset.sha256] = data
    return asset


def look_in(folder: Path) -> None:
    """Assets stored in ``folder`` can be read from now on."""
    _FOLDERS[folder.absolute()] = None


def read(asset: Asset) -> bytes:
    """The contents of an asset.

    Raises:
        RunError: they are not to be found, or are not what they were.
    """
    if asset.sha256 in _HELD:
        return _HELD[asset.sha256]
    damaged = None
    for folder in reversed(_FOLDERS):
        path = folder / asset.file
        if not path.exists():
            continue
        data = read_bounded(path, LARGEST)
        if hashlib.sha256(data).hexdigest() == asset.sha256:
            _HELD[asset.sha256] = data
            return data
        damaged = path
    if damaged is not None:
        raise RunError(f"{damaged} is damaged: its contents do not match the SHA-256 in its name.")
    raise RunError(f"{asset.name} (SHA-256 {asset.sha256}) is part of a run and not to be found; is assets/ missing?")


def store(folder: Path, *values: Any) -> None:
    """Write every asset of some specs and configurations into ``folder``.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    for asset in dict.fromkeys(a for value in values for a in of(value)):
        if not (folder / asset.file).exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / asset.file, read(asset))


def of(value: Any) -> Iterator[Asset]:
    """The assets of a dataclass, however deep."""
    if isinstance(value, Asset):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for f in dataclasses.fields(value):
            yield from of(getattr(value, f.name))
    elif isinstance(value, tuple | list):
        for v in value:
            yield from of(v)
    elif isinstance(value, dict):
        for v in value.values():
            yield from of(v)
