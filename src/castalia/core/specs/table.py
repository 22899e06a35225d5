"""The shape of a row of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from castalia.core.spec import Field, LabelSpec, ScalarSpec, Spec

Kind = Literal["number", "integer", "category", "boolean", "date"]

MOST = 4096
"""Columns of a table."""

DAY = 86400.0
"""Seconds of a day."""

DAYS = "days since 1970-01-01"
"""Unit of a date that is given as a condition; a date may be typed, as 2001-05-31."""


@dataclass(frozen=True)
class Part:
    """One column of a table.

    Attributes:
        name: of the column, unique in its table.
        kind: ``number``; ``integer``; ``category``, one of ``values``; ``boolean``, the second of two ``values`` is
            true; ``date``, seconds since 1970.
        values: texts of a category's or a boolean's values, in the order of their numbers.
        missing: whether some rows have no value here.
        decimals: of a number: digits behind the point; -1 is as many as it takes.
        format: of a date, as ``strftime`` writes it.
        dtype: what pandas calls the column's type in the original; empty of CSV, whose columns have none.
        low: smallest value of a number, an integer or a date.
        high: largest value.
    """

    name: str
    kind: Kind
    values: tuple[str, ...] = ()
    missing: bool = False
    decimals: int = -1
    format: str = ""
    dtype: str = ""
    low: float = 0.0
    high: float = 0.0

    def __post_init__(self) -> None:
        if self.listed != bool(self.values) or len(set(self.values)) != len(self.values):
            raise ValueError(f"column {self.name!r}: categories and booleans have values, all different; others none")
        if self.kind == "boolean" and len(self.values) != 2:
            raise ValueError(f"column {self.name!r}: a boolean has two values")
        if self.kind == "date" and not self.format:
            raise ValueError(f"column {self.name!r}: a date has a format")
        if not self.low <= self.high or not -1 <= self.decimals <= 20:
            raise ValueError(f"column {self.name!r}: low is not above high, and decimals are -1 to 20")

    @property
    def listed(self) -> bool:
        """Whether its values are those of a list."""
        return self.kind in ("category", "boolean")

    @property
    def step(self) -> float:
        """The distance of neighbouring values: 1 of integers, 0.01 of numbers of two decimals; 0 where any will do."""
        if self.kind == "date":
            return 1.0 if any(code in self.format for code in ("%S", "%M", "%H", "%T")) else DAY
        if self.kind == "number":
            return 10.0**-self.decimals if self.decimals >= 0 else 0.0
        return 1.0

    @property
    def asked(self) -> Spec:
        """How a value is given as a condition: a class, or a number."""
        if self.listed:
            return LabelSpec(self.values)
        if self.kind == "date":
            return ScalarSpec(DAYS, self.low / DAY, self.high / DAY)
        return ScalarSpec("", float(self.low), float(self.high))


@dataclass(frozen=True)
class TableSpec(Spec):
    """A row: ``x`` ``float64`` (C,), and ``missing`` ``uint8`` (C,), 1 where there is no value; ``x`` is 0 there.

    ``x`` holds the number itself, the number of a category in its list, and seconds since 1970 for dates.

    Attributes:
        parts: the columns, in order.
        target: the column that people mean to predict; empty where nobody said.
        keys: names of columns that only number the rows, with their places in the original; they are in no tensor, and
            written as running numbers.
    """

    parts: tuple[Part, ...]
    target: str = ""
    keys: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.parts) <= MOST:
            raise ValueError(f"a table has 1 to {MOST:,} columns, not {len(self.parts):,}")
        names = [p.name for p in self.parts] + [name for name, _ in self.keys]
        if len(set(names)) != len(names):
            raise ValueError("columns have names of their own")
        if self.target and self.target not in {p.name for p in self.parts}:
            raise ValueError(f"there is no column {self.target!r} to be the target")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, keys left out."""
        return tuple(p.name for p in self.parts)

    def place(self, name: str) -> int:
        """The number of the column of that name, keys left out."""
        return self.names.index(name)

    def fields(self) -> Mapping[str, Field]:
        shape = (len(self.parts),)
        return {"x": Field(torch.float64, shape), "missing": Field(torch.uint8, shape, low=0, high=1)}
