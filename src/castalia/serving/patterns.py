"""Texts that match a regular expression, whatever the model thinks of them.

A token is allowed where the text with it can still become a match: what the library ``regex`` calls a partial match.
The end is allowed where the text is one. Patterns are of bytes: characters beyond ASCII may stand in them as they are
but in no class, and a dot is a byte. Every step looks at all tokens, which is quick for bytes and characters, and takes
some milliseconds for some thousand pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from castalia.core.errors import MissingExtra, UsageError

LONGEST = 1_000
"""Characters of a pattern."""
SECONDS = 0.2
"""A match that takes longer (some patterns take for ever) ends the text."""


class Pattern:
    """What a text has to match, and how far it has come.

    Args:
        pattern: the regular expression, for the whole text.
        pieces: the bytes of every token; the last one is the end.
        device: where logits are.

    Attributes:
        stuck: whether the text ends because the tokens there are can make no match of it, or because it took too long.

    Raises:
        UsageError: it is no regular expression, or too long.
        MissingExtra: ``regex`` is not installed.
    """

    def __init__(self, pattern: str, pieces: Sequence[bytes], device: torch.device) -> None:
        try:
            import regex
        except ImportError as error:
            raise MissingExtra("A pattern for texts", "serve") from error
        if len(pattern) > LONGEST:
            raise UsageError(f"The pattern has {len(pattern):,} characters, and may have {LONGEST:,}.")
        try:
            self._pattern: Any = regex.compile(pattern.encode())
        except (regex.error, UnicodeEncodeError, RecursionError) as error:
            raise UsageError(f"The pattern is no regular expression: {error}") from error
        self.pieces, self.device, self.text = pieces, device, b""
        self.stuck = False
        self._by_first: dict[bytes, list[int]] = {}
        for token, piece in enumerate(pieces):
            if piece:
                self._by_first.setdefault(piece[:1], []).append(token)

    def add(self, token: int) -> None:
        """Take note of a token."""
        self.text += self.pieces[token]

    def allowed(self) -> Tensor:
        """Which tokens may come next, bool (size,); at least one."""
        found = torch.zeros(len(self.pieces), dtype=torch.bool)
        try:
            found[-1] = self._pattern.fullmatch(self.text, timeout=SECONDS) is not None
            for first, tokens in self._by_first.items():
                if self._begins(first):
                    found[[t for t in tokens if len(self.pieces[t]) == 1 or self._begins(self.pieces[t])]] = True
        except TimeoutError:
            found[:] = False
        if not found.any():
            found[-1] = self.stuck = True
        return found.to(self.device)

    def _begins(self, piece: bytes) -> bool:
        return self._pattern.fullmatch(self.text + piece, partial=True, timeout=SECONDS) is not None
