"""One suite over every medium: it keeps its word, whatever it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from castalia.configuration import spec_from_json, spec_to_json
from castalia.core.config import from_json, to_json
from castalia.core.data import Batch
from castalia.media.rooms import ROOMS, medium_of, room
from tests.conformance.test_conformance import check_units

every_medium = pytest.mark.parametrize("name", ROOMS)


@every_medium
def test_its_tiny_set_is_what_its_spec_says(name: str) -> None:
    medium = room(name)
    data = medium.tiny()
    assert type(data.spec) is medium.spec
    assert medium_of(data.spec) is medium
    assert spec_from_json(json.loads(json.dumps(spec_to_json(data.spec)))) == data.spec
    options = medium.options()
    assert from_json(medium.options, json.loads(json.dumps(to_json(options)))) == options
    batch = data.batch(np.arange(min(8, len(data))))
    check_units(batch, data.spec)
    for side, spec in data.spec.sides().items():
        part = batch.part(side)
        assert part is not None, side
        check_units(Batch.of(part), spec)
    assert not torch.equal(data.batch(np.array([0])).x, data.batch(np.array([1])).x)


@every_medium
def test_what_it_writes_it_reads(name: str, tmp_path: Path) -> None:
    """Its own files are its own, and hold what was written; the first is numbered as was asked."""
    medium = room(name)
    data = medium.tiny()
    batch = data.batch(np.arange(min(4, len(data))))
    paths = medium.write(batch, data.spec, tmp_path / "out", 7, {"seed": 1})
    assert paths
    assert all(path.is_file() for path in paths)
    assert medium.reads(paths[0])
    alone = medium.open(paths[0], medium.options(), None)
    check_units(alone.batch(np.arange(1)), alone.spec)
    if alone.spec.fields() == data.spec.fields():  # a text is read by other tokens where nothing says which
        back = medium.open(paths[0], medium.options(), None, like=data.spec)  # categories are those of the data
        found, last = back.batch(np.arange(1)), data.batch(np.array([len(data) - 1]))
        near, far = (medium.distance(x, batch[:1], data.spec) for x in (found, last))
        assert near < 0.5 * far or torch.equal(found.x, batch.x[:1])


@every_medium
def test_it_draws_and_counts(name: str) -> None:
    medium = room(name)
    data = medium.tiny()
    batch = data.batch(np.arange(min(4, len(data))))
    picture = medium.picture(batch, data.spec)
    assert min(picture.size) > 0
    assert picture.getextrema() != ((0, 0),) * 3, "it is black"
    for rate in medium.rates(batch, data.spec).values():
        assert rate.counts.shape == (len(batch),)
        assert (rate.counts >= 0).all()
        assert rate.base > 1


@every_medium
def test_its_distance_tells_alike_from_unlike(name: str) -> None:
    medium = room(name)
    data = medium.tiny()
    half = min(16, len(data) // 2)
    one, other = data.batch(np.arange(0, 2 * half, 2)), data.batch(np.arange(1, 2 * half, 2))
    assert medium.distance(one, one, data.spec) == pytest.approx(0, abs=1e-6)
    same = Batch.of(one.x[:1].expand_as(one.x).contiguous(), one.label, one.extra)
    assert medium.distance(same, other, data.spec) > 0
