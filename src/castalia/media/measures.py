"""What measures of several media share: one number per example, of samples and of real ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from castalia.core.data import Batch
from castalia.estimators.metric import Metric, mean_metric, subset
from castalia.media.base import Work


def beside(
    name: str,
    per_example: Callable[[Batch], np.ndarray],
    work: Work,
    unit: str,
    what: str,
) -> dict[str, Metric]:
    """The mean over samples, and as ``..._floor`` over as many real held-out examples.

    Args:
        name: of the metric.
        per_example: gives one number per example, ``float64`` (B,); those that have none get nan and are left out,
            which the detail counts.
        work: has samples and held-out examples.
        unit: of the number.
        what: what it is, for the detail.

    Returns:
        Nothing for a set in which no example has a number; then there is nothing to say of it.
    """
    assert work.samples is not None
    assert work.held_out is not None
    real = work.held_out.batch(subset(len(work.held_out), len(work.samples), work.seed, "floor"))
    out: dict[str, Metric] = {}
    for suffix, batch, words in (("", work.samples, "samples"), ("_floor", real.cpu(), "real held-out examples")):
        values = np.asarray(per_example(batch), np.float64)
        there = values[~np.isnan(values)]
        if len(there):
            without = f"; {len(values) - len(there)} more have none" if len(there) < len(values) else ""
            detail = f"{what}; {len(there)} {words}{without}"
            out[name + suffix] = mean_metric(there, unit, "measured; interval: bootstrap", work.seed, detail)
    return out
