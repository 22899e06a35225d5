"""One measured number with everything that is needed to read it rightly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from castalia.core.errors import NonFiniteError
from castalia.core.rng import derive

Interval = tuple[float, float]


def counted(number: int, what: str) -> str:
    """A number of things in words: ``1 thread``, ``2 threads``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Metric:
    """One measured number.

    Attributes:
        value: the number.
        unit: what it counts, for example ``bits/dim``.
        kind: what kind of number it is, for example ``bound (importance weighted, K = 100)`` or ``exact``.
        n: examples it was measured on.
        seed: of the randomness in it.
        interval: 95% interval over examples (and estimation), or None where there is none.
        detail: anything else a reader needs, in words.

    Raises:
        NonFiniteError: the value or its interval is not finite. A failed measurement is never stored.
    """

    value: float
    unit: str
    kind: str
    n: int
    seed: int
    interval: Interval | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) for v in (self.value, *(self.interval or ()))):
            raise NonFiniteError(f"A measurement in {self.unit} came out as {self.value}, {self.interval}.")

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``results.json``."""
        return {
            "value": self.value,
            "unit": self.unit,
            "kind": self.kind,
            "n": self.n,
            "seed": self.seed,
            "interval": None if self.interval is None else list(self.interval),
            "detail": self.detail,
        }

    def scaled(self, factor: float, unit: str, detail: str = "") -> Metric:
        """The same measurement in another unit, ``factor`` (positive) times as large."""
        interval = None if self.interval is None else (self.interval[0] * factor, self.interval[1] * factor)
        return Metric(self.value * factor, unit, self.kind, self.n, self.seed, interval, detail or self.detail)


def generator(seed: int, *path: str | int) -> np.random.Generator:
    """NumPy randomness at an address."""
    return np.random.Generator(np.random.Philox(derive(seed, *path)))


def bootstrap_mean(values: Sequence[float] | np.ndarray, seed: int, draws: int = 1000) -> Interval:
    """95% percentile-bootstrap interval of a mean.

    Args:
        values: one number per example, (N,), N >= 1.
        seed: of the resampling.
        draws: resamples.

    Returns:
        Lower and upper end; both equal the mean where N = 1, for one example says nothing of the others.
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"bootstrap_mean needs a list of numbers, not shape {array.shape}")
    random = generator(seed, "bootstrap")
    means = [array[random.integers(len(array), size=len(array))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def mean_metric(values: np.ndarray, unit: str, kind: str, seed: int, detail: str = "") -> Metric:
    """The mean of one number per example, (N,), with its interval."""
    return Metric(float(values.mean()), unit, kind, len(values), seed, bootstrap_mean(values, seed), detail)


def subset(size: int, n: int | None, seed: int, purpose: str) -> np.ndarray:
    """Return ``n`` of ``size`` positions, drawn without replacement, rising; all where ``n`` is None."""
    if n is None or n >= size:
        return np.arange(size, dtype=np.int64)
    return np.sort(generator(seed, purpose).permutation(size)[:n]).astype(np.int64)
