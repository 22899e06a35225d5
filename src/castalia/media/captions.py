"""Captions as a column beside pictures: their bytes of UTF-8."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from castalia.core.captions import CAPTION, bytes_of
from castalia.core.data import Texts
from castalia.core.spec import Spec
from castalia.core.specs.text import TextSpec

_SIZE = 257
"""Of the vocabulary ``bytes``: 256 values and the end of a text."""


def caption_columns(most: int) -> tuple[tuple[str, Spec], ...]:
    """The columns of a spec whose examples keep ``most`` bytes of each caption; none for 0."""
    return ((CAPTION, TextSpec("bytes", _SIZE, most)),) if most else ()


def caption_bytes(texts: Texts, ids: Sequence[int], most: int) -> Tensor:
    """The captions of some examples, ``int64`` (B, T): bytes, padded with -1 to the longest of them.

    At most ``most`` bytes of each are kept; a character is never cut. An empty caption is all padding.
    """
    return bytes_of([_cut(texts[i].encode("utf-8", "replace"), most) for i in ids])


def _cut(data: bytes, most: int) -> bytes:
    return data if len(data) <= most else data[:most].decode("utf-8", "ignore").encode()
