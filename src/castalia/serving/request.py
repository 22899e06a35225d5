"""What is asked of the engine, and what it hands out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from castalia.models.sequence.writing import WritingOptions

Reason = Literal["stop", "length", "stuck", "cancelled"]
"""Why a text ended: the model or a stop sequence ended it, it is as long as it may be, its pattern or grammar led
nowhere or took too long, or nobody wants it any more."""


@dataclass(frozen=True)
class Request:
    """One text that is to be written.

    Its tokens are those of ``model.sample`` with the same prompt, options, seed and number, whatever else is written at
    the same time.

    Attributes:
        prompt: tokens that it begins with; none: it begins as texts do.
        options: how it is written. ``options.stop``, which is kept in the text, is not for the engine.
        seed: of all randomness.
        number: which text of this seed.
        stops: texts before which it ends.
        bias: what is added to the logits of tokens before anything else is done to them; minus infinity forbids one.
        top: with the log-probability of each token those of so many of the likeliest ones; None: none at all.
        pattern: a regular expression that the text has to match as a whole; empty: none. See ``patterns.py``.
        grammar: a grammar as for Lark, whose ``start`` the whole text has to be; empty: none. See ``grammars.py``,
            where ``of_schema`` makes one of a JSON schema.
    """

    prompt: tuple[int, ...] = ()
    options: WritingOptions = field(default_factory=WritingOptions)
    seed: int = 0
    number: int = 0
    stops: tuple[str, ...] = ()
    bias: Mapping[int, float] = field(default_factory=dict)
    top: int | None = None
    pattern: str = ""
    grammar: str = ""


@dataclass(frozen=True)
class Score:
    """How likely a token was to the model, before temperature and everything else.

    Attributes:
        token: which.
        logprob: its log-probability, nats.
        top: the likeliest tokens with theirs, the likeliest first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """What one step has added to a text.

    Attributes:
        ticket: which text.
        tokens: what was chosen; more than one where guesses were right.
        text: what is certain by now: no half characters, nothing that may still become a stop sequence.
        scores: of the tokens, where they were asked for.
        reason: why the text has ended with this piece; None where it goes on.
    """

    ticket: int
    tokens: tuple[int, ...] = ()
    text: str = ""
    scores: tuple[Score, ...] = ()
    reason: Reason | None = None


@dataclass(frozen=True)
class Written:
    """A text that is finished: all its pieces together."""

    tokens: tuple[int, ...]
    text: str
    scores: tuple[Score, ...]
    reason: Reason
