"""The one literal table of edits: each is a file in ``creative/edits/`` whose ``EDIT`` is looked up when needed."""

from __future__ import annotations

import importlib

from castalia.core.errors import UsageError, near
from castalia.creative.edit import Edit

EDITS: tuple[str, ...] = (
    "interpolate",
    "walk",
    "turn",
    "solidify",
    "reconstruct",
    "traverse",
    "arithmetic",
    "attribute",
    "map",
    "redraw",
    "invert",
    "outpaint",
    "upscale",
    "complete",
    "mix",
    "project",
    "directions",
    "dream",
    "dissect",
    "paint",
    "direct",
    "find",
    "answer",
    "infill",
    "solve",
    "poem",
    "recall",
)
"""Names of the edits, and of their files, in the order in which they are listed."""


def edit_of(name: str) -> Edit:
    """The edit of that name.

    Raises:
        UsageError: there is none; near matches are listed.
    """
    if name not in EDITS:
        raise UsageError(f"There is no edit {name!r}. {near(name, EDITS)}")
    return importlib.import_module(f"castalia.creative.edits.{name}").EDIT  # safe: from the literal table above


def all_edits() -> tuple[Edit, ...]:
    """All edits."""
    return tuple(map(edit_of, EDITS))
