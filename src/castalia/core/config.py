"""Dataclasses to JSON and back, strictly.

Configuration is data: it is read into dataclasses that the caller names, every key must be known and every
value must have its declared type. Nothing in a file can name a class, a module or a function.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from castalia.core.errors import UsageError, near


@dataclass(frozen=True)
class Config:
    """Hyper-parameters of a system: a frozen dataclass of plain values that survives a JSON round trip."""


T = TypeVar("T")


def to_json(value: Any) -> Any:
    """Turn a dataclass (nested, with tuples and plain values) into JSON-able dicts and lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [to_json(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a configuration cannot hold {type(value).__name__}")


def from_json(cls: type[T], data: Any, where: str = "config") -> T:
    """Read ``data`` into the dataclass ``cls``.

    Args:
        cls: a dataclass whose fields are plain values, tuples, literals, optionals or other such dataclasses.
        data: what a JSON file held.
        where: names the place in error messages.

    Raises:
        UsageError: an unknown key, a missing key or a value of another type; the text gives its path.
    """
    if not isinstance(data, Mapping):
        raise UsageError(f"{where}: expected an object with named fields, found {_brief(data)}.")
    hints = get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise UsageError(f"{where}: there is no field {key!r}. {near(str(key), fields)}")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _read(hints[name], data[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UsageError(f"{where}: the field {name!r} is missing.")
    try:
        return cls(**values)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _read(hint: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        options = [a for a in args if a is not type(None)]
        problems = []
        for option in options:
            try:
                return _read(option, value, where)
            except UsageError as error:
                problems.append(str(error))
        raise UsageError(problems[0] if len(problems) == 1 else f"{where}: {_brief(value)} does not fit {hint}.")
    if origin is Literal:
        if value in args and type(value) in {type(a) for a in args}:
            return value
        raise UsageError(f"{where}: {_brief(value)} is not one of {', '.join(map(str, args))}.")
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise UsageError(f"{where}: expected a list, found {_brief(value)}.")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_read(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) != len(args):
            raise UsageError(f"{where}: expected {len(args)} values, found {len(value)}.")
        return tuple(_read(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, value, strict=True)))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UsageError(f"{where}: expected an object, found {_brief(value)}.")
        return {str(k): _read(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, value, where)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # an integer of hundreds of digits
            number = math.inf
        if not math.isfinite(number):
            raise UsageError(f"{where}: {_brief(value)} is not a finite number.")
        return number
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise UsageError(f"{where}: expected {getattr(hint, '__name__', hint)}, found {_brief(value)}.")


def override(config: T, assignments: Sequence[str], where: str = "config") -> T:
    """Return ``config`` with ``path.to.field=value`` texts applied, types checked.

    Values are read as JSON where they are JSON (``0.1``, ``true``, ``[32, 64]``, ``null``), else as plain text. A list
    of numbers may be written without brackets (``32,64``).

    Raises:
        UsageError: no such field (near matches are listed) or a value of another type.
    """
    import json

    data = to_json(config)
    for text in assignments:
        path, equals, raw = text.partition("=")
        if not equals:
            raise UsageError(f"{where}.{text}: write it as name=value, for example training.lr=0.001.")
        try:
            value = json.loads(raw)
        except json.JSONDecodeError:
            value = raw
        *parents, last = path.strip().split(".")
        node, hint = data, type(config)
        for i, part in enumerate([*parents, last]):
            if get_origin(hint) is dict and isinstance(node, dict):  # any name may be put into one of these
                hint = get_args(hint)[1]
                node.setdefault(part, _blank(hint) if i < len(parents) else None)
            else:
                part = part.replace("-", "_")
                hint = get_type_hints(hint).get(part) if dataclasses.is_dataclass(hint) else None
                if i < len(parents) and isinstance(node, dict) and part in node and node[part] is None:
                    hint = next((h for h in get_args(hint) if dataclasses.is_dataclass(h)), None)
                    node[part] = _blank(hint)  # a part that was left out, of which a field is set now
            if not isinstance(node, dict) or part not in node:
                known = node if isinstance(node, dict) else ()
                full = [".".join([*parents[:i], k]) for k in known]
                raise UsageError(f"{where}: there is no field {path!r}. {near(path, full)}")
            if i == len(parents):
                node[part] = _numbers(raw) if isinstance(value, str) and _counts(hint) else value
            else:
                node = node[part]
    return from_json(type(config), data, where)


def _counts(hint: Any) -> bool:
    """Whether a field holds a list of numbers, or may."""
    args = get_args(hint)
    if get_origin(hint) is tuple:
        return all(arg in (int, float, Ellipsis) for arg in args)
    return get_origin(hint) in (Union, types.UnionType) and any(_counts(arg) for arg in args)


def _numbers(raw: str) -> list[float] | str:
    """``1,2.5`` and ``(1, 2.5)`` as numbers; anything else stays as it was written, and is refused by its name."""
    bare = raw.strip()
    if bare.startswith("(") and bare.endswith(")"):
        bare = bare[1:-1]
    try:
        return [float(part) if set(part) & set(".eE") else int(part) for part in bare.split(",")]
    except ValueError:
        return raw


def _blank(hint: Any) -> Any:
    """A dataclass with all defaults as JSON, where ``hint`` is one that has them."""
    if not (isinstance(hint, type) and dataclasses.is_dataclass(hint)):
        return None
    fields = dataclasses.fields(hint)
    needed = any(f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING for f in fields)
    return {} if needed else to_json(hint())


def differences(a: Any, b: Any, prefix: str = "") -> list[str]:
    """List the paths at which two JSON-able values differ, each with both values."""
    if isinstance(a, dict) and isinstance(b, dict):
        found = []
        for key in sorted({*a, *b}):
            found += differences(a.get(key), b.get(key), f"{prefix}.{key}" if prefix else str(key))
        return found
    return [] if a == b else [f"{prefix}: {_brief(a)} against {_brief(b)}"]
