"""What is well and what is wrong with a run, in sentences: for the terminal, the model card and pages.

Nothing is measured here. The sentences follow from what is written in the run: its plan, its log, its results.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from castalia.core.errors import CastaliaError
from castalia.core.spec import LabelSpec
from castalia.runs import Run

Metrics = Mapping[str, Mapping[str, Any]]

WORDS = {"floor": "real data", "ceiling": "trivial model"}
"""How the bounds of a measure are called: what real examples get, and what a model that knows nothing gets."""

HIGHER = ("precision", "recall", "density", "coverage", "modes", "mode_quality", "condition_accuracy", "psnr",
          "sampling_speed", "likelihood_speed", "variety", "eq_t", "eq_r")  # fmt: skip
LOWER = ("frechet", "fid", "kernel", "energy", "sliced", "mode_kl", "nll", "bits_per_", "nats_per_", "mse")

ALIKE = 0.3
"""Samples whose mutual distances are this share of real ones' show the same again and again."""

HEED = 0.15
"""Share of the way from chance to always right above which a model heeds the class that is asked for."""

FEW = 300
"""Fewer training examples than these teach a network of any size little."""

EARLY = 0.95
"""Share of its plan that a run should have done."""

TELLING = 3.0
"""A feature space tells something if a trivial model lies this many times as far from the data as real examples."""

NEAR = ((0.05, "very near to real examples"), (0.2, "near to real examples"), (0.5, "half-way"))
"""Share of the way to a trivial model's distance, and what one may call it."""


def better(name: str) -> int:
    """Whether more of a metric is better (1), less (-1), or neither can be said (0)."""
    if name.startswith("baseline_"):
        return 0
    if name.startswith(HIGHER):
        return 1
    return -1 if name.startswith(LOWER) else 0


def verdict(metrics: Metrics) -> str:
    """One line on measurements; empty where there is nothing to say."""
    said = [*_distance(metrics), *_classes(metrics), *_likelihood(metrics)]
    return "; ".join(said)[:1].upper() + "; ".join(said)[1:] + "." if said else ""


def lines(run: Run, metrics: Metrics) -> list[str]:
    """The verdict, then what to know before trusting it, each a line."""
    said = verdict(metrics)
    return [*([f"Verdict: {said}"] if said else []), *(f"Beware: {text}" for text in warnings_of(run, metrics))]


def _distance(metrics: Metrics) -> list[str]:
    name = next((name for name in ("fid", "frechet") if f"{name}_ceiling" in metrics and name in metrics), None)
    if name is None:
        return []
    mine, real, trivial = (metrics[name + end]["value"] for end in ("", "_floor", "_ceiling"))
    share = (mine - real) / max(trivial - real, 1e-12)
    words = next((words for most, words in NEAR if share <= most), "nearer to a trivial model than to real examples")
    return [f"samples are {words} ({name} {mine:.3g}; real data {real:.3g}, trivial model {trivial:.3g})"]


def _classes(metrics: Metrics) -> list[str]:
    right = metrics.get("condition_accuracy")
    if right is None:
        return []
    chance = metrics.get("condition_accuracy_ceiling", {}).get("value")
    beside = "" if chance is None else f" (trivial model {100 * chance:.0f} %)"
    return [f"{100 * right['value']:.0f} % show the class asked for{beside}"]


def _likelihood(metrics: Metrics) -> list[str]:
    mine = metrics.get("bits_per_dim")
    others = [m["value"] for name, m in metrics.items() if name.startswith("baseline_") and "bits_per_dim" in name]
    if mine is None or not others:
        return []
    gain = 1 - mine["value"] / min(others)
    return [f"{100 * abs(gain):.0f} % {'fewer' if gain > 0 else 'more'} bits than the best simple model"]


def warnings_of(run: Run, metrics: Metrics | None = None) -> list[str]:
    """What a person should know before trusting a run, gravest first; empty where all is well."""
    found = [*_unfinished(run), *_collapsed(metrics or {}), *_disobeyed(run, metrics or {})]
    return [*found, *_copies(metrics or {}), *_blind(metrics or {})]


def _unfinished(run: Run) -> list[str]:
    try:
        done, steps = run.steps_done(), run.planned()
    except CastaliaError:
        return []
    if steps is None or not done or done >= EARLY * steps:
        return []
    return [
        f"It was stopped after {done:,} of {steps:,} planned steps, before its learning rate had fallen: --resume "
        "goes on."
    ]


def _collapsed(metrics: Metrics) -> list[str]:
    variety = metrics.get("variety")
    if variety is None or variety["value"] >= ALIKE:
        return []
    return [
        f"Its samples are nearly all alike: they differ by {100 * variety['value']:.0f} % of what real examples do. It "
        "has collapsed; another seed, a lower rate or a stronger penalty may help, and it wants more data."
    ]


def _disobeyed(run: Run, metrics: Metrics) -> list[str]:
    right, label = metrics.get("condition_accuracy"), run.spec.sides().get("label")
    if right is None or not isinstance(label, LabelSpec):
        return []
    chance = 1 / max(len(label.classes), 1)
    if right["value"] > chance + HEED * (1 - chance):
        return []
    return [f"It does not heed classes: {100 * right['value']:.0f} % are right, and {100 * chance:.0f} % by chance."]


def _copies(metrics: Metrics) -> list[str]:
    near = metrics.get("memorisation_features") or metrics.get("memorisation")
    if near is None or near["value"] >= 0.5:
        return []
    return ["Its samples are much nearer to training examples than other real examples are: it may be copying them."]


def _blind(metrics: Metrics) -> list[str]:
    real, trivial = metrics.get("frechet_floor"), metrics.get("frechet_ceiling")
    if real is None or trivial is None or trivial["value"] >= TELLING * real["value"]:
        return []
    return [
        "The feature space hardly tells real examples from a trivial model's: distances in it say little here. Data "
        "with classes, or a network of yours (--features), make a better one."
    ]


def few_examples(count: int) -> list[str]:
    """A sentence where a training set is small."""
    if count >= FEW:
        return []
    return [f"There are only {count:,} training examples: expect copies of them, or little else. Some thousands help."]
