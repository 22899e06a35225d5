"""Rows as they are asked for: values of any columns, and what must hold between columns.

A system draws rows; those that do not fit are drawn again, up to ``tries`` times. A number that is asked for is met by
the row that comes nearest, and then set. What a row becomes depends on its own stream of randomness alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from castalia.core.data import Batch
from castalia.core.errors import UsageError, near
from castalia.core.rng import SampleRng
from castalia.core.sampling import Given, Sampling
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.table import DAY, TableSpec
from castalia.models.tables.columns import on_grid

CLOSE = 0.02
"""A number fits that is this near, as a share of its column's range."""
_TERM = r"[^\s<>=!](?:[^<>=!]*?[^\s<>=!])?"
_RULE = re.compile(rf"\s*({_TERM})\s*(<=|>=|==|=|!=|<|>)\s*({_TERM}?)(?:\s+([+\-*])\s+({_TERM}))?\s*")


@dataclass(frozen=True)
class RowSampling(Sampling):
    """How rows are drawn.

    Attributes:
        rules: what must hold of every row: ``age >= 18``, ``start <= end``, ``total = price * number``,
            ``city != Oslo``; sides are columns or values, the right one may be two with a plus, a minus or a star
            between, and a space on either side of it.
        tries: how often a row that does not fit is drawn again, at most.
    """

    rules: tuple[str, ...] = ()
    tries: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tries < 1:
            raise ValueError("tries must be at least 1")
        for text in self.rules:
            if not _RULE.fullmatch(text):
                raise ValueError(f"rules: {text!r} is not of the form 'column <= value' or 'column = column + column'")


def asked_of(spec: TableSpec) -> Mapping[str, Spec]:
    """What can be given: a value of any column, by its name."""
    return {part.name: part.asked for part in spec.parts}


@dataclass(frozen=True)
class Rule:
    """Something that must hold between a column and others.

    Attributes:
        left: number of the column.
        sign: how they compare.
        right: a column's number, or a value.
        operation: between ``right`` and ``more``; empty where there is none.
        more: like ``right``.
    """

    left: int
    sign: str
    right: int | float
    operation: str
    more: int | float

    def slack(self, x: Tensor, parts: TableSpec) -> Tensor:
        """By how much rows (n, C) break it, in ranges of the left column; 0 where it holds."""
        left, right = x[:, self.left], self._value(x, self.right)
        if self.operation:
            more = self._value(x, self.more)
            right = {"+": right + more, "-": right - more, "*": right * more}[self.operation]
        gap = left - right
        part = parts.parts[self.left]
        wide, step = max(part.high - part.low, 1e-9) if not part.listed else 1.0, part.step or 1e-9
        if self.sign in ("=", "=="):
            off = (gap.abs() - 0.5 * step).clamp(min=0)
        elif self.sign == "!=":
            off = (gap.abs() < 0.5 * step).double()
        elif self.sign in ("<=", "<"):
            off = gap.clamp(min=0) if self.sign == "<=" else (gap + step).clamp(min=0)
        else:
            off = (-gap).clamp(min=0) if self.sign == ">=" else (step - gap).clamp(min=0)
        return off / wide

    @staticmethod
    def _value(x: Tensor, side: int | float) -> Tensor:
        return x[:, side] if isinstance(side, int) else torch.full_like(x[:, 0], side)

    @property
    def columns(self) -> list[int]:
        return [side for side in (self.left, self.right, self.more) if isinstance(side, int)]


def rule_of(text: str, spec: TableSpec) -> Rule:
    """A rule from its text.

    Raises:
        UsageError: it names no column of the table, or a value that its column does not have.
    """
    found = _RULE.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} is not of the form 'column <= value' or 'column = column + column'.")
    left, sign, right, operation, more = (g.strip() if g else "" for g in found.groups())
    if left not in spec.names:
        raise UsageError(f"{text!r}: there is no column {left!r}. {near(left, spec.names)}")
    place = spec.place(left)
    return Rule(
        place, sign, _side(right, place, spec, text), operation, _side(more, place, spec, text) if more else 0.0
    )


