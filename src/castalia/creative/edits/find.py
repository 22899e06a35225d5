"""Pictures found by words, with a model that knows which belong together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from castalia.core.errors import UsageError
from castalia.creative.edit import Edit, Grid, Work, option

MOST = 100_000
ROWS = 256


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is looked for, and among what."""

    words: str = option("", "what is to be seen on the pictures", metavar="TEXT")
    data: str | None = option(None, "the pictures to look among, where not those of the run", metavar="DATA")
    n: int = option(16, "how many of the nearest (16)", flag="-n", least=1)


def run(work: Work, options: Options) -> Grid:
    """The pictures nearest to the words, nearest first; numbers, files, captions and likeness stand in the recipe.

    Raises:
        UsageError: there are no words.
    """
    import numpy as np
    import torch

    from castalia.core.captions import CAPTION, texts_of

    if not options.words.strip():
        raise UsageError('Say what to look for with --words, for example --words "a red heart".')
    data = work.data(options.data)
    ids = np.arange(min(len(data), MOST), dtype=np.int64)
    words = work.model.of_texts([options.words])[0]
    parts = np.array_split(ids, max(1, -(-len(ids) // ROWS)))
    likeness = torch.cat([work.model.of_pictures(data.batch(some).x) @ words for some in parts]).cpu()
    best = likeness.topk(min(options.n, len(ids)))
    batch = data.batch(best.indices.numpy().astype(np.int64))
    texts = texts_of(batch.extra[CAPTION].cpu()) if CAPTION in batch.extra else []
    found: list[dict[str, Any]] = []
    for row, (value, i) in enumerate(zip(*best, strict=True)):
        one: dict[str, Any] = {"example": int(i), "likeness": round(float(value), 4)}
        one |= {"file": data.files[int(i)]} if data.files else {}
        found.append(one | ({"caption": texts[row]} if texts else {}))
    return Grid(batch, recipe={"found": found})


EDIT = Edit(
    "find",
    "Find pictures by words.",
    "FILE.png: the nearest pictures, nearest first; a folder: each as a file; names and likeness in the recipe",
    Options,
    run,
    needs=("Matching",),
    media=("image",),
)
