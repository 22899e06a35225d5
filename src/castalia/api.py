"""The verbs in Python; the command line is a thin layer over them."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from castalia import fitting, recipes
from castalia.catalogue import entry
from castalia.configuration import Recipe
from castalia.core.config import to_json
from castalia.core.data import Dataset
from castalia.core.errors import UsageError
from castalia.core.files import write_bytes
from castalia.core.guest import guest
from castalia.core.model import Generator
from castalia.drawing import (
    SAMPLES_AT_ONCE,
    at_once,
    draw,
    fitted_prior,
    generator,
    sample,
    sampling_options,
    save,
)
from castalia.making import as_settings, make_recipe, source_of
from castalia.media.named import medium_for
from castalia.media.rooms import medium_of
from castalia.opening import load, open_data, still_there, training_data
from castalia.runs import Run

if TYPE_CHECKING:
    from castalia.recipes.preset import Preset

__all__ = [
    "DRAWN",
    "DRAWN_ALONE",
    "SAMPLES_AT_ONCE",
    "at_once",
    "config_json",
    "draw",
    "evaluate",
    "fitted_prior",
    "generator",
    "load",
    "make_recipe",
    "open_data",
    "sample",
    "sampling_options",
    "save",
    "train",
    "training_data",
]

DRAWN = 1_000
"""Samples that are measured where nobody says how many."""

DRAWN_ALONE = 64
"""The same of media that are not compared in a feature space: each is long to make, and a mean needs few."""


def train(
    model: str | None = None,
    data: str | Any = None,
    out: str | Path = "runs/latest",
    *,
    recipe: str | None = None,
    resume: bool = False,
    quiet: bool = False,
    shard: bool = False,
    tensor: int = 1,
    classes: bool | None = None,
    **changes: Any,
) -> Run:
    """Train a model and return its run. ``changes`` are those of :func:`make_recipe`, or settings as keywords.

    Without a recipe, and with data for which the system has no recipe of their own, the preset that fits the data and
    the time is taken (:mod:`castalia.fitting`), ten minutes where nobody says how long.

    Args:
        model: name in the catalogue; may be left out where ``recipe`` is given.
        data: named set or path, or a data frame of pandas, which is kept beside the run, as ``OUT.parquet``; may be
            left out where ``recipe`` is given.
        out: the run folder.
        recipe: name of a recipe.
        resume: go on with the run in ``out``.
        quiet: nothing on the terminal.
        shard: cut weights, averages and moments up among the processes that ``torchrun`` started.
        tensor: processes that share each block, of systems that can (``gpt2``, ``gpt3``, ``gpt-modern``).
        classes: learn the classes of the data; None: where they have some, the system can, and no recipe is named.
        **changes: those of :func:`make_recipe`; or names of settings (``lr=0.1`` for ``training.lr``).

    Example:
        ``castalia.train("vae", "digits", "runs/digits", steps=300)``
    """
    began = time.monotonic()
    from castalia.training.loop import train as run_loop

    changes = as_settings(model, recipe, changes)
    if data is not None and not isinstance(data, str):
        data = _kept(data, Path(out))
    continued = resume and (Path(out) / "config.json").exists()
    said: tuple[str, ...] = ()
    opened: Dataset | None = None
    if continued and model is None and recipe is None and not any(changes.values()):
        made = load(out).recipe  # `castalia train --resume --out RUN` needs nothing else, but where its data are now
        if data is not None:
            made = replace(made, data=replace(made.data, source=source_of(data)))
    elif found := _presets(model, data, recipe):
        if changes.get("steps") is None and changes.get("minutes") is None:
            changes["minutes"] = fitting.USUAL_MINUTES
        own = list(changes.pop("settings", ()))

        def preset(name: str, first: Sequence[str]) -> Recipe:
            return make_recipe(model, data, recipe=name, settings=[*first, *own], **changes)

        if continued:
            made = fitting.chosen_before(found, preset, load(out).recipe)
        else:
            sized = changes.get("size") is not None
            fitted = fitting.fit(found, preset, training_data, classes=classes, sized=sized)
            made, opened, said = fitted.recipe, fitted.data, fitted.said
    else:
        made = make_recipe(model, data, recipe=recipe, **changes)
        if classes is not None:
            raise UsageError(
                "--classes and --no-classes are for presets, and here a recipe is taken as it stands. Its own word for "
                f"it is a setting of {made.model}: --set config...; castalia models {made.model} lists recipes."
            )
    if opened is None:
        with still_there(made.data.source if continued else ""):
            opened = training_data(made)
    return run_loop(
        made, opened, Path(out), resume=resume, quiet=quiet, shard=shard, tensor=tensor, said=said, began=began
    )


def _kept(data: Any, out: Path) -> str:
    """The path of what is not a name: as it is, or a file with the data frame, as a run opens its data again by path.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(data, Path):
        return str(data)
    if not hasattr(data, "to_parquet"):
        raise UsageError(f"data is a named set, a path or a data frame of pandas, not {type(data).__name__}.")
    packed, path = io.BytesIO(), out.with_name(f"{out.name}.parquet")
    data.to_parquet(packed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, packed.getvalue())
    return str(path)


