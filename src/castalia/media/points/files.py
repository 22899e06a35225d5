"""Points from files: tables of numbers (CSV, TSV) and NumPy arrays."""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TextIO

import numpy as np

from castalia.core.errors import DataError
from castalia.core.files import open_plain
from castalia.media.points.array import PointsArray
from castalia.media.splits import hashed_split

SUFFIXES = (".csv", ".tsv")
MAX_TABLE_BYTES = 1 << 30
MAX_LINE = 1 << 20
NUMBER = "number"
"""A first column of this name counts the rows (:class:`~castalia.media.points.medium.PointsMedium` writes it)."""
LABEL = "label"
"""A column of this name holds classes."""

INDEX = ("", "Unnamed: 0")
"""A first column of one of these names is the index that pandas writes."""

_NUMBERLIKE = re.compile(r"\s*[+-]?[.\d]")
_FORMAT = "Columns are separated by commas, semicolons or tabs; numbers have a decimal point."


@dataclass(frozen=True)
class Table:
    """What a file of points holds.

    Attributes:
        points: ``float32`` (N, D), finite.
        labels: ``int64`` (N,), or None.
        classes: names of the labels.
        notes: what a person should know.
    """

    points: np.ndarray
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def is_points(path: Path) -> bool:
    """Whether a file holds points: a table by its suffix, or an ``.npy`` array of floats with two dimensions."""
    suffix = path.suffix.lower()
    if suffix != ".npy" or not path.is_file():
        return suffix in SUFFIXES and path.is_file() and _of_numbers(path)
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)  # safe: objects are refused
    except Exception:  # NumPy reads the header as Python text, which fails in many ways
        return False  # the reader of pictures says what is wrong with it
    return isinstance(found, np.ndarray) and found.ndim == 2 and found.dtype.kind == "f"


def _of_numbers(path: Path) -> bool:
    """Whether the first rows of a table are numbers, labels aside; others are no points, but rows of a table.

    What cannot be read at all counts as points, whose reader says what is wrong with it.
    """
    try:
        with open_plain(path) as file:
            head = file.read(1 << 14).decode("utf-8-sig", "replace").splitlines()[:-1][:6]
    except OSError:
        return True
    lines = [line for line in head if line.strip() and not line.lstrip().startswith("#")]
    rows = [[cell.strip().strip('"') for cell in re.split("[,;\t]", line)] for line in lines]
    if len(rows) < 2 or all(_NUMBERLIKE.match(cell) for cell in rows[0]):
        return True
    told = [i for i, name in enumerate(rows[0]) if name.lower() not in (LABEL, NUMBER, *INDEX)]
    cells = [row[i] for row in rows[1:] for i in told if i < len(row)]
    return sum(bool(cell) and not _NUMBERLIKE.match(cell) for cell in cells) <= len(cells) // 10


def open_points(path: Path, *, split: str | None = None, name: str | None = None) -> PointsArray:
    """Read points from a CSV, TSV or ``.npy`` file.

    A file has no splits of its own: None means everything, ``train`` and ``test`` are nine tenths and one tenth, told
    apart by a hash of each row's position.

    Args:
        path: what to read (see :func:`is_points`).
        split: ``train`` or ``test``, or None.
        name: what to call the data; None for the last part of the path.

    Raises:
        DataError: it cannot be read; the text names file and line.
    """
    found = read_table(path) if path.suffix.lower() in SUFFIXES else read_array(path)
    points, labels = found.points, found.labels
    rows, notes = hashed_split(split, None, [str(i) for i in range(len(points))], str(path), "points")
    if rows is not None:
        points, labels = points[rows], None if labels is None else labels[rows]
    return PointsArray(
        points, name=name or path.name, labels=labels, classes=found.classes, notes=[*found.notes, *notes]
    )


def read_array(path: Path) -> Table:
    """Read a float array (N, D) from ``.npy``.

    Raises:
        DataError: it is no such array, is empty, or holds values that are not finite in ``float32``.
    """
    try:
        values = np.load(path, mmap_mode="c", allow_pickle=False)  # safe: objects are refused
    except Exception as error:  # as above
        raise DataError(f"{path}: not a .npy array that can be read ({str(error)[:200]}).") from error
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind != "f" or 0 in values.shape:
        raise DataError(f"{path}: not an array of floats (N, D).")
    with np.errstate(over="ignore"):
        points = np.ascontiguousarray(values, np.float32)
    bad = _first_bad(points)
    if bad is not None:
        row, column = bad
        raise DataError(f"{path}: row {row}, column {column} is {values[row, column]}, not a finite 32-bit number.")
    return Table(points)


