"""The split of a source that has none of its own: a tenth is held out, by a hash of each example's name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from castalia.core.errors import DataError


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
