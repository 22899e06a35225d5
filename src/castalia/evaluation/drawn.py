"""What examples drawn from a model tell of it, beside what real ones and trivial ones would tell.

Everything is measured three times, at the same counts and against the same reference, the held-out examples:

* the model's samples: ``frechet``, ...;
* real examples of the training set: ``frechet_floor``, what a perfect model would get. (Real against real is not 0:
  counts are finite, and a feature network knows the examples that it was trained on a little better.)
* a trivial stand-in: ``frechet_ceiling``, what no model should be worse than. For pictures, training pictures in which
  the values of every position were shuffled among the pictures: right marginals, nothing else. For points, uniform
  noise in the box of the training points.

The reference is the held-out split for all three, so a model cannot gain by copying its training set: see
``memorisation``. The floor is what real examples get and the ceiling what trivial ones get; where more is better
(precision, recall, density, coverage, modes, accuracy) the floor is the larger of the two.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from castalia.core.config import differences, to_json
from castalia.core.data import Batch, Dataset, join, labels_of
from castalia.core.errors import NonFiniteError, UsageError
from castalia.core.model import Generator
from castalia.core.precision import Precision, precision_context
from castalia.core.rng import SampleRng
from castalia.core.sampling import Sampling
from castalia.core.spec import LabelSpec
from castalia.estimators import memorisation
from castalia.estimators.memorisation import Nearest
from castalia.estimators.metric import Metric, counted, generator, mean_metric
from castalia.estimators.progress import Show, Ticker
from castalia.evaluation import pictures
from castalia.evaluation.feature_network import feature_space
from castalia.evaluation.features import Coordinates, FeatureSpace, Seen, see_all, see_data
from castalia.evaluation.reference import Comparison, mode_counter

NAMES = frozenset((
    "frechet", "fid", "kernel", "energy", "sliced", "precision", "recall", "density", "coverage",
    "modes", "mode_quality", "mode_kl", "condition_accuracy", "memorisation", "memorisation_features",
    "variety",
))  # fmt: skip
"""Metrics of this file, without ``_floor`` and ``_ceiling``."""

AT_ONCE = 256
"""Samples drawn at once."""

LEAST = 20
"""Fewer samples, training or held-out examples measure nothing."""

VARIED = 500
"""Samples whose mutual distances are looked at."""

COPIES = 1000
"""Samples whose nearest training examples are looked for."""


def is_of_samples(name: str) -> bool:
    """Whether a metric is one of this file."""
    return name.removesuffix("_floor").removesuffix("_ceiling") in NAMES


@dataclass(frozen=True)
class Drawn:
    """Examples drawn from a model.

    Attributes:
        examples: natural units, on the CPU.
        condition: the labels that were asked for, ``int64`` (N,), or None.
        seconds: wall-clock time of the drawing.
    """

    examples: Batch
    condition: Tensor | None
    seconds: float

    @property
    def x(self) -> Tensor:
        """The examples themselves (N, ...)."""
        return self.examples.x


@dataclass(frozen=True)
class Measured:
    """A measurement, and what a page needs to show it.

    Attributes:
        metrics: by name.
        drawn: the samples.
        nearest: nearest training example of each of the first samples, by pixels or coordinates; None for media that
            are not compared so.
        nearest_features: the same by features; None for points.
    """

    metrics: dict[str, Metric]
    drawn: Drawn
    nearest: Nearest | None = None
    nearest_features: Nearest | None = None


def draw(
    model: Generator,
    n: int,
    *,
    seed: int = 0,
    options: Sampling | None = None,
    condition: Tensor | None = None,
    given: Mapping[str, Tensor] | None = None,
    precision: Precision = "float32",
    at_once: int = AT_ONCE,
    show: Show | None = None,
) -> Drawn:
    """Draw ``n`` examples, number i from the stream (seed, i), a few hundred at a time.

    Args:
        model: what samples.
        n: how many.
        seed: of the samples.
        options: sampling options of the model; None for its own.
        condition: labels ``int64`` (n,), or None to let the model choose.
        given: what else is asked for, by the names that the model accepts, each with first dimension n.
        precision: of the networks.
        at_once: how many at a time.
        show: receives lines of progress.

    Raises:
        NonFiniteError: some samples are not finite; the text says how many.
    """
    parts, ticker = [], Ticker("samples", n, show)
    pictures.wait(model.device)
    started = time.perf_counter()
    for start in range(0, n, at_once):
        ids = range(start, min(start + at_once, n))
        mine = {name: value[start : ids.stop] for name, value in (given or {}).items()}
        if condition is not None:
            mine["label"] = condition[start : ids.stop]
        rng = SampleRng(seed, ids, model.device)
        with torch.no_grad(), precision_context(precision, model.device):
            parts.append(model.sample(len(ids), mine, rng=rng, options=options).cpu())
        ticker.step(len(ids))
    seconds = max(time.perf_counter() - started, 1e-9)
    examples = join(parts, model.spec)
    x = examples.x
    if x.is_floating_point() and (bad := int((~torch.isfinite(x.flatten(1)).all(1)).sum())):
        raise NonFiniteError(f"{bad} of {n} samples are not finite. Nothing was recorded.")
    return Drawn(examples, condition, seconds)


def trivial(x: Tensor, seed: int = 0) -> Tensor:
    """Stand-ins for examples that keep nothing but the simplest (see the head of this file); same shape and type.

    Args:
        x: ``uint8`` (N, C, H, W) or ``float32`` (N, D).
        seed: of the shuffling, or the noise.
    """
    random, flat = generator(seed, "trivial"), x.flatten(1).numpy()
    if x.is_floating_point():
        low, high = flat.min(0), flat.max(0)
        return torch.from_numpy(low + (high - low) * random.random(flat.shape, dtype=np.float32)).view_as(x)
    return torch.from_numpy(random.permuted(flat, axis=0)).view_as(x)


def measure_samples(
    model: Generator,
    train: Dataset,
    held_out: Dataset,
    *,
    n: int,
    seed: int = 0,
    options: Sampling | None = None,
    precision: Precision = "float32",
    space: FeatureSpace | None = None,
    show: Show | None = None,
    columns: np.ndarray | None = None,
) -> Measured:
    """Draw from a model and measure what the samples allow.

    Always ``frechet`` (``fid`` where the space is the user's Inception network), ``kernel`` (``energy`` for points),
    ``sliced``, ``precision``, ``recall``, ``density``, ``coverage`` and ``variety``, each with ``_floor`` and
    ``_ceiling``;
    ``memorisation`` (and ``memorisation_features`` for pictures); ``sampling_speed``. Where the modes of the data are
    known, as centres or as labels that the space can tell apart: ``modes`` and ``mode_kl``, for centres also
    ``mode_quality``. For a conditional model ``condition_accuracy``; it is asked for the labels of random training
    examples, so that its samples have the classes of the data.

    Args:
        model: what is measured, in evaluation mode.
        train: its training data: floor, ceiling, feature network and memorisation.
        held_out: the reference.
        n: samples; no more than there are training examples, so that the floor has as many.
        seed: of all randomness.
        options: sampling options of the model; None for its own.
        precision: of the networks when sampling.
        space: the feature space; None for the one of the training data.
        show: receives lines of progress.
        columns: numbers of the held-out examples whose columns (captions) and labels the samples are given; None gives
            them labels of training examples alone.

    Raises:
        UsageError: there are too few examples, or ``n`` is too small.
        NonFiniteError: samples or their features are not finite; no number is returned.
    """
    if words := too_few(n, train, held_out):
        raise UsageError(words)
    space = feature_space(train, show=show) if space is None else space
    count = min(n, len(train))
    # in random order: a set may be sorted by class, and some metrics take the first of each kind
    batch = train.batch(generator(seed, "floor").permutation(len(train))[:count].astype(np.int64))
    ids = generator(seed, "reference").permutation(len(held_out)).astype(np.int64)
    wanted = model.accepts().get("label")
    classes = wanted.classes if isinstance(wanted, LabelSpec) else ()
    wishes = batch if columns is None else held_out.batch(columns)
    asked = wishes.label if classes else None
    given = {} if columns is None else {k: v for k, v in wishes.extra.items() if k in model.accepts()}
    drawn = draw(
        model,
        len(wishes),
        seed=seed,
        options=options,
        condition=asked,
        given=given,
        precision=precision,
        show=show,
    )
    reference = see_data(space, held_out, ids)
    compare = Comparison(reference.features, held_out.name, space, seed, show)
    count_modes = mode_counter(train, space, seed)
    sets = {
        "": (drawn.x, "samples"),
        "_floor": (batch.x.cpu(), "real training examples"),
        "_ceiling": (trivial(batch.x.cpu(), seed), "trivial examples"),
    }
    out: dict[str, Metric] = {}
    seen: dict[str, Seen] = {}
    for suffix, (x, what) in sets.items():
        seen[suffix] = see_all(space, x)
        found = compare(seen[suffix].features, what) | (
            {} if count_modes is None else count_modes(x, seen[suffix], what)
        )
        out |= {name + suffix: metric for name, metric in found.items()}
        out |= _variety(suffix, seen[suffix].features, reference.features, what, seed)
    if asked is not None and tuple(space.classes) == classes:  # by name: a number may mean another class
        real = labels_of(held_out, ids)
        out |= _accuracy("", seen[""], asked, "samples taken for the class asked for", space, seed)
        out |= _accuracy("_floor", reference, real, "held-out examples taken for their own class", space, seed)
        out |= _accuracy("_ceiling", seen["_ceiling"], asked, "trivial examples taken for such a class", space, seed)
    copies, nearest, nearest_features = _memorisation(drawn.x, seen[""], train, held_out, ids, reference, space, seed)
    out |= copies
    out["sampling_speed"] = speed(model, drawn, precision, seed)
    if settings := settings_of(model, options):
        out = {k: m if k.endswith(("_floor", "_ceiling")) else said(m, settings) for k, m in out.items()}
    return Measured(out, drawn, nearest, nearest_features)


def too_few(n: int, train: Dataset, held_out: Dataset, least: int = LEAST) -> str:
    """Why there is too little to measure samples with, and what to do; empty where there is enough."""
    if min(n, len(train), len(held_out)) >= least:
        return ""
    return (
        f"Measuring samples takes at least {least} of them, of training and of held-out examples; there are "
        f"{n}, {len(train)} and {len(held_out)}. Leave samples out with --drawn 0 (in Python: drawn=0)."
    )


def speed(model: Generator, drawn: Drawn, precision: Precision, seed: int, at_once: int = AT_ONCE) -> Metric:
    """How many samples a second were drawn."""
    where = f"{model.device.type}, {counted(torch.get_num_threads(), 'thread')}, {precision}"
    detail = f"batches of {at_once} on {where}, {drawn.seconds:.3g} s in all"
    n = len(drawn.examples)
    return Metric(n / drawn.seconds, "samples/s", "wall-clock", n, seed, None, detail)


def _variety(suffix: str, features: Tensor, reference: Tensor, what: str, seed: int) -> dict[str, Metric]:
    """How much examples differ among each other, beside how much held-out ones do; near 0 where all are alike."""
    mine, real = (float(torch.pdist(f[:VARIED].double()).mean()) for f in (features, reference))
    if not real > 0:
        return {}
    n = min(VARIED, len(features))
    kind = "ratio of mean distances between two examples, over those of held-out ones"
    return {"variety" + suffix: Metric(mine / real, "ratio", kind, n, seed, None, f"{n} {what}")}


def _accuracy(
    suffix: str, seen: Seen, wanted: Tensor | None, what: str, space: FeatureSpace, seed: int
) -> dict[str, Metric]:
    """Share of examples that the space takes for the class wanted."""
    if seen.labels is None or wanted is None:
        return {}
    right = (seen.labels == wanted.cpu()).double().numpy()
    detail = f"{what}; {space.describe()}"
    return {"condition_accuracy" + suffix: mean_metric(right, "share", "share; interval: bootstrap", seed, detail)}


def settings_of(model: Generator, options: Sampling | None) -> str:
    """The sampling options that are not the model's own, in words; empty where all are."""
    if options is None:
        return ""
    found = differences(to_json(model.SampleOptions()), to_json(options))
    return (
        "sampling options " + ", ".join(f"{line.split(':')[0]} = {line.rsplit(' against ', 1)[-1]}" for line in found)
        if found
        else ""
    )


def said(metric: Metric, words: str) -> Metric:
    """The same measurement with more words at the end of its detail."""
    detail = "; ".join(part for part in (metric.detail, words) if part)
    return Metric(metric.value, metric.unit, metric.kind, metric.n, metric.seed, metric.interval, detail)


def _memorisation(
    x: Tensor,
    seen: Seen,
    train: Dataset,
    held_out: Dataset,
    ids: np.ndarray,
    reference: Seen,
    space: FeatureSpace,
    seed: int,
) -> tuple[dict[str, Metric], Nearest, Nearest | None]:
    """Ratios of nearest distances, and the nearest training examples, in their own units and in features."""
    everything = np.arange(len(train), dtype=np.int64)
    known = see_data(space, train, everything).features
    by_features = memorisation.nearest_vectors(seen.features[:COPIES], known)
    held_features = memorisation.nearest_vectors(reference.features[:COPIES], known)
    if isinstance(space, Coordinates):
        found = {"memorisation": (by_features, held_features, "coordinates")}
        near, near_features = by_features, None
    else:
        held = held_out.batch(ids[:COPIES]).x
        near, real = (Nearest(d[:, 0], i[:, 0]) for d, i in (pictures.nearest(y, train) for y in (x[:COPIES], held)))
        found = {
            "memorisation": (near, real, "pixels"),
            "memorisation_features": (by_features, held_features, space.describe()),
        }
        near_features = by_features
    out: dict[str, Metric] = {}
    for name, (mine, theirs, where) in found.items():
        ratio = memorisation.distance_ratio(mine.distance, theirs.distance, seed=seed)
        if ratio is not None:
            kind = (
                "ratio of median distances to the nearest training example, samples over held-out; interval: bootstrap"
            )
            detail = (
                f"median {float(mine.distance.median()):.4g} over {len(mine.ids)} samples, "
                f"{float(theirs.distance.median()):.4g} over {len(theirs.ids)} held-out examples; {where}"
            )
            out[name] = Metric(ratio[0], "ratio", kind, len(mine.ids), seed, ratio[1], detail)
    return out, near, near_features
