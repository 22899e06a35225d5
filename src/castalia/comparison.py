"""Runs side by side on the same data: one page with pictures, numbers, curves and plots.

Every number of a row is measured on the same held-out examples, in the same feature space and with as many samples;
beside the runs stand the floor (real examples against real ones) and the ceiling (a trivial baseline).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from castalia import api, checkpoints, health
from castalia.catalogue import CATALOGUE
from castalia.configuration import medium_of
from castalia.core.config import to_json
from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.core.model import Generator
from castalia.core.precision import Precision
from castalia.core.sampling import Sampling
from castalia.core.specs.image import ImageSpec
from castalia.estimators.distances import frechet
from castalia.estimators.metric import subset
from castalia.estimators.progress import Show
from castalia.evaluation.drawn import Measured
from castalia.evaluation.evaluate import check_fits, hardware
from castalia.evaluation.feature_network import feature_space
from castalia.evaluation.features import FeatureSpace, see_all, see_data
from castalia.evaluation.measures import COMPARED
from castalia.media.image.write import png_bytes
from castalia.page import Page
from castalia.runs import Run

STEPS = (5, 10, 20, 50, 100, 250)
"""Numbers of sampling steps that are tried with models that sample in steps."""

DRAWN = 2_000
"""Samples of each run where nobody says how many."""

PLOTTED = 1_000
"""Samples behind each point of a plot, where no fewer are asked for."""

NEIGHBOURS = 16
"""Samples that are shown above their nearest training examples."""


@dataclass(frozen=True)
class Point:
    """One point of a plot.

    Attributes:
        x: seconds per sample, or minutes of training.
        frechet: Fréchet distance to the held-out examples.
        note: what was varied: sampling steps, or training steps.
    """

    x: float
    frechet: float
    note: int


@dataclass(frozen=True)
class Side:
    """One run of a comparison.

    Attributes:
        name: of the run, unique on the page.
        run: the run.
        weights: step and digest of its weights.
        results: what ``castalia evaluate`` gives: ``{"metrics": ..., "context": ...}``.
        picture: PNG of some samples.
        nearest: PNG of samples and, below each, the training example nearest to it; None for points.
        by_steps: Fréchet distance against sampling time; one point for a model without steps.
        by_training: Fréchet distance against training time, one point for each checkpoint that was kept.
    """

    name: str
    run: Run
    weights: str
    results: Mapping[str, Any]
    picture: bytes
    nearest: bytes | None
    by_steps: Sequence[Point]
    by_training: Sequence[Point]


def compare(
    paths: Sequence[str | Path],
    *,
    data: str | None = None,
    split: str = "test",
    drawn: int | None = None,
    samples: int = 100,
    limit: int | None = None,
    seed: int = 0,
    plots: bool = True,
    show: Show | None = None,
) -> list[Side]:
    """Measure runs on the same data.

    Args:
        paths: run folders, at least one.
        data: named set or path; None takes the data of the first run.
        split: which part they are measured on.
        drawn: samples of each run; None for 2,000 of what is compared in a feature space, and few of what is not.
        samples: importance samples per example, for likelihoods that are bounds.
        limit: likelihoods of only so many random examples.
        seed: of all randomness.
        plots: also vary the number of sampling steps, and measure the checkpoints that were kept.
        show: receives lines of progress.

    Raises:
        UsageError: the runs make examples of different shapes, or an option makes no sense.
    """
    if not paths:
        raise UsageError("Name at least one run to compare.")
    runs = [api.load(path) for path in paths]
    source = data or runs[0].recipe.data.source
    real_data = api.open_data(source, split=split, like=runs[0])
    train = api.open_data(source, split="train", like=runs[0])
    space, real = None, None
    medium = medium_of(runs[0].spec)
    compared = medium.name in COMPARED
    for run in runs:
        if type(run.spec) is not type(runs[0].spec):
            other = medium_of(run.spec).name
            raise UsageError(
                f"{runs[0].path} makes {medium.name}, and {run.path} makes {other}: they cannot be compared."
            )
        if compared:
            check_fits(
                run, real_data
            )  # of other media each run reads the data its own way: other tokens, other lengths
    if drawn is None:
        drawn = DRAWN if compared else api.DRAWN_ALONE
    if compared:  # samples of other media have numbers, and no distance to plot
        space = feature_space(train, show=show)
        ids = subset(len(real_data), min(drawn, PLOTTED), seed, "plotted")
        real = see_data(space, real_data, ids).features
    sides = []
    for name, run in zip(_names(runs), runs, strict=True):
        if show is not None:
            show(f"{name}: measuring")
        measured: list[Measured] = []
        results = api.evaluate(
            run,
            source,
            split=split,
            drawn=drawn,
            samples=samples,
            limit=limit,
            seed=seed,
            progress=show,
            keep=measured.append,
        )
        model, weights = api.generator(run), run.model()[1]
        medium = medium_of(run.spec)
        precision = run.precision(model.device)
        picture = png_bytes(medium.picture(api.draw(model, medium.shown, seed=seed, precision=precision), run.spec))
        steps, training = [], []
        if plots and space is not None and real is not None:
            plotter = _Plotter(space, real, seed, precision, name, show)
            steps, training = plotter.by_steps(model), plotter.by_training(run)
        copies = _nearest(measured[0], train) if measured and isinstance(run.spec, ImageSpec) else None
        sides.append(Side(name, run, weights, results, picture, copies, steps, training))
    return sides


def _nearest(measured: Measured, train: Dataset) -> bytes:
    """Samples, and below each the training example nearest to it by features."""
    near = measured.nearest_features or measured.nearest
    assert near is not None
    found = near.ids[:NEIGHBOURS]
    samples = measured.drawn.x[: len(found)]
    neighbours = train.batch(found.numpy()).x
    return png_bytes(medium_of(train.spec).picture(Batch.of(torch.cat([samples, neighbours])), train.spec, len(found)))


class _Plotter:
    """Fréchet distances of many variants, all against the same held-out features (N, F), with N samples."""

    def __init__(
        self, space: FeatureSpace, real: Tensor, seed: int, precision: Precision, name: str, show: Show | None
    ) -> None:
        self.space, self.real, self.name, self.show = space, real, name, show
        self.seed = seed
        self.precision: Precision = precision

    def point(self, model: Generator, options: Sampling, note: int, x: float | None = None) -> Point:
        """Draw and measure; without ``x`` it is the seconds that a sample took."""
        started = time.perf_counter()
        drawn = api.draw(model, len(self.real), seed=self.seed, options=options, precision=self.precision)
        seconds = (time.perf_counter() - started) / len(self.real)
        distance = frechet(see_all(self.space, drawn.x).features, self.real).value
        return Point(seconds if x is None else x, distance, note)

    def by_steps(self, model: Generator) -> list[Point]:
        """Models whose options have a field ``steps`` are tried with up to 50, or with as many as is usual for them."""
        usual = model.SampleOptions()
        if not any(f.name == "steps" for f in fields(usual)):
            return [self.point(model, usual, 1)]
        most = max(self.steps_of(usual), 50)
        points = []
        for steps in [s for s in STEPS if s <= most]:
            self.say(f"{steps} sampling steps")
            points.append(self.point(model, replace(usual, steps=steps), steps))  # pyright: ignore[reportCallIssue]
        return points

    @staticmethod
    def steps_of(options: Sampling) -> int:
        """The default number of steps."""
        return int(to_json(options)["steps"])

    def by_training(self, run: Run) -> list[Point]:
        """One point for each checkpoint that was kept."""
        points = []
        for found in checkpoints.intact(run.checkpoints):
            self.say(f"checkpoint {found.step:,}")
            model, _ = run.model(at=found)
            assert isinstance(model, Generator)
            minutes = float(found.state().get("seconds", 0.0)) / 60
            points.append(self.point(model, model.SampleOptions(), found.step, x=minutes))
        return points

    def say(self, text: str) -> None:
        """A line of progress."""
        if self.show is not None:
            self.show(f"{self.name}: {text}")


def _names(runs: Sequence[Run]) -> list[str]:
    """The folders' names, numbered where two are alike."""
    names: list[str] = []
    for run in runs:
        name, number = run.path.resolve().name, 2
        while name in names:
            name, number = f"{run.path.resolve().name} ({number})", number + 1
        names.append(name)
    return names


