"""Parquet files of pictures, as Hugging Face data sets store them (``castalia[parquet]``).

The picture column is a struct ``{bytes, path}`` or plain binary; labels are whole numbers (named by the
``ClassLabel`` in the file's metadata where there is one), texts or truth values.
:mod:`castalia.media.image.parquet_shards` reads the rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from castalia.core.errors import DataError, MissingExtra
from castalia.media.image.tree import brief, is_plain, walk

_IMAGE = ("image", "images", "img", "picture", "png", "jpg")
_LABEL = ("label", "labels", "class", "fine_label", "target")
_TEXT = ("text", "caption", "prompt")

MAX_LABEL_BYTES = 4 << 10
"""Of a class's name, and of the name of a column."""

GROUP_BYTES = 512 << 20
"""What the pictures of a row group may unpack to, or four times their file where that is more."""

# While a row group is read, a batch of rows whose values might each be as large as the whole group.
_BATCH_BYTES = 256 << 20


def parquet_paths(path: Path) -> list[Path]:
    """The file, or all visible ones below a folder; DataError where there are none."""
    if path.is_file():
        return [path]
    paths = [path / name for name in sorted(walk(path)) if name.lower().endswith(".parquet")]
    paths = [one for one in paths if is_plain(one)]
    if not paths:
        raise DataError(f"{path} holds no .parquet files.")
    return paths


def open_file(path: Path) -> ParquetFile:
    """Open one file and find its columns.

    Raises:
        MissingExtra: pyarrow is not installed.
        DataError: it is no Parquet, or has no picture column.
    """
    try:
        import pyarrow as pa  # noqa: F401
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra("Reading Parquet", "parquet") from error
    if not is_plain(path):
        raise DataError(f"{path} is not a plain file.")
    try:
        file = pq.ParquetFile(path)
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        if min(groups, default=0) < 0 or not sum(groups) == file.metadata.num_rows <= path.stat().st_size:
            raise DataError(f"{path}: its footer declares {file.metadata.num_rows} rows, more than it can hold.")
        return ParquetFile(file, path)
    except Exception as error:  # pyarrow raises its own, OSError and ValueError
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not a Parquet file that can be read ({one_line(error)}).") from error


