"""What can be counted in motion, beside real motion: sliding feet, jerks, and whether it looks like its class.

Features of a motion are means and deviations over time of where its joints are around the root, and of how fast they
move. A linear classifier of them, trained on the training data, says of which class a motion is; the Frechet distance
is taken between whitened features.
"""

from __future__ import annotations

import warnings

import numpy as np
from torch import Tensor

from castalia.core.data import Batch, Dataset, spread
from castalia.core.specs.motion import MotionSpec
from castalia.estimators.metric import Metric, mean_metric, subset
from castalia.media.base import Measure, Work
from castalia.media.measures import beside
from castalia.media.motion.draw import places_of

LEARNED = 4_000
"""Training examples that the classifier learns from, at most."""
PARTS = 24
"""Directions of the whitened features in which the Frechet distance is taken."""
NEAR_GROUND, SLOW = 0.06, 0.25
"""A foot is on the ground below this height and speed (a second), in heights of the body."""


def features(x: Tensor, spec: MotionSpec) -> np.ndarray:
    """Features ``float64`` (N, F)."""
    places = places_of(x, spec)
    root = places[:, :, :1] * np.array([1, 0, 1])
    around = (places - root).reshape(*places.shape[:2], -1)
    speed = np.diff(places, axis=1).reshape(len(places), places.shape[1] - 1, -1) * spec.fps
    return np.concatenate([around.mean(1), around.std(1), np.abs(speed).mean(1), speed.std(1)], 1)


def heights(places: np.ndarray) -> np.ndarray:
    """Height of each figure in its first frame (N,)."""
    return np.maximum(np.ptp(places[:, 0, :, 1], axis=1), 1e-6)


def sliding(x: Tensor, spec: MotionSpec) -> np.ndarray:
    """How fast feet move along the ground while they are on it (N,), heights a second; nan where none ever is.

    Feet are the two joints or ends that are lowest on average.
    """
    places = places_of(x, spec)
    tall = heights(places)
    out = np.full(len(places), np.nan)
    for i, one in enumerate(places):
        feet = np.argsort(one[..., 1].mean(0))[:2]
        path = one[:, feet] / tall[i]
        low = path[..., 1] - path[..., 1].min()
        speed = np.diff(path, axis=0) * spec.fps
        down = (low[1:] < NEAR_GROUND) & (low[:-1] < NEAR_GROUND) & (np.abs(speed[..., 1]) < SLOW)
        if down.any():
            out[i] = np.linalg.norm(speed[..., [0, 2]], axis=-1)[down].mean()
    return out


def jerk(x: Tensor, spec: MotionSpec) -> np.ndarray:
    """Mean size of the third difference of all joints' places (N,), heights a second cubed."""
    places = places_of(x, spec)
    if places.shape[1] < 4:
        return np.full(len(places), np.nan)
    third = np.diff(places, n=3, axis=1) * spec.fps**3
    return np.linalg.norm(third, axis=-1).mean((1, 2)) / heights(places)


class _Judge:
    """What has been learned from training motions: a scale, and a classifier."""

    def __init__(self, train: Dataset, spec: MotionSpec) -> None:
        from sklearn.decomposition import PCA
        from sklearn.linear_model import LogisticRegression

        batch = train.batch(spread(len(train), LEARNED))
        found = features(batch.x, spec)
        # what hardly differs between training motions must not decide
        deviation = found.std(0)
        self.mean, self.scale = found.mean(0), np.maximum(deviation, max(0.1 * float(np.median(deviation)), 1e-9))
        with np.errstate(invalid="ignore"):
            parts = PCA(min(PARTS, *found.shape), random_state=0).fit(self.scaled(found))
        size = np.maximum(np.nan_to_num(np.asarray(parts.explained_variance_)), 1e-12)  # one motion has no variance
        kept = size > 0.005 * size[0]
        self.axes = (np.asarray(parts.components_)[kept] / np.sqrt(size[kept])[:, None]).T
        self.spec, self.classifier = spec, None
        if batch.label is not None and len(set(batch.label.tolist())) > 1:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = LogisticRegression(C=0.1, max_iter=500)
                self.classifier = model.fit(self.scaled(found), batch.label.numpy())

    def scaled(self, found: np.ndarray) -> np.ndarray:
        """Features (N, F) without their mean, in deviations."""
        return (found - self.mean) / self.scale

    def whitened(self, x: Tensor) -> np.ndarray:
        """The directions in which training motions differ most, each with deviation 1 (N, parts)."""
        return self.scaled(features(x, self.spec)) @ self.axes

    def right(self, batch: Batch) -> np.ndarray:
        """Whether each is of the class that it should be (N,)."""
        assert self.classifier is not None
        assert batch.label is not None
        said = self.classifier.predict(self.scaled(features(batch.x, self.spec)))
        return (said == batch.label.numpy()).astype(np.float64)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of two sets of features (N, F)."""
    from scipy.linalg import sqrtm

    one, other = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    root = np.real(sqrtm(one @ other + 1e-9 * np.eye(len(one))))
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(one + other - 2 * root))


def _judged(work: Work) -> dict[str, Metric]:
    """``motion_...``: recognised as asked, Frechet distance, diversity, distance to the nearest training motion."""
    assert work.samples is not None
    assert work.train is not None
    assert work.held_out is not None
    spec, n = work.spec, len(work.samples)
    judge = _Judge(work.train, spec)
    real = work.held_out.batch(subset(len(work.held_out), n, work.seed, "floor")).cpu()
    known = judge.whitened(work.train.batch(spread(len(work.train), LEARNED)).x)
    out: dict[str, Metric] = {}
    told = "measured; interval: bootstrap"
    for suffix, batch, words in (("", work.samples, "samples"), ("_floor", real, "real held-out motions")):
        here = judge.whitened(batch.x)
        gaps = np.linalg.norm(here[:, None] - known[None], axis=-1).min(1)
        what = f"distance to the nearest training motion in whitened features; {words}"
        out[f"motion_nearest{suffix}"] = mean_metric(gaps, "deviations", told, work.seed, what)
        order = np.random.Generator(np.random.Philox(work.seed)).permutation(len(here))
        pairs = np.linalg.norm(here - here[order], axis=1)
        out[f"motion_diversity{suffix}"] = mean_metric(
            pairs, "deviations", told, work.seed, f"mean distance of pairs; {words}"
        )
        if batch.label is not None and judge.classifier is not None:
            out[f"motion_recognised{suffix}"] = mean_metric(
                judge.right(batch), "share", told, work.seed, f"a linear classifier sees the class asked for; {words}"
            )
        if len(here) > PARTS and len(known) > 1:
            kind = "estimate (biased upwards)"
            what = f"between whitened features of {words} and of training motions"
            out[f"motion_frechet{suffix}"] = Metric(
                frechet(here, known), "deviations^2", kind, len(here), work.seed, None, what
            )
    return out


def _sliding(work: Work) -> dict[str, Metric]:
    what = "speed of feet along the ground while on it"
    return beside("foot_sliding", lambda b: sliding(b.x, work.spec), work, "heights/s", what)


def _jerk(work: Work) -> dict[str, Metric]:
    return beside("jerk", lambda b: jerk(b.x, work.spec), work, "heights/s^3", "third difference of places")


MEASURES = (
    Measure("foot_sliding", ("samples", "held-out"), _sliding),
    Measure("jerk", ("samples", "held-out"), _jerk),
    Measure("motion", ("samples", "train", "held-out"), _judged),
)
