"""Tables as a medium."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from PIL.Image import Image
from torch import Tensor

from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.errors import MissingExtra, UsageError, near
from castalia.core.files import disk_error
from castalia.core.spec import Spec
from castalia.core.specs.table import Part, TableSpec
from castalia.media.base import Measure, Medium, Rate
from castalia.media.image.medium import energy
from castalia.media.image.write import replace_file
from castalia.media.sets import NamedData, Progress
from castalia.media.table.draw import table_image
from castalia.media.table.kinds import number_in, text_of
from castalia.media.table.measures import MEASURES
from castalia.media.table.read import TableOptions, is_table, open_table, pandas
from castalia.media.table.sets import SETS, open_set, people


@final
class TableMedium(Medium):
    """Tables: rows, written as CSV and Parquet, drawn as what values columns have."""

    name: ClassVar[str] = "table"
    spec: ClassVar[type[Spec]] = TableSpec
    options: ClassVar[type[Config]] = TableOptions
    shown: ClassVar[int] = 1000
    reading: ClassVar[str] = "a .csv, .tsv or .parquet file (.gz), or a folder of train and test"
    measures: ClassVar[tuple[Measure, ...]] = MEASURES

    def reads(self, path: Path) -> bool:
        return is_table(path)

    def open(
        self,
        path: Path,
        options: TableOptions,
        split: str | None,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        assert like is None or isinstance(like, TableSpec)
        return open_table(path, options, split=split, like=like, progress=progress)

    def named(self) -> Mapping[str, NamedData]:
        return SETS

    def open_named(
        self,
        name: str,
        options: TableOptions,
        split: str,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        assert like is None or isinstance(like, TableSpec)
        return open_set(name, options, split, like, progress)

    def tiny(self) -> Dataset:
        return people("test")

    def read(self, text: str, spec: TableSpec) -> Tensor:
        """A row: ``age=39,education=college``, every column named once."""
        values: dict[str, float] = {}
        for piece in next(csv.reader([text]), []):
            name, equals, value = piece.partition("=")
            if not equals or name not in spec.names:
                raise UsageError(f"{piece[:40]!r}: write COLUMN=VALUE. {near(name, spec.names)}")
            part = spec.parts[spec.place(name)]
            found = number_in(value, part)
            if found is None:
                hint = near(value, part.values) if part.listed else f"A {part.kind} is expected."
                raise UsageError(f"{name}={value[:40]}: not a value of this column. {hint}")
            values[name] = found
        absent = [name for name in spec.names if name not in values]
        if absent:
            raise UsageError(f"A row names every column; these are missing: {', '.join(absent[:10])}.")
        return torch.tensor([values[name] for name in spec.names], dtype=torch.float64)

    def read_file(self, path: Path, spec: TableSpec) -> Tensor:
        """The first row of a table."""
        return open_table(path, TableOptions(columns_alike=True), like=spec).x[0]

    def write(
        self, batch: Batch, spec: TableSpec, folder: Path, start: int = 0, recipe: Mapping[str, Any] | None = None
    ) -> list[Path]:
        """Write ``table.csv`` (``table-N.csv`` where the first number N is not 0), with a Parquet file beside it.

        Columns have the names and the order of the original, and load with its types. Parquet is left out where pandas
        or pyarrow is not installed.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(folder, error) from error
        path = folder / (f"table-{start:04d}.csv" if start else "table.csv")
        names, rows = texts_of(batch, spec, start)
        out = io.StringIO()
        # a carriage return is not quoted unless all is
        how = csv.QUOTE_ALL if any("\r" in text for row in (names, *rows) for text in row) else csv.QUOTE_MINIMAL
        csv.writer(out, lineterminator="\n", quoting=how).writerows([names, *rows])
        replace_file(path, out.getvalue().encode())
        try:
            packed = io.BytesIO()
            frame_of(batch, spec, start).to_parquet(packed, index=False)
            replace_file(path.with_suffix(".parquet"), packed.getvalue())
        except (MissingExtra, ImportError):
            pass
        if recipe is not None:
            whole = {**recipe, "start": start, "n": len(batch)}
            replace_file(path.with_suffix(".json"), (json.dumps(whole, indent=2) + "\n").encode())
        return [path]

    def picture(self, batch: Batch, spec: TableSpec, columns: int | None = None) -> Image:
        return table_image(batch.x.double().cpu().numpy(), batch.extra["missing"].cpu().numpy(), spec, columns)

    def rates(self, batch: Batch, spec: TableSpec) -> Mapping[str, Rate]:
        return {"nats_per_row": Rate("nats/row", math.e, torch.ones(len(batch), dtype=torch.float64))}

    def distance(self, a: Batch, b: Batch, spec: TableSpec) -> float:
        """Energy distance of rows: numbers as shares of their columns' ranges, categories as one-hots."""
        return energy(_spread(a, spec), _spread(b, spec))


