"""Pictures in Parquet files, as Hugging Face data sets store them (``castalia[parquet]``).

The picture column is a struct ``{bytes, path}`` or plain binary; labels are whole numbers (named by the
``ClassLabel`` in the file's metadata where there is one) or text. :func:`list_parquet` lists everything for the reader
that decodes into memory; :mod:`castalia.media.image.parquet_shards` reads row groups while they are used.
"""

from __future__ import annotations

import io
import json
import threading
from collections import OrderedDict
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from castalia.core.errors import DataError, MissingExtra
from castalia.media.image.tree import Item, Listing
from castalia.media.splits import names_telling_splits, own_split

_IMAGE = ("image", "images", "img", "picture", "png", "jpg")
_LABEL = ("label", "labels", "class", "fine_label", "target")
_TEXT = ("text", "caption", "prompt")
# Pool threads work on neighbouring rows, so a few row groups serve them all.
_KEEP_GROUPS = 3


def list_parquet(path: Path, stack: ExitStack, split: str | None) -> Listing:
    """List the pictures in a Parquet file, or in all of them below a folder.

    Args:
        path: file or folder; files named ``train-...``, ``test-...``, ``validation-...`` are splits.
        stack: closes the files.
        split: the split that is wanted, or None.

    Raises:
        MissingExtra: pyarrow is not installed.
        DataError: a file is no Parquet, or has no picture column.
    """
    files = [stack.enter_context(open_file(one)) for one in parquet_paths(path)]
    classes = _classes(files)
    number = {name: i for i, name in enumerate(classes)}
    chosen, some, notes = own_split(files, names_telling_splits(path, [file.path for file in files]), split, str(path))
    return Listing([item for file in some for item in file.items(number)], classes, notes, chosen)


def parquet_paths(path: Path) -> list[Path]:
    """The file, or all below a folder; DataError where there are none."""
    paths = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
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
    """One open Parquet file; its rows are read by row group, a few of which are kept."""

    def __init__(self, file: Any, path: Path) -> None:
        self.file, self.path = file, path
        self.lock = threading.Lock()
        self.kept: OrderedDict[int, Any] = OrderedDict()
        columns = {field.name: field.type for field in file.schema_arrow}
        self.image = _find(columns, _IMAGE, _is_image) or next((n for n, t in columns.items() if _is_image(t)), None)
        if self.image is None:
            names = ", ".join(columns)
            raise DataError(f"{path}: no column holds pictures (binary, or a struct with 'bytes'); it has: {names}.")
        self.label = _find(columns, _LABEL, _is_label)
        self.text = _find(columns, _TEXT, is_text)

    def __enter__(self) -> ParquetFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def column(self, name: str) -> list[Any]:
        """All values of a small column."""
        try:
            return self.file.read(columns=[name]).column(name).to_pylist()
        except Exception as error:  # see above
            raise DataError(f"{self.path}: column {name!r} cannot be read ({one_line(error)}).") from error

    def class_names(self) -> list[str] | None:
        """The names of a Hugging Face ``ClassLabel``, if there is one."""
        metadata = self.file.schema_arrow.metadata or {}
        try:
            features = json.loads(metadata[b"huggingface"])["info"]["features"]
            names = features[self.label]["names"]
        except (KeyError, TypeError, ValueError, RecursionError):
            return None
        return names if isinstance(names, list) and all(isinstance(n, str) for n in names) else None

    def items(self, number: dict[str, int]) -> list[Item]:
        """One item per row; ``number`` gives the class number by name."""
        rows = self.file.metadata.num_rows
        labels = self.column(self.label) if self.label else [None] * rows
        texts = self.column(self.text) if self.text else [None] * rows
        names = self.class_names()
        items = []
        for group in range(self.file.num_row_groups):
            for row in range(self.file.metadata.row_group(group).num_rows):
                i = len(items)
                where = f"{self.path.name} row {i}"
                label = labels[i]
                if self.label and label is None:
                    raise DataError(f"{self.path}: row {i} has no {self.label!r}, while the column exists.")
                if label == -1 and names is not None:
                    label = None  # Hugging Face's mark of an unlabelled test split
                if isinstance(label, int) and names is not None:
                    if not 0 <= label < len(names):
                        raise DataError(f"{self.path}: row {i} has label {label}, but {len(names)} names are declared.")
                    label = names[label]
                index = None if label is None else number[str(label)]
                text = (texts[i] or "") if self.text else None
                items.append(Item(where, self._opener(group, row, where), index, text))
        return items

    def _opener(self, group: int, row: int, where: str) -> Any:
        def opener() -> BinaryIO:
            with self.lock:
                if group not in self.kept:
                    try:
                        self.kept[group] = self.file.read_row_group(group, columns=[self.image]).column(0)
                    except Exception as error:  # see above
                        raise DataError(
                            f"{self.path}: row group {group} cannot be read ({one_line(error)})."
                        ) from error
                    while len(self.kept) > _KEEP_GROUPS:
                        self.kept.popitem(last=False)
                value = picture_bytes(self.kept[group][row])
            if value is None:
                raise DataError(f"{where}: holds no picture bytes (only a path?); embed the files in the Parquet.")
            return io.BytesIO(value)

        return opener


def picture_bytes(cell: Any) -> bytes | None:
    """What a cell of a column of pictures holds. A path beside it is not looked at: it may be damaged."""
    if cell.type.num_fields:  # a struct
        cell = cell["bytes"] if cell.is_valid else None
    return None if cell is None else cell.as_py()


def _classes(files: list[ParquetFile]) -> tuple[str, ...]:
    """Class names over all files, so that every split numbers them alike."""
    if not all(file.label for file in files):
        for file in files:
            file.label = None  # a label that only some files have is none
        return ()
    declared = files[0].class_names()
    if declared is not None:
        return tuple(declared)
    values = {value for file in files for value in file.column(file.label or "") if value is not None}
    return tuple(str(v) for v in sorted(values, key=lambda v: (isinstance(v, str), v)))


def _find(columns: dict[str, Any], names: tuple[str, ...], fits: Any) -> str | None:
    return next((name for name in names if name in columns and fits(columns[name])), None)


def _is_binary(kind: Any) -> bool:
    return str(kind) in ("binary", "large_binary")


def _is_image(kind: Any) -> bool:
    if not str(kind).startswith("struct"):
        return _is_binary(kind)
    return any(kind.field(i).name == "bytes" and _is_binary(kind.field(i).type) for i in range(kind.num_fields))


def is_text(kind: Any) -> bool:
    """Whether a column of this type holds texts."""
    return str(kind) in ("string", "large_string")


def _is_label(kind: Any) -> bool:
    return is_text(kind) or str(kind).startswith(("int", "uint"))


def one_line(error: Exception) -> str:
    """What an error says, in one line of bounded length."""
    return " ".join(str(error).split())[:200]
