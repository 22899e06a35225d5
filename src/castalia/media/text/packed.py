"""Texts packed into one long row of tokens, of which windows are the examples.

    end, text 1, end, text 2, end, ...

A window has ``length`` + 1 tokens. The first is context only, and neighbours share one token, so that every token but
the very first of all is predicted exactly once. With an ``Rng`` (in training) a window begins at any token, and not
only at multiples of ``length``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import final

import numpy as np
import torch

from castalia.core.config import to_json
from castalia.core.data import Batch, Dataset
from castalia.core.errors import DataError
from castalia.core.rng import Rng
from castalia.core.specs.text import TextSpec
from castalia.media.text.middle import Gaps
from castalia.media.text.tokens import tokens_of


@final
class PackedText(Dataset):
    """Windows of one long row of tokens.

    Attributes:
        spec: their shape.
        row: all tokens (N,), ``uint16`` or ``uint32``, in memory or mapped from a file.
        gaps: rearranges windows of training so that a model learns to fill gaps; None leaves them.
    """

    def __init__(
        self,
        row: np.ndarray,
        spec: TextSpec,
        *,
        name: str,
        notes: Iterable[str] = (),
        digest: str | None = None,
        gaps: Gaps | None = None,
    ) -> None:
        if len(row) < 2:
            raise DataError(f"{name} holds no text.")
        self.row, self.name, self.notes, self.gaps = row, name, tuple(notes), gaps
        # Narrower than the base class says, and never set again.
        self.spec: TextSpec = spec  # pyright: ignore[reportIncompatibleVariableOverride]
        digest = digest or hashlib.sha256(np.ascontiguousarray(row).data).hexdigest()
        shape = to_json(spec)
        if not spec.middles:
            del shape["middles"]  # data without marks are what they were before there were any
        whole = json.dumps([shape, digest], sort_keys=True)
        self.fingerprint = hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()

    def __len__(self) -> int:
        return -(-(len(self.row) - 1) // self.spec.length)

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        """The windows ``ids`` (``int64`` (B,)): ``x`` is ``int64`` (B, up to length + 1), padded with -1.

        With ``rng`` each begins up to ``length`` - 1 tokens later, none is short, and some have a gap.
        """
        length, last = self.spec.length, len(self.row) - 1
        starts = ids.astype(np.int64) * length
        if rng is not None:
            starts = np.minimum(starts + rng.integers("shift", length).cpu().numpy(), max(last - length, 0))
        places = starts[:, None] + np.arange(length + 1)
        tokens = self.row[np.minimum(places, last)].astype(np.int64)
        tokens[places > last] = -1
        used = int((places <= last).sum(1).max(initial=1))
        if rng is not None and self.gaps is not None:
            tokens = self.gaps.rearranged(tokens, rng)
        return Batch(torch.from_numpy(tokens[:, :used]), torch.from_numpy(ids.astype(np.int64)))


def pack(texts: Iterable[str], spec: TextSpec, *, name: str, notes: Iterable[str] = ()) -> PackedText:
    """Pack a few texts in memory."""
    tokens = tokens_of(spec)
    parts = [np.array([tokens.end])]
    for text in texts:
        parts += [tokens.encode(text), np.array([tokens.end])]
    return PackedText(np.concatenate(parts).astype(token_type(spec.size)), spec, name=name, notes=notes)


def token_type(size: int) -> type[np.unsignedinteger]:
    """The type that holds tokens below ``size``."""
    return np.uint16 if size <= 1 << 16 else np.uint32
