"""Data sets that have a name, and where their files are.

Each medium lists its own in ``media/<medium>/sets.py``. Files are looked for in ``$CASTALIA_DATA/<name>/``, then in
``$CASTALIA_CACHE/<name>/`` (default ``~/.cache/castalia/data``), then downloaded into the cache. Known contents are
verified by SHA-256 wherever they come from; gzip files by what is inside, because people recompress them.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from castalia.core.errors import DataError
from castalia.core.files import sha256
from castalia.media.download import download

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


@dataclass(frozen=True)
class DataFile:
    """One file of a named set.

    Attributes:
        name: file name in the set's folder.
        size: bytes of the download (0 without one).
        sha256: SHA-256 of the file, or, for ``.gz``, of what is inside.
        url: where it can be downloaded, or None.
        packed: for ``.gz``, SHA-256 of known packings, which need not be unpacked to be verified; the first
            is that of the download.
        inside: for ``.gz``, how many bytes are inside.
    """

    name: str
    sha256: str
    size: int = 0
    url: str | None = None
    packed: tuple[str, ...] = ()
    inside: int = 0


@dataclass(frozen=True)
class NamedData:
    """One named set.

    Attributes:
        what: one sentence.
        licence: of the data.
        shape: of one example, open dimensions left out: (channels, height, width) of a picture, (coordinates,) of a
            point.
        counts: examples by split.
        files: by split, all that the split needs; the first is what is opened. Empty: built in, or made from
            another set. One entry named ``all`` where the set has no splits of its own.
        source: how to get the files where there is no download.
        base: the named set that it is made from; empty where it is not.
    """

    what: str
    licence: str
    shape: tuple[int, ...]
    counts: Mapping[str, int]
    files: Mapping[str, tuple[DataFile, ...]]
    source: str = ""
    base: str = ""


def data_folder() -> Path | None:
    """``$CASTALIA_DATA``, or None."""
    value = os.environ.get("CASTALIA_DATA")
    return Path(value) if value else None


def cache_folder() -> Path:
    """Where downloads go: ``$CASTALIA_CACHE``, else ``~/.cache/castalia/data``."""
    value = os.environ.get("CASTALIA_CACHE")
    return Path(value) if value else Path.home() / ".cache" / "castalia" / "data"


def find(name: str, entry: NamedData, file: DataFile, progress: Progress | None) -> Path:
    """The verified path of one file, downloaded if need be."""
    cached = cache_folder() / name / file.name
    places = [cached]
    if (folder := data_folder()) is not None:
        places.insert(0, folder / name / file.name)
    for place in places:
        if place.is_file():
            _verify(place, file)
            return place
    if file.url is None:
        raise DataError(
            f"{name} cannot be downloaded. Put {file.name} at {places[0]} (SHA-256 {file.sha256}), or use "
            f"what it was made from: {entry.source}."
        )
    download(file.url, cached, size=file.size, sha256=file.packed[0], progress=progress)
    return cached


def _verify(path: Path, file: DataFile) -> None:
    """Check the contents; DataError when they are not the known ones."""
    try:
        found = sha256(path)
        if path.suffix == ".gz" and found not in file.packed:
            with gzip.open(path, "rb") as packed:
                # One byte more than there should be is enough to see that it is another file.
                found = hashlib.sha256(packed.read(file.inside + 1)).hexdigest()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}). Remove it to have it fetched again.") from error
    if found not in (file.sha256, *file.packed):
        raise DataError(
            f"{path} does not hold what it should (SHA-256 {found}, not {file.sha256}). Remove it, or open "
            "it by its path if you mean to use it as it is."
        )


def where(name: str, entry: NamedData, table: Mapping[str, NamedData]) -> str:
    """Where the files of a set are, or how to get them, in words."""
    if entry.base:
        return f"made from {entry.base}: {where(entry.base, table[entry.base], table)}"
    files = [file for part in entry.files.values() for file in part]
    folders = [f / name for f in (data_folder(), cache_folder()) if f is not None]
    found = next((str(f) for f in folders if all((f / file.name).is_file() for file in files)), None)
    if not files:
        return "built in"
    if found is not None:
        return found
    if all(file.url for file in files):
        return f"download ({sum(file.size for file in files) / 1e6:.1f} MB)"
    return f"not here; {entry.source}"
