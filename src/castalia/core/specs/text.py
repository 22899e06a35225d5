"""The shape of a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from castalia.core.assets import Asset
from castalia.core.spec import Field, Spec, check_sizes


@dataclass(frozen=True)
class TextSpec(Spec):
    """Text: ``int64`` (T,) tokens, T open, padded with -1.

    A window of training data has ``length`` + 1 tokens, of which the first is context only; neighbouring windows
    share one token, so that every token but the very first is predicted once.

    Attributes:
        kind: what a token is: a character, a byte, or a piece found by byte pair encoding.
        size: number of tokens; the last one ends a text, and the three before it are marks where there are any.
        length: tokens that a window predicts.
        alphabet: ``chars``: the characters, in token order.
        vocabulary: ``bpe``: the file that holds the pieces.
        classes: names of the labels, in label order; empty where there are none.
        middles: whether there are marks by which a model is asked for the middle of a text.
    """

    kind: Literal["chars", "bytes", "bpe"]
    size: int
    length: int
    alphabet: str = ""
    vocabulary: Asset | None = None
    classes: tuple[str, ...] = ()
    middles: bool = False

    def __post_init__(self) -> None:
        check_sizes(self, size=1 << 24, length=1 << 32)

    @property
    def end(self) -> int:
        """The token that ends a text."""
        return self.size - 1

    @property
    def marks(self) -> tuple[int, int, int]:
        """The tokens before what stands before a gap, before what stands behind it, and before what belongs there."""
        return self.size - 4, self.size - 3, self.size - 2

    def fields(self) -> Mapping[str, Field]:
        return {"x": Field(torch.int64, (None,), padding=-1, low=0, high=self.size - 1)}
