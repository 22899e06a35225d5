"""A text that an engine is writing."""

from __future__ import annotations

from dataclasses import dataclass

from castalia.serving.choosing import Choosing
from castalia.serving.request import Request
from castalia.serving.words import Words


@dataclass
class Row:
    """A text that is being written.

    Attributes:
        ticket: its number.
        request: what is wanted.
        tokens: prompt and what was written.
        choosing: what decides over the next token.
        words: its text so far.
        forgotten: tokens that are not looked at any more.
        read: tokens that have been read, the forgotten ones among them.
        end: length of ``tokens`` at which it ends.
    """

    ticket: int
    request: Request
    tokens: list[int]
    choosing: Choosing
    words: Words
    end: int
    forgotten: int = 0
    read: int = 0
