"""Rows for texts that come and go: what an engine needs of a language model, beside its sampler.

A sampler (``writing.py``) begins with n texts and ends with the last of them. An engine has rows. A text is given one
when it comes and loses it when it ends, rows are at different places, and several tokens of a row can be read at once
and some of them be taken back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, final

import torch
from torch import Tensor

from castalia.core.errors import UsageError
from castalia.nn.causal import Cache

if TYPE_CHECKING:
    from castalia.models.sequence.gpt2 import GPT2
    from castalia.models.sequence.writing import Reader


class Slots(ABC):
    """What n rows have read.

    Attributes:
        rewinds: whether tokens can be taken back, and the logits behind each of several tokens be had.
        parts: whether a prompt can be read in parts.
        device: where they are.
    """

    rewinds: ClassVar[bool] = False
    parts: ClassVar[bool] = True
    device: torch.device

    @abstractmethod
    def read(self, start: int, tokens: Tensor, first: Tensor, counts: Tensor, every: bool = False) -> Tensor:
        """Read on in the rows from ``start`` on.

        Args:
            start: the first row.
            tokens: ``int64`` (r, t) for r rows, padded on the right with any token.
            first: ``int64`` (r,), the place of the first token of each; at 0 a row is begun anew. Tokens that were
                read at this place or behind it are taken back.
            counts: ``int64`` (r,), how many tokens there are of each, from 1.
            every: whether the logits behind each token are wanted; needs :attr:`rewinds`.

        Returns:
            Logits (r, t, size) behind each token, or (r, 1, size) behind the last of each row.
        """

    @abstractmethod
    def swap(self, a: int, b: int) -> None:
        """Exchange two rows."""

    @abstractmethod
    def arrange(self, source: Tensor) -> None:
        """Let row i go on from what row ``source[i]`` (``int64``) has read, for the first rows."""

    @final
    def feed(self, start: int, tokens: Sequence[Sequence[int]], first: Sequence[int], every: bool = False) -> Tensor:
        """:meth:`read` of lists."""
        counts = torch.tensor([len(row) for row in tokens], device=self.device)
        longest = int(counts.max())
        x = torch.tensor([[*row, *[0] * (longest - len(row))] for row in tokens], device=self.device)
        return self.read(start, x, torch.tensor(first, device=self.device), counts, every)

    def forgotten(self, count: int) -> int:
        """How many of the first of ``count`` tokens are not looked at any more; their places are counted from there."""
        return 0


class Continuing(ABC):
    """A language model whose texts can come and go."""

    @abstractmethod
    def slots(self, n: int, spare: int = 0) -> Slots:
        """Rows for ``n`` texts, of each of which up to ``spare`` tokens at a time are taken back."""


def attention_type(weight: Tensor) -> torch.dtype:
    """The type that attention will compute in, which is what a cache should hold."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


class CachedSlots(Slots):
    """Rows of caches of keys and values, allocated once."""

    rewinds: ClassVar[bool] = True

    def __init__(self, model: GPT2, n: int, spare: int = 0) -> None:
        self.model, self.device = model, model.device
        self.caches = model.caches(n, attention_type(model.tokens.weight), spare)

    def read(self, start: int, tokens: Tensor, first: Tensor, counts: Tensor, every: bool = False) -> Tensor:
        rows = slice(start, start + len(tokens))
        caches = [Cache(c.keys[rows], c.values[rows]) for c in self.caches]  # views: nothing is copied
        # behind a row's last token that one is repeated, and goes into the cache as itself
        at = torch.arange(tokens.shape[1], device=tokens.device).minimum((counts - 1)[:, None])
        h = self.model.features(tokens.gather(1, at), caches, first[:, None] + at)
        if not every:
            h = h[torch.arange(len(h), device=h.device), counts - 1][:, None]
        return self.model.logits(h).float()

    def swap(self, a: int, b: int) -> None:
        for cache in self.caches:
            for z in (cache.keys, cache.values):
                z[a], z[b] = z[b].clone(), z[a].clone()

    def arrange(self, source: Tensor) -> None:
        for cache in self.caches:
            for z in (cache.keys, cache.values):
                z[: len(source)] = z[source]

    def forgotten(self, count: int) -> int:
        return self.model.forgotten(count)


class ReadingSlots(Slots):
    """A reader of its own for every row, one row after another: for models whose readers do not share their work.

    Args:
        reader: makes one for one text.
        n: rows.
        device: where they are.
    """

    parts: ClassVar[bool] = False

    def __init__(self, reader: Callable[[], Reader], n: int, device: torch.device) -> None:
        self.reader, self.device = reader, device
        self.readers: list[Reader | None] = [None] * n

    def read(self, start: int, tokens: Tensor, first: Tensor, counts: Tensor, every: bool = False) -> Tensor:
        assert not every
        found = []
        for row, (line, place, count) in enumerate(zip(tokens, first.tolist(), counts, strict=True), start):
            reader = self.reader() if place == 0 else self.readers[row]
            assert reader is not None
            found.append(reader.read(line[None, : int(count)], count[None]))
            self.readers[row] = reader
        return torch.stack(found).float()

    def swap(self, a: int, b: int) -> None:
        self.readers[a], self.readers[b] = self.readers[b], self.readers[a]

    def arrange(self, source: Tensor) -> None:
        raise UsageError("A search by beams copies what was read, and this system cannot copy it.")
