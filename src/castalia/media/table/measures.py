"""What is said of synthetic rows beside real ones: shapes, pairs, copies, use, and likelihood where the truth is known.

Papers and definitions
    ``quality``: the report of SDMetrics 0.32: the mean of the shapes of columns (1 less Kolmogorov and Smirnov's
    distance of numbers, 1 less the total variation of categories) and of the trends of pairs (1 less half the
    difference of correlations; 1 less the total variation of tables of two columns, numbers cut into ten bins).
    ``closest``: distance to the closest training row, the mean over columns of differences in deviations, and of
    categories that differ; beside it that of rows that nobody trained on. ``copies``: rows that are training rows.
    ``use``: Xu et al. 2019 (arXiv:1907.00503), section 5: classifiers learn the target from samples, and are tested on
    held-out rows; F1, with their four classifiers; beside it, the same learned from real rows.
    ``truth``: their simulated tables: the log-likelihood of samples under the true density, and of held-out rows under
    a mixture of as many Gaussians fitted to the samples.
"""

from __future__ import annotations

import warnings
from itertools import combinations

import numpy as np

from castalia.core.data import Batch, Dataset, spread
from castalia.core.specs.table import TableSpec
from castalia.estimators.metric import Metric, mean_metric, subset
from castalia.media.base import Measure, Work
from castalia.media.table.sets import SIMULATED, centres, log_density

MOST = 20_000
"""Training rows that samples are compared with, at most."""
NEAREST_OF = 2_000
"""Samples whose closest training rows are looked for, at most."""
DISTANCES = 1 << 21
"""That are held at once."""
BINS = 10

Rows = tuple[np.ndarray, np.ndarray]
"""``x`` and ``missing``."""


def rows_of(batch: Batch) -> Rows:
    """The numbers of a batch."""
    return batch.x.double().cpu().numpy(), batch.extra["missing"].cpu().numpy()


def all_rows(data: Dataset, most: int = MOST) -> Rows:
    """At most so many rows of a table, evenly spaced."""
    return rows_of(data.batch(spread(len(data), most)))


# quality


def shapes(real: Rows, made: Rows, spec: TableSpec) -> np.ndarray:
    """How alike each column is, 0 to 1 (C,); nan where one of them has no values."""
    return np.array([_shape(_there(real, j), _there(made, j), part.listed) for j, part in enumerate(spec.parts)])


def _there(rows: Rows, j: int) -> np.ndarray:
    return rows[0][rows[1][:, j] == 0, j]


def _shape(real: np.ndarray, made: np.ndarray, listed: bool) -> float:
    if not len(real) or not len(made):
        return np.nan
    if listed:
        size = int(max(real.max(), made.max())) + 1
        shares = [np.bincount(v.astype(int), minlength=size) / len(v) for v in (real, made)]
        return float(1 - np.abs(shares[0] - shares[1]).sum() / 2)
    from scipy.stats import ks_2samp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # its p-value, which nobody asked for
        return float(1 - ks_2samp(real, made).statistic)  # pyright: ignore[reportAttributeAccessIssue]


def trends(real: Rows, made: Rows, spec: TableSpec) -> np.ndarray:
    """How alike each pair of columns goes together, 0 to 1 (pairs,); nan where a column is constant."""
    codes = [[_codes(rows, j, part.listed) for j, part in enumerate(spec.parts)] for rows in (real, made)]
    found = []
    for a, b in combinations(range(len(spec.parts)), 2):
        if spec.parts[a].listed or spec.parts[b].listed:
            found.append(_together(codes[0][a], codes[0][b], codes[1][a], codes[1][b]))
        else:
            found.append(1 - abs(_correlation(real, a, b) - _correlation(made, a, b)) / 2)
    return np.array(found)


def _codes(rows: Rows, j: int, listed: bool) -> np.ndarray:
    """A column cut into bins, or its categories; -1 (numbers: one behind the last bin) where there is no value."""
    x, gone = rows[0][:, j], rows[1][:, j] == 1
    if listed:
        return np.where(gone, -1, x).astype(np.int64)
    there = x[~gone]
    edges = np.histogram_bin_edges(there, BINS) if len(there) else np.linspace(0, 1, BINS + 1)
    return np.where(gone, BINS + 1, np.digitize(x, edges)).astype(np.int64)


