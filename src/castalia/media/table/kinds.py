"""What kind a column of texts is, and from texts to numbers and back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from castalia.core.errors import DataError
from castalia.core.specs.table import Kind, Part

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "<NA>", "NaT")
"""Texts that say that there is no value."""
MOST_VALUES = 2_000
"""Values of a category, at most."""
FORMATS = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%m/%d/%Y",
    "%d/%m/%Y",
)
TRUTHS = (("false", "true"), ("no", "yes"), ("n", "y"), ("f", "t"))
KEY = re.compile(r"(|index|id|key|unnamed: ?\d+|.*[_ ]id|rowid|row|number|nr)", re.IGNORECASE)
"""Names of columns that may number the rows."""
_CODED = re.compile(r"[+-]?0\d")
"""A number that has lost something where its zeros are lost: a postcode, a telephone number."""
_WHOLE = re.compile(r"[+-]?\d+")
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?\d{1,15}")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")


def kind_of(texts: Sequence[str]) -> Kind:
    """The kind of a column, from its different values that are there.

    Numbers that would not come back as they were are categories: those that begin with zeros, and whole ones of more
    digits than a float holds.
    """
    if any(_CODED.match(text) for text in texts) and all(_NUMBER.fullmatch(text) for text in texts):
        return "category"
    if any(len(text) > 15 for text in texts) and all(_WHOLE.fullmatch(text) for text in texts):
        return "category"
    if texts and all(_INTEGER.fullmatch(text) for text in texts):
        return "integer"
    if texts and all(_NUMBER.fullmatch(text) and np.isfinite(float(text)) for text in texts):
        return "number"
    if tuple(sorted(text.lower() for text in texts)) in TRUTHS:
        return "boolean"
    return "date" if texts and format_of(texts) else "category"


def format_of(texts: Sequence[str]) -> str:
    """How dates are written; empty where they are none."""
    return next((form for form in FORMATS if all(_date(text, form) is not None for text in texts)), "")


def _date(text: str, form: str) -> float | None:
    try:
        return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def part_of(name: str, column: np.ndarray, kind: Kind | None, dtype: str) -> Part:
    """The description of a column.

    Args:
        name: of the column.
        column: its texts (N,), those of missing values empty.
        kind: what it is; None finds it out.
        dtype: what pandas calls it.

    Raises:
        DataError: it is not of that kind.
    """
    there = sorted(set(column[column != ""].tolist()))
    endless = next((text for text in there if _INFINITE.fullmatch(text)), None)
    rest = [text for text in there if not _INFINITE.fullmatch(text)]
    if endless is not None and kind != "category" and rest and kind_of(rest) in ("integer", "number"):
        raise DataError(
            f"column {name!r} holds {endless!r}, and no model has a use for it: give that value another text, or none."
        )
    kind = kind or kind_of(there)
    missing = bool((column == "").any())
    if kind in ("category", "boolean"):
        if kind == "boolean" and len(there) == 2:
            order = sorted(there, key=str.lower)
            return Part(name, kind, tuple(order), missing, dtype=dtype)
        if not there:
            there = ["-"]
        return Part(name, "category", tuple(_in_order(there)), missing, dtype=dtype)
    form = format_of(there) if kind == "date" else ""
    if kind == "date" and not form:
        raise DataError(f"column {name!r}: {there[0]!r} and others are not dates in one of {', '.join(FORMATS)}.")
    part = Part(name, kind, (), missing, format=form, dtype=dtype)
    values = [number_in(text, part) for text in there]
    bad = next((text for text, value in zip(there, values, strict=True) if value is None), None)
    if bad is not None:
        raise DataError(f"column {name!r}: {bad[:60]!r} is not of the kind {kind!r}.")
    numbers = [v for v in values if v is not None] or [0.0]
    decimals = max((_decimals(text) for text in there), default=0) if kind == "number" else -1
    decimals = -1 if decimals > 12 else decimals
    return Part(name, kind, (), missing, decimals if kind == "number" else -1, form, dtype, min(numbers), max(numbers))


def _decimals(text: str) -> int:
    """Digits behind the point; more than any limit where it has an exponent."""
    return 99 if "e" in text.lower() else len(text.partition(".")[2])


def _in_order(texts: list[str]) -> list[str]:
    """By value where they are numbers, else by text."""
    if all(_NUMBER.fullmatch(text) for text in texts):
        return sorted(texts, key=lambda text: (float(text), text))
    return texts


def number_in(text: str, part: Part) -> float | None:
    """The number of a text that is there; None where it is none of the column's."""
    if part.listed:
        return float(part.values.index(text)) if text in part.values else None
    if part.kind == "date":
        return _date(text, part.format)
    pattern = _INTEGER if part.kind == "integer" else _NUMBER
    if not pattern.fullmatch(text):
        return None
    value = float(text)
    return value if np.isfinite(value) else None


def text_of(value: float, part: Part) -> str:
    """A number of a column as its text."""
    if part.listed:
        return part.values[int(value)]
    if part.kind == "date":
        when = datetime.fromtimestamp(value, UTC)
        return when.strftime(part.format.replace("%Y", f"{when.year:04}"))  # years before 1000 have four digits too
    if part.kind == "integer":
        return str(round(value))
    return f"{value:.{part.decimals}f}" if part.decimals >= 0 else repr(float(value))


def settled(x: np.ndarray, part: Part) -> np.ndarray:
    """Any numbers ``float64`` (N,) as ones that the column can have: inside its range, on its grid."""
    if part.listed:
        return np.clip(np.round(x), 0, len(part.values) - 1)
    x = np.clip(x, part.low, part.high)
    if part.step:
        x = np.round(np.round(x / part.step) * part.step, 12 if part.step < 1 else 0)
    return np.clip(x, part.low, part.high)
