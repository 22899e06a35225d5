"""Guessing what comes next, so that the model reads several tokens at once instead of one after another.

Papers
    Leviathan et al. 2022 (arXiv:2211.17192), Chen et al. 2023 (arXiv:2302.01318): a small model guesses.
    Saxena 2023, "Prompt lookup decoding": what followed the last time is guessed.

What differs, and why
    In these papers a guess is accepted with a probability, so that the distribution of texts stays what it was. Here a
    token is what the model's own distribution says at the text's own random number, and a guess is accepted where it is
    that token: not the distribution but every single text stays what it was. The small model guesses at the same
    number, which makes both agree more often than two draws do, and less often than the papers' rule.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from castalia.core.errors import UsageError
from castalia.models.sequence.slots import Continuing
from castalia.serving.choosing import decide
from castalia.serving.row import Row

AT_ONCE = 16
"""A draft model reads more unread tokens than these row by row: a long prompt is not padding for the others."""


class Draft(ABC):
    """What guesses.

    Attributes:
        most: tokens that are guessed at once.
    """

    most: int

    @abstractmethod
    def guess(self, rows: Sequence[Row], most: Sequence[int]) -> list[list[int]]:
        """What may come next in each of the engine's first rows, at most so many tokens each."""

    def swap(self, a: int, b: int) -> None:  # noqa: B027 - most have no rows of their own
        """The engine exchanges two of its rows."""


@dataclass
class _Runs:
    """Where the runs of tokens of a text ended last."""

    known: int = 0
    ends: dict[tuple[int, ...], int] = field(default_factory=dict)


class Lookup(Draft):
    """Guesses what followed when the last few tokens stood in the text before.

    Args:
        most: tokens that are guessed at once.
        run: how many of the last tokens must be the same.
    """

    def __init__(self, most: int = 8, run: int = 3) -> None:
        if most < 1 or run < 1:
            raise UsageError("A look-up compares at least one token and guesses at least one.")
        self.most, self.run = most, run
        self._texts: dict[int, _Runs] = {}

    def guess(self, rows: Sequence[Row], most: Sequence[int]) -> list[list[int]]:
        here = {row.ticket for row in rows}
        self._texts = {ticket: runs for ticket, runs in self._texts.items() if ticket in here}
        return [self._of(row.ticket, row.tokens, n) for row, n in zip(rows, most, strict=True)]

    def _of(self, ticket: int, tokens: list[int], most: int) -> list[int]:
        runs = self._texts.setdefault(ticket, _Runs())
        for end in range(max(runs.known, self.run), len(tokens)):  # runs that something follows
            runs.ends[tuple(tokens[end - self.run : end])] = end
        runs.known = len(tokens)
        at = runs.ends.get(tuple(tokens[-self.run :]))
        return [] if at is None else tokens[at : at + most]


class DraftModel(Draft):
    """A smaller model of the same tokens guesses.

    Args:
        model: in evaluation mode.
        rows: as many as the engine has.
        most: tokens that are guessed at once.

    Raises:
        UsageError: the model cannot take back what it has read.
    """

    def __init__(self, model: Continuing, rows: int, most: int = 4) -> None:
        if most < 1:
            raise UsageError("A draft model guesses at least one token.")
        self.most = most
        self.slots = model.slots(rows, most + 1)
        if not self.slots.rewinds:
            raise UsageError("This model cannot guess for another one: it cannot take back what it has read.")
        self._state: list[_Place] = [_Place() for _ in range(rows)]

    def guess(self, rows: Sequence[Row], most: Sequence[int]) -> list[list[int]]:
        for i, row in enumerate(rows):
            self._state[i].go_to(row, self.slots.forgotten(len(row.tokens)))
            while len(row.tokens) - self._state[i].read > AT_ONCE:
                self._read([row], i, [row.tokens], 256, len(row.tokens) - 1)
        found: list[list[int]] = [[] for _ in rows]
        room = [self._room(row, n) for row, n in zip(rows, most, strict=True)]
        for ahead in range(max(room, default=0)):
            # rows that guess no more read their last token again, which changes nothing
            texts = [[*row.tokens, *guesses] for row, guesses in zip(rows, found, strict=True)]
            logits = self._read(rows, 0, texts, AT_ONCE)
            tokens = decide([row.choosing for row in rows], logits, ahead)
            for guesses, token, n in zip(found, tokens, room, strict=True):
                if len(guesses) < n:
                    guesses.append(token)
        return found

    def _room(self, row: Row, most: int) -> int:
        now = self.slots.forgotten(len(row.tokens))
        return next((n for n in range(most, 0, -1) if self.slots.forgotten(len(row.tokens) + n - 1) == now), 0)

    def _read(
        self, rows: Sequence[Row], start: int, texts: list[list[int]], most: int, end: int | None = None
    ) -> torch.Tensor:
        state = self._state[start : start + len(rows)]
        new = []
        for place, text in zip(state, texts, strict=True):
            place.read = min(place.read, len(text) - 1)
            new.append(text[place.read : min(place.read + most, len(text) if end is None else end)])
        first = [place.read - place.forgotten for place in state]
        logits = self.slots.feed(start, new, first)[:, 0]
        for place, tokens in zip(state, new, strict=True):
            place.read += len(tokens)
        return logits

    def swap(self, a: int, b: int) -> None:
        self.slots.swap(a, b)
        self._state[a], self._state[b] = self._state[b], self._state[a]


@dataclass
class _Place:
    """What a row of the draft model has read: which text, how much of it, and what it has forgotten."""

    ticket: int = -1
    read: int = 0
    forgotten: int = 0

    def go_to(self, row: Row, forgotten: int) -> None:
        """The row's text as it is now: what was guessed beyond it is taken back."""
        if self.ticket != row.ticket or self.forgotten != forgotten:
            self.ticket, self.read, self.forgotten = row.ticket, forgotten, forgotten
        # the last token of the text was chosen by the other model, and all before it are what was guessed
        self.read = min(self.read, len(row.tokens) - 1)