def _together(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> float:
    """1 less the total variation of two tables of counts of pairs."""
    wide = int(max(b.max(), d.max())) + 2
    keys, where = np.unique(np.concatenate([a * wide + b, c * wide + d]), return_inverse=True)
    shares = [np.bincount(w, minlength=len(keys)) / len(w) for w in (where[: len(a)], where[len(a) :])]
    return float(1 - np.abs(shares[0] - shares[1]).sum() / 2)


def _correlation(rows: Rows, a: int, b: int) -> float:
    both = (rows[1][:, a] == 0) & (rows[1][:, b] == 0)
    x, y = rows[0][both, a], rows[0][both, b]
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return float(np.corrcoef(x, y)[0, 1])


def quality(real: Rows, made: Rows, spec: TableSpec) -> dict[str, float]:
    """``shapes``, ``trends``, and the mean of both as ``quality``."""
    found = {"shapes": float(np.nanmean(shapes(real, made, spec)))}
    if len(spec.parts) > 1:
        pairs = trends(real, made, spec)
        if not np.isnan(pairs).all():
            found["trends"] = float(np.nanmean(pairs))
    return {**found, "quality": float(np.mean(list(found.values())))}


def _quality(work: Work) -> dict[str, Metric]:
    assert work.samples is not None
    assert work.train is not None
    real, held = all_rows(work.train), _real(work)
    out = {}
    for suffix, made, words in (("", rows_of(work.samples), "samples"), ("_floor", held, "real held-out rows")):
        for name, value in quality(real, made, work.spec).items():
            key = {"quality": "quality"}.get(name, f"quality_{name}")
            what = f"as SDMetrics 0.32; {words} against training rows"
            out[key + suffix] = Metric(value, "share", "measured", len(made[0]), work.seed, None, what)
    return out


def _real(work: Work) -> Rows:
    assert work.samples is not None
    assert work.held_out is not None
    return rows_of(work.held_out.batch(subset(len(work.held_out), len(work.samples), work.seed, "floor")))


# privacy


def closest(made: Rows, train: Rows, spec: TableSpec) -> np.ndarray:
    """Distance of each row to the closest training row (N,): the mean over columns.

    A listed value differs from another by 1; numbers by deviations. What is missing stands at the mean, half a
    deviation away from what is there.
    """
    found, at_once = [], max(1, DISTANCES // max(len(train[0]), 1))
    for start in range(0, len(made[0]), at_once):
        some = (made[0][start : start + at_once], made[1][start : start + at_once])
        total = sum(_apart(some, train, spec, j) for j in range(len(spec.parts)))
        found.append(np.asarray(total).min(1) / len(spec.parts))
    return np.concatenate(found)


def _apart(made: Rows, train: Rows, spec: TableSpec, j: int) -> np.ndarray:
    """Differences in a column, (n, N)."""
    gone, lacks = made[1][:, j] == 1, train[1][:, j] == 1
    missing = gone[:, None] != lacks
    if spec.parts[j].listed:
        return np.where(gone[:, None] | lacks, missing, made[0][:, j, None] != train[0][:, j]).astype(float)
    known = _there(train, j)
    # the deviation of equal numbers is not always 0
    scale, middle = (float(known.std()) * (np.ptp(known) > 0), float(known.mean())) if len(known) else (0.0, 0.0)
    x, y = (
        (np.where(no, middle, rows[0][:, j]) - middle) / (scale or 1.0) for rows, no in ((made, gone), (train, lacks))
    )
    return np.abs(x[:, None] - y) + 0.5 * missing


def copies(made: Rows, train: Rows) -> np.ndarray:
    """Which rows are training rows, 0 or 1 (N,)."""
    known = {row.tobytes() for row in np.concatenate(train, 1)}
    return np.array([float(row.tobytes() in known) for row in np.concatenate(made, 1)])


def _closest(work: Work) -> dict[str, Metric]:
    assert work.samples is not None
    assert work.train is not None
    train, told = all_rows(work.train), "measured; interval: bootstrap"
    out = {}
    for suffix, made, words in (("", rows_of(work.samples), "samples"), ("_floor", _real(work), "real held-out rows")):
        some = (made[0][:NEAREST_OF], made[1][:NEAREST_OF])
        gaps = closest(some, train, work.spec)
        what = f"distance to the closest training row, mean over columns; {words}"
        out[f"closest{suffix}"] = mean_metric(gaps, "deviations", told, work.seed, what)
        what = f"rows that are training rows; {words}"
        out[f"closest_copies{suffix}"] = mean_metric(copies(some, train), "share", told, work.seed, what)
    return out


# use


def f1_scores(train: Rows, test: Rows, spec: TableSpec, seed: int = 0) -> dict[str, float]:
    """F1 of the four classifiers of Xu et al. (SDGym 0.2) for the target, and their mean.

    Of two classes that of the second, of more the mean over classes. A tree of depth 15 and a logistic regression of 50
    steps with balanced classes, AdaBoost, a perceptron of 50 units.
    """
    from sklearn.ensemble import AdaBoostClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.neural_network import MLPClassifier
    from sklearn.tree import DecisionTreeClassifier

    at = spec.place(spec.target)
    (x, y), (u, v) = (_features(rows, train, spec, at) for rows in (train, test))
    if len(set(y.tolist())) < 2:
        return {"tree": 0.0, "boosted": 0.0, "logistic": 0.0, "perceptron": 0.0, "mean": 0.0}
    classifiers = {
        "tree": DecisionTreeClassifier(max_depth=15, class_weight="balanced", random_state=seed),
        "boosted": AdaBoostClassifier(random_state=seed),
        "logistic": LogisticRegression(class_weight="balanced", max_iter=50, random_state=seed),
        "perceptron": MLPClassifier((50,), max_iter=50, random_state=seed),
    }
    binary = len(spec.parts[at].values) == 2
    found = {}
    for name, classifier in classifiers.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # few steps are what the paper's evaluators have
            said = classifier.fit(x, y).predict(u)
        how = {"average": "binary" if binary else "macro", "zero_division": 0.0}
        found[name] = float(f1_score(v, said, **how))  # pyright: ignore[reportArgumentType]
    return {**found, "mean": float(np.mean(list(found.values())))}


def _features(rows: Rows, train: Rows, spec: TableSpec, at: int) -> tuple[np.ndarray, np.ndarray]:
    """Features as those evaluators have them, and the target.

    Numbers run from 0 to 5 over the training rows, or are logarithms where they go from 0 beyond a thousand; categories
    are one-hots.
    """
    columns = []
    for j, part in enumerate(spec.parts):
        if j == at:
            continue
        x, gone = rows[0][:, j], rows[1][:, j] == 1
        if part.listed and len(part.values) > 2:
            columns.append(np.eye(len(part.values))[x.astype(int)] * ~gone[:, None])
        else:
            low, high = (train[0][:, j].min(), train[0][:, j].max())
            wide = low >= 0 and high >= 1_000
            columns.append((np.log(np.maximum(x, 0.01)) if wide else 5 * (x - low) / ((high - low) or 1.0))[:, None])
        if part.missing:
            columns.append(gone[:, None].astype(float))
    return np.concatenate(columns, 1), rows[0][:, at].astype(int)


def _use(work: Work) -> dict[str, Metric]:
    spec = work.spec
    assert work.samples is not None
    assert work.train is not None
    assert work.held_out is not None
    if not spec.target or not spec.parts[spec.place(spec.target)].listed or len(spec.parts) < 2:
        return {}
    test, made = all_rows(work.held_out), rows_of(work.samples)
    real = rows_of(work.train.batch(subset(len(work.train), len(made[0]), work.seed, "trained")))
    out = {}
    for suffix, rows, words in (("", made, "samples"), ("_floor", real, "as many real training rows")):
        scores = f1_scores(rows, test, spec, work.seed)
        told = ", ".join(f"{name} {value:.3f}" for name, value in scores.items() if name != "mean")
        what = f"F1 of {spec.target!r} on {len(test[0])} held-out rows, learned from {words}: {told}"
        out[f"use{suffix}"] = Metric(
            scores["mean"], "F1", "mean of four classifiers", len(rows[0]), work.seed, None, what
        )
    return out


# where the truth is known


def _truth(work: Work) -> dict[str, Metric]:
    assert work.samples is not None
    assert work.held_out is not None
    name = work.held_out.name
    if name not in SIMULATED:
        return {}
    from sklearn.mixture import GaussianMixture

    x, test = rows_of(work.samples)[0], all_rows(work.held_out)[0]
    real = _real(work)[0]
    out = {}
    for suffix, rows, words in (("", x, "samples"), ("_floor", real, "real held-out rows")):
        spread_of = mean_metric(log_density(name, rows), "nats", "exact; interval: bootstrap", work.seed, f"{words}")
        out[f"truth_samples{suffix}"] = spread_of
        mixture = GaussianMixture(len(centres(name)), random_state=0, means_init=centres(name))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            told = mixture.fit(rows).score_samples(test)
        what = f"held-out rows under a mixture of {len(centres(name))} Gaussians fitted to {words}"
        out[f"truth_test{suffix}"] = mean_metric(told, "nats", "measured; interval: bootstrap", work.seed, what)
    return out


MEASURES = (
    Measure("quality", ("samples", "train", "held-out"), _quality),
    Measure("closest", ("samples", "train", "held-out"), _closest),
    Measure("use", ("samples", "train", "held-out"), _use),
    Measure("truth", ("samples", "held-out"), _truth),
)
