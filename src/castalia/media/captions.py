"""Captions as a column beside pictures: their bytes of UTF-8."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from castalia.core.data import Texts
from castalia.core.spec import Spec
from castalia.core.specs.text import TextSpec

CAPTION = "caption"
"""The column's name in specs and batches."""

_SIZE = 257
"""Of the vocabulary ``bytes``: 256 values and the end of a text."""


def caption_columns(most: int) -> tuple[tuple[str, Spec], ...]:
    """The columns of a spec whose examples keep ``most`` bytes of each caption; none for 0."""
    return ((CAPTION, TextSpec("bytes", _SIZE, most)),) if most else ()


def caption_bytes(texts: Texts, ids: Sequence[int], most: int) -> Tensor:
    """The captions of some examples, ``int64`` (B, T): bytes, padded with -1 to the longest of them.

    At most ``most`` bytes of each are kept; a character is never cut. An empty caption is all padding.
    """
    rows = [_cut(texts[i].encode("utf-8", "replace"), most) for i in ids]
    out = torch.full((len(rows), max(map(len, rows), default=0)), -1, dtype=torch.int64)
    for row, data in zip(out, rows, strict=True):
        if data:
            row[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8).long()
    return out


def _cut(data: bytes, most: int) -> bytes:
    return data if len(data) <= most else data[:most].decode("utf-8", "ignore").encode()
