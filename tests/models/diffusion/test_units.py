"""Units: what values pictures hold, how they come back, and how labels are counted, dropped and drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from castalia.core.data import Batch, ImageSpec, PointsSpec
from castalia.core.errors import UsageError
from castalia.core.rng import BatchRng, SampleRng
from castalia.models.diffusion.units import Labels, PictureUnits, PointUnits, units_of
from tests.tools import Table


def fitted(values: list[int], n: int = 200) -> PictureUnits:
    x = torch.tensor(values, dtype=torch.uint8)[torch.arange(n * 16) % len(values)].view(n, 1, 4, 4)
    units = PictureUnits()
    units.fit(Table(x, ImageSpec(1, 4, 4)))
    return units


SEVENTEEN = [round(255 * i / 16) for i in range(17)]


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        (list(range(256)), 256),
        (SEVENTEEN, 17),
        ([int(255 * i / 16) for i in range(17)], 256),  # cut, not rounded: 15.94 apart becomes 15 or 16
        ([0, 255], 2),
        ([10, 20, 30], 3),
        ([0, 1, 2, 3], 4),
        ([0, 5, 255], 256),
        ([7], 256),
        (list(range(0, 256, 2)), 128),
    ],
)
def test_the_values_of_the_data_are_found_where_they_are_evenly_spaced(values: list[int], levels: int) -> None:
    units = fitted(values)
    assert units.levels == levels
    x = torch.tensor(values, dtype=torch.uint8)
    u = units.inward(x)
    assert torch.equal(units.outward(u), x), "there and back"
    if levels < 256:
        torch.testing.assert_close(u, torch.linspace(-1, 1, levels))
        assert str(levels) in units.preprocessing
    else:
        torch.testing.assert_close(u, x.float() / 127.5 - 1)
    assert torch.equal(
        units.outward(torch.tensor([-7.0, 9.0])),
        torch.tensor([x.min() if levels < 256 else 0, x.max() if levels < 256 else 255]).to(torch.uint8),
    )


def test_other_values_have_no_likelihood_but_can_be_redrawn() -> None:
    units = fitted(SEVENTEEN)
    units.check(torch.tensor([[0, 16, 255]], dtype=torch.uint8))
    with pytest.raises(UsageError, match="value 13 has probability 0"):
        units.check(torch.tensor([[0, 13, 255]], dtype=torch.uint8))
    assert units.outward(units.inward(torch.tensor([13], dtype=torch.uint8))).item() == 16
    fitted(list(range(256))).check(torch.tensor([[13]], dtype=torch.uint8))


def test_what_was_found_survives_a_checkpoint() -> None:
    units, other = fitted(SEVENTEEN), PictureUnits()
    other.load_state_dict(units.state_dict())
    assert other.levels == 17
    x = torch.tensor(SEVENTEEN, dtype=torch.uint8)
    assert torch.equal(other.inward(x), units.inward(x))


@pytest.mark.parametrize("values", [[0, 255], SEVENTEEN, list(range(256))])
def test_settling_is_the_mean_of_the_values_given_a_noisy_one(values: list[int]) -> None:
    """Against a sum over a long row of evenly spaced values, within 1e-4 of their distance."""
    units = fitted(values)
    gap = 2 / (units.levels - 1)
    row = torch.arange(-400, 400, dtype=torch.float64) * gap - 1
    x = torch.linspace(-1.2, 1.2, 97, dtype=torch.float64)
    for sigma in (0.01 * gap, 0.1 * gap, 0.3 * gap, 0.79 * gap, 0.81 * gap, 3 * gap):
        weights = torch.softmax(-0.5 * ((x.clamp(-1, 1)[:, None] - row) / sigma) ** 2, 1)
        expected = (weights @ row).clamp(-1, 1)
        found = units.settle(x, sigma)
        assert float((found - expected).abs().max()) < 1e-4 * gap
        each = units.settle(x[:, None], torch.full((97, 1), sigma, dtype=torch.float64))
        torch.testing.assert_close(each[:, 0], found, atol=1e-9, rtol=0)
    assert torch.equal(PointUnits(2).settle(x, 0.1), x)


def test_points_are_standardised_and_volumes_counted() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(500, 2, generator=g) * torch.tensor([3.0, 0.1]) + torch.tensor([10.0, -2.0])
    units = units_of(PointsSpec(2))
    assert isinstance(units, PointUnits)
    units.fit(Table(x, PointsSpec(2)))
    u = units.inward(x)
    torch.testing.assert_close(u.std(0, correction=0), torch.ones(2))
    torch.testing.assert_close(units.outward(u), x)
    assert units.log_volume() == pytest.approx(-float(x.double().std(0, correction=0).log().sum()), rel=1e-6)


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
    with pytest.raises(UsageError, match="conditional=false"):
        Labels(3, 0.1).for_training(Batch(torch.zeros(2, 1), torch.arange(2)), BatchRng(0, total=2))
    none = Labels(0, 0.1)
    assert none.for_training(Batch(torch.zeros(2, 1), torch.arange(2)), BatchRng(0, total=2)) is None
    assert none.drawn(SampleRng(0, range(2))) is None
    assert none.null(2) is None
