"""Units: what values pictures hold, how they come back, and how labels are counted, dropped and drawn."""

from __future__ import annotations

import pytest
import torch

from castalia.core.errors import UsageError
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.nn.units import PictureUnits, PointUnits, units_of
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
