import math

import numpy as np
import pytest
import torch

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.evaluation import pictures
from castalia.evaluation.pictures import nearest, reconstruction, sampling_speed

from .toys import LinearGaussian, Pictures, all_ids, random_pictures


class Constant(LinearGaussian):
    def decode(self, z, given=None, *, rng=None):
        return Batch.of(torch.full((len(z), 1, 2, 2), 128, dtype=torch.uint8))

    def sample(self, n, given=None, *, rng, options=None, watch=None):
        assert rng.rows == n
        return Batch.of(torch.zeros(n, 1, 2, 2, dtype=torch.uint8))


def test_reconstruction_error_in_closed_form():
    data = Pictures(torch.full((9, 1, 2, 2), 179, dtype=torch.uint8))
    out = reconstruction(Constant(), data, all_ids(data))
    assert out["mse"].value == pytest.approx((51 / 255) ** 2)
    assert out["psnr"].value == pytest.approx(-10 * math.log10(0.04))
    assert out["psnr"].interval == pytest.approx((out["psnr"].value, out["psnr"].value))


def test_perfect_reconstruction_stays_finite():
    data = Pictures(torch.full((3, 1, 2, 2), 128, dtype=torch.uint8))
    out = reconstruction(Constant(), data, all_ids(data))
    assert out["mse"].value == 0
    assert out["psnr"].value == pytest.approx(58.92, abs=0.01)


def test_nearest_finds_copies_at_zero_and_agrees_with_brute_force(monkeypatch):
    monkeypatch.setattr(pictures, "TRAIN_VALUES_AT_ONCE", 7 * 48)
    train = random_pictures(50, (3, 4, 4))
    x = torch.cat([train.x[[7, 49]], random_pictures(5, (3, 4, 4), seed=9).x])
    distance, where = nearest(x, train, 3)
    brute = (((x[:, None].double() - train.x[None].double()) ** 2).flatten(2).mean(2)).sqrt() / 255
    expected, order = brute.sort(dim=1, stable=True)
    assert torch.equal(where, order[:, :3])
    assert torch.allclose(distance, expected[:, :3], atol=1e-9)
    assert distance[:2, 0].tolist() == [0.0, 0.0]
    with pytest.raises(UsageError):
        nearest(x, train, 51)


def test_sampling_speed_says_how_it_was_measured():
    metric = sampling_speed(Constant(), n=10, batch=4)
    assert metric.n == 12
    assert metric.value > 0
    assert metric.unit == "samples/s"
    assert "batches of 4 on cpu" in metric.detail
    assert np.isfinite(metric.value)
