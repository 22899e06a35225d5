"""Files that say what the pictures beside them are.

``metadata.jsonl`` and ``metadata.csv``, as in Hugging Face's image folders: ``file_name`` and a caption, a label, or
both. ``dataset.json``, as StyleGAN's and EDM's tools write it: ``{"labels": [["00000/img00000000.png", 3], ...]}``, or
null in place of the list.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from castalia.core.errors import DataError
from castalia.media.image.tree import MAX_METADATA_BYTES, Item, brief, encodable, read_bounded, stays_inside

MAX_LISTING_BYTES = 64 << 20
"""Of ``dataset.json``, which is held whole while it is read: about a million pictures."""

LABEL = ("label", "cls", "class")
TEXT = ("text", "caption", "prompt")
_NO_LABEL = "labels that are lists of numbers are left out"


@dataclass(frozen=True)
class Row:
    """What is said of one picture: caption and label, either of them None where the file has none."""

    text: str | None
    label: str | int | None


@dataclass
class Metadata:
    """What all such files of a source say.

    Attributes:
        rows: by the picture's full name; empty where nothing is said of single pictures.
        others: names of files that are no metadata, though they are called so.
        shards: folders that hold a ``dataset.json``: the folders below them mean nothing.
        notes: what a person should know.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    shards: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_metadata(files: list[Item], where: str, pictures: set[str]) -> Metadata:
    """Read all metadata files.

    No more is held than one row for each picture that is there, and of ``dataset.json`` the file.

    Raises:
        DataError: a line is wrong, leaves its folder, repeats a picture or names one that is missing.
    """
    found = Metadata()
    listed = {posixpath.dirname(f.name) for f in files if posixpath.basename(f.name) != "dataset.json"}
    for file in files:
        source, folder = f"{where}: {file.name}", posixpath.dirname(file.name)
        kind = posixpath.basename(file.name)
        limit = MAX_LISTING_BYTES if kind == "dataset.json" else MAX_METADATA_BYTES
        with file.open() as opened:
            data = read_bounded(opened, source, limit)
        if kind == "dataset.json":
            labels = _listing(data, source)
            if labels is None:
                found.others.append(file.name)
                continue
            found.shards.append(folder)
            if folder in listed:
                found.notes.append(f"{file.name} is left aside, because another metadata file lies beside it.")
                continue
            rows = _listed(labels, source, found.notes)
        elif kind == "metadata.csv":
            if posixpath.join(folder, "metadata.jsonl") in {f.name for f in files}:
                found.notes.append(f"{file.name} is left aside, because metadata.jsonl lies beside it.")
                continue
            if not _is_table(data):
                found.others.append(file.name)
                continue
            rows = _table(data, source)
        else:
            rows = _lines(data, source)
        _collect(rows, source, folder, pictures, found.rows)
    return found


def _collect(
    rows: Iterable[tuple[str, str, Row]], source: str, folder: str, pictures: set[str], into: dict[str, Row]
) -> None:
    first: Row | None = None
    missing: list[str] = []
    absent = 0
    for at, file_name, row in rows:
        full = posixpath.join(folder, posixpath.normpath(file_name))
        first = first or row
        for what in ("text", "label"):
            if (getattr(first, what) is None) != (getattr(row, what) is None):
                raise DataError(f"{at}: {what!r} must be in every line or in none, and the first line differs.")
        if type(row.label) is not type(first.label):
            raise DataError(f"{at}: labels must be all text or all whole numbers.")
        if full in into:
            raise DataError(f"{at}: {brief(file_name)} is listed twice.")
        if full in pictures:
            into[full] = row
        else:
            absent += 1
            if absent <= 3:
                missing.append(f"{brief(file_name)} ({at.removeprefix(source).lstrip(', ')})")
    if absent:
        more = f" and {absent - 3} more" if absent > 3 else ""
        raise DataError(f"{source} names pictures that are not there: {', '.join(missing)}{more}.")


def _lines(data: bytes, source: str) -> Iterator[tuple[str, str, Row]]:
    for number, line in enumerate(io.BytesIO(data.removeprefix(b"\xef\xbb\xbf")), start=1):
        if line.strip():
            at = f"{source}, line {number}"
            yield at, *parse_metadata_line(line, at)


def _table(data: bytes, source: str) -> Iterator[tuple[str, str, Row]]:
    try:
        reader = csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline=""), strict=True)
        names = [name.strip() for name in next(reader, [])]
        for row in reader:
            if not row:
                continue
            at = f"{source}, line {reader.line_num}"
            if len(row) != len(names):
                raise DataError(f"{at}: has {len(row)} values where the header has {len(names)}.")
            yield at, *_row({n: v for n, v in zip(names, row, strict=True) if v or n in TEXT}, at)
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not UTF-8 text.") from error
    except csv.Error as error:
        raise DataError(f"{source}: not valid CSV ({error}).") from error


def _is_table(data: bytes) -> bool:
    """Whether a ``metadata.csv`` is one of pictures: many are about something else."""
    head = data[:1000].split(b"\n", 1)[0].decode("utf-8-sig", "replace")
    return "file_name" in [name.strip().strip('"') for name in head.split(",")]


def _listing(data: bytes, source: str) -> list[Any] | None:
    """What a ``dataset.json`` has in ``labels``; None where it is another file of that name."""
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}: not valid JSON ({error}).") from error
    if not isinstance(value, dict) or "labels" not in value:
        return None
    labels = value["labels"]
    if isinstance(labels, dict):
        labels = list(labels.items())
    if labels is None:
        return []
    if not isinstance(labels, list):
        raise DataError(f"{source}: 'labels' must be a list of [file name, label], or null.")
    return labels


def _listed(labels: list[Any], source: str, notes: list[str]) -> list[tuple[str, str, Row]]:
    rows: list[tuple[str, str, Row]] = []
    vectors = 0
    for number, pair in enumerate(labels):
        at = f"{source}, label {number}"
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise DataError(f"{at}: expected [file name, label].")
        name, label = pair
        if isinstance(label, list):
            vectors += 1
            continue
        rows.append((at, *_row({"file_name": name.replace("\\", "/"), "label": label}, at)))
    if vectors:
        notes.append(f"{source}: {_NO_LABEL} ({vectors}).")
        return []
    return rows


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
    return _row(value, at)


def _row(value: dict[str, Any], at: str) -> tuple[str, Row]:
    name = value.get("file_name")
    text, label = (next((value[k] for k in keys if value.get(k) is not None), None) for keys in (TEXT, LABEL))
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