class ParquetFile:
    """One open Parquet file.

    Attributes:
        image: name of the picture column.
        label: name of the column of labels, or None.
        text: name of the caption column, or None.
        notes: what a person should know of other columns.
    """

    def __init__(self, file: Any, path: Path) -> None:
        self.file, self.path = file, path
        columns = {field.name: field.type for field in file.schema_arrow}
        pictures = [n for n, t in columns.items() if _is_image(t)]
        found = _find(columns, _IMAGE, _is_image) or next(iter(pictures), None)
        if found is None:
            names = ", ".join(brief(name) for name in list(columns)[:20])
            raise DataError(f"{path}: no column holds pictures (binary, or a struct with 'bytes'); it has: {names}.")
        self.image: str = found
        self.label = _find(columns, _LABEL, _is_label)
        self.text = _find(columns, _TEXT, is_text)
        used = (self.image, self.label, self.text)
        self.notes = [
            f"Column {brief(name)} ({str(kind)[:60]}) is not read; {what} are those of {brief(one)}."
            if one
            else f"Column {brief(name)} ({str(kind)[:60]}) is not read as {what}."
            for what, one, known in (("pictures", self.image, pictures), ("labels", self.label, _LABEL))
            for name, kind in columns.items()
            if name in known and name not in used
        ]

    def __enter__(self) -> ParquetFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def class_names(self) -> list[str] | None:
        """The names of a Hugging Face ``ClassLabel``, if there is one."""
        metadata = self.file.schema_arrow.metadata or {}
        try:
            features = json.loads(metadata[b"huggingface"])["info"]["features"]
            names = features[self.label]["names"]
        except (KeyError, TypeError, ValueError, RecursionError):
            return None
        return names if isinstance(names, list) and all(isinstance(n, str) for n in names) else None

    def labels(self) -> tuple[np.ndarray | None, list[str | int]]:
        """The labels as positions in a list of values, ``int32`` (N,), and that list; -1 where one is unknown.

        None where there are none, or they turn out to be no classes, which is noted.

        Raises:
            DataError: one is missing, too long, or is none of the names that the file declares.
        """
        if self.label is None:
            return None, []
        names = self.class_names()
        try:
            column = self._label_column()
            if column.null_count:
                row = column.is_null().to_numpy().argmax()
                raise DataError(f"{self.path}: row {row} has no {self.label!r}, while the column exists.")
            kind = str(column.type)
            if kind.startswith(("float", "double", "halffloat")):
                values = column.to_numpy()
                if not (np.isfinite(values) & (values == np.floor(values)) & (abs(values) < 2**53)).all():
                    self.notes.append(f"Column {self.label!r} holds numbers that are not whole, and so no classes.")
                    return None, []
                column = column.cast("int64")
            if names is None or not kind.startswith(("int", "uint", "float", "double", "halffloat")):
                packed = column.combine_chunks()
                if not kind.startswith("dictionary"):
                    packed = packed.dictionary_encode()
                if hasattr(packed, "chunks"):
                    packed = packed.unify_dictionaries().combine_chunks()
                values = packed.dictionary.to_pylist()
                codes = packed.indices.to_numpy(zero_copy_only=False).astype(np.int32)
                return codes, [self._named(value) for value in values]
            labels = column.to_numpy().astype(np.int64)
        except DataError:
            raise
        except Exception as error:  # pyarrow raises its own, OSError and ValueError
            raise DataError(f"{self.path}: column {self.label!r} cannot be read ({one_line(error)}).") from error
        wrong = np.flatnonzero((labels < -1) | (labels >= len(names)))  # -1: an unlabelled test split
        if len(wrong):
            row = int(wrong[0])
            raise DataError(f"{self.path}: row {row} has label {labels[row]}, but {len(names)} names are declared.")
        return labels.astype(np.int32), list(names)

    def _label_column(self) -> Any:
        """The whole column; texts come as positions in a list, whatever the file repeats."""
        import pyarrow.parquet as pq

        kind = self.file.schema_arrow.field(self.label).type
        if is_text(kind):
            with pq.ParquetFile(self.path, read_dictionary=[self.label]) as file:
                return file.read(columns=[self.label]).column(0)
        return self.file.read(columns=[self.label]).column(0)

    def _named(self, value: Any) -> str | int:
        if isinstance(value, bool):
            return str(value)
        if not isinstance(value, str | int):
            raise DataError(f"{self.path}: column {self.label!r} holds {type(value).__name__}, which is no class.")
        if isinstance(value, str) and len(value.encode()) > MAX_LABEL_BYTES:
            raise DataError(f"{self.path}: column {self.label!r} has a class of more than {MAX_LABEL_BYTES} bytes.")
        return value

    def group(self, number: int, name: str) -> Any:
        """A column of a row group, read in small batches so that what unpacks to too much is seen in time.

        Raises:
            DataError: it cannot be read, or unpacks to more than a file of this size would hold.
        """
        import pyarrow as pa

        most = max(GROUP_BYTES, 4 * self.path.stat().st_size)
        chunks, total = [], 0
        try:
            metadata = self.file.metadata.row_group(number)
            declared = max(0, metadata.total_byte_size)
            if declared <= most:
                size = max(1, min(metadata.num_rows, _BATCH_BYTES // max(1, declared)))
                for batch in self.file.iter_batches(size, row_groups=[number], columns=[name], use_threads=False):
                    chunks.append(batch.column(0))
                    total += chunks[-1].nbytes
                    if total > most:
                        break
        except Exception as error:  # pyarrow raises its own, OSError and ValueError
            raise DataError(f"{self.path}: row group {number} cannot be read ({one_line(error)}).") from error
        if max(total, declared) > most:
            raise DataError(
                f"{self.path}: refused, because row group {number} unpacks to more than {most >> 20} MiB out of a "
                f"file of {self.path.stat().st_size:,} bytes. Write it anew, in smaller row groups."
            )
        kind = self.file.schema_arrow.field(name).type
        return pa.chunked_array(chunks, type=kind if not chunks else chunks[0].type)


def picture_bytes(cell: Any) -> bytes | None:
    """What a cell of a column of pictures holds. A path beside it is not looked at: it may be damaged."""
    if cell.type.num_fields:  # a struct
        cell = cell["bytes"] if cell.is_valid else None
    return None if cell is None else cell.as_py()


def _find(columns: dict[str, Any], names: tuple[str, ...], fits: Any) -> str | None:
    return next((name for name in names if name in columns and fits(columns[name])), None)


def _is_binary(kind: Any) -> bool:
    return str(kind) in ("binary", "large_binary", "binary_view")


def _is_image(kind: Any) -> bool:
    if not str(kind).startswith("struct"):
        return _is_binary(kind)
    return any(kind.field(i).name == "bytes" and _is_binary(kind.field(i).type) for i in range(kind.num_fields))


def is_text(kind: Any) -> bool:
    """Whether a column of this type holds texts."""
    return str(kind) in ("string", "large_string", "string_view")


def _is_label(kind: Any) -> bool:
    if str(kind).startswith("dictionary"):
        kind = kind.value_type
    return is_text(kind) or str(kind).startswith(("int", "uint", "bool", "float", "double", "halffloat"))


def one_line(error: Exception) -> str:
    """What an error says, in one line of bounded length."""
    return brief(" ".join(str(error).split()))[1:-1]
