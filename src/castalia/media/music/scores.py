"""Examples of a spec as scores."""

from __future__ import annotations

import numpy as np

from castalia.core.data import Batch
from castalia.core.specs.music import MusicSpec
from castalia.media.music.encodings import encoding_of
from castalia.media.music.grid import score_of, score_of_rolls
from castalia.media.music.score import Score


def scores_of(batch: Batch, spec: MusicSpec) -> list[Score]:
    """The score of each example. Of a row of tokens, what comes after the end of a piece is left out."""
    rows = batch.x.detach().cpu().numpy()
    if spec.kind == "voices":
        return [score_of(row.astype(np.int64), spec) for row in rows]
    if spec.kind == "rolls":
        return [score_of_rolls(row, spec) for row in rows]
    encoding, end, front = encoding_of(spec), spec.end, spec.head
    out = []
    for row in rows:
        tokens = row[front:]
        stop = np.flatnonzero((tokens == end) | (tokens < 0))
        out.append(encoding.decode(tokens[: stop[0]] if len(stop) else tokens))
    return out
