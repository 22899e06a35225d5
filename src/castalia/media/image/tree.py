"""What lies in a folder or a zip of pictures: which files, which split, which labels and captions.

Layouts: class sub-folders; ``metadata.jsonl`` as in Hugging Face image folders; either of them below split
folders (``train``, ``test``, ``validation``). Zips are read in place, never extracted, and hostile ones are
refused.
"""

from __future__ import annotations

import io
import json
import os
import posixpath
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from castalia.core.errors import DataError
from castalia.media.image.decode import MAX_FILE_BYTES, SUFFIXES
from castalia.media.splits import SPLITS, pick_split

METADATA = "metadata.jsonl"
MAX_METADATA_BYTES = 512 << 20
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
    items, links, odd = [], [], []

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed: {error.strerror}.") from error

    for folder, folders, files in os.walk(path, onerror=fail):
        folders[:] = sorted(name for name in folders if _visible(name))
        links += [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in filter(_visible, files):
            full = Path(folder, name)
            # A named pipe or a device called x.png would block for ever.
            if full.is_file():
                items.append(Item(full.relative_to(path).as_posix(), file_opener(full)))
            else:
                odd.append(full.relative_to(path).as_posix())
    notes = [f"Links to folders are not followed: {', '.join(sorted(links)[:3])}."] if links else []
    if odd:
        notes.append(f"{len(odd)} entries are no files (broken links, pipes): {', '.join(sorted(odd)[:3])}.")
    return sorted(items, key=lambda item: item.name), notes


def walk(path: Path) -> Iterator[str]:
    """The names of all visible files below a folder, as they come.

    Raises:
        DataError: a folder cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed: {error.strerror}.") from error

    for folder, folders, files in os.walk(path, onerror=fail):
        folders[:] = sorted(filter(_visible, folders))
        below = Path(folder).relative_to(path)
        yield from ((below / name).as_posix() for name in sorted(filter(_visible, files)))


def file_opener(path: Path) -> Callable[[], BinaryIO]:
    """Return a function that opens ``path``; it raises DataError where that fails."""

    def opener() -> BinaryIO:
        try:
            return open(path, "rb")
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
        name = info.filename
        if not name or not stays_inside(name):
            raise DataError(f"{path}: refused, because the entry {brief(name)} points outside the archive.")
        if info.is_dir() or not all(map(_visible, name.split("/"))):
            continue
        if info.flag_bits & 1:
            raise DataError(f"{path}: the entry {brief(name)} is encrypted; make a zip without a password.")
        limit = MAX_METADATA_BYTES if posixpath.basename(name) == METADATA else MAX_FILE_BYTES
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


def arrange(files: Sequence[Item], where: str, split: str | None) -> Listing:
    """Find splits, labels and captions among the files of a folder or zip.

    Args:
        files: everything that is there, in the order that the pictures shall have.
        where: the source's name, for errors and notes.
        split: the split that is wanted, or None.

    Raises:
        DataError: there are no pictures, no such split, or the metadata are wrong.
    """
    pictures = [f for f in files if posixpath.splitext(f.name)[1].lower() in SUFFIXES]
    metadata = [f for f in files if posixpath.basename(f.name) == METADATA]
    suffixes = [posixpath.splitext(f.name)[1].lower() for f in files if posixpath.basename(f.name) != METADATA]
    others = Counter(suffix or "no suffix" for suffix in suffixes if suffix not in SUFFIXES)
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
    notes = []
    if others:
        notes.append(f"Ignored {others.total()} files that are not pictures ({kinds}).")
    if not pictures:
        extra = f" It holds {kinds}." if others else ""
        raise DataError(f"{where} holds no pictures ({', '.join(sorted(SUFFIXES))}).{extra}")

    base = _wrapper([p.name for p in pictures], {posixpath.dirname(m.name) for m in metadata})
    rows = _read_metadata(metadata, where, {p.name for p in pictures})
    if rows:
        unlisted = [p for p in pictures if p.name not in rows]
        if unlisted:
            notes.append(f"Left out {len(unlisted)} pictures that {METADATA} does not list ({unlisted[0].name}, ...).")
        pictures = [p for p in pictures if p.name in rows]

    heads = {_first(p.name, base) for p in pictures}
    own_splits = "" not in heads and all(h.lower() in SPLITS for h in heads)
    if not own_splits and any(h.lower() in ("train", "test") for h in heads) and not rows:
        notes.append(f"Folders {', '.join(sorted(heads)[:6])} are taken as classes, not splits.")
    label_of, classes = _labels(pictures, rows, base, own_splits)
    items = [Item(p.name, p.open, label_of.get(p.name), rows[p.name].text if rows else None) for p in pictures]
    if not own_splits:
        return Listing(items, classes, notes)
    by_split: dict[str, list[Item]] = {}
    for item in items:
        by_split.setdefault(SPLITS[_first(item.name, base).lower()], []).append(item)
    chosen, items, split_notes = pick_split(by_split, split, where)
    return Listing(items, classes, notes + split_notes, chosen)


def _first(name: str, base: str) -> str:
    """The first folder of ``name`` below ``base``; empty for a file that lies in ``base`` itself."""
    head, separator, _ = name[len(base) :].partition("/")
    return head if separator else ""


def _wrapper(names: list[str], metadata_folders: set[str]) -> str:
    """The folders (``data/``, ``my-set/``) that hold everything and mean nothing."""
    base = ""
    while True:
        heads = {_first(name, base) for name in names}
        head = next(iter(heads))
        inner = f"{base}{head}/"
        if len(heads) > 1 or not head or head.lower() in SPLITS or base.rstrip("/") in metadata_folders:
            return base
        nested = all(_first(name, inner) for name in names)
        # One folder that directly holds the pictures is a class of its own, unless it holds their metadata.
        if not nested and inner.rstrip("/") not in metadata_folders:
            return base
        base = inner


def _labels(
    pictures: list[Item], rows: Mapping[str, Row], base: str, own_splits: bool
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Class numbers by name of the picture, and the class names, over all splits."""
    if rows:
        given = {p.name: rows[p.name].label for p in pictures}
    else:
        given = {}
        for p in pictures:
            below = f"{base}{_first(p.name, base)}/" if own_splits else base
            given[p.name] = _first(p.name, below)
        if not all(given.values()):
            return {}, ()
    found = {value for value in given.values() if value is not None}
    if all(isinstance(value, int) for value in found):
        ordered: list[str | int] = sorted(found, key=int)
    else:
        ordered = sorted(found, key=str)
    number = {value: i for i, value in enumerate(ordered)}
    return {k: number[v] for k, v in given.items() if v is not None}, tuple(str(v) for v in ordered)


@dataclass(frozen=True)
class Row:
    """One line of a metadata file: caption and label, either of them None where the file has none."""

    text: str | None
    label: str | int | None


def _read_metadata(files: list[Item], where: str, pictures: set[str]) -> dict[str, Row]:
    """Read all metadata files: rows by full picture name.

    Raises:
        DataError: a line is wrong, leaves its folder, repeats a picture or names one that is missing.
    """
    rows: dict[str, Row] = {}
    for file in files:
        source = f"{where}: {file.name}"
        folder = posixpath.dirname(file.name)
        first: Row | None = None
        missing: list[str] = []
        with file.open() as opened:
            data = read_bounded(opened, source, MAX_METADATA_BYTES)
        for number, line in enumerate(io.BytesIO(data), start=1):
            if not line.strip():
                continue
            at = f"{source}, line {number}"
            file_name, row = parse_metadata_line(line, at)
            full = posixpath.join(folder, posixpath.normpath(file_name))
            if full in rows:
                raise DataError(f"{at}: {brief(file_name)} is listed twice.")
            if full not in pictures:
                missing.append(f"{brief(file_name)} (line {number})")
            first = first or row
            for what in ("text", "label"):
                if (getattr(first, what) is None) != (getattr(row, what) is None):
                    raise DataError(f"{at}: {what!r} must be in every line or in none, and the first line differs.")
            if type(row.label) is not type(first.label):
                raise DataError(f"{at}: labels must be all text or all whole numbers.")
            rows[full] = row
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise DataError(f"{source} names pictures that are not there: {', '.join(missing[:3])}{more}.")
    return rows


def brief(name: str) -> str:
    """A name from a file, for errors: no line breaks, and not endless."""
    return ascii(name if len(name) <= 200 else name[:200] + "...")


def parse_metadata_line(line: bytes, at: str) -> tuple[str, Row]:
    """Read one line of ``metadata.jsonl``: ``{"file_name": ..., "text": ..., "label": ...}``.

    Args:
        line: UTF-8 JSON; further keys are ignored.
        at: file and line, for errors.

    Returns:
        The file name as written, and the row.

    Raises:
        DataError: the line is not what it should be.
    """
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{at}: not UTF-8 text.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{at}: not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise DataError(f"{at}: a JSON object with 'file_name' was expected.")
    name, text, label = value.get("file_name"), value.get("text"), value.get("label")
    if not isinstance(name, str) or not name.strip("/."):
        raise DataError(f"{at}: 'file_name' is missing or not a name.")
    if not stays_inside(name):
        raise DataError(f"{at}: 'file_name' {brief(name)} points outside the folder.")
    if text is not None and not isinstance(text, str):
        raise DataError(f"{at}: 'text' must be text, not {type(text).__name__}.")
    if label is not None and (isinstance(label, bool) or not isinstance(label, str | int)):
        raise DataError(f"{at}: 'label' must be text or a whole number, not {type(label).__name__}.")
    for word in (name, text, label):
        if isinstance(word, str) and not encodable(word):
            raise DataError(f"{at}: holds half a surrogate pair, which is not valid Unicode.")
    return name, Row(text, label)


def encodable(word: str) -> bool:
    """Whether a text can be written as UTF-8; JSON can smuggle in halves of surrogate pairs."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True
