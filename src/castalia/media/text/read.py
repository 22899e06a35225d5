"""Texts from people's files, one document after another, never a whole file in memory.

What a document is: a text file or a source file as a whole; a line of JSONL; a row of Parquet. Nothing about a text is
changed, except that a byte order mark at its beginning is left out.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import os
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from castalia.core.errors import DataError, MissingExtra, near

TEXT = frozenset({".txt", ".md", ".rst", ".text", ".tex", ".org", ".adoc", ".abc"})
_LANGUAGES = """
.py .pyi .c .h .cc .cpp .cxx .hpp .cu .js .mjs .ts .jsx .tsx .java .kt .go .rs .rb .php .cs .swift .scala .jl .r .lua
.pl .sh .bash .sql .hs .ml .ex .exs .erl .clj .lisp .el .zig .nim .dart .m .f90 .html .css .scss .vue
"""
CODE = frozenset(_LANGUAGES.split())
ROWS = frozenset({".jsonl", ".ndjson"})
PARQUET = ".parquet"

MAX_LINE = 64 << 20
"""Bytes of one line of JSONL."""
MAX_BYTES = 64 << 30
"""Bytes of text in a source, unpacked."""
MAX_RATIO = 400
"""How many times as large as its file an unpacked text may be: text reaches 10, a bomb 1,000."""
BLOCK = 1 << 20

Errors = Literal["strict", "replace"]


@dataclass(frozen=True)
class Document:
    """One text.

    Attributes:
        name: path below the source, with ``/``; for rows with their number.
        parts: reads it, in parts whose sum is the text.
    """

    name: str
    parts: Callable[[], Iterable[str]]


@dataclass(frozen=True)
class Source:
    """The files of a source.

    Attributes:
        path: of the source.
        files: in a fixed order.
        notes: what a person should know.
    """

    path: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...]

    def name(self, file: Path) -> str:
        """What a file is called in messages and splits."""
        return file.name if file == self.path else file.relative_to(self.path).as_posix()


def kind(path: Path) -> str | None:
    """``text``, ``rows`` or ``parquet``, by a file's name; None for anything else."""
    name = path.name.lower()
    packed = name.endswith(".gz")
    suffix = os.path.splitext(name.removesuffix(".gz"))[1]
    if suffix in TEXT or suffix in CODE:
        return "text"
    if suffix in ROWS:
        return "rows"
    return "parquet" if suffix == PARQUET and not packed else None


def find_files(path: Path) -> Source:
    """The files of a source.

    Hidden files and folders are left out. Links to folders are not followed.

    Raises:
        DataError: there is no text, or a folder cannot be listed.
    """
    if not path.is_dir():
        if kind(path) is None:
            raise DataError(f"{path}: not a text file by its name ({_suffixes()}).")
        return Source(path, (path,), ())
    files, others, odd = [], Counter[str](), 0
    for folder, folders, names in os.walk(path, onerror=_unlisted):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            full = Path(folder, name)
            if name.startswith("."):
                continue
            if not full.is_file():  # a pipe or a device, which would never end; a broken link
                odd += 1
            elif kind(full):
                files.append(full)
            else:
                others[full.suffix.lower() or "no suffix"] += 1
    if not files:
        raise DataError(f"{path} holds no text files ({_suffixes()}).")
    notes = []
    if others:
        kinds = ", ".join(f"{n} {suffix}" for suffix, n in others.most_common(5))
        notes.append(f"Ignored {others.total()} files that are no texts by their names ({kinds}).")
    if odd:
        notes.append(f"{odd} entries are no files (broken links, pipes).")
    return Source(path, tuple(sorted(files)), tuple(notes))


