"""From pictures to continuous values and back: inverses, volumes, and that probabilities sum to one."""

from __future__ import annotations

import math

import pytest
import torch

from castalia.core.errors import UsageError
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.flows.units import Dequantised, Scale, Standardised
from tests.tools import Table

SCALES: list[Scale] = ["linear", "logit", "gaussian"]


def pictures(levels: int) -> torch.Tensor:
    """Half of the pixels are black, the rest uneven."""
    g = torch.Generator().manual_seed(0)
    values = torch.linspace(0, 255, levels).round().to(torch.uint8)
    chosen = (torch.rand(400, 1, 4, 4, generator=g) ** 3 * levels).long().clamp(max=levels - 1)
    chosen[0].view(-1)[: min(levels, 16)] = torch.arange(min(levels, 16))
    chosen[1:17].view(-1)[:levels] = torch.arange(levels)
    return values[chosen]


def fitted(scale: Scale, levels: int = 256, bits: int = 8) -> tuple[Dequantised, torch.Tensor]:
    x = pictures(levels)
    units = Dequantised(scale, 0.05, bits)
    units.fit(Table(x, ImageSpec(1, 4, 4)))
    return units, x


@pytest.mark.parametrize(("levels", "bits"), [(256, 8), (17, 8), (2, 8), (256, 5), (17, 3)])
@pytest.mark.parametrize("scale", SCALES)
def test_there_and_back(scale: Scale, levels: int, bits: int) -> None:
    units, x = fitted(scale, levels, bits)
    assert units.levels == min(levels, 2**bits) if levels in (2, 256) else units.levels <= levels
    u = torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
    u[0], u[1] = 0.0, 1 - 2**-24
    for noise in (u, u.double(), torch.full((), 0.5)):
        y, change = units.inward(x, noise)
        assert y.isfinite().all()
        assert change.shape == (len(x),)
        back = units.outward(y[2:])
        if units.reduced and units.pictures.levels == 256:
            assert torch.equal(back >> (8 - bits), x[2:] >> (8 - bits))
        elif not units.reduced:
            assert torch.equal(back, x[2:])


@pytest.mark.parametrize("scale", SCALES)
def test_volume(scale: Scale) -> None:
    """Log |dy/dv| against autograd, float64, 1e-10."""
    units, x = fitted(scale)
    u = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    y, change = units.inward(x[:8], u)
    (slope,) = torch.autograd.grad(y.sum(), u)
    assert (slope.log().flatten(1).sum(1) - change).abs().max() < 1e-10


def test_gaussian_units_are_the_model_of_independent_pixels() -> None:
    """A standard normal there has, at any noise, the shares of the levels for probabilities; they sum to one."""
    units, x = fitted("gaussian", levels=17)
    table = units.pictures.table[:17].view(17, 1, 1, 1)
    found = []
    for u in (0.1, 0.9):
        y, change = units.inward(table, torch.full((17, 1, 1, 1), u, dtype=torch.float64))
        found.append(torch.distributions.Normal(0.0, 1.0).log_prob(y).flatten() + change)
    torch.testing.assert_close(found[0], found[1], atol=1e-10, rtol=0)
    assert abs(float(found[0].exp().sum()) - 1) < 1e-10
    counts = torch.bincount(units.numbers(x).flatten(), minlength=17) + 0.5
    torch.testing.assert_close(found[0].exp(), counts.double() / counts.sum(), atol=1e-10, rtol=0)


@pytest.mark.parametrize("scale", SCALES)
def test_beyond_all_pictures_there_are_pictures(scale: Scale) -> None:
    units, _ = fitted(scale)
    y = torch.tensor([-1e30, -40.0, 40.0, 1e30, math.inf, -math.inf, math.nan]).view(-1, 1, 1, 1)
    found = units.outward(y).flatten().tolist()
    assert found == [0, 0, 255, 255, 255, 0, 0]


def test_values_of_cut_pictures_number_them_as_they_are_cut() -> None:
    """Baselines take the nearest value: that of 8 k ... 8 k + 7 has to be the k-th."""
    units, _ = fitted("linear", bits=5)
    assert units.values is not None
    nearest = (torch.arange(256)[:, None] - torch.tensor(units.values)).abs().argmin(1)
    assert torch.equal(nearest, torch.arange(256) // 8)
    assert "5 of 8 bits" in units.preprocessing


def test_levels_that_the_training_data_lack_have_no_likelihood() -> None:
    units, _ = fitted("linear", levels=17)
    assert "17 values" in units.preprocessing
    with pytest.raises(UsageError, match="17 values"):
        units.check(torch.full((1, 1, 4, 4), 3, dtype=torch.uint8))


def test_points() -> None:
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 0.1]) + 2
    units = Standardised(3)
    units.fit(Table(x, PointsSpec(3)))
    y, change = units.inward(x)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(units.outward(y), x, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(change[0], -x.std(0, correction=0).log().sum(), atol=1e-5, rtol=0)