def _presets(model: str | None, data: str | None, recipe: str | None) -> tuple[Preset, ...]:
    """The presets among which to choose, where the person leaves that to us."""
    if model is None or data is None or recipe is not None:
        return ()
    return recipes.presets(model, data, medium_for(data, entry(model).media).name)


@guest()
def evaluate(run: Run | str | Path, data: str | None = None, *, split: str = "test", **options: Any) -> dict[str, Any]:
    """Measure a run and store the results in it; options are those of ``castalia evaluate``.

    Args:
        run: the run, or its folder.
        data: named set or path; None takes the one that it was trained on.
        split: which part.
        **options: ``samples``, ``refine``, ``limit``, ``seed``, ``baselines``, ``drawn`` (number of samples to draw and
            measure; None: as many as are usual, or none and a warning where the data are too few), ``options`` (how to
            draw them: texts ``name=value`` or the model's ``SampleOptions``),
            ``precision`` (in which, as for :func:`sample`),
            ``features`` (an ONNX file with a feature network of yours), ``inception`` (the same, and it is the
            Inception network of the FID), ``keep`` and ``progress``; see
            :func:`castalia.evaluation.evaluate.evaluate`.

    Returns:
        ``{"metrics": {name: {value, unit, kind, n, seed, interval, detail}}, "context": {...}}``, as stored in the
        run's ``results.json``.
    """
    from castalia.evaluation import evaluate as measuring
    from castalia.evaluation.measures import COMPARED, too_few

    run = load(run) if not isinstance(run, Run) else run
    held_out = open_data(data or run.recipe.data.source, split=split, like=run)
    seen, drawn = None, options.get("drawn", 0)
    if options.get("baselines") or drawn != 0:
        try:
            seen = open_data(run.recipe.data.source, split=run.recipe.data.split, like=run)
        except UsageError:
            if data is None:
                raise
            seen = open_data(data, split="train", like=run)
            gone = run.recipe.data.source
            warnings.warn(
                f"The training data {gone} are gone; the training split of {data} stands for them.", stacklevel=2
            )
    model, chosen = run.model()[0], options.pop("options", None)
    if drawn is None:
        usual = DRAWN if medium_of(run.spec).name in COMPARED else DRAWN_ALONE
        words = too_few(usual, seen, held_out) if seen is not None and isinstance(model, Generator) else ""
        if words:  # nobody asked for them: what can be measured is not lost for it
            warnings.warn(f"Samples were not measured. {words}", stacklevel=2)
        options["drawn"] = 0 if words else usual
    chosen = sampling_options(model, chosen) if isinstance(model, Generator) else None
    own, inception = options.pop("features", None), options.pop("inception", None)
    if own or inception:
        from castalia.evaluation.user_features import UserFeatures

        options["space"] = UserFeatures(Path(inception or own), inception=bool(inception))
    options["options"] = chosen
    options["precision"] = run.precision(model.device, options.get("precision", "auto"))
    started = time.perf_counter()
    metrics = measuring.evaluate(run, held_out, split=split, train=seen, **options)
    seconds = time.perf_counter() - started
    sampling = None
    if options.get("drawn"):
        space = options.get("space")
        sampling = {
            "options": to_json(chosen),
            "precision": options["precision"],
        }
        if medium_of(run.spec).name in COMPARED:
            sampling["features"] = "of the training data" if space is None else space.name
    context = measuring.context(run, held_out, metrics, split=split, seconds=seconds, sampling=sampling)
    return measuring.record(run, metrics, context)


def config_json(run: Run) -> dict[str, Any]:
    """The run's model configuration as JSON-able data, for the recipe stored with each picture."""
    return to_json(run.config)
