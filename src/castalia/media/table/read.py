"""From a path to a table: which file, which split, what kind each column is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, cast, get_args

import numpy as np

from castalia.core.config import Config
from castalia.core.errors import DataError, MissingExtra, UsageError, near
from castalia.core.files import open_plain, unpacked
from castalia.core.specs.table import Kind, Part, TableSpec
from castalia.media.sets import Progress
from castalia.media.splits import SPLITS, hashed_split, pick_split
from castalia.media.table.array import TableArray
from castalia.media.table.kinds import KEY, MISSING, MOST_VALUES, number_in, part_of

SUFFIXES = (".csv", ".tsv", ".parquet")
FEW = 20
"""Fewer rows than this are not split."""
LARGEST = 4 << 30
GROUP_BYTES = 512 << 20
"""What a row group of Parquet may unpack to, and all texts of a column; or four times the file, where that is more."""
VALUE_BYTES = 1 << 20
"""Of one text, which a column repeats as often as it likes without taking room in its file."""


@dataclass(frozen=True)
class TableOptions(Config):
    """How tables are read. Plain values, so that it survives a JSON round trip.

    Attributes:
        target: the column that people mean to predict; systems that work by class take it.
        kinds: kinds of columns that are not what they seem: ``zip=category``.
        leave_out: columns that are not used.
        missing: texts that say that there is no value, beside the usual ones.
        columns_alike: whether a run refuses other data that have values which its own do not have; if not, such rows
            are left out, and it is said.
    """

    target: str = ""
    kinds: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    columns_alike: bool = False

    def __post_init__(self) -> None:
        for text in self.kinds:
            name, equals, kind = text.rpartition("=")
            if not equals or not name or kind not in get_args(Kind):
                raise UsageError(f"kinds: {text!r}: write COLUMN=KIND, the kind one of {', '.join(get_args(Kind))}.")

    @property
    def told(self) -> Mapping[str, Kind]:
        """Kinds by column."""
        return {text.rpartition("=")[0]: cast(Kind, text.rpartition("=")[2]) for text in self.kinds}


def pandas() -> ModuleType:
    """The package that reads tables.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import pandas as package
    except ImportError as error:
        raise MissingExtra("Tables", "tables") from error
    return package


def plain(path: Path) -> str:
    """The name of a file without the ending of gzip, in small letters."""
    return path.name.lower().removesuffix(".gz")


def is_table(path: Path) -> bool:
    """Whether a path is a table, or a folder of tables that are called after splits."""
    if path.is_dir():
        return bool(_parts(path))
    return path.is_file() and plain(path).endswith(SUFFIXES)


