import json
import math

import numpy as np
import pytest

from castalia.core.errors import NonFiniteError
from castalia.estimators.metric import Metric, bootstrap_mean, subset


def test_bootstrap_interval_covers_the_mean_about_95_times_in_100():
    g = np.random.default_rng(0)
    hits = 0
    for i in range(300):
        low, high = bootstrap_mean(g.exponential(2.0, size=100), seed=i, draws=300)
        hits += low <= 2.0 <= high
    assert 0.89 < hits / 300 < 0.98


def test_bootstrap_is_a_function_of_its_seed_and_matches_theory():
    values = np.random.default_rng(1).normal(size=2000)
    assert bootstrap_mean(values, 3) == bootstrap_mean(values, 3)
    assert bootstrap_mean(values, 3) != bootstrap_mean(values, 4)
    low, high = bootstrap_mean(values, 3)
    assert high - low == pytest.approx(2 * 1.96 / math.sqrt(2000), rel=0.12)
    assert bootstrap_mean([2.5], 0) == (2.5, 2.5)
    with pytest.raises(ValueError):
        bootstrap_mean([], 0)


def test_metric_json_round_trip_and_scaling():
    metric = Metric(2.0, "nats", "exact", 10, 7, (1.0, 3.0), "why")
    assert json.loads(json.dumps(metric.to_json())) == {
        "value": 2.0, "unit": "nats", "kind": "exact", "n": 10, "seed": 7, "interval": [1.0, 3.0], "detail": "why",
    }  # fmt: skip
    half = metric.scaled(0.5, "bits")
    assert (half.value, half.interval, half.unit, half.n) == (1.0, (0.5, 1.5), "bits", 10)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_is_finite(value):
    with pytest.raises(NonFiniteError):
        Metric(value, "nats", "exact", 1, 0)
    with pytest.raises(NonFiniteError):
        Metric(0.0, "nats", "exact", 1, 0, (0.0, value))


def test_subset_is_seeded_without_repeats():
    a = subset(100, 30, 1, "x")
    assert len(set(a.tolist())) == 30
    assert (np.diff(a) > 0).all()
    assert (a == subset(100, 30, 1, "x")).all()
    assert (a != subset(100, 30, 2, "x")).any()
    assert (subset(5, None, 0, "x") == np.arange(5)).all()