def report(sides: Sequence[Side]) -> dict[str, Any]:
    """The comparison as plain values: ``{"runs": {name: {model, weights, metrics, by_steps, by_training}}, ...}``."""
    context = dict(sides[0].results["context"])
    for private in ("weights", "seconds"):
        context.pop(private, None)
    return {
        "runs": {
            side.name: {
                "model": side.run.recipe.model,
                "weights": side.weights,
                "metrics": side.results["metrics"],
                "by_steps": [vars(point) for point in side.by_steps],
                "by_training": [vars(point) for point in side.by_training],
            }
            for side in sides
        },
        "context": context,
    }


def held_out(sides: Sequence[Side], data: str | None, split: str) -> Dataset:
    """The examples that the runs were measured on."""
    run = sides[0].run
    return api.open_data(data or run.recipe.data.source, split=split, like=run)


def page(sides: Sequence[Side], real: Dataset | None = None) -> Page:
    """The comparison as one self-contained page."""
    context = sides[0].results["context"]
    made = Page("Comparison: " + ", ".join(side.name for side in sides))
    made.text(
        f"All runs are measured on the {context['split']} split of {context['data']}, on {hardware()}. Each metric "
        "carries its number of samples, seed and feature space in the details below."
    )
    made.section("At a glance")
    for side in sides:
        said = " ".join(health.lines(side.run, side.results["metrics"])) or "Nothing was measured that one could judge."
        made.text(f"{side.name} ({CATALOGUE[side.run.recipe.model].title}, {side.weights}). {said}")
    figures = [(side.picture, side.name) for side in sides]
    if real is not None:
        medium = medium_of(real.spec)
        some = real.batch(np.arange(min(medium.shown, len(real))))
        figures.insert(0, (png_bytes(medium.picture(some, real.spec)), f"held-out examples of {context['data']}"))
    made.section("Samples").gallery(figures)
    made.section("Numbers")
    made.metrics({side.name: side.results["metrics"] for side in sides})
    _likelihoods(made, sides)
    if any(side.by_steps for side in sides):
        made.section("Quality against sampling time")
        made.curve(
            {side.name: [(1000 * p.x, p.frechet) for p in sorted(side.by_steps, key=lambda p: p.x)] for side in sides},
            "milliseconds per sample",
            "Fréchet distance",
            "Systems that sample in steps were asked for " + ", ".join(map(str, _all_steps(sides))) + " steps.",
            log=True,
        )
    if any(len(side.by_training) > 1 for side in sides):
        made.section("Quality against training time")
        made.curve(
            {side.name: [(p.x, p.frechet) for p in side.by_training] for side in sides},
            "minutes of training",
            "Fréchet distance",
            "One point for each checkpoint that was kept (training.keep).",
            log=True,
        )
    made.section("Details")
    if any(side.nearest for side in sides):
        made.fold("Copies?")
        made.text("Samples, and below each the training example that is nearest to it in the feature space.")
        made.gallery([(side.nearest, side.name) for side in sides if side.nearest]).unfold()
    made.fold("Training curves")
    for side in sides:
        if losses := side.run.losses():
            made.curve(losses, "step", "loss", side.name)
    made.unfold().fold("What each number is")
    detail = [
        (side.name, name, m["unit"], m["kind"], m["n"], m["seed"], m["detail"])
        for side in sides
        for name, m in side.results["metrics"].items()
    ]
    return made.table(("run", "metric", "unit", "kind", "n", "seed", "detail"), detail).unfold()


