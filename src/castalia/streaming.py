"""Texts as they are written: what is certain of one after each of its pieces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from castalia.asked import Wish, given_of
from castalia.core.capabilities import Streaming
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Generator
from castalia.core.precision import Precision, precision_context
from castalia.core.rng import SampleRng
from castalia.core.sampling import Sampling
from castalia.core.specs.text import TextSpec
from castalia.media.text.medium import TextMedium


def written(
    model: Generator,
    number: int,
    *,
    seed: int,
    given: Mapping[str, Wish],
    options: Sampling,
    precision: Precision,
) -> Iterator[tuple[str, Batch]]:
    """Text number ``number`` after each of its pieces, and its tokens ``int64`` (1, T) so far.

    The last is the text that :func:`castalia.api.sample` returns under that number. While a character of several bytes
    is not whole, the text ends in U+FFFD. Between pieces the precision asked for stays on: weights are cast once.

    Raises:
        UsageError: the model makes no text, or not piece by piece.
    """
    if not isinstance(model, Streaming) or not isinstance(model.spec, TextSpec):
        raise UsageError("Only models that write text piece by piece can be streamed.")
    medium, pieces = TextMedium(), list[Tensor]()
    with torch.no_grad(), precision_context(precision, model.device):
        state = model.start(1, given_of(model, given, 1), SampleRng(seed, [number], model.device), options)
        while True:
            try:
                piece, state = model.advance(state)
            except StopIteration:
                return
            pieces.append(piece.reshape(1, -1))
            tokens = Batch.of(torch.cat(pieces, 1))
            yield medium.texts(tokens, model.spec)[0], tokens