def _spread(batch: Batch, spec: TableSpec) -> Tensor:
    columns = []
    for j, part in enumerate(spec.parts):
        x, gone = batch.x[:, j].double(), batch.extra["missing"][:, j] == 1
        if part.listed:
            columns.append(torch.nn.functional.one_hot(x.long(), len(part.values)).float() * 0.7 * ~gone[:, None])
        else:
            share = (x - part.low) / max(part.high - part.low, 1e-9)
            columns.append(torch.stack([torch.where(gone, 0.5, 2 * share), gone.double()], 1).float())
    return torch.cat(columns, 1)


def texts_of(batch: Batch, spec: TableSpec, start: int = 0) -> tuple[list[str], list[list[str]]]:
    """Names and rows as texts, keys put back where they were; empty where there is no value."""
    x, missing = batch.x.double().cpu().numpy(), batch.extra["missing"].cpu().numpy()
    columns = [
        ["" if gone else text_of(value, part) for value, gone in zip(x[:, j].tolist(), missing[:, j], strict=True)]
        for j, part in enumerate(spec.parts)
    ]
    names = list(spec.names)
    for name, place in sorted(spec.keys, key=lambda key: key[1]):
        names.insert(place, name)
        columns.insert(place, [str(i) for i in range(start, start + len(x))])
    return names, [list(row) for row in zip(*columns, strict=True)]


def frame_of(batch: Batch, spec: TableSpec, start: int = 0) -> Any:
    """Rows as a data frame of pandas, with the types of the original.

    Raises:
        MissingExtra: pandas is not installed.
    """
    package = pandas()
    names, rows = texts_of(batch, spec, start)
    parts = {part.name: part for part in spec.parts}
    columns = {}
    for i, name in enumerate(names):
        texts = [row[i] for row in rows]
        columns[name] = _typed(package, texts, parts.get(name))
    return package.DataFrame(columns)


def _typed(package: Any, texts: list[str], part: Part | None) -> Any:
    series = package.Series(texts, dtype=object)
    if part is None:
        return series.astype("int64")
    gone = series == ""
    if part.kind in ("integer", "number"):
        numbers = package.to_numeric(series.where(~gone, None))
        wanted = part.dtype or ("int64" if part.kind == "integer" and not part.missing else "float64")
        if wanted.startswith(("int", "uint")) and bool(gone.any()):
            wanted = "float64"
        return numbers.astype(wanted)
    if part.kind == "date":
        if not part.dtype.startswith("datetime"):
            return series.where(~gone, None)
        dates = package.to_datetime(series.where(~gone, None), format=part.format)
        _, comma, zone = part.dtype.rstrip("]").partition(", ")
        if comma:  # a time that its zone has twice or never is taken as it comes
            dates = dates.dt.tz_localize(zone, ambiguous=[True] * len(dates), nonexistent="shift_forward")
        return dates.astype(part.dtype)
    if part.dtype == "bool" and not bool(gone.any()):
        return series.str.lower() == "true"
    plain = series.where(~gone, None)
    return plain.astype(part.dtype) if part.dtype in ("category", "string") else plain
