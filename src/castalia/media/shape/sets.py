"""Sets of shapes that have a name, and the tiny one that is built in: all made by code."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from castalia.core.spec import Spec
from castalia.media.classes import match_classes
from castalia.media.sets import NamedData, Progress
from castalia.media.shape.array import ShapeArray, packed
from castalia.media.shape.read import ShapeOptions, like_spec
from castalia.media.shape.solids import KINDS, solid, solid_voxels

SOLIDS, FEW = "solids", "few-solids"

SETS: Mapping[str, NamedData] = {
    SOLIDS: NamedData(
        "chairs, tables, lamps and cars made by code, of random proportions and known parts; four classes",
        "none needed: computed",
        (),
        {"train": 2000, "test": 400},
        {},
    ),
    FEW: NamedData("a few of them, for tests", "none needed: computed", (), {"train": 48, "test": 24}, {}),
}


def open_set(
    name: str, options: ShapeOptions, split: str, like: Spec | None = None, progress: Progress | None = None
) -> ShapeArray:
    """A named set; the solids of the two sets are the same as far as both go, and those of the splits are others."""
    options = like_spec(options, like)
    count = SETS[name].counts[split]
    degrees = [360 * k / options.turns for k in range(options.turns)]
    rows, labels, texts, files = [], [], [], []
    for number in range(count):
        thing = solid(number, split)
        made = np.stack([solid_voxels(thing, options.size, options.margin, turn) for turn in degrees])
        rows.append(packed(made))
        for turn in degrees:
            labels.append(thing.label)
            texts.append(thing.words)
            files.append(f"{split}/{number:04d}" + (f"@{turn:g}" if options.turns > 1 else ""))
        if progress is not None and number % 100 == 99:
            progress(number + 1, count)
    plain = options.labels == "none"
    data = ShapeArray(
        np.concatenate(rows),
        options.size,
        name=name,
        labels=None if plain else np.array(labels),
        classes=() if plain else KINDS,
        views=options.views,
        view_size=options.view_size,
        texts=texts,
        files=files,
    )
    match_classes(data, like)
    return data
