"""One set of examples against a reference: every distance and count, as metrics with their words.

Used alike for a model's samples, for real examples and for trivial ones (see :mod:`castalia.evaluation.drawn`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from castalia.core.data import Dataset, labels_of
from castalia.core.specs.image import ImageSpec
from castalia.estimators import modes
from castalia.estimators.coverage import NEIGHBOURS, coverage_estimates, radii
from castalia.estimators.distances import (
    PROJECTIONS,
    Estimate,
    energy_distance,
    frechet,
    kernel_distance,
    sliced_wasserstein,
)
from castalia.estimators.metric import Metric, mean_metric, subset
from castalia.estimators.progress import Show
from castalia.evaluation.features import Coordinates, FeatureSpace, Seen
from castalia.media.points.array import PointsArray

PAIRWISE = 10_000
"""Examples of each kind for what compares all pairs: kernel, energy, precision and its kin."""

LABELLED_VALUES = 1 << 29
"""Values of training examples read to count the labels; larger sets are subsampled."""


class Comparison:
    """Everything that compares the features of one set with those of the reference."""

    def __init__(self, reference: Tensor, name: str, space: FeatureSpace, seed: int, show: Show | None) -> None:
        self.reference, self.name, self.space, self.seed, self.show = reference, name, space, seed, show
        self.radii: Tensor | None = None

    def __call__(self, features: Tensor, what: str) -> dict[str, Metric]:
        """Every comparison of the features (N, F) of one set, which is called ``what`` in the details."""
        if self.show is not None:
            self.show(f"comparing {what} with {self.name}")
        points = isinstance(self.space, Coordinates)
        unit = "coordinate units" if points else "feature units"
        reference, (n, dims) = self.reference, features.shape
        few = f"; fewer examples than the {dims} features" if min(n, len(reference)) <= dims else ""
        plug_in = "plug-in, larger at smaller counts; interval: first-order influence"
        estimate = frechet(features, reference)
        name = "fid" if self.space.inception else "frechet"
        out = {name: self._metric(estimate, f"{unit} squared", plug_in, n, len(reference), what, few, low=0)}
        estimate = sliced_wasserstein(features, reference, seed=self.seed)
        detail = f"; 1-Wasserstein distance, mean over {PROJECTIONS} directions"
        out["sliced"] = self._metric(estimate, unit, plug_in, n, len(reference), what, detail, low=0)

        features, reference = features[:PAIRWISE], reference[:PAIRWISE]
        n, m = len(features), len(reference)
        unbiased = "unbiased, over all pairs; interval: first-order influence"
        if points:
            out["energy"] = self._metric(energy_distance(features, reference), unit, unbiased, n, m, what)
        else:
            estimate, detail = kernel_distance(features, reference), "; kernel (x.y/F + 1)^3"
            out["kernel"] = self._metric(estimate, "squared discrepancy", unbiased, n, m, what, detail)

        # at equal counts, where all four have values that are known for equal distributions
        n = min(n, m)
        if self.radii is None or len(self.radii) != n:
            self.radii = radii(reference[:n])
        kind = f"k = {NEIGHBOURS}; interval: subsets without replacement"
        found = coverage_estimates(reference[:n], features[:n], seed=self.seed, real_radii=self.radii)
        for name, estimate in found.items():
            unit, high = ("balls per neighbour", np.inf) if name == "density" else ("share", 1.0)
            out[name] = self._metric(estimate, unit, kind, n, n, what, low=0, high=high)
        return out

    def _metric(
        self,
        estimate: Estimate,
        unit: str,
        kind: str,
        n: int,
        m: int,
        what: str,
        detail: str = "",
        low: float = -np.inf,
        high: float = np.inf,
    ) -> Metric:
        """An estimate from ``n`` examples against ``m``, with the words that all share."""
        words = f"{n} {what} against {m} of {self.name}; {self.space.describe()}{detail}"
        return Metric(estimate.value, unit, kind, n, self.seed, estimate.interval(low, high), words)


ModeCounter = Callable[[Tensor, Seen, str], dict[str, Metric]]


def mode_counter(train: Dataset, space: FeatureSpace, seed: int) -> ModeCounter | None:
    """What counts the modes of examples; None where the modes of the data are not known."""
    if isinstance(train, PointsArray) and train.modes is not None:
        centres, std = train.modes, train.mode_std

        def by_centre(x: Tensor, seen: Seen, what: str) -> dict[str, Metric]:
            found = modes.mixture_modes(x, centres, std)
            detail = f"{what} against {len(centres)} known centres, deviation {std:g}"
            good = found.good.double().numpy()
            share = f"share within {modes.REACH:g} deviations of a centre; interval: bootstrap"
            covered = f"with a sample within {modes.REACH:g} deviations"
            return {
                "modes": Metric(found.covered, "modes", covered, len(x), seed, None, f"of {len(centres)}; {detail}"),
                "mode_quality": mean_metric(good, "share", share, seed, detail),
                "mode_kl": _divergence(found.counts, torch.ones(len(centres)), seed, f"{detail}, equally likely"),
            }

        return by_centre
    if not space.classes or not isinstance(train.spec, ImageSpec) or len(train.spec.classes) != len(space.classes):
        return None
    total, labels = len(space.classes), _labels(train, seed)
    if labels is None:
        return None
    expected = modes.expected_shares(labels, total)

    def by_class(x: Tensor, seen: Seen, what: str) -> dict[str, Metric]:
        assert seen.labels is not None
        counts = torch.bincount(seen.labels, minlength=total)
        detail = f"{what} classified into {total} classes; {space.describe()}"
        covered = float(counts.count_nonzero())
        return {
            "modes": Metric(covered, "modes", "classes that occur", len(x), seed, None, f"of {total}; {detail}"),
            "mode_kl": _divergence(counts, expected, seed, f"{detail}; against the labels of {len(labels)} examples"),
        }

    return by_class


def _divergence(counts: Tensor, expected: Tensor, seed: int, detail: str) -> Metric:
    estimate, n = modes.kl_divergence(counts, expected), int(counts.sum())
    kind = "plug-in KL(model || data) of the modes' shares, larger at smaller counts; interval: first-order influence"
    return Metric(estimate.value, "nats", kind, n, seed, estimate.interval(low=0), detail)


def _labels(train: Dataset, seed: int) -> Tensor | None:
    """Labels of the training set, or of a random part of a very large one."""
    spec = train.spec
    assert isinstance(spec, ImageSpec)
    ids = subset(len(train), max(10_000, LABELLED_VALUES // spec.dims), seed, "labels")
    return labels_of(train, ids)
