"""Class labels: drawn as they occur, dropped at a rate, missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.nn.labels import Labels
from tests.tools import Table


def table_with_labels(labels: list[int], classes: int = 3) -> Table:
    n = len(labels)
    return Table(
        torch.zeros(n, 1, 4, 4, dtype=torch.uint8), ImageSpec(1, 4, 4, tuple("abc"[:classes])), torch.tensor(labels)
    )


def test_labels_are_drawn_as_often_as_they_occur() -> None:
    labels = Labels(3, 0.25)
    labels.fit(table_with_labels([0] * 60 + [1] * 30 + [2] * 10))
    drawn = labels.drawn(SampleRng(0, range(4_000)))
    assert drawn is not None
    shares = torch.bincount(drawn, minlength=3) / 4_000
    np.testing.assert_allclose(shares.numpy(), [0.6, 0.3, 0.1], atol=0.03)
    assert torch.equal(drawn[7:8], labels.drawn(SampleRng(0, [7]))), "each has its own stream"


def test_a_class_that_never_occurs_is_never_drawn() -> None:
    labels = Labels(3, 0.1)
    labels.fit(table_with_labels([0] * 5 + [2] * 5))
    drawn = labels.drawn(SampleRng(0, range(500)))
    assert drawn is not None
    assert set(drawn.tolist()) == {0, 2}


def test_labels_are_dropped_in_training_at_the_rate_asked_for() -> None:
    labels, n = Labels(3, 0.25), 4_000
    batch = Batch(torch.zeros(n, 1), torch.arange(n), torch.arange(n) % 3)
    seen = labels.for_training(batch, BatchRng(0, total=n))
    assert seen is not None
    assert float((seen == 3).double().mean()) == pytest.approx(0.25, abs=0.03)
    kept = seen != 3
    assert torch.equal(seen[kept], batch.label[kept])  # type: ignore[index]
    half = labels.for_training(
        Batch(batch.x[2_000:], batch.ids[2_000:], batch.label[2_000:]),  # type: ignore[index]
        BatchRng(0, total=n, start=2_000, rows=2_000),
    )
    assert isinstance(half, Tensor)
    assert torch.equal(half, seen[2_000:])


def test_data_without_labels() -> None:
    with pytest.raises(UsageError, match="needs labels"):
        Labels(3, 0.1).for_training(Batch(torch.zeros(2, 1), torch.arange(2)), BatchRng(0, total=2))
    none = Labels(0, 0.1)
    assert none.for_training(Batch(torch.zeros(2, 1), torch.arange(2)), BatchRng(0, total=2)) is None
    assert none.drawn(SampleRng(0, range(2))) is None
    assert none.null(2) is None
