"""From a name or a path to a data set, whatever its medium."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from castalia.core.config import Config
from castalia.core.data import Dataset
from castalia.core.errors import UsageError, near
from castalia.core.spec import LabelSpec, Spec
from castalia.media.base import Medium
from castalia.media.rooms import ROOMS, room, rooms
from castalia.media.sets import NamedData, Progress, where


def table() -> dict[str, NamedData]:
    """All named sets."""
    return {name: entry for medium in rooms() for name, entry in medium.named().items()}


def medium_for(name_or_path: str, wanted: tuple[str, ...] = ()) -> Medium:
    """The medium that reads a source. A name in the table wins over a file of that name; write ``./mnist`` for that.

    Args:
        name_or_path: a named set, or a path.
        wanted: names of media to prefer, in this order, where several could read it.

    Raises:
        UsageError: neither a known name nor a path that exists.
    """
    for medium in rooms():
        if name_or_path in medium.named():
            return medium
    path = _path(name_or_path)
    order = [*wanted, *(name for name in ROOMS if name not in wanted)]
    for name in order:
        if room(name).reads(path):
            return room(name)
    return room(order[0])  # its reader says what is wrong


def _path(name_or_path: str) -> Path:
    try:
        path = Path(name_or_path).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, no such user, a null byte
        raise UsageError(f"{name_or_path[:200]!r} is not a path that can be read ({error}).") from error
    raise UsageError(
        f"{name_or_path!r} is neither a data set that Castalia knows nor a path that exists. "
        + near(name_or_path, table())
    )


def open_data(
    name_or_path: str,
    options: Config | None = None,
    split: str | None = None,
    *,
    medium: Medium | None = None,
    like: Spec | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Open a named set or a path.

    Args:
        name_or_path: ``digits``, ``mnist``, ... or a path to what some medium reads.
        options: how to read it, an instance of the medium's options; None for the defaults.
        split: ``train`` or ``test`` (a path may have ``validation`` too). None is ``train`` for a named set;
            for a path, ``train`` where it has splits, else everything.
        medium: what to read it as; None finds that out, from the options where there are any.
        like: read it as the data of this shape were read: the same size, rate, vocabulary.
        progress: called with (done, total) while downloading (bytes) and while decoding.

    Raises:
        UsageError: neither a known name nor a path, a split that the named set does not have, or options of another
            medium.
        DataError: the files are missing, wrong or damaged.
    """
    if medium is None:
        wanted = [m for m in rooms() if options is not None and type(options) is m.options]
        medium = medium_for(name_or_path, tuple(m.name for m in wanted))
        if wanted and medium is not wanted[0]:
            raise UsageError(f"{name_or_path} holds {medium.name}; the options are those of {wanted[0].name}.")
    options = medium.options() if options is None else options
    entry = medium.named().get(name_or_path)
    if entry is None:
        path = _path(name_or_path)
        return medium.open(path, options, split, like, progress)
    split = split or "train"
    if split not in entry.counts:
        raise UsageError(f"{name_or_path} has no split {split!r}. It has: {', '.join(entry.counts)}.")
    found = medium.open_named(name_or_path, options, split, like, progress)
    if Path(name_or_path).exists():
        found.notes = (
            *found.notes,
            f"This is the built-in set {name_or_path!r}. What lies here under that name is ./{name_or_path}",
        )
    return found


def list_data() -> list[dict[str, Any]]:
    """Rows for ``castalia data``: name, what, medium, shape, counts by split, licence, and where the files are."""
    known = table()
    return [
        {
            "name": name,
            "what": entry.what,
            "medium": medium.name,
            "shape": list(entry.shape),
            "splits": dict(entry.counts),
            "licence": entry.licence,
            "where": where(name, entry, known),
        }
        for medium in rooms()
        for name, entry in medium.named().items()
    ]


def describe(dataset: Dataset) -> dict[str, Any]:
    """What there is to know about a data set, as JSON values.

    Returns:
        ``name``, ``examples``, ``spec``, ``class_counts`` (by class name; empty without labels),
        ``captions``, ``fingerprint`` and ``notes``.
    """
    counts: dict[str, int] = {}
    label = dataset.spec.sides().get("label")
    if dataset.labels is not None and isinstance(label, LabelSpec):
        numbers = torch.bincount(dataset.labels, minlength=len(label.classes)).tolist()
        counts = dict(zip(label.classes, numbers, strict=True))
    spec = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(dataset.spec).items()}
    if not spec["columns"]:
        del spec["columns"]
    return {
        "name": dataset.name,
        "examples": len(dataset),
        "spec": spec,
        "class_counts": counts,
        "captions": len(dataset.texts),
        "fingerprint": dataset.fingerprint,
        "notes": list(dataset.notes),
    }
