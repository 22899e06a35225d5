"""Files of molecules, line by line: SMILES, CSV with a column of SMILES, SDF; plain, gzipped, in folders and zips."""

from __future__ import annotations

import csv
import io
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

from castalia.chemistry.molecules import chem, split_smiles
from castalia.core.errors import DataError, near
from castalia.core.files import open_plain, unpacked
from castalia.media.arranged import arrange, list_files
from castalia.media.image.tree import Item

PLAIN = (".smi", ".smiles", ".ism", ".sdf", ".mol")
TABLES = (".csv", ".tsv", ".txt")
SUFFIXES = frozenset({*PLAIN, *TABLES, ".gz"})
"""Endings of files that may hold molecules; of tables and texts their beginning decides."""
LARGEST = 4 << 30
"""Bytes of a file, unpacked."""
LONGEST_LINE = 1 << 16
MOST_LINES = 1_000_000
"""Lines of a file, beside one for each of its bytes as it lies there: each takes some hundred bytes of memory."""
LOOKED_AT = 20
"""Lines from which it is told whether a text holds SMILES."""
MOST_MOL = 1 << 20
"""Bytes of one entry of an SDF."""

Numbered = Iterator[tuple[int, str]]
"""Lines with their numbers, from 1."""


@dataclass(frozen=True)
class Line:
    """One molecule as it stands in a file.

    Attributes:
        where: file and line.
        text: SMILES, or the block of an SDF.
        block: whether it is such a block.
        label: its class; empty where there is none.
        split: of the source's own splits; None where it has none.
    """

    where: str
    text: str
    block: bool = False
    label: str = ""


@dataclass(frozen=True)
class Lines:
    """All molecules of a source's split.

    Attributes:
        lines: in the order of the files.
        classes: names of the classes over all splits.
        notes: what a person should know.
        split: which of the source's own splits this is; None where it has none.
    """

    lines: list[Line]
    classes: tuple[str, ...]
    notes: list[str]
    split: str | None


def is_molecules(path: Path) -> bool:
    """Whether a path is a file of molecules, or a folder or zip that has one among its first files."""
    if path.is_dir() or path.suffix.lower() == ".zip":
        from castalia.media.arranged import holds

        return holds(path, frozenset(PLAIN))
    return path.is_file() and _kind(path.name, lambda: cast(BinaryIO, open_plain(path))) is not None


def _kind(name: str, opener: Callable[[], BinaryIO]) -> Literal["smiles", "table", "sdf"] | None:
    """What a file holds, told by its ending, or by its first lines."""
    plain = name.lower().removesuffix(".gz")
    suffix = "." + plain.rpartition(".")[2]
    if suffix in (".sdf", ".mol"):
        return "sdf"
    if suffix in (".smi", ".smiles", ".ism"):
        return "smiles"
    if suffix not in TABLES:
        return None
    try:
        with opener() as file, _text(file, name) as text:
            head = [text.readline(LONGEST_LINE) for _ in range(LOOKED_AT)]
    except (DataError, OSError, UnicodeDecodeError, EOFError, zlib.error):
        return None
    head = [line.strip() for line in head if line.strip()]
    if not head:
        return None
    if suffix != ".txt":
        names = re.split("[,;\t]", head[0].lower())
        return "table" if any("smiles" in n for n in names) else None
    body = head[1:] if head[0].lower() == "smiles" else head
    return "smiles" if body and all(split_smiles(line.split()[0]) for line in body) else None


def _text(file: BinaryIO, name: str) -> io.TextIOWrapper:
    raw = unpacked(file) if name.lower().endswith(".gz") else file
    return io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")  # type: ignore[arg-type]


