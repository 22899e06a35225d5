"""Layers with equalised learning rates, pixel norm and minibatch deviation."""

from __future__ import annotations

import pytest
import torch

from castalia.nn.equalised import EqualConv2d, EqualLinear, MinibatchDeviation, pixel_norm


@torch.no_grad()
def test_signals_keep_their_deviation() -> None:
    torch.manual_seed(0)
    assert float(EqualLinear(512, 512)(torch.randn(256, 512)).std()) == pytest.approx(1.0, abs=0.02)
    assert float(EqualConv2d(128, 128, 3)(torch.randn(4, 128, 16, 16))[..., 1:-1, 1:-1].std()) == pytest.approx(
        1.0, abs=0.03
    )


def test_a_rate_scales_moves_and_not_values() -> None:
    torch.manual_seed(0)
    one, slow = EqualLinear(8, 4, bias=1.0), EqualLinear(8, 4, bias=1.0, rate=0.01)
    with torch.no_grad():
        slow.weight.copy_(one.weight / 0.01)
    x = torch.randn(3, 8)
    torch.testing.assert_close(one(x), slow(x))
    with torch.no_grad():
        for layer in (one, slow):
            layer.weight += 1.0
            layer.bias += 1.0  # type: ignore[operator]
    change = one(x) - slow(x)
    torch.testing.assert_close(change, 0.99 * (x.sum(1, keepdim=True) / 8**0.5 + 1).expand(3, 4))


def test_pixel_norm() -> None:
    x = torch.randn(2, 16, 3, 3) * 7
    torch.testing.assert_close(pixel_norm(x).square().mean(1), torch.ones(2, 3, 3))


def test_minibatch_deviation_by_hand() -> None:
    x = torch.tensor([1.0, 10.0, 3.0, 10.0]).view(4, 1, 1, 1).expand(4, 2, 2, 2)
    y = MinibatchDeviation(group=2)(x)  # groups: every second picture
    assert y.shape == (4, 3, 2, 2)
    torch.testing.assert_close(y[:, 2, 0, 0], torch.tensor([1.0, 1e-4, 1.0, 1e-4]))
    # a batch that does not divide forms larger groups: five pictures are one
    five = torch.arange(5.0).view(5, 1, 1, 1)
    torch.testing.assert_close(MinibatchDeviation(group=4)(five)[:, 1, 0, 0], torch.full((5,), 2.0**0.5))
