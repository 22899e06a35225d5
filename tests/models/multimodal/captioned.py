"""Captioned pictures for the tests of this family."""

from __future__ import annotations

from functools import cache

import numpy as np

from castalia.core.data import Batch, Dataset
from castalia.media.image.decode import ImageOptions
from castalia.media.image.sets import open_named


@cache
def scenes(size: int = 16) -> Dataset:
    """A thousand scenes with captions."""
    return open_named("scenes", "test", ImageOptions(size=size, captions=120))


def some(n: int = 8, size: int = 16) -> Batch:
    return scenes(size).batch(np.arange(n))