def read_table(path: Path) -> Table:
    """Read rows of numbers from text.

    Columns are separated by tabs (always in ``.tsv``), semicolons or commas, whichever the first line has. A first
    line of names without any number is a header. Empty lines and lines that begin with ``#`` are left out. With a
    header, a first column ``number`` is not a coordinate, and a column ``label`` holds classes.

    Raises:
        DataError: a value is no finite number, a row has another length, there are no rows, or it is no UTF-8 text;
            the text names file and line.
    """
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise DataError(f"{path}: larger than {MAX_TABLE_BYTES >> 30} GiB; save it as a float32 .npy array.")
        with io.TextIOWrapper(open_plain(path), encoding="utf-8-sig", newline="") as file:
            return _read(_Lines(file, path), path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


class _Lines(Iterator[str]):
    """The lines that count, with the number of the last one given out."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self.file, self.path = file, path
        self.number, self.last = 0, ""

    def __next__(self) -> str:
        while line := self.file.readline(MAX_LINE):
            self.number += 1
            if len(line) == MAX_LINE and line[-1] not in "\r\n":
                raise DataError(f"{self.path}, line {self.number}: longer than {MAX_LINE:,} characters.")
            self.last = line
            if line.strip() and not line.startswith("#"):
                return line
        raise StopIteration


def _read(lines: _Lines, path: Path) -> Table:
    try:
        first = next(lines)
    except StopIteration:
        raise DataError(f"{path}: holds no rows of numbers.") from None
    separator = "\t" if path.suffix.lower() == ".tsv" or "\t" in first else ";" if ";" in first else ","
    reader = csv.reader(chain([first], lines), delimiter=separator, strict=True)
    try:
        top = next(reader)
        at = lines.number
        after = next(reader, None) if _counts(top) else None
        names = [v.strip() for v in top] if _is_count(top, after) else _header(top, f"{path}, line {at}")
        at_label = names.index(LABEL) if LABEL in names else None
        special = {at_label, 0 if names and names[0] == NUMBER else None}
        keep = [i for i in range(len(top)) if i not in special]
        if not keep:
            raise DataError(f"{path}, line {lines.number}: names no column of numbers.")
        width, whole = len(top), len(keep) == len(top)
        values, numbers, labels = array("d"), array("q"), []
        given = chain([] if names else [top], [] if after is None else [after], reader)
        for row in given:
            where = f"{path}, line {lines.number}"
            if len(row) != width:
                raise DataError(f"{where}: has {len(row)} values where the rows before have {width}.")
            coordinates = row if whole else [row[i] for i in keep]
            try:
                values.extend(map(float, coordinates))
            except ValueError:
                raise _not_numbers(coordinates, where) from None
            if "_" in lines.last and "_" in "".join(coordinates):  # Python would read 1_000 as a number
                raise _not_numbers(coordinates, where)
            numbers.append(lines.number)
            if at_label is not None:
                labels.append(_label(row[at_label], where))
    except csv.Error as error:
        raise DataError(f"{path}, line {lines.number}: not valid CSV ({error}).") from error
    if not numbers:
        raise DataError(f"{path}: holds no rows of numbers.")
    exact = np.frombuffer(values, np.float64).reshape(len(numbers), len(keep))
    indexed = len(keep) > 1 and bool(names) and names[0] in INDEX and bool((exact[:, 0] == np.arange(len(exact))).all())
    if indexed:
        exact, keep = exact[:, 1:], keep[1:]
    with np.errstate(over="ignore"):
        points = np.ascontiguousarray(exact, np.float32)
    bad = _first_bad(points)
    if bad is not None:
        text = f"{exact[bad]} in column {keep[bad[1]] + 1} is not a finite 32-bit number"
        raise DataError(f"{path}, line {numbers[bad[0]]}: {text}.")
    notes = [f"Coordinates: {', '.join(names[i] for i in keep)}."] if names and len(keep) <= 16 else []
    if indexed:
        notes.append("The first column has no name: it is an index, and no coordinate.")
    large = (exact == np.rint(exact)) & (np.abs(exact) > 1 << 24) & (exact != points)
    coarse = sum(float(str(kept)) != value for kept, value in zip(points[large], exact[large], strict=True))
    if coarse:
        notes.append(f"{coarse:,} whole numbers above 16,777,216 lose digits in 32 bits; subtract what they share.")
    if at_label is None:
        return Table(points, notes=notes)
    classes = _in_order(set(labels))
    number = {name: i for i, name in enumerate(classes)}
    return Table(points, np.array([number[label] for label in labels], np.int64), classes, notes)


def _counts(row: Sequence[str]) -> bool:
    """Whether a row counts 0, 1, 2, ..., after an index or not: the names that pandas gives columns without any."""
    names = [value.strip() for value in row]
    names = names[1:] if names[0] in INDEX else names
    return len(names) > 1 - (len(names) < len(row)) and names == [str(i) for i in range(len(names))]


def _is_count(row: Sequence[str], after: Sequence[str] | None) -> bool:
    """Whether a first row that counts is one of names: below it stands something else than whole numbers."""
    if not _counts(row):
        return False
    return row[0].strip() in INDEX or (after is not None and any(not re.fullmatch(r"\s*-?\d+\s*", v) for v in after))


def _header(row: Sequence[str], where: str) -> list[str]:
    """The names of the columns; empty where the first row holds numbers.

    Raises:
        DataError: nobody can say whether it is a header: it holds numbers as well as other things, or something that
            begins like a number.
    """
    others = [value for value in row if not _is_number(value)]
    if not others:
        return []
    doubtful = next((value for value in others if _NUMBERLIKE.match(value)), None)
    if doubtful is not None or len(others) < len(row):
        value = _brief(others[0] if doubtful is None else doubtful)
        raise DataError(
            f"{where}: {value} is not a number. {_FORMAT} A first line of names has one for every column, and none "
            "that begins like a number."
        )
    return [value.strip() for value in row]


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return "_" not in value


def _not_numbers(row: Sequence[str], where: str) -> DataError:
    value = next(value for value in row if not _is_number(value))
    return DataError(f"{where}: {_brief(value) if value.strip() else 'an empty value'} is not a number. {_FORMAT}")


def _label(value: str, where: str) -> str:
    value = value.strip()
    if not value:
        raise DataError(f"{where}: the label is empty.")
    return value


def _in_order(labels: set[str]) -> tuple[str, ...]:
    """Whole numbers by value, anything else by its text."""
    try:
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    except ValueError:
        return tuple(sorted(labels))


def _brief(value: str) -> str:
    return ascii(value if len(value) <= 40 else value[:40] + "...")


def _first_bad(points: np.ndarray) -> tuple[int, int] | None:
    """Row and column of the first value that is not finite."""
    bad = ~np.isfinite(points)
    if not bad.any():
        return None
    row, column = np.unravel_index(int(bad.argmax()), bad.shape)
    return int(row), int(column)
