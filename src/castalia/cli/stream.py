"""Text as it is written: each piece on the terminal as soon as it is there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TextIO

import torch

from castalia.api import Wish, given_of
from castalia.core.capabilities import Streaming
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Generator
from castalia.core.precision import Precision, precision_context
from castalia.core.rng import SampleRng
from castalia.core.sampling import Sampling
from castalia.core.specs.text import TextSpec
from castalia.media.text.medium import TextMedium

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
    if not isinstance(model, Streaming) or not isinstance(model.spec, TextSpec):
        raise UsageError("--stream is for models that write text piece by piece.")
    medium, text, shown, pieces = TextMedium(), "", "", []
    rng = SampleRng(seed, [number], model.device)
    with torch.no_grad(), precision_context(precision, model.device):
        state = model.start(1, given_of(model, given, 1), rng, options)
        while True:
            try:
                piece, state = model.advance(state)
            except StopIteration:
                break
            pieces.append(piece.reshape(1, -1))
            (text,) = medium.texts(Batch.of(torch.cat(pieces, 1)), model.spec)
            ready = text.rstrip(HALF)
            terminal.write(ready[len(shown) :])
            terminal.flush()
            shown = ready
    terminal.write(text[len(shown) :] + "\n")
    terminal.flush()
    return Batch.of(torch.cat(pieces, 1) if pieces else torch.empty(1, 0, dtype=torch.int64))
