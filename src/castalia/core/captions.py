"""Captions as a column beside examples: the bytes of their UTF-8."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CAPTION = "caption"
"""The column's name in specs and batches."""


def texts_of(captions: Tensor) -> list[str]:
    """Captions ``int64`` (N, T) of bytes, padded with -1, as texts."""
    return [bytes(row[(row >= 0) & (row < 256)].tolist()).decode("utf-8", "replace") for row in captions.cpu()]


def bytes_of(texts: Sequence[str | bytes]) -> Tensor:
    """The inverse, ``int64`` (N, T), as long as the longest of them; an empty caption is all padding."""
    rows = [text if isinstance(text, bytes) else text.encode("utf-8", "replace") for text in texts]
    out = torch.full((len(rows), max(map(len, rows), default=0)), -1, dtype=torch.int64)
    for row, data in zip(out, rows, strict=True):
        if data:
            row[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8).long()
    return out
