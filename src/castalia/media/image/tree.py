"""Which files lie in a folder or a zip. Zips are read in place, never extracted, and hostile ones are refused.

What the names mean is told by :mod:`castalia.media.image.layout`.
"""

from __future__ import annotations

import os
import posixpath
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from castalia.core.errors import DataError
from castalia.core.files import open_plain
from castalia.media.image.decode import MAX_FILE_BYTES

METADATA = ("metadata.jsonl", "metadata.csv", "dataset.json")
"""Files that say what the pictures beside them are."""
MAX_METADATA_BYTES = 256 << 20
# Picture files are compressed already; deflate reaches 200 only on runs of one byte.
MAX_RATIO = 200


@dataclass(frozen=True)
class Item:
    """One picture file that is still to be read.

    Attributes:
        name: path below the source, with ``/``.
        open: opens it for reading.
        label: class number, or None.
        text: caption, or None.
    """

    name: str
    open: Callable[[], BinaryIO]
    label: int | None = None
    text: str | None = None


@dataclass(frozen=True)
class Listing:
    """The pictures of one split.

    Attributes:
        items: in a fixed order.
        classes: names of the labels over all splits; empty where there are none.
        notes: what a person should know.
        split: which of the source's own splits this is; None where it has none.
    """

    items: list[Item]
    classes: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    split: str | None = None


def read_bounded(file: BinaryIO, name: str, limit: int = MAX_FILE_BYTES) -> bytes:
    """Read a whole file of at most ``limit`` bytes; DataError when it is longer or cannot be read."""
    try:
        data = file.read(limit + 1)
    except (OSError, EOFError, zipfile.BadZipFile, ValueError, RuntimeError) as error:
        raise DataError(f"{name}: cannot be read ({error}).") from error
    except Exception as error:  # zlib.error, lzma.LZMAError: the decompressors share no base class
        raise DataError(f"{name}: its compressed data are damaged ({error}).") from error
    if len(data) > limit:
        raise DataError(f"{name}: larger than {limit >> 20} MiB.")
    return data


def list_folder(path: Path) -> tuple[list[Item], list[str]]:
    """List every visible regular file below a folder, and notes."""
    items, links, odd, runs = [], [], [], []

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed: {error.strerror}.") from error

    for folder, folders, files in os.walk(path, onerror=fail):
        folders[:] = sorted(name for name in folders if _visible(name))
        runs += [os.path.relpath(os.path.join(folder, name), path) for name in folders if is_run(Path(folder, name))]
        folders[:] = [name for name in folders if not is_run(Path(folder, name))]
        links += [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in filter(_visible, files):
            full = Path(folder, name)
            # A named pipe or a device called x.png would block for ever.
            if full.is_file():
                items.append(Item(full.relative_to(path).as_posix(), file_opener(full)))
            else:
                odd.append(full.relative_to(path).as_posix())
    notes = [f"Links to folders are not followed: {', '.join(sorted(links)[:3])}."] if links else []
    if runs:
        notes.append(f"Runs are not read as data: {', '.join(map(brief, sorted(runs)[:3]))}.")
    if odd:
        notes.append(f"{len(odd)} entries are no files (broken links, pipes): {', '.join(sorted(odd)[:3])}.")
    return sorted(items, key=lambda item: item.name), notes


def is_run(folder: Path) -> bool:
    """Whether a folder is a run of Castalia's, whose pictures are no data."""
    try:
        return (folder / "config.json").is_file() and any(
            (folder / name).exists() for name in ("plan.json", "model.safetensors", "checkpoints")
        )
    except OSError:
        return False


def walk(path: Path) -> Iterator[str]:
    """The names of all visible files below a folder, as they come.

    Raises:
        DataError: a folder cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed: {error.strerror}.") from error

    for folder, folders, files in os.walk(path, onerror=fail):
        folders[:] = sorted(name for name in folders if _visible(name) and not is_run(Path(folder, name)))
        below = Path(folder).relative_to(path)
        yield from ((below / name).as_posix() for name in sorted(filter(_visible, files)))


def is_plain(path: Path) -> bool:
    """Whether a path, or what it links to, is a plain file: pipes and devices might never end."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def file_opener(path: Path) -> Callable[[], BinaryIO]:
    """Return a function that opens ``path``; it raises DataError where that fails."""

    def opener() -> BinaryIO:
        try:
            return open_plain(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be opened ({error.strerror}).") from error

    return opener


def list_zip(path: Path, stack: ExitStack) -> list[Item]:
    """List every visible file in a zip; it stays open until ``stack`` closes.

    Raises:
        DataError: it is no zip, or holds names that leave it, encrypted entries, duplicates or bombs.
    """
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError) as error:  # unknown versions are the last
        raise DataError(f"{path}: not a zip archive that can be read ({error}).") from error
    items: dict[str, Item] = {}
    for info in archive.infolist():
        name = info.filename.replace("\\", "/")  # some tools of Windows write these
        if not name or not stays_inside(name):
            raise DataError(f"{path}: refused, because the entry {brief(name)} points outside the archive.")
        if info.is_dir() or not all(map(_visible, name.split("/"))):
            continue
        if info.flag_bits & 1:
            raise DataError(f"{path}: the entry {brief(name)} is encrypted; make a zip without a password.")
        limit = MAX_METADATA_BYTES if posixpath.basename(name) in METADATA else MAX_FILE_BYTES
        if info.file_size > limit or info.file_size > MAX_RATIO * info.compress_size + (1 << 20):
            raise DataError(
                f"{path}: refused, because the entry {brief(name)} declares {info.file_size} bytes out of "
                f"{info.compress_size}, more than a picture would (a zip bomb?)."
            )
        if name in items:
            raise DataError(f"{path}: the entry {brief(name)} is there twice.")
        items[name] = Item(name, _member_opener(archive, info, path))
    return [items[name] for name in sorted(items)]


def _member_opener(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Callable[[], BinaryIO]:
    def opener() -> BinaryIO:
        try:
            return cast(BinaryIO, archive.open(info))
        except Exception as error:  # wrong local headers, unknown compression, ...: many unrelated types
            raise DataError(f"{path}: the entry {brief(info.filename)} cannot be read ({error}).") from error

    return opener


def _visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def stays_inside(name: str) -> bool:
    """Whether a name from a zip, a tar or a metadata file stays below its folder on every system."""
    parts = name.split("/")
    return not ("\\" in name or "\0" in name or name.startswith("/") or ".." in parts or ":" in parts[0])


def brief(name: str) -> str:
    """A name from a file, for errors: no line breaks, and not endless."""
    return ascii(name if len(name) <= 200 else name[:200] + "...")


def encodable(word: str) -> bool:
    """Whether a text can be written as UTF-8; JSON can smuggle in halves of surrogate pairs."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True
