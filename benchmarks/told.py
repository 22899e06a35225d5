"""A mean of one number per example, as the benchmarks write it."""

from __future__ import annotations

import numpy as np

from castalia.estimators.metric import mean_metric


def told(values: np.ndarray, seed: int) -> dict[str, float]:
    """The mean of (N,) numbers with its bootstrap interval."""
    found = mean_metric(values.astype(np.float64), "", "", seed)
    low, high = found.interval or (found.value, found.value)
    return {"value": found.value, "low": low, "high": high}
