"""What can be done with a run, as data from which a page makes its controls.

Controls are made from what systems and edits say of themselves: sampling options are dataclasses whose docstrings say
what each is, edits have options that describe themselves. Only options whose values are numbers, choices, switches,
examples, masks, or words that no file can hide behind are offered, and taken: a browser names no files.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_origin, get_type_hints

from castalia.core.errors import UsageError, near
from castalia.core.model import CAPABILITIES, Generator, Model
from castalia.core.spec import LabelSpec, ScalarSpec, Spec
from castalia.creative.edit import Edit, Option, options_of
from castalia.creative.table import all_edits, edit_of
from castalia.editing import lacks
from castalia.media.rooms import medium_of
from castalia.runs import Run

RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "guidance": (0, 12),
    "psi": (0, 1.5),
    "truncation": (0, 1.5),
    "steps": (1, 250),
    "top_p": (0, 1),
    "top_k": (0, 200),
    "strength": (0, 1),
    "span": (0, 5),
    "fps": (1, 30),
    "frames": (2, 120),
    "eta": (0, 1),
    "churn": (0, 80),
}
"""Where a slider of that name reaches; what it may be is decided where it is used."""

WORDS = (
    "label",
    "prompt",
    "dims",
    "layer",
    "remove",
    "draw",
    "words",
    "add",
    "cause",
    "score",
    "form",
    "rhymes",
    "metre",
    "opening",
    "was",
)
"""Options of edits that are words, and never a file."""

MOST = 256
"""Examples that one request may ask for."""

LARGEST = {
    "n": MOST,
    "frames": 240,
    "cells": 24,
    "steps": 5_000,
    "octaves": 8,
    "iterations": 200,
    "size": 2_048,
    "budget": 5_000,
    "tries": 2_000,
    "most": 200,
    "shown": 200,
    "count": 32,
    "points": 64,
    "left": 512,
    "right": 512,
    "up": 512,
    "down": 512,
}
"""The most that whole numbers of edits may be here: what one request may cost."""


def of_run(run: Run, model: Model) -> dict[str, Any]:
    """Everything that a page needs to know to play with a run.

    Returns:
        ``medium``; ``capabilities`` by name; ``accepts`` (controls of what may be asked for); ``sampling`` (controls of
        the options); ``edits`` (name, help, controls); ``generates``; ``latent_dims`` where there are some.
    """
    accepts = model.accepts() if isinstance(model, Generator) else {}
    return {
        "medium": medium_of(run.spec).name,
        "shape": list(run.spec.fields()["x"].shape),
        "generates": isinstance(model, Generator),
        "capabilities": [kind.__name__ for kind in CAPABILITIES if isinstance(model, kind)],
        "latent_dims": getattr(model, "latent_dims", None),
        "accepts": [asked(name, spec) for name, spec in accepts.items()],
        "sampling": sampling(model.SampleOptions) if isinstance(model, Generator) else [],
        "edits": [of_edit(edit) for edit in all_edits() if offered(edit) and not lacks(edit, model, run.spec)],
        "dreams": run.recipe.model == "world-model",
    }


def asked(name: str, spec: Spec) -> dict[str, Any]:
    """The control of something that a model accepts."""
    if isinstance(spec, LabelSpec):
        return {"name": name, "kind": "choice", "choices": list(spec.classes), "help": "the class that is asked for"}
    if isinstance(spec, ScalarSpec):
        return {"name": name, "kind": "number", "help": f"a number{f' ({spec.unit})' if spec.unit else ''}"}
    medium = medium_of(spec).name
    return {"name": name, "kind": "text" if medium == "text" else "example", "help": f"of the medium {medium}"}


def sampling(kind: type[Any]) -> list[dict[str, Any]]:
    """Controls of a class of sampling options, with what its docstrings say of each."""
    told = {name: words for parent in reversed(kind.__mro__) for name, words in _attributes(parent.__doc__).items()}
    hints, found = get_type_hints(kind), []
    for field in dataclasses.fields(kind):
        control = _control(field.name, hints[field.name], field.default)
        if control is not None:
            found.append({**control, "help": told.get(field.name, "")})
    return found


AT_HOME = ("answer", "solve")
"""Edits that are for the command line only: one reads files by their paths, one runs what a model writes."""


def of_edit(edit: Edit) -> dict[str, Any]:
    """An edit with its controls."""
    return {"name": edit.name, "help": edit.help, "controls": [_of_option(o) for o in options_of(edit) if _taken(o)]}


def offered(edit: Edit) -> bool:
    """Whether an edit can be asked for without naming files."""
    return all(_taken(option) or not option.required for option in options_of(edit)) and edit.name not in AT_HOME


def checked(name: str, options: Mapping[str, Any], path: Callable[[str], str]) -> dict[str, Any]:
    """Options of an edit as they came from a browser, with identifiers of files replaced by their paths.

    Args:
        name: of the edit.
        options: JSON values.
        path: gives the path of a file that was uploaded or made here, from its identifier.

    Raises:
        UsageError: an option that there is not, or that cannot be given here.
    """
    edit = edit_of(name)
    if not offered(edit):
        raise UsageError(f"The studio does not offer the edit {name!r}.")
    known = {option.name: option for option in options_of(edit)}
    found: dict[str, Any] = {}
    for key, value in options.items():
        option = known.get(key)
        if option is None or not _taken(option):
            raise UsageError(f"edit {name}: there is no option {key!r} here. {near(key, known)}")
        if option.example or option.mask:
            if option.several and isinstance(value, list):
                value = [path(_text(key, one)) for one in value]
            elif value is not None:
                value = path(_text(key, value))
        elif key == "settings":
            value = [_text(key, each) for each in value] if isinstance(value, list) else []
        elif key == "prompt" and value is not None:
            value = plain(_text(key, value))
        elif option.kind is int and not option.several:
            most = LARGEST.get(key)
            if most is not None and type(value) is int and value > most:
                raise UsageError(f"edit {name}: {key} may be {most:,} here, not {value:,}.")
        found[key] = value
    return found


def plain(text: str) -> str:
    """A text that is one, even where it begins like the name of a file."""
    return f"@{text}" if text.startswith("@") else text


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name} must be a text.")
    return value


def _taken(option: Option) -> bool:
    """Whether a browser may give it."""
    if option.example or option.mask or option.choices or option.name == "settings":
        return True
    return option.kind in (int, float, bool) or (option.kind is str and not option.several and option.name in WORDS)


def _of_option(option: Option) -> dict[str, Any]:
    kind = (
        "mask"
        if option.mask
        else "example"
        if option.example
        else "choice"
        if option.choices
        else "texts"
        if option.name == "settings"
        else {int: "integer", float: "number", bool: "switch", str: "text"}[option.kind]
    )
    low, high = RANGES.get(option.name, (option.least, None))
    if option.several:
        kind = {"example": "examples", "integer": "numbers"}.get(kind, kind)
    return {
        "name": option.name,
        "kind": kind,
        "default": None if option.required else _plain_default(option.default),
        "required": option.required,
        "choices": list(option.choices),
        "help": option.help,
        "low": option.least if option.least is not None else low,
        "high": high,
    }


def _plain_default(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _control(name: str, hint: Any, default: Any) -> dict[str, Any] | None:
    """A control for one sampling option; None for what is neither a number, a choice nor a switch."""
    args = [a for a in get_args(hint) if a is not type(None)]
    if args and str(get_origin(hint)) != "typing.Literal" and get_origin(hint) is not tuple:
        hint = float if float in args else int if int in args else args[0]
    common = {"name": name, "default": default if not isinstance(default, tuple) else list(default), "required": False}
    low, high = RANGES.get(name, (None, None))
    if str(get_origin(hint)) == "typing.Literal":
        return {**common, "kind": "choice", "choices": list(get_args(hint))}
    if hint is bool:
        return {**common, "kind": "switch"}
    if hint in (int, float):
        return {**common, "kind": "integer" if hint is int else "number", "low": low, "high": high}
    return None


def _attributes(text: str | None) -> dict[str, str]:
    """What a docstring says of each attribute."""
    _, found, rest = (text or "").partition("Attributes:")
    if not found:
        return {}
    parts = re.split(r"\n {4,8}(?=[a-z_]+: )", "\n" + rest.lstrip("\n"))
    pairs = (part.strip().partition(": ") for part in parts if ": " in part)
    marks = re.compile(r"`+|:\w+:(?=`)")
    return {
        name.strip(): marks.sub("", " ".join(words.split())) for name, _, words in pairs if name.strip().isidentifier()
    }