def _parts(folder: Path) -> dict[str, Path]:
    """Tables of a folder by their splits; empty where their names tell none."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and plain(p).endswith(SUFFIXES))
    found = {SPLITS.get(plain(p).rpartition(".")[0]): p for p in files}
    return {} if None in found else {str(split): p for split, p in found.items()}


def open_table(
    path: Path,
    options: TableOptions,
    *,
    split: str | None = None,
    like: TableSpec | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> TableArray:
    """Open a CSV, TSV or Parquet file, plain or with gzip, or a folder of ``train`` and ``test``.

    Args:
        path: what to read.
        options: how; what ``like`` settles is not looked at.
        split: ``train``, ``test``, or None. Without splits of its own a tenth of the rows is ``test``, by a hash of
            their positions.
        like: the shape of a run's data.
        name: what to call it; None for the last part of the path.
        progress: not called: a table is read at once.

    Raises:
        DataError: it cannot be read; the text names the file and what is wrong.
        MissingExtra: pandas is not installed.
    """
    path = Path(path)
    own, notes, file = None, [], path
    if path.is_dir():
        if not (parts := _parts(path)):
            raise DataError(f"{path} holds no tables that are called train and test.")
        own, file, notes = pick_split(parts, split, str(path))
    frame = read_frame(file)
    table = table_of(frame, options, str(file), like, typed=plain(file).endswith(".parquet"))
    rows = None
    if len(table.x) >= FEW:
        rows, more = hashed_split(split, own, map(str, range(len(table.x))), str(path), "rows")
        notes = [*notes, *more]
    elif split == "test" and own is None:
        raise DataError(f"{path} has fewer than {FEW} rows, too few to set some aside for testing.")
    x, missing = table.x.numpy(), table.missing.numpy()
    if rows is not None:
        x, missing = x[rows], missing[rows]
    return TableArray(x, missing, table.spec, name=name or path.name, notes=[*notes, *table.notes])


def read_frame(path: Path) -> Any:
    """A file as a data frame, all of CSV as texts.

    Raises:
        DataError: it cannot be read.
    """
    package = pandas()
    if not path.is_file():
        raise DataError(f"{path} does not exist." if not path.exists() else f"{path} is not a plain file.")
    if path.stat().st_size > LARGEST:
        raise DataError(f"{path} is larger than {LARGEST >> 30} GiB.")
    try:
        if plain(path).endswith(".parquet"):
            return _parquet(path)
        with _opened(path) as file:
            head = file.read(1 << 16)
        mark = "\t" if plain(path).endswith(".tsv") else _mark(head)
        how = {
            "sep": mark,
            "dtype": str,
            "keep_default_na": False,
            "skipinitialspace": True,
            "encoding": "utf-8-sig",
        }
        with _opened(path) as file:
            frame = package.read_csv(file, **how)
        if not isinstance(frame.index, package.RangeIndex) and bool((frame.iloc[:, -1] == "").all()):
            # every row ends with a mark: pandas takes its first column for names of rows, and shifts the others
            with _opened(path) as file:
                frame = package.read_csv(file, **how, usecols=range(len(frame.columns)), index_col=False)
        return frame
    except (DataError, MissingExtra):
        raise
    except Exception as error:  # pandas and pyarrow raise many kinds
        raise DataError(f"{path} is not a table that can be read: {str(error)[:300]}") from error


def _opened(path: Path) -> BinaryIO:
    """A text file for reading its bytes, unpacked where it is packed; OSError past what it may unpack to."""
    file = open_plain(path)
    return file if plain(path) == path.name.lower() else unpacked(file)


def _parquet(path: Path) -> Any:
    """A Parquet file as a data frame, after its footer was looked at.

    Raises:
        DataError: it unpacks to more than a file of its size should, or has a text that is no value of a table.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra("Reading Parquet", "parquet") from error
    size = path.stat().st_size
    limit = max(GROUP_BYTES, 4 * size)
    with open_plain(path) as opened, pq.ParquetFile(opened) as file:
        sizes = [file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups)]
        cells = file.metadata.num_rows * max(1, file.metadata.num_columns)
        if max(sizes, default=0) > limit or 8 * cells > limit + 64 * size:
            raise DataError(f"{path}: refused, because {size:,} bytes unpack to far more than a table (a bomb?).")
        texts = [f.name for f in file.schema_arrow if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    # texts as positions in a list of different ones: what a file repeats takes no room
    with open_plain(path) as opened, pq.ParquetFile(opened, read_dictionary=texts) as file:
        table = file.read()
    for name in texts:
        for part in table.column(name).chunks:
            values = part.dictionary if hasattr(part, "dictionary") else part
            if max((len(v.as_buffer() or b"") for v in values if v.is_valid), default=0) > VALUE_BYTES:
                raise DataError(f"{path}: column {name[:60]!r} holds a text of more than {VALUE_BYTES >> 20} MiB.")
    frame = table.to_pandas()
    for name in texts:  # as pandas' own reader gives them; equal texts are one object
        frame[name] = frame[name].astype(object)
    return frame


def _mark(head: bytes) -> str:
    """What stands between columns, told by the first line."""
    first = head.split(b"\n", 1)[0].decode("utf-8", "replace")
    return max(",;\t", key=first.count)


def table_of(
    frame: Any, options: TableOptions, where: str, like: TableSpec | None = None, typed: bool = True
) -> TableArray:
    """A data frame of pandas as a table; ``typed`` says whether the types of its columns mean anything.

    Raises:
        DataError: it has no rows, or columns that cannot be used.
    """
    if not len(frame) or not len(frame.columns):
        raise DataError(f"{where} has no rows.")
    names = [str(column) for column in frame.columns]
    if len(set(names)) != len(names):
        raise DataError(f"{where}: two columns have the same name.")
    gone = frozenset((*MISSING, *options.missing))
    columns = {name: _texts(frame.iloc[:, i], gone) for i, name in enumerate(names)}
    if like is not None:
        return _alike(columns, like, options, where)
    unknown = next((n for n in (*options.told, *options.leave_out, options.target) if n and n not in names), None)
    if unknown is not None:
        raise DataError(f"{where} has no column {unknown!r}. {near(unknown, names)}")
    parts: list[Part] = []
    keys: list[tuple[str, int]] = []
    notes: list[str] = []
    for i, name in enumerate(names):
        if name in options.leave_out:
            continue
        column, kind = columns[name], options.told.get(name)
        if kind is None and name != options.target and _is_key(name, column):
            keys.append((name, i))
            notes.append(f"Column {name!r} numbers the rows: it is written anew, not learned.")
            continue
        try:
            part = part_of(name, column, kind, str(frame.dtypes.iloc[i]) if typed else "")
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        if part.listed and len(part.values) > MOST_VALUES:
            notes.append(f"Left out column {name!r}: {len(part.values):,} different texts are no category.")
            continue
        parts.append(part)
    if not parts:
        raise DataError(f"{where}: no column can be used. {' '.join(notes)}")
    spec = TableSpec(tuple(parts), options.target, tuple(keys))
    return _filled(columns, spec, len(frame), where, notes)


def _texts(column: Any, gone: frozenset[str]) -> np.ndarray:
    """A column as texts (N,), empty where there is no value."""
    kind = str(column.dtype)
    there = column.notna().to_numpy()
    if kind.startswith("datetime"):
        whole = bool((column.dropna() == column.dropna().dt.normalize()).all())
        texts = column.dt.strftime("%Y-%m-%d" if whole else "%Y-%m-%d %H:%M:%S")
    elif kind.startswith(("float", "Float")):
        whole = bool((column.dropna() % 1 == 0).all())
        texts = column.map(lambda v: str(int(v)) if whole and v == v else repr(float(v)), na_action="ignore")
    else:
        texts = column.astype(str).str.strip()
    values = np.where(there, texts.fillna("").to_numpy(object), "")
    return np.array(["" if text in gone else text for text in values.tolist()], object)


def _is_key(name: str, column: np.ndarray) -> bool:
    """Whether a column numbers the rows: all different, and called so, or made of long texts."""
    texts = column.tolist()
    if len(texts) < 3 or len(set(texts)) < len(texts) or "" in texts:
        return False
    if KEY.fullmatch(name):
        return True
    return len(texts) > MOST_VALUES and not all(_numeric(text) for text in texts[:100])


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return any(c in text for c in "-/:.") and text[:1].isdigit()
    return True


def _alike(columns: Mapping[str, np.ndarray], like: TableSpec, options: TableOptions, where: str) -> TableArray:
    absent = next((name for name in like.names if name not in columns), None)
    if absent is not None:
        raise DataError(f"{where} has no column {absent!r}, which the run's data have. {near(absent, columns)}")
    count = len(next(iter(columns.values())))
    return _filled(columns, like, count, where, [], strict=options.columns_alike)


def _filled(
    columns: Mapping[str, np.ndarray],
    spec: TableSpec,
    count: int,
    where: str,
    notes: Sequence[str],
    strict: bool = False,
) -> TableArray:
    x, missing = np.zeros((count, len(spec.parts))), np.zeros((count, len(spec.parts)), np.uint8)
    good, said = np.ones(count, bool), list(notes)
    for j, part in enumerate(spec.parts):
        column = columns[part.name]
        known = {text: number_in(text, part) for text in set(column.tolist()) if text}
        strange = sorted(text for text, value in known.items() if value is None)
        missing[:, j] = column == ""
        if (not part.missing and missing[:, j].any()) or strange:
            what = f"{strange[0][:40]!r}" if strange else "a missing value"
            wrong = strange[0] if strange else ""
            line = next(i for i, text in enumerate(column.tolist(), 2) if text == wrong)
            told = f"{where}, line {line}: column {part.name!r} has {what}, which the run's data do not have"
            if strict:
                raise DataError(told + ".")
            bad = (missing[:, j] == 1 if not part.missing else False) | np.isin(column, strange)
            good &= ~bad
            said.append(f"{told}; left out {int(bad.sum())} rows.")
        x[:, j] = [known.get(text) or 0.0 for text in column.tolist()]
    if not good.any():
        raise DataError(f"{where}: no row can be used. {' '.join(said)}")
    return TableArray(x[good], missing[good], spec, name=where, notes=said)
