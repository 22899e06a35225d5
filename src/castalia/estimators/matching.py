"""Two sets compared by the distances between their members: what is said of sets of shapes.

Papers
    Achlioptas et al. 2018 (arXiv:1707.02392), section 3: coverage and minimum matching distance. Coverage is the
    share of real examples that are the nearest to some generated one; minimum matching distance the mean over real
    examples of the distance to the nearest generated one.
    Lopez-Paz & Oquab 2017 (arXiv:1610.06545): the accuracy of telling the sets apart by the nearest other example, 0.5
    where they are of one distribution. Yang et al. 2019 (arXiv:1906.12320), section 4: why the first two can be
    deceived and this cannot so easily.

All depend on the counts: compare at equal ones. Coverage of two sets of n of one distribution is about 0.63 (1 - 1/e).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Matching(NamedTuple):
    """How a set of generated examples lies to a set of real ones.

    Attributes:
        coverage: share of real examples that are the nearest of some generated one, 0 to 1.
        mmd: mean distance from a real example to the nearest generated one.
        nna: share of all examples whose nearest other is of their own set, 0 to 1; 0.5 is best, 1 is told apart, 0 has
            learnt the real ones by heart.
    """

    coverage: float
    mmd: float
    nna: float


def matching(across: Tensor, generated: Tensor, real: Tensor) -> Matching:
    """Compare two sets of equal size.

    Where two neighbours are equally near, each counts by half.

    Args:
        across: distances (N, M) from generated to real examples, N = M for the accuracy to mean anything.
        generated: distances (N, N) among the generated ones, N >= 2.
        real: distances (M, M) among the real ones, M >= 2.
    """
    across, generated, real = across.double(), generated.double().clone(), real.double().clone()
    if across.shape != (len(generated), len(real)) or min(across.shape) < 2:
        raise ValueError(f"distances of {tuple(across.shape)}, {tuple(generated.shape)} and {tuple(real.shape)}")
    generated.fill_diagonal_(torch.inf)
    real.fill_diagonal_(torch.inf)
    covered = len(across.argmin(1).unique()) / len(real)
    right = 0.0
    for own, other in ((generated.amin(1), across.amin(1)), (real.amin(1), across.amin(0))):
        right += float((own < other).sum()) + 0.5 * float((own == other).sum())
    return Matching(covered, float(across.amin(0).mean()), right / sum(across.shape))
