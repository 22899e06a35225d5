import numpy as np
import pytest
import torch

from castalia.core.errors import UsageError
from castalia.estimators import memorisation
from castalia.estimators.memorisation import distance_ratio, nearest_vectors


def normal(n, dims, seed, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, dims, generator=g) * scale


def test_nearest_agrees_with_brute_force_and_copies_are_at_zero(monkeypatch):
    monkeypatch.setattr(memorisation, "PAIRS_AT_ONCE", 500)
    train = normal(60, 5, 1) + 1000
    x = torch.cat([train[[7, 59]], normal(20, 5, 2) + 1000])
    found = nearest_vectors(x, train)
    expected, ids = torch.cdist(x.double(), train.double(), compute_mode="donot_use_mm_for_euclid_dist").min(1)
    assert torch.equal(found.ids, ids)
    assert torch.allclose(found.distance, expected, atol=1e-9)
    assert found.distance[:2].tolist() == [0.0, 0.0]
    assert found.ids[:2].tolist() == [7, 59]
    with pytest.raises(UsageError):
        nearest_vectors(x, train[:0])


def test_the_ratio_is_one_for_the_same_distribution_and_small_for_copies():
    train, real, fresh = normal(500, 3, 1), normal(300, 3, 2), normal(300, 3, 3)
    base = nearest_vectors(real, train).distance
    value, (low, high) = distance_ratio(nearest_vectors(fresh, train).distance, base)
    assert low < 1 < high
    assert low < value < high
    copies = train[:300] + normal(300, 3, 4, 1e-3)
    value, (low, high) = distance_ratio(nearest_vectors(copies, train).distance, base)
    assert high < 0.02
    exact, _ = distance_ratio(nearest_vectors(train[:100], train).distance, base)
    assert exact == 0
    half, _ = distance_ratio(nearest_vectors(torch.cat([copies[:160], fresh[:140]]), train).distance, base)
    assert half < 0.5


def test_the_interval_is_that_of_repetitions(monkeypatch):
    monkeypatch.setattr(memorisation, "DRAWS", 200)
    train = normal(400, 2, 0)
    values, widths = [], []
    for s in range(150):
        a, b = (nearest_vectors(normal(200, 2, 2 * s + i + 1), train).distance for i in (0, 1))
        value, (low, high) = distance_ratio(a, b, seed=s)
        values.append(value)
        widths.append((high - low) / (2 * 1.96))
    # the training set is one and the same; 150 repetitions know their deviation within 12%
    ratio = np.mean(widths) / np.std(values)
    assert ratio == pytest.approx(1, abs=0.3)


def test_where_real_examples_repeat_no_distance_is_small():
    zero, one = torch.zeros(10), torch.ones(10)
    assert distance_ratio(one, zero) is None
    assert distance_ratio(one, torch.cat([zero[:4], one[:6]])) == (1.0, None)
