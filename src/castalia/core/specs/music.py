"""The shape of a piece of music."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from castalia.core.spec import Field, Spec, check_sizes

DRUMS = "drums"
"""The name of a voice that is hit, not sung."""
NOTHING, OFF, FIRST = 0, 1, 2
"""Values of a sung voice: nothing new, silence begins, and from here on: that note begins."""
HITS = 512
"""Values of drums: which of nine sounds are hit, as bits."""


@dataclass(frozen=True)
class MusicSpec(Spec):
    """Music in one of three forms.

    ``voices``: ``int64`` (length, V), a grid of time by voices. Of a voice that sings one note at a time a value says
    what begins: 0 nothing new, 1 silence, 2 + p the note ``lowest`` + p. Of drums it says which of nine sounds are hit.
    ``rolls``: ``uint8`` (V, length, notes), 1 where a note of a voice sounds, several at a time; whether a note is held
    or struck again is not told.
    ``events``: ``int64`` (T,) tokens, T open, padded with -1. The first ``head`` tokens of a row say what it is and are
    not predicted; ``length`` follow at most.

    Attributes:
        kind: the form.
        length: steps of the grid, or tokens that a row predicts.
        steps: of the grid to a quarter note.
        bar: steps of the grid to a bar.
        voices: their names; what is called ``drums`` is.
        programs: MIDI programs of the voices, 0 to 127; of drums it does not matter.
        lowest: MIDI number of the lowest note.
        highest: of the highest.
        encoding: ``events``: what a token is: ``cells``, ``musenet``, or one of miditok's.
        size: ``events``: number of tokens.
        instruments: ``musenet``: the families of instruments that there are tokens for.
        loudness: ``musenet``: the velocities that there are tokens for.
        tempo: quarter notes a minute in which it is written.
        classes: names of the labels, in label order; empty where there are none.
    """

    kind: Literal["voices", "rolls", "events"]
    length: int
    steps: int = 4
    bar: int = 16
    voices: tuple[str, ...] = ()
    programs: tuple[int, ...] = ()
    lowest: int = 21
    highest: int = 108
    encoding: str = ""
    size: int = 0
    instruments: tuple[str, ...] = ()
    loudness: tuple[int, ...] = ()
    tempo: float = 120.0
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_sizes(self, length=1 << 24, steps=960, bar=1 << 16)
        if not 0 <= self.lowest <= self.highest <= 127:
            raise ValueError("lowest and highest are MIDI notes, 0 to 127, the lower one first")
        if len(self.voices) != len(self.programs):
            raise ValueError("each voice has a program")
        if not 1 <= self.tempo <= 1000:
            raise ValueError("tempo is 1 to 1,000 quarter notes a minute")
        if self.kind == "events":
            check_sizes(self, size=1 << 24)
        elif not 1 <= len(self.voices) <= 64:
            raise ValueError("a grid has 1 to 64 voices")

    @property
    def notes(self) -> int:
        """How many notes there are."""
        return self.highest - self.lowest + 1

    @property
    def bars(self) -> int:
        """``voices`` and ``rolls``: whole bars of one example."""
        return self.length // self.bar

    @property
    def sizes(self) -> tuple[int, ...]:
        """``voices``: how many values each voice has."""
        return tuple(HITS if name == DRUMS else FIRST + self.notes for name in self.voices)

    @property
    def end(self) -> int:
        """``events``: the token that ends a piece; below it are those of the encoding.

        Behind it are: the piece begins here; the row goes on in it; and for each instrument: it plays, it does not,
        nobody says.
        """
        return self.size - 3 - 3 * len(self.instruments)

    @property
    def head(self) -> int:
        """``events``: tokens of a row that say what it is: one for each instrument, one for where it begins."""
        return 1 + len(self.instruments)

    def moments(self, x: Tensor) -> Tensor:
        """``events``: steps that have passed before each token of rows ``int64`` (n, T), counted from the first.

        Of encodings that do not say it, all are 0.
        """
        if self.encoding == "cells":
            at = torch.arange(x.shape[1], device=x.device) - self.head
            return (at.clamp(min=0) // len(self.voices)).expand_as(x)
        if self.encoding == "musenet":
            waits = torch.where((x >= 0) & (x < 4 * self.steps), x + 1, 0)
            return waits.cumsum(1) - waits
        return torch.zeros_like(x)

    def fields(self) -> Mapping[str, Field]:
        if self.kind == "events":
            return {"x": Field(torch.int64, (None,), padding=-1, low=0, high=self.size - 1)}
        if self.kind == "rolls":
            return {"x": Field(torch.uint8, (len(self.voices), self.length, self.notes), low=0, high=1)}
        return {"x": Field(torch.int64, (self.length, len(self.voices)), low=0, high=max(self.sizes) - 1)}