def _unlisted(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be listed: {error.strerror}.") from error


def _suffixes() -> str:
    return f"{', '.join(sorted(TEXT))}, source code, {', '.join(sorted(ROWS))}, {PARQUET}; all but the last also as .gz"


def documents(source: Source, files: Iterable[Path], column: str, errors: Errors) -> Iterator[Document]:
    """The texts of some of a source's files, in order.

    Args:
        source: where they belong to.
        files: which of them.
        column: the field of JSONL, or column of Parquet, that holds the text.
        errors: ``strict`` refuses bytes that are no UTF-8; ``replace`` reads them as U+FFFD.

    Raises:
        DataError: a file cannot be read; the text names it, and the byte, line or row.
    """
    for file in files:
        name, what = source.name(file), kind(file)
        if what == "rows":
            yield from _lines(file, name, column, errors)
        elif what == "parquet":
            yield from _table(file, name, column)
        else:
            yield Document(name, lambda file=file: _parts(file, errors))


class _Plain(io.RawIOBase):
    """A plain file, unpacked where it is packed, that counts what it gives and gives no more than it should."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # opening a pipe would wait for a writer
        except OSError as error:
            raise DataError(f"{path}: cannot be opened ({error.strerror}).") from error
        found = os.fstat(fd)
        self._file: BinaryIO
        self._file = self._plain = open(fd, "rb", buffering=0)  # noqa: SIM115 - closed below
        if not stat.S_ISREG(found.st_mode):
            self._plain.close()
            raise DataError(f"{path} is not a plain file.")
        self._left = MAX_BYTES
        if path.name.lower().endswith(".gz"):
            self._left = min(MAX_BYTES, MAX_RATIO * found.st_size + (1 << 20))
            self._file = cast(BinaryIO, gzip.open(self._plain, "rb"))  # noqa: SIM115 - closed below

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            block = self._file.read(len(buffer))
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{self.path}: cannot be read ({error}).") from error
        self._left -= len(block)
        if self._left < 0:
            raise DataError(f"{self.path}: holds more text than is read from one file (a bomb?); cut it up.")
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
            self._plain.close()
        super().close()


def _open(path: Path) -> io.BufferedReader:
    return io.BufferedReader(_Plain(path), BLOCK)


def _parts(path: Path, errors: Errors) -> Iterator[str]:
    """The text of a whole file."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    done, waiting, first = 0, 0, True
    with _open(path) as file:
        while True:
            block = file.read(BLOCK)
            try:
                waiting = len(decoder.getstate()[0])
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                at = done - waiting + error.start
                raise DataError(
                    f"{path}: byte {at:,} is not UTF-8 ({error.reason}). Convert the file, or pass encoding=replace."
                ) from error
            done += len(block)
            if first and text:
                text, first = text.removeprefix("\ufeff"), False
            if text:
                yield text
            if not block:
                return


def _lines(path: Path, name: str, column: str, errors: Errors) -> Iterator[Document]:
    """The field ``column`` of every line of JSON."""
    with _open(path) as file:
        number, at = 0, 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            where = f"{path}, line {number:,}"
            if len(line) > MAX_LINE:
                raise DataError(f"{where}: longer than {MAX_LINE >> 20} MiB.")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8", errors)
            except UnicodeDecodeError as error:
                raise DataError(f"{where}: byte {at + error.start:,} of the file is not UTF-8.") from error
            at += len(line)
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: not valid JSON ({str(error)[:200]}).") from error
            yield _row(row, where, f"{name}:{number}", column)


def _row(row: Any, where: str, name: str, column: str) -> Document:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object with a field {column!r}, found {str(row)[:60]!r}.")
    if column not in row:
        raise DataError(f"{where}: there is no field {column!r}. {near(column, row)} Name another with field=.")
    value = row[column]
    if not isinstance(value, str):
        raise DataError(f"{where}: {column!r} is {str(value)[:60]!r}, not a text.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: character {error.start:,} of {column!r} is half of a pair (a surrogate).") from error
    return Document(name, lambda: (value,))


def text_columns(path: Path) -> list[str]:
    """The columns of a Parquet file that hold texts.

    Raises:
        MissingExtra: pyarrow is not installed.
        DataError: it is no Parquet.
    """
    import pyarrow as pa

    schema = _parquet(path).schema_arrow
    return [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]


def _parquet(path: Path) -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra("Reading Parquet", "parquet") from error
    if not path.is_file():
        raise DataError(f"{path} is not a plain file.")
    try:
        file = pq.ParquetFile(path)
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    except Exception as error:  # pyarrow raises its own, OSError and ValueError
        raise DataError(f"{path}: not a Parquet file that can be read ({str(error).splitlines()[0][:200]}).") from error
    if min(groups, default=0) < 0 or sum(groups) != file.metadata.num_rows:
        raise DataError(f"{path}: its footer does not fit its row groups.")
    return file


def _table(path: Path, name: str, column: str) -> Iterator[Document]:
    """The texts of a column, a few hundred rows at a time."""
    file = _parquet(path)
    known = text_columns(path)
    if column not in known:
        raise DataError(f"{path}: there is no column of texts {column!r}. {near(column, known)} Name one with field=.")
    number, left = 0, MAX_BYTES
    batches = file.iter_batches(batch_size=256, columns=[column], use_threads=False)
    while True:
        try:
            batch = next(batches, None)
            values = None if batch is None else batch.column(0).to_pylist()
        except Exception as error:  # as above; UnicodeDecodeError
            found = str(error).splitlines()[0][:200]
            raise DataError(f"{path}: cannot be read after row {number:,} ({found}).") from error
        if values is None:
            return
        for value in values:
            if value is not None:  # a row without a text
                left -= len(value)
                if left < 0:
                    raise DataError(f"{path}: holds more text than is read from one file; cut it up.")
                yield Document(f"{name}:{number}", lambda value=value: (value,))
            number += 1
