"""The engine: many texts written at once by one model, each as if it were alone.

A text comes when somebody asks for it, and is given a row of the cache, which is allocated once. Rows that write stand
before rows that still read their prompts. One step reads on in the first of the latter, at most ``CHUNK`` tokens, so
that a long prompt does not keep the others waiting; then it reads the last token of every row that writes, and
chooses the next ones. With a draft it reads guesses beside the last token, and keeps those that are what would have
been chosen.

What is chosen depends on a text's own tokens, options, seed and number only. Logits of a row differ in the last bits
with the rows beside it, because matrices of other sizes are multiplied in another order; in float32 the tokens are the
same but where two lie within these bits.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from castalia.core.errors import CastaliaError, UsageError
from castalia.core.model import Generator
from castalia.core.precision import Precision, precision_context
from castalia.core.specs.text import TextSpec
from castalia.core.vocabulary import pieces_of
from castalia.models.sequence.slots import Continuing
from castalia.serving.choosing import Choosing, Constraint, decide, scores
from castalia.serving.drafts import Draft
from castalia.serving.grammars import Grammars
from castalia.serving.patterns import Pattern
from castalia.serving.request import Piece, Reason, Request, Score, Written
from castalia.serving.row import Row
from castalia.serving.words import Words

CHUNK = 256
"""Tokens of prompts that are read in one step."""


class Full(CastaliaError):
    """There are as many texts waiting as may wait."""


class Engine:
    """Writes texts.

    Args:
        model: a language model in evaluation mode.
        rows: texts that are written at once.
        waiting: texts that may wait for a row; None for any number.
        precision: of the networks.
        draft: guesses what comes next.

    Raises:
        UsageError: the model writes no text, or a draft is given and the model cannot take back what it has read.
    """

    def __init__(
        self,
        model: Generator,
        *,
        rows: int = 8,
        waiting: int | None = None,
        precision: Precision = "float32",
        draft: Draft | None = None,
    ) -> None:
        if not isinstance(model, Continuing) or not isinstance(model.spec, TextSpec):
            raise UsageError(f"The engine is for language models; {type(model).__name__} is none.")
        if rows < 1:
            raise UsageError("The engine needs at least one row.")
        self.model, self.spec, self.draft = model, model.spec, draft
        self.precision: Precision = precision
        self.most_waiting, self.pieces = waiting, pieces_of(model.spec)
        self._grammars: Grammars | None = None
        self._inside = False
        with self.computing():
            self.slots = model.slots(rows, draft.most + 1 if draft else 0)
        if draft is not None and not self.slots.rewinds:
            raise UsageError(f"{type(model).__name__} cannot take back what it has read: it has no use for guesses.")
        self.size, self.device = rows, self.slots.device
        self.rows: list[Row] = []
        self.writing = 0
        self.waiting: deque[Row] = deque()
        self.guessed = self.accepted = self.read = 0
        self._tickets = 0

    def submit(self, request: Request) -> int:
        """Ask for a text, and get its number.

        Raises:
            Full: too many are waiting.
            UsageError: the request makes no sense for this model.
        """
        self.check(request)
        if self.most_waiting is not None and len(self.waiting) >= self.most_waiting + self.size - len(self.rows):
            raise Full(f"{len(self.waiting)} texts are waiting already; try again later.")
        self._tickets += 1
        choosing = Choosing(request, self.device, constraint=self._constraint(request))
        choosing.begun(self.spec.size)
        tokens = list(request.prompt) or [self.spec.end]
        end = len(tokens) + (request.options.length or self.spec.length)
        words = Words(self.pieces, request.stops)
        self.waiting.append(Row(self._tickets, request, tokens, choosing, words, end))
        return self._tickets

    def check(self, request: Request) -> None:
        """Refuse what makes no sense for this model; patterns and grammars are looked at when a text is submitted.

        Raises:
            UsageError: the text says what is wrong.
        """
        size = self.spec.size
        if request.options.stop:
            raise UsageError("The engine stops at Request.stops; options.stop is for castalia sample.")
        if any(not 0 <= token < size for token in (*request.prompt, *request.bias)):
            raise UsageError(f"A token of the prompt or of the bias is none of this model, which has 0 to {size - 1}.")
        if request.pattern and request.grammar:
            raise UsageError("A text can have a pattern or a grammar, not both.")
        if (request.pattern or request.grammar) and not request.options.end:
            raise UsageError("A text that has to match a pattern or a grammar must be allowed to end.")
        if request.top is not None and not 0 <= request.top <= size:
            raise UsageError(f"Log-probabilities can be given of 0 to {size} tokens.")

    def _constraint(self, request: Request) -> Constraint | None:
        if request.pattern:
            return Pattern(request.pattern, self.pieces, self.device)
        if not request.grammar:
            return None
        if self._grammars is None:
            self._grammars = Grammars(self.pieces, self.device)
        return self._grammars.of(request.grammar)

    def cancel(self, ticket: int) -> bool:
        """Let a text go: its row is free at once. Whether it was there."""
        for row in self.waiting:
            if row.ticket == ticket:
                self.waiting.remove(row)
                return True
        for at, row in enumerate(self.rows):
            if row.ticket == ticket:
                self._leave(at)
                return True
        return False

    def computing(self) -> contextlib.AbstractContextManager[None]:
        """What steps are done in. Where many are done one after the other, weights are cast once if it is held."""
        return contextlib.nullcontext() if self._inside else self._context()

    @contextlib.contextmanager
    def _context(self) -> Iterator[None]:
        self._inside = True
        try:
            with torch.no_grad(), precision_context(self.precision, self.model.device):
                yield
        finally:
            self._inside = False

    def clear(self) -> None:
        """Let all texts go."""
        self.rows.clear()
        self.waiting.clear()
        self.writing = 0

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.rows or self.waiting)

    def step(self) -> list[Piece]:
        """One step for every text: what has been added to each."""
        with self.computing():
            while self.waiting and len(self.rows) < self.size:
                self.rows.append(self.waiting.popleft())
            self._forget()
            ready = self.writing
            found = self._read_prompts()
            if ready:
                found += self._write(ready)
        ended = {piece.ticket for piece in found if piece.reason}
        for at in reversed([i for i, row in enumerate(self.rows) if row.ticket in ended]):
            self._leave(at)
        return found

    def run(self, requests: Sequence[Request]) -> list[Written]:
        """Write texts to their ends, in the order of the requests."""
        parts: dict[int, list[Piece]] = {}
        todo: Iterator[Request] = iter(requests)
        left = len(requests)
        with self.computing():
            while left or self.busy:
                while left and len(self.rows) + len(self.waiting) < self.size:
                    parts[self.submit(next(todo))] = []
                    left -= 1
                for piece in self.step():
                    parts[piece.ticket].append(piece)
        return [joined(pieces) for _, pieces in sorted(parts.items())]

    # one step

    def _forget(self) -> None:
        """Rows whose context is full read its second half anew, and wait for that like those that read a prompt."""
        for at in reversed(range(self.writing)):
            row = self.rows[at]
            if (forgotten := self.slots.forgotten(len(row.tokens))) != row.forgotten:
                row.forgotten = row.read = forgotten
                self.writing -= 1
                self._swap(at, self.writing)

    def _read_prompts(self) -> list[Piece]:
        """Read on in prompts; a row that is through chooses its first token."""
        found, left = [], CHUNK
        while left > 0 and self.writing < len(self.rows):
            at = self.writing
            row = self.rows[at]
            if row.read == row.forgotten:  # at its beginning
                row.forgotten = row.read = self.slots.forgotten(len(row.tokens))
            most = left if self.slots.parts else len(row.tokens)
            new = row.tokens[row.read : row.read + most]
            logits = self.slots.feed(at, [new], [row.read - row.forgotten])
            row.read += len(new)
            left -= len(new)
            self.read += len(new)
            if row.read == len(row.tokens):
                self.writing += 1
                found += self._choose([row], logits, [[]])
        return found

    def _write(self, ready: int) -> list[Piece]:
        """One or more tokens more for the first rows."""
        rows = self.rows[:ready]
        guesses: list[list[int]] = [[] for _ in rows]
        if self.draft is not None:
            guesses = self.draft.guess(rows, [self._room(row, self.draft.most) for row in rows])
        new = [[*row.tokens[row.read :], *more] for row, more in zip(rows, guesses, strict=True)]
        first = [row.read - row.forgotten for row in rows]
        logits = self.slots.feed(0, new, first, every=any(guesses))
        self.read += sum(map(len, new))
        return self._choose(rows, logits, guesses)

    def _room(self, row: Row, most: int) -> int:
        """How many guesses can be read beside the last token without a change of what is forgotten."""
        most = min(most, row.end - len(row.tokens) - 1)
        count = len(row.tokens)
        return next((n for n in range(most, 0, -1) if self.slots.forgotten(count + n) == row.forgotten), 0)

    def _choose(self, rows: list[Row], logits: Tensor, guesses: list[list[int]]) -> list[Piece]:
        """Tokens from logits (r, t, size), where those behind a guess count if the guess was right."""
        chosen: list[list[int]] = [[] for _ in rows]
        scored: list[list[Score]] = [[] for _ in rows]
        texts = [""] * len(rows)
        reasons: list[Reason | None] = [None] * len(rows)
        alive = list(range(len(rows)))
        for row in rows:
            row.read = len(row.tokens)
        for at in range(logits.shape[1]):
            here = [rows[i].choosing for i in alive]
            seen = logits[:, at] if len(alive) == len(rows) else logits[alive, at]
            tokens = decide(here, seen)
            marks = scores(here, seen, tokens)
            right = []
            for i, token, mark in zip(alive, tokens, marks, strict=True):
                row = rows[i]
                chosen[i].append(token)
                row.tokens.append(token)
                row.choosing.wrote(token)
                if mark is not None:
                    scored[i].append(mark)
                text, reasons[i] = self._ended(row, token)
                texts[i] += text
                guess = guesses[i][at] if at < len(guesses[i]) else None
                self.guessed += guess is not None
                if guess == token:
                    self.accepted += 1
                    row.read += reasons[i] is None
                    if reasons[i] is None:
                        right.append(i)
            alive = right
            if not alive:
                break
        return [
            Piece(row.ticket, tuple(chosen[i]), texts[i], tuple(scored[i]), reasons[i]) for i, row in enumerate(rows)
        ]

    def _ended(self, row: Row, token: int) -> tuple[str, Reason | None]:
        """What became certain of a text with a token, and why it has ended."""
        if row.request.options.end and token == self.spec.end:
            constraint = row.choosing.constraint
            return row.words.finish(), "stuck" if constraint is not None and constraint.stuck else "stop"
        text = row.words.add(token)
        if row.words.stopped:
            return text, "stop"
        if len(row.tokens) >= row.end:
            return text + row.words.finish(), "length"
        return text, None

    # rows

    def _swap(self, a: int, b: int) -> None:
        if a == b:
            return
        with self.computing():
            self.slots.swap(a, b)
        if self.draft is not None:
            self.draft.swap(a, b)
        self.rows[a], self.rows[b] = self.rows[b], self.rows[a]

    def _leave(self, at: int) -> None:
        """Free a row: the last that writes takes its place, and the last of all that one's."""
        if at < self.writing:
            self.writing -= 1
            self._swap(at, self.writing)
            at = self.writing
        self._swap(at, len(self.rows) - 1)
        self.rows.pop()


def joined(pieces: Sequence[Piece]) -> Written:
    """A whole text of its pieces, the last of which says why it ended."""
    return Written(
        tuple(token for piece in pieces for token in piece.tokens),
        "".join(piece.text for piece in pieces),
        tuple(score for piece in pieces for score in piece.scores),
        pieces[-1].reason or "cancelled",
    )
