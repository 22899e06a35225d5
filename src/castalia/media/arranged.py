"""Folders and zips of sounds or scores: which files, and what their names tell of classes and splits."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from castalia.core.errors import DataError, near
from castalia.media.image.tree import Item, brief, file_opener, list_folder, list_zip, walk
from castalia.media.splits import SPLITS, hashed_split, pick_split

FEW_FILES = 10
"""Fewer files than this are not split."""

LOOKED_AT = 500
"""Names looked at to tell what a folder or zip holds."""


def holds(path: Path, suffixes: Collection[str]) -> bool:
    """Whether a path is a file of these endings, or a folder or zip that has one among its first files."""
    if path.is_dir():
        return any(_ends(name, suffixes) for name, _ in zip(walk(path), range(LOOKED_AT), strict=False))
    if path.suffix.lower() == ".zip" and path.is_file():
        try:
            with ExitStack() as stack:
                return any(_ends(item.name, suffixes) for item in list_zip(path, stack)[:LOOKED_AT])
        except DataError:
            return False
    return _ends(path.name, suffixes) and path.is_file()


def list_files(path: Path, suffixes: Collection[str], what: str, stack: ExitStack) -> tuple[list[Item], list[str]]:
    """Every file of these endings in a folder, in a zip, or the file itself; and notes.

    Args:
        path: the source.
        suffixes: endings in small letters, with their points.
        what: what such files are called.
        stack: keeps a zip open.

    Raises:
        DataError: there is none.
    """
    if path.is_dir():
        items, notes = list_folder(path)
    elif not path.is_file():
        raise DataError(f"{path} does not exist." if not path.exists() else f"{path} is neither a file nor a folder.")
    elif path.suffix.lower() == ".zip":
        items, notes = list_zip(path, stack), []
    else:
        items, notes = [Item(path.name, file_opener(path))], []
    wanted = [item for item in items if _ends(item.name, suffixes)]
    if not wanted:
        raise DataError(f"{path} holds no {what} files ({', '.join(sorted(suffixes))}).")
    if len(wanted) < len(items):
        notes = [*notes, f"Ignored {len(items) - len(wanted)} files that are not {what}."]
    return wanted, notes


def _ends(name: str, suffixes: Collection[str]) -> bool:
    return posixpath.splitext(name)[1].lower() in suffixes


@dataclass(frozen=True)
class Found:
    """The files of one split, in a fixed order.

    Attributes:
        items: the files.
        labels: name of each one's class; empty where there are none.
        classes: names of the classes over all splits, in order.
        notes: what a person should know.
        split: which of the source's own splits this is; None where it has none.
    """

    items: list[Item]
    labels: list[str]
    classes: tuple[str, ...]
    notes: list[str]
    split: str | None

    def of(self, rows: Sequence[int]) -> Found:
        labels = [self.labels[i] for i in rows] if self.labels else []
        return Found([self.items[i] for i in rows], labels, self.classes, self.notes, self.split)


def arrange(items: list[Item], how: str, where: str, split: str | None) -> Found:
    """Find splits and labels in the names of files.

    Args:
        items: the files.
        how: ``folders``: a file's first folder is its class; ``none``; or a pattern with ``{label}`` in it.
        where: the source, for errors.
        split: which of the source's own splits is wanted; None is ``train``.

    Raises:
        DataError: a name does not fit the pattern, or there is no such split.
    """
    base = _wrapper([item.name for item in items])
    heads = [_first(item.name, base) for item in items]
    own = all(head.lower() in SPLITS for head in heads)
    below = [f"{base}{head}/" if own else base for head in heads]
    labels: list[str] = []
    if how == "folders":
        labels = [_first(item.name, start) for item, start in zip(items, below, strict=True)]
        labels = labels if all(labels) else []
    elif how != "none":
        labels = [by_pattern(item.name, how, where) for item in items]
    notes = []
    if not own and any(head.lower() in ("train", "test") for head in heads):
        notes.append(f"Folders {', '.join(sorted(set(heads))[:6])} are not taken as splits: not all of them are.")
    whole = Found(items, labels, in_order(set(labels)), notes, None)
    if not own:
        return whole
    rows: dict[str, list[int]] = {}
    for i, head in enumerate(heads):
        rows.setdefault(SPLITS[head.lower()], []).append(i)
    chosen, mine, more = pick_split(rows, split, where)
    part = whole.of(mine)
    return Found(part.items, part.labels, part.classes, [*notes, *more], chosen)


def set_aside(
    found: Found, split: str | None, where: str, what: str, *, alone: bool = False
) -> tuple[Found, list[str]]:
    """Those files that belong to a split, and what is to be said: without splits of its own a tenth is ``test``.

    Args:
        found: the files.
        split: ``train``, ``test``, or None for all.
        where: the source, for errors.
        what: the files are called, in the plural.
        alone: whether few files are left together, because something in them can be split.

    Raises:
        DataError: there are too few to set some aside.
    """
    if len(found.items) >= FEW_FILES:
        rows, notes = hashed_split(split, found.split, [item.name for item in found.items], where, what)
        return found if rows is None else found.of(rows.tolist()), notes
    if split == "test" and found.split is None and not alone:
        raise DataError(f"{where} has fewer than {FEW_FILES} {what}, too few to set some aside for testing.")
    return found, []


def _first(name: str, base: str) -> str:
    """The first folder of a name below ``base``; empty for a file that lies in it."""
    head, slash, _ = name[len(base) :].partition("/")
    return head if slash else ""


def _wrapper(names: list[str]) -> str:
    """The folders that hold everything and mean nothing; a single folder of files is one as well."""
    base = ""
    while True:
        heads = {_first(name, base) for name in names}
        head = next(iter(heads))
        if len(heads) > 1 or not head or head.lower() in SPLITS:
            return base
        base = f"{base}{head}/"


def by_pattern(name: str, pattern: str, where: str, option: str = "labels") -> str:
    """What stands for ``{label}`` in a file's name without folders and ending; ``option`` has the pattern, for errors.

    Raises:
        DataError: the name does not fit.
    """
    parts = [re.escape(part).replace(r"\*", ".*?") for part in pattern.split("{label}")]
    found = re.fullmatch(f"{parts[0]}(?P<label>.+?){parts[1]}", posixpath.splitext(posixpath.basename(name))[0])
    if found is None:
        raise DataError(
            f"{where}: the name {brief(name)} does not fit the pattern {option} = {pattern!r}; give another "
            "pattern, or none."
        )
    return found["label"]


def in_order(labels: set[str]) -> tuple[str, ...]:
    """Whole numbers by value, anything else by its text."""
    if all(re.fullmatch("[0-9]{1,18}", label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def class_numbers(labels: list[str], classes: tuple[str, ...], where: str) -> np.ndarray | None:
    """Class numbers, ``int64`` (N,), or None where there are no labels or no classes.

    Raises:
        DataError: a label is none of the classes.
    """
    if not labels or not classes:
        return None
    number = {label: i for i, label in enumerate(classes)}
    unknown = next((label for label in labels if label not in number), None)
    if unknown is not None:
        raise DataError(f"{where}: the class {brief(unknown)} is not one of the run's. {near(unknown, classes)}")
    return np.array([number[label] for label in labels], np.int64)