def _side(text: str, left: int, spec: TableSpec, whole: str) -> int | float:
    part = spec.parts[left]
    if text in spec.names:
        other = spec.parts[spec.place(text)]
        if part.values != other.values:  # numbers of values in different lists do not compare
            raise UsageError(f"{whole!r}: {part.name!r} and {other.name!r} do not have the same values.")
        return spec.place(text)
    if part.listed:
        if text not in part.values:
            raise UsageError(f"{whole!r}: {part.name} has no value {text!r}. {near(text, part.values)}")
        return float(part.values.index(text))
    try:
        if part.kind == "date":
            from datetime import UTC, datetime

            return datetime.strptime(text, part.format).replace(tzinfo=UTC).timestamp()
        value = float(text)
    except ValueError as error:
        raise UsageError(f"{whole!r}: {text!r} is neither a column nor a value of {part.name!r}.") from error
    if not math.isfinite(value):
        raise UsageError(f"{whole!r}: {text!r} is not a finite number.")
    return value


def satisfied(
    draw: Callable[[SampleRng], Batch], spec: TableSpec, given: Given, rng: SampleRng, options: RowSampling
) -> Batch:
    """Rows that fit what is given and the rules.

    Args:
        draw: draws a row for each stream.
        spec: of the rows.
        given: values of columns.
        rng: the streams.
        options: rules and tries.

    Raises:
        UsageError: a rule cannot be met in so many tries; the text says for how many rows.
    """
    rules = [rule_of(text, spec) for text in options.rules]
    best = draw(rng)
    if not given and not rules:
        return best
    off = _off(best, spec, given, rules)
    for attempt in range(1, options.tries):
        if bool((off <= 0).all()):
            break
        other = draw(rng.at("again", attempt))
        now = _off(other, spec, given, rules)
        better = (now < off) & (off > 0)
        best = Batch.of(
            torch.where(better[:, None], other.x, best.x),
            None,
            {"missing": torch.where(better[:, None], other.extra["missing"], best.extra["missing"])},
        )
        off = torch.where(better, now, off)
    for name, value in given.items():
        part, j = spec.parts[spec.place(name)], spec.place(name)
        exact = value.double() if part.listed else on_grid(value.double() * (DAY if part.kind == "date" else 1), part)
        best.x[:, j], best.extra["missing"][:, j] = exact, 0
    broken = sum((rule.slack(best.x, spec) > 0).int() for rule in rules) if rules else None
    if isinstance(broken, Tensor) and bool((broken > 0).any()):
        raise UsageError(
            f"{int((broken > 0).sum())} of {len(best)} rows broke a rule in each of {options.tries} tries. Raise "
            "--set tries, or ask for less."
        )
    return best


def _off(batch: Batch, spec: TableSpec, given: Given, rules: list[Rule]) -> Tensor:
    """How far rows are from what is wanted; 0 where they fit. Rules weigh more than numbers that can be set."""
    total = torch.zeros(len(batch), dtype=torch.float64, device=batch.x.device)
    for name, value in given.items():
        j = spec.place(name)
        part, x, gone = spec.parts[j], batch.x[:, j], batch.extra["missing"][:, j] == 1
        if part.listed:
            total += torch.where((x != value.double()) | gone, 1.0, 0.0)
        else:
            wanted = value.double() * (DAY if part.kind == "date" else 1)
            gap = (x - wanted).abs() / max(part.high - part.low, 1e-9)
            total += torch.where(gone, 1.0, (gap - CLOSE).clamp(min=0))
    for rule in rules:
        slack = rule.slack(batch.x, spec)
        absent = batch.extra["missing"][:, rule.columns].amax(1) == 1
        total += torch.where(absent, 2.0, torch.where(slack > 0, 1 + slack, 0.0))
    return total


def class_given(given: Given, spec: TableSpec, column: int) -> Tensor | None:
    """The value of a category that is given, ``int64`` (n,), or None."""
    part = spec.parts[column]
    return given[part.name] if part.name in given and isinstance(part.asked, LabelSpec) else None
