"""Which modes of the data a model makes, and how often: mixtures with known centres, labelled pictures, stacks.

Papers
    Mixtures: Lin et al. 2018 (PacGAN, arXiv:1712.04086): a sample is of high quality within 3 standard deviations of
    the nearest centre; a mode is covered by one such sample; the KL divergence is that of the modes' shares among the
    samples to their shares in the data. Every sample counts for the mode nearest to it.
    Stacked digits: Srivastava et al. 2017 (VEEGAN, arXiv:1705.07761): each channel is classified by a network of
    single digits, which gives 1,000 modes; modes that occur at all among 26,000 samples, and KL(model || data).

The plug-in KL of n samples over M modes lies above the true one by about (M - 1) / 2n, so it stands beside that of real
examples at the same count. Its standard error is that of a mean: the influence of a sample of mode k is log(p_k / q_k).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from castalia.core.errors import UsageError
from castalia.estimators.distances import Estimate

REACH = 3.0
"""Standard deviations within which a sample is of high quality."""


@dataclass(frozen=True)
class MixtureModes:
    """Samples sorted by the centres of a mixture.

    Attributes:
        nearest: number of the nearest centre, ``int64`` (N,).
        good: within reach of it, ``bool`` (N,).
        counts: samples nearest to each centre, ``int64`` (M,).
        covered: centres with at least one sample within reach.
    """

    nearest: Tensor
    good: Tensor
    counts: Tensor
    covered: int


def mixture_modes(x: Tensor, centres: Tensor, std: float, *, reach: float = REACH) -> MixtureModes:
    """Sort samples by the known centres of their data.

    Args:
        x: samples (N, D).
        centres: (M, D).
        std: standard deviation of each coordinate around a centre, above 0.
        reach: deviations within which a sample is of high quality.
    """
    if centres.ndim != 2 or x.ndim != 2 or x.shape[1] != centres.shape[1] or std <= 0:
        raise ValueError(f"samples {tuple(x.shape)} do not fit centres {tuple(centres.shape)} of deviation {std}")
    # exact differences: a product of matrices would lose the digits of narrow modes far from 0
    distances = torch.cdist(x.double(), centres.double(), compute_mode="donot_use_mm_for_euclid_dist")
    distance, nearest = distances.min(1)
    good = distance <= reach * std
    counts = torch.bincount(nearest, minlength=len(centres))
    covered = int(torch.bincount(nearest[good], minlength=len(centres)).count_nonzero())
    return MixtureModes(nearest, good, counts, covered)


def kl_divergence(counts: Tensor, expected: Tensor) -> Estimate:
    """KL(p || q) in nats of the shares p of some counts to expected shares q.

    Args:
        counts: how often each mode occurred, (M,), not all 0.
        expected: shares (M,), above 0 wherever the count is.

    Raises:
        UsageError: nothing was counted, or something that cannot occur: the divergence is infinite.
    """
    n = int(counts.sum())
    if n < 1:
        raise UsageError("No sample was counted, so there are no shares to compare.")
    p, q = counts.double() / n, expected.double() / expected.double().sum()
    if bool(((p > 0) & (q <= 0)).any()):
        raise UsageError("Samples fall into modes that the data does not have; the divergence is infinite.")
    seen = p > 0
    log_ratio = (p[seen] / q[seen]).log()
    value = float((p[seen] * log_ratio).sum())
    variance = float((p[seen] * log_ratio**2).sum()) - value**2
    return Estimate(max(value, 0.0), math.sqrt(max(variance, 0.0) / n))


def expected_shares(labels: Tensor, modes: int) -> Tensor:
    """Shares of the modes in the data, ``float64`` (M,), from labels of many examples.

    Half an example is added to each mode, so that one too rare to be among them does not make a divergence infinite.

    Args:
        labels: ``int64`` (N,), 0 to ``modes - 1``.
        modes: M.
    """
    counts = torch.bincount(labels, minlength=modes).double() + 0.5
    return counts / counts.sum()
