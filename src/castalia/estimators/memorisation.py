"""Whether samples are copies of training examples.

The nearest training example of every sample is found, in the examples' own units and in a feature space. A distance
alone says little: smooth or average-looking samples are near to everything. So it stands beside the distance at which
*held-out* real examples find their nearest training example:

    ratio = median over samples of d(sample, training set) / median over held-out of d(held-out, training set).

Real examples of the same distribution have a ratio of 1. A ratio well below 1 means copies, or samples with less
detail than the data (blur does this too: look at the pictures); a ratio well above 1 means samples unlike the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from castalia.core.errors import UsageError
from castalia.estimators.metric import Interval, generator

PAIRS_AT_ONCE = 1 << 22
"""Pairs of examples whose distance is held at once; bounds the memory."""

DRAWS = 1000
"""Resamples of the interval."""


@dataclass(frozen=True)
class Nearest:
    """The nearest training example of each of some samples.

    Attributes:
        distance: ``float64`` (N,), in the units of the space.
        ids: position in the training set, ``int64`` (N,).
    """

    distance: Tensor
    ids: Tensor


def nearest_vectors(x: Tensor, train: Tensor) -> Nearest:
    """The nearest of some training vectors by Euclidean distance.

    Args:
        x: (N, F).
        train: (M, F), M >= 1.
    """
    if not len(train):
        raise UsageError("There are no training examples to compare with.")
    near = x.double().mean(0)  # taken off first, so that a large mean costs no digits
    mine = x.double() - near
    best = torch.full((len(x),), math.inf, dtype=torch.float64)
    ids = torch.zeros(len(x), dtype=torch.int64)
    for start in range(0, len(train), rows := max(1, PAIRS_AT_ONCE // max(len(x), 1))):
        other = train[start : start + rows].double() - near
        distance, where = torch.addmm((other**2).sum(1), mine, other.T, alpha=-2).min(1)
        nearer = distance < best
        best[nearer], ids[nearer] = distance[nearer], start + where[nearer]
    # by difference, so that a copy is at distance 0 exactly
    return Nearest((x.double() - train[ids].double()).norm(dim=1), ids)


def distance_ratio(samples: Tensor, held_out: Tensor, *, seed: int = 0) -> tuple[float, Interval | None] | None:
    """Ratio of the median distances, and its 95% percentile-bootstrap interval over samples and held-out examples.

    A median is not led astray by repeated examples, so here the bootstrap is sound.

    Args:
        samples: distance of each sample to its nearest training example (N,).
        held_out: the same of held-out real examples (M,).
        seed: of the resampling.

    Returns:
        None where at least half of the held-out examples are themselves in the training set, for then no distance can
        be called small; no interval where that is so in some resample.
    """
    a, b = samples.double().numpy(), held_out.double().numpy()
    base = float(np.median(b))
    if base == 0:
        return None
    random = generator(seed, "memorisation")
    ratios = []
    for _ in range(DRAWS):
        above = np.median(a[random.integers(len(a), size=len(a))])
        below = np.median(b[random.integers(len(b), size=len(b))])
        ratios.append(above / below if below > 0 else math.inf)
    value = float(np.median(a)) / base
    if not all(map(math.isfinite, ratios)):
        return value, None
    low, high = np.quantile(ratios, [0.025, 0.975])
    return value, (float(low), float(high))
