"""Which measures a run's samples get, and running them.

A medium brings its own (:attr:`castalia.media.base.Medium.measures`): what is said of sound or text with the examples
alone, in its room. What compares samples in a feature space cannot stand there: the space may be a network that is
trained on the data, or a user's, and is the business of this floor. Media that are measured so are in one literal table
here, by name. A medium may have both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from castalia.core.data import Dataset, labels_of
from castalia.core.errors import UsageError
from castalia.core.model import CAPABILITIES, Generator
from castalia.core.precision import Precision
from castalia.core.sampling import Sampling
from castalia.core.spec import LabelSpec, Spec
from castalia.estimators.metric import Metric, generator, subset
from castalia.estimators.progress import Show
from castalia.evaluation import drawn, equivariance
from castalia.evaluation.drawn import AT_ONCE, LEAST, Measured, measure_samples
from castalia.evaluation.features import FeatureSpace
from castalia.media.base import Measure, Medium, Work
from castalia.media.rooms import medium_of

COMPARED: Mapping[str, Callable[..., Measured]] = {
    "image": measure_samples,
    "points": measure_samples,
}
"""Media whose samples are drawn and compared in a feature space."""

FEWEST = 2
"""Samples, training and held-out examples that the measures of other media need at least."""

NUMBERS_AT_ONCE = AT_ONCE * 3 * 64 * 64
"""Numbers that other media draw at once, at most."""

BOUNDS = ("_floor", "_ceiling")


def measured_by(spec: Spec, name: str) -> bool:
    """Whether a metric is one of samples of this medium."""
    for bound in BOUNDS:
        name = name.removesuffix(bound)
    return (
        drawn.is_of_samples(name)
        or name in equivariance.NAMES
        or any("samples" in measure.needs and _belongs(name, measure) for measure in medium_of(spec).measures)
    )


def too_few(n: int, train: Dataset, held_out: Dataset) -> str:
    """Why there is too little to measure samples with, and what to do; empty where there is enough."""
    compared = medium_of(held_out.spec).name in COMPARED
    return drawn.too_few(n, train, held_out, LEAST if compared else FEWEST)


def measure(
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
) -> Measured:
    """Draw samples and measure what their medium can say of them.

    Args:
        model: what is measured, in evaluation mode.
        train: its training data.
        held_out: real examples that it has not seen: what samples are compared with, or the floor beside them.
        n: samples; no more than there are training examples.
        seed: of all randomness.
        options: sampling options of the model; None for its own.
        precision: of the networks when sampling.
        space: the feature space, for media that are compared in one; None for the one of the training data.
        show: receives lines of progress.

    Raises:
        UsageError: there are too few examples, ``n`` is too small, or a space is given for a medium that has no use for
            one.
        NonFiniteError: samples, or what is measured of them, are not finite; no number is returned.
    """
    medium = medium_of(model.spec)
    if words := too_few(n, train, held_out):
        raise UsageError(words)
    asked = columns_asked(model, held_out, n, seed)
    if compare := COMPARED.get(medium.name):
        found = compare(
            model,
            train,
            held_out,
            n=n,
            seed=seed,
            options=options,
            precision=precision,
            space=space,
            show=show,
            columns=asked,
        )
    elif space is not None:
        raise UsageError(f"Samples of the medium {medium.name!r} are not compared in the features of a network.")
    else:
        found = _draw(model, train, held_out, asked, min(n, len(train)), seed, options, precision, show)
    work = Work(model.spec, found.drawn.examples, train, held_out, asked, seed, show)
    more = run_measures(medium, model, work)
    if settings := drawn.settings_of(model, options):
        more = {k: m if k.endswith(BOUNDS) else drawn.said(m, settings) for k, m in more.items()}
    return Measured({**found.metrics, **more}, found.drawn, found.nearest, found.nearest_features)


def columns_asked(model: Generator, held_out: Dataset, n: int, seed: int) -> np.ndarray | None:
    """The held-out examples whose columns samples are to be given, ``int64`` (at most n,), rising; None for none.

    What stands beside held-out examples (a sequence, a caption, a wanted number) and the model accepts, it is given:
    then samples can be told from what they should be, example by example.
    """
    if not any(name in model.accepts() for name, _ in held_out.spec.columns):
        return None
    return subset(len(held_out), n, seed, "asked")


def _draw(
    model: Generator,
    train: Dataset,
    held_out: Dataset,
    asked: np.ndarray | None,
    n: int,
    seed: int,
    options: Sampling | None,
    precision: Precision,
    show: Show | None,
) -> Measured:
    """Samples with the columns of held-out examples, or the classes of the data, and how fast they were."""
    wanted, condition = model.accepts().get("label"), None
    given: dict[str, torch.Tensor] = {}
    if asked is not None:
        batch, n = held_out.batch(asked), len(asked)
        given = {name: batch.extra[name] for name, _ in held_out.spec.columns if name in model.accepts()}
        condition = batch.label if isinstance(wanted, LabelSpec) and wanted.classes else None
    elif isinstance(wanted, LabelSpec) and wanted.classes:
        condition = labels_of(train, generator(seed, "floor").permutation(len(train))[:n].astype(np.int64))
    at_once = max(1, min(AT_ONCE, NUMBERS_AT_ONCE // max(1, model.cost(options or model.SampleOptions()))))
    found = drawn.draw(
        model,
        n,
        seed=seed,
        options=options,
        condition=condition,
        given=given,
        precision=precision,
        at_once=at_once,
        show=show,
    )
    return Measured({"sampling_speed": drawn.speed(model, found, precision, seed, at_once)}, found)


def run_measures(medium: Medium, model: object, work: Work) -> dict[str, Metric]:
    """Every measure of a medium for which there is what it needs.

    Args:
        medium: whose measures.
        model: what is measured; it must have the capabilities that a measure names.
        work: what there is.

    Raises:
        ValueError: a measure needs something that nobody can have, or its metrics do not carry its name.
    """
    out: dict[str, Metric] = {}
    for one in medium.measures:
        if not all(_there(need, model, work) for need in one.needs):
            continue
        if work.show is not None:
            work.show(f"{one.name}: measuring")
        with torch.no_grad():
            found = one.run(work)
        if strange := [name for name in found if not _belongs(name, one)]:
            raise ValueError(f"the measure {one.name!r} of {medium.name} gave a metric called {strange[0]!r}")
        out |= found
    return out


def _there(need: str, model: object, work: Work) -> bool:
    given = {"samples": work.samples, "train": work.train, "held-out": work.held_out}
    if need in given:
        return given[need] is not None
    kinds = {kind.__name__: kind for kind in CAPABILITIES}
    if need not in kinds:
        raise ValueError(f"a measure needs one of {', '.join([*given, *kinds])}, not {need!r}")
    return isinstance(model, kinds[need])


def _belongs(name: str, measure: Measure) -> bool:
    """Whether a metric carries the name of a measure: the name alone, or with a part (``pitch``, ``pitch_spread``)."""
    return name == measure.name or name.startswith(f"{measure.name}_")
