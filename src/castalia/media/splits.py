"""Which examples are for training and which for testing.

A source's own splits are told by names. Of a source that has none, a tenth is held out by a hash of each name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from castalia.core.errors import DataError

SPLITS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing", "t10k"), "test"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
}
"""Words that name a split, and what it is called here."""

T = TypeVar("T")


def pick_split(available: Mapping[str, T], split: str | None, where: str) -> tuple[str, T, list[str]]:
    """Choose among a source's own splits.

    Without a wish it is ``train``, so that nobody trains on the test part unknowing.

    Returns:
        Its name, its value, and notes.

    Raises:
        DataError: there is no such split.
    """
    chosen = split or ("train" if "train" in available else min(available))
    if chosen not in available:
        raise DataError(f"{where} has no split {chosen!r}. It has: {', '.join(sorted(available))}.")
    others = sorted(set(available) - {chosen})
    notes = [f"Split {chosen!r} of {where} (left out: {', '.join(others)})."] if others and split is None else []
    return chosen, available[chosen], notes


def names_telling_splits(path: Path, files: Sequence[Path]) -> list[str]:
    """The names of a source's files as far as they tell splits: below its folder; of a single file nothing."""
    return [""] if path.is_file() else [file.relative_to(path).as_posix() for file in files]


def own_split(
    shards: Sequence[T], names: Iterable[str], split: str | None, where: str
) -> tuple[str | None, Sequence[T], list[str]]:
    """The shards of a split, where all names (``train-0001.tar``, ``val/7.parquet``) tell one.

    Returns:
        The split, or None where the names tell none; its shards; notes.

    Raises:
        DataError: there is no such split.
    """
    told = [next((SPLITS[w] for w in re.findall("[a-z]+", name.lower()) if w in SPLITS), None) for name in names]
    by_split: dict[str, list[T]] = {}
    for shard, one in zip(shards, told, strict=True):
        if one is None:
            return None, shards, []
        by_split.setdefault(one, []).append(shard)
    if not by_split:
        return None, shards, []
    return pick_split(by_split, split, where)


def hashed_split(
    split: str | None, own: str | None, names: Iterable[str], where: str, what: str = "pictures"
) -> tuple[np.ndarray | None, list[str]]:
    """Which examples to take where a split is wanted from a source that has none.

    An example stays in its part when others are added, because only its own name decides.

    Args:
        split: what is wanted: ``train``, ``test``, or None for everything.
        own: which of the source's own splits was read already; None where it has none.
        names: of the examples; their positions where they have none.
        where: the source, for errors.
        what: what the examples are called.

    Returns:
        The numbers of the examples, ``int64`` (M,), or None for all; and notes.

    Raises:
        DataError: another split is wanted, or there are too few examples to make it.
    """
    if split is None or own is not None:
        return None, []
    if split not in ("train", "test"):
        raise DataError(f"{where} has no splits, so only 'train' and 'test' can be made; not {split!r}.")
    held = held_out(names)
    rows = np.flatnonzero(held == (split == "test"))
    if not len(rows):
        raise DataError(f"{where} has only {len(held)} {what}, too few to make a {split!r} split of them.")
    return rows, [f"No splits of its own: {split!r} is {len(rows)} of {len(held)} {what}, by a hash of their names."]


def held_out(names: Iterable[str]) -> np.ndarray:
    """Which examples are set aside as ``test``, bool (N,); the names need not be held in memory."""
    return np.fromiter((_hash(name) % 10 == 0 for name in names), bool)


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")
