"""Text as it is written: each piece on the terminal as soon as it is there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TextIO

import torch

from castalia.asked import Wish
from castalia.core.data import Batch
from castalia.core.model import Generator
from castalia.core.precision import Precision
from castalia.core.sampling import Sampling
from castalia.streaming import written

HALF = "\ufffd"
"""What a character of several bytes is shown as while some of them are missing."""


def stream(
    model: Generator,
    number: int,
    *,
    seed: int,
    given: Mapping[str, Wish],
    options: Sampling,
    precision: Precision,
    out: TextIO | None = None,
) -> Batch:
    """Write text number ``number`` to a terminal while it is made, and return it.

    It is the text that :func:`castalia.api.sample` returns under that number.

    Raises:
        UsageError: the model makes no text, or not piece by piece.
    """
    terminal = sys.stdout if out is None else out
    text, shown, tokens = "", "", Batch.of(torch.empty(1, 0, dtype=torch.int64))
    pieces = written(model, number, seed=seed, given=given, options=options, precision=precision)
    for text, latest in pieces:
        tokens = latest
        ready = text.rstrip(HALF)
        terminal.write(ready[len(shown) :])
        terminal.flush()
        shown = ready
    terminal.write(text[len(shown) :] + "\n")
    terminal.flush()
    return tokens