def read_lines(path: Path, column: str, labels: str, split: str | None) -> Lines:
    """The molecules of a source.

    Args:
        path: a file, a folder or a zip.
        column: of tables, the one that holds SMILES; empty finds it by its name.
        labels: ``none``; ``folders``: the folder of a file is the class; or ``column:NAME`` of a table.
        split: which of the source's own splits.

    Raises:
        DataError: it cannot be read; the text names file and line.
    """
    with ExitStack() as stack:
        items, notes = list_files(path, SUFFIXES, "molecule", stack)
        kinds = {item.name: _kind(item.name, item.open) for item in items}
        used = [item for item in items if kinds[item.name] is not None]
        if not used:
            raise DataError(
                f"{path} holds no molecules: no SMILES (.smi), no SDF, and no table with a column whose name "
                "has 'smiles' in it."
            )
        if len(used) < len(items):
            notes = [*notes, f"Ignored {len(items) - len(used)} files that hold no molecules."]
        found = arrange(used, "folders" if labels == "folders" else "none", str(path), split)
        lines: list[Line] = []
        for i, item in enumerate(found.items):
            where = str(path) if path.name == item.name else f"{path}: {item.name}"
            label = found.labels[i] if found.labels else ""
            lines += _read(item, kinds[item.name] or "", where, column, labels.removeprefix("column:"), label)
    classes = found.classes
    if labels.startswith("column:"):
        from castalia.media.arranged import in_order

        classes = in_order({line.label for line in lines})
    return Lines(lines, classes, [*notes, *found.notes], found.split)


def _read(item: Item, kind: str, where: str, column: str, label_column: str, label: str) -> list[Line]:
    try:
        with item.open() as file:
            most = MOST_LINES + file.seek(0, io.SEEK_END)
            file.seek(0)
            with _text(file, item.name) as text:
                lines = _bounded(text, where, most)
                if kind == "table":
                    return list(_table(lines, where, column, label_column, label))
                return list(_blocks(lines, where, label) if kind == "sdf" else _smiles(lines, where, label))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{where} cannot be read: {error}") from error


def _bounded(text: io.TextIOWrapper, where: str, most: int) -> Numbered:
    total = 0
    number = 0
    while line := text.readline(LONGEST_LINE + 1):
        number += 1
        total += len(line)
        if len(line) > LONGEST_LINE:
            raise DataError(f"{where}, line {number}: longer than {LONGEST_LINE:,} characters.")
        if total > LARGEST:
            raise DataError(f"{where}: larger than {LARGEST >> 30} GiB.")
        if number > most:
            raise DataError(f"{where}: more lines than a file of its size has (a bomb?); unpack it, if they are meant.")
        yield number, line


def _smiles(lines: Numbered, where: str, label: str) -> Iterator[Line]:
    for number, line in lines:
        parts = line.split()
        if parts and not (number == 1 and parts[0].lower() == "smiles"):
            yield Line(f"{where}, line {number}", parts[0], label=label)


def _table(numbered: Numbered, where: str, column: str, label_column: str, label: str) -> Iterator[Line]:
    lines = (line for _, line in numbered)
    first = next(lines, "")
    mark = max(",;\t", key=first.count)
    names = next(csv.reader([first], delimiter=mark), [])
    at = _place(names, column or next((n for n in names if "smiles" in n.lower()), "smiles"), where)
    label_at = _place(names, label_column, where) if label_column not in ("none", "folders", "") else None
    reader = csv.reader(lines, delimiter=mark)
    for row in reader:
        if not row:
            continue
        spot = f"{where}, line {reader.line_num + 1}"
        if max(at, label_at or 0) >= len(row):
            raise DataError(f"{spot}: {len(row)} columns, where the first line has {len(names)}.")
        yield Line(spot, row[at].strip(), label=label if label_at is None else row[label_at].strip())


def _place(names: list[str], wanted: str, where: str) -> int:
    if wanted not in names:
        raise DataError(f"{where} has no column {wanted!r}. {near(wanted, names)}")
    return names.index(wanted)


def _blocks(lines: Numbered, where: str, label: str) -> Iterator[Line]:
    block: list[str] = []
    start, size = 1, 0
    for number, line in lines:
        if line.startswith("$$$$"):
            yield Line(f"{where}, line {start}", "".join(block), block=True, label=label)
            block, start, size = [], number + 1, 0
            continue
        block.append(line)
        size += len(line)
        if size > MOST_MOL:
            raise DataError(f"{where}, line {start}: an entry of more than {MOST_MOL >> 20} MiB.")
    if "".join(block).strip():
        yield Line(f"{where}, line {start}", "".join(block), block=True, label=label)


def molecule_in(line: Line) -> object | None:
    """The molecule of a line, or None where it is none."""
    from castalia.chemistry.molecules import read_smiles

    if not line.block:
        return read_smiles(line.text)
    mol = chem().MolFromMolBlock(line.text, removeHs=True)
    return mol if mol is not None and mol.GetNumAtoms() else None