def _likelihoods(made: Page, sides: Sequence[Side]) -> None:
    """A table in which every likelihood says what it is, and likelihoods against what they cost."""
    known = [side for side in sides if "nll" in side.results["metrics"]]
    if not known:
        return
    rows, cost, effort = [], {}, {}
    for side in known:
        metrics = side.results["metrics"]
        m = next(metrics[name] for name in ("bits_per_dim", "nll") if name in metrics)
        interval = f"{m['interval'][0]:.4g} to {m['interval'][1]:.4g}" if m["interval"] else None
        events = metrics["nll"]["detail"].rsplit("; ", 1)[-1] or "as they are"
        each = 1000 / metrics["likelihood_speed"]["value"] if "likelihood_speed" in metrics else None
        rows.append((side.name, m["value"], m["unit"], interval, m["kind"], events, m["n"], each))
        seconds = next((line["seconds"] for line in reversed(side.run.metrics()) if "seconds" in line), None)
        label = f"{side.name}, {m['unit']}"
        if "sampling_speed" in metrics:
            cost[label] = [(1000 / metrics["sampling_speed"]["value"], m["value"])]
        if seconds:
            effort[label] = [(seconds / 60, m["value"])]
    made.section("Likelihoods")
    header = ("run", "value", "unit", "95 %", "kind", "of what", "examples", "ms each")
    made.table(header, rows, "Only numbers of the same unit and of the same events (of what) can be compared.")
    if len(known) > 1:
        made.curve(cost, "milliseconds per sample", "likelihood, less is better", "What drawing costs.", log=True)
        made.curve(effort, "minutes of training", "likelihood, less is better", "What training costs.", log=True)


def _all_steps(sides: Sequence[Side]) -> list[int]:
    return sorted({p.note for side in sides if len(side.by_steps) > 1 for p in side.by_steps})
