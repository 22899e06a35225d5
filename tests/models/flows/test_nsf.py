"""Neural spline flows: splines that are monotone and the identity where they should be, sizes, refusals."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from castalia.core.errors import UsageError
from castalia.core.model import build
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.flows.nsf import NSF, NSFConfig
from castalia.models.flows.splines import Spline
from castalia.recipes import nsf as recipes
from tests.models.flows.test_layers import stir


def test_zero_outputs_are_the_identity() -> None:
    spline, x = Spline(8, 3.0), torch.linspace(-5, 5, 101, dtype=torch.float64)[:, None]
    y, log_slope = spline(x, torch.zeros(101, spline.outputs, dtype=torch.float64))
    torch.testing.assert_close(y, x, atol=1e-12, rtol=0)
    torch.testing.assert_close(log_slope, torch.zeros_like(x), atol=1e-12, rtol=0)


def test_monotone_smooth_and_straight_outside() -> None:
    spline = Spline(5, 2.0)
    h = torch.randn(1, spline.outputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.linspace(-2.5, 2.5, 20_001, dtype=torch.float64)[:, None]
    y, log_slope = spline(x, h.expand(len(x), -1))
    assert (y[1:] > y[:-1]).all()
    middle = 0.5 * (log_slope.exp()[1:] + log_slope.exp()[:-1])
    torch.testing.assert_close((y[1:] - y[:-1]) / (x[1:] - x[:-1]), middle, atol=2e-2, rtol=2e-2)
    outside = x.abs() > 2.0
    assert torch.equal(y[outside], x[outside])
    assert (log_slope[outside] == 0).all()
    knots = spline._knots(h, torch.Size((1, 1)))[0][:, 0]  # the bound among them
    beside = [spline(knots + shift, h.expand(len(knots), -1))[1] for shift in (-1e-9, 1e-9)]
    torch.testing.assert_close(*beside, atol=1e-5, rtol=0)


def test_float32_round_trip_of_splines_that_bend_much() -> None:
    spline = Spline(16, 3.0)
    h = torch.randn(5_000, spline.outputs, generator=torch.Generator().manual_seed(0))
    x = 6 * torch.rand(5_000, 1, generator=torch.Generator().manual_seed(1)) - 3
    y, log_slope = spline(x, h)
    assert log_slope.isfinite().all()
    error = (spline.inverse(y, h) - x).abs()
    assert error.quantile(0.99) < 1e-4
    assert error.max() < 1e-3
    back = spline.inverse(x, 4 * h)  # slopes near zero, where rounding of y is much of x
    assert (spline(back, 4 * h)[0] - x).abs().max() < 1e-3


def test_the_size_of_the_paper() -> None:
    """Table 3 of the paper gives 11.8 million for CIFAR-10; its text does not say how the networks begin and end.

    Ours end in a 3x3 convolution; with a 1x1 in its place they have 11.1 million.
    """
    with torch.device("meta"):
        model = NSF(recipes.cifar().config, ImageSpec(3, 32, 32))
    total = sum(p.numel() for p in model.parameters())
    last = sum(p.numel() for name, p in model.named_parameters() if name.endswith("last.weight"))
    assert total == 13_563_990
    assert total - last * 8 // 9 == pytest.approx(11_800_000, rel=0.07)


@pytest.mark.parametrize("kind", ["coupling", "autoregressive"])
def test_dropout_is_that_of_the_networks_in_training(kind: Literal["coupling", "autoregressive"]) -> None:
    model = build(NSF, NSFConfig(kind=kind, steps=2, width=16, dropout=0.5), PointsSpec(3))
    assert isinstance(model, NSF)
    stir(model)
    x = torch.randn(64, 3)
    once, again = model.train().layers(x)[1], model.layers(x)[1]
    assert not torch.equal(once, again)
    assert torch.equal(model.eval().layers(x)[1], model.layers(x)[1])


@pytest.mark.parametrize("wrong", [{"bins": 0}, {"bins": 1000}, {"bound": 0.0}, {"steps": 0}, {"dropout": 1.0}])
def test_wrong_configurations_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        NSFConfig(**wrong)  # type: ignore[arg-type]


def test_autoregressive_splines_are_for_points() -> None:
    with pytest.raises(UsageError, match="for points"):
        build(NSF, NSFConfig(kind="autoregressive"), ImageSpec(1, 8, 8))
