"""The verbs in Python; the command line is a thin layer over them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from castalia import recipes, runs
from castalia.catalogue import entry
from castalia.configuration import MEDIA, Recipe, medium_of
from castalia.core.config import override, to_json
from castalia.core.data import Dataset
from castalia.core.errors import UsageError, near
from castalia.core.model import Config, Inference, Latents, Model, Watch
from castalia.core.precision import Precision, precision_context
from castalia.core.rng import SampleRng
from castalia.media.image.decode import ImageOptions
from castalia.media.named import open_data as _open_data
from castalia.runs import Run

if TYPE_CHECKING:
    from castalia.creative.priors import LatentMixture

__all__ = [
    "evaluate",
    "load",
    "make_recipe",
    "open_data",
    "sample",
    "save_pictures",
    "train",
    "training_data",
]

SAMPLES_AT_ONCE = 256


def make_recipe(
    model: str | None = None,
    data: str | None = None,
    *,
    recipe: str | None = None,
    size: int | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    precision: str | None = None,
    on_bad_file: str | None = None,
    start: str | None = None,
    settings: Sequence[str] = (),
) -> Recipe:
    """Put a recipe together from a name (or the model's default for the data) and changes.

    Args:
        model: name in the catalogue; may be left out where ``recipe`` is given.
        data: named set or path; may be left out where ``recipe`` is given.
        recipe: name of a recipe.
        size: pictures are scaled to this many pixels.
        steps: training steps.
        minutes: training time instead of steps.
        seed: of weights, order and noise.
        precision: ``auto``, ``float32`` or ``bfloat16``.
        on_bad_file: ``error`` or ``skip``.
        start: a finished run of the same network, whose weights this one starts with.
        settings: further changes as ``path.to.field=value`` texts.

    Raises:
        UsageError: an unknown name, or a value of the wrong type.
    """
    if recipe is None:
        if model is None:
            raise UsageError("Say which model to train, or give a --recipe. See: castalia models")
        entry(model)
        if data is None:
            raise UsageError("Say what to train on with --data: a folder, a file or a named set. See: castalia data")
        made = recipes.default(model, data)
    else:
        made = recipes.recipe(recipe)
        if model is not None and entry(model).name != made.model:
            raise UsageError(f"The recipe {recipe!r} is for {made.model!r}, not for {model!r}.")
    if data is not None:
        made = replace(made, data=replace(made.data, source=data))
    if start is not None:
        made = replace(made, parents=(*made.parents, ("start", start)))
    changes: list[str] = []
    for name, value in (
        ("data.image.size", size),
        ("training.steps", steps),
        ("training.minutes", minutes),
        ("training.seed", seed),
        ("training.precision", precision),
        ("data.image.on_bad_file", on_bad_file),
    ):
        if value is not None:
            changes.append(f"{name}={value}")
    config = override(made.config, [s[7:] for s in settings if s.startswith("config.")], "config")
    rest = replace(made, config=config)
    data_changes = [c[5:] for c in [*changes, *settings] if c.startswith("data.")]
    training_changes = [c[9:] for c in [*changes, *settings] if c.startswith("training.")]
    unknown = [s for s in settings if not s.startswith(("config.", "data.", "training."))]
    if unknown:
        raise UsageError(f"--set {unknown[0]}: names start with config., data. or training.")
    return replace(
        rest,
        data=override(rest.data, data_changes, "data"),
        training=override(rest.training, training_changes, "training"),
    )


def open_data(source: str, *, split: str | None = None, image: ImageOptions | None = None) -> Dataset:
    """Open a named set; a folder, a zip, IDX, Parquet or NumPy file of pictures; or a CSV, TSV or NumPy file of points.

    Args:
        source: the name or path.
        split: ``train``, ``test``, ...; a path without splits of its own is cut into nine tenths and one tenth.
            None: the training split, or everything where a path has none; ``all``: likewise.
        image: how to decode pictures; points ignore it.

    Raises:
        DataError: it cannot be read; the text names the file and what is wrong.
        UsageError: there is no such set or path.
    """
    return _open_data(source, image or ImageOptions(), None if split == "all" else split)


def training_data(recipe: Recipe) -> Dataset:
    """Open the data that a recipe trains on.

    Raises:
        UsageError: the data is of a medium that the recipe's model does not make.
    """
    data = open_data(recipe.data.source, split=recipe.data.split, image=recipe.data.image)
    medium, made = medium_of(data.spec).name, entry(recipe.model).media
    if medium not in made:
        raise UsageError(f"{data.name} is of the medium {medium!r}; {recipe.model} makes only {', '.join(made)}.")
    return data


def train(
    model: str | None = None,
    data: str | None = None,
    out: str | Path = "runs/latest",
    *,
    recipe: str | None = None,
    resume: bool = False,
    quiet: bool = False,
    shard: bool = False,
    **changes: Any,
) -> Run:
    """Train a model and return its run. ``changes`` are those of :func:`make_recipe`.

    ``shard`` cuts weights, averages and moments up among the processes that ``torchrun`` started.

    Example:
        ``castalia.train("vae", "digits", "runs/digits", steps=300)``
    """
    from castalia.training.loop import train as run_loop

    continued = resume and (Path(out) / "config.json").exists()
    if continued and model is None and data is None and recipe is None and not any(changes.values()):
        made = load(out).recipe  # `castalia train --resume --out RUN` needs nothing else
    else:
        made = make_recipe(model, data, recipe=recipe, **changes)
    return run_loop(made, training_data(made), Path(out), resume=resume, quiet=quiet, shard=shard)


def load(path: str | Path) -> Run:
    """Open a run folder."""
    return runs.open_run(Path(path))


def sample(
    run: Run | str | Path,
    n: int,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    start: int = 0,
    prior: Literal["trained", "fitted"] = "trained",
    label: int | str | None = None,
    options: Config | Sequence[str] | None = None,
    precision: Precision | Literal["auto"] = "auto",
    watch: Watch | None = None,
) -> Tensor:
    """Draw ``n`` examples in natural units (for pictures ``uint8`` (n, C, H, W)).

    Example number i depends on (seed, i) only: asking for more, or for others, does not change it.

    Args:
        run: the run, or its folder.
        n: how many.
        seed: another seed gives other examples.
        temperature: 1 samples the model; less stays closer to its modes.
        start: number of the first example.
        prior: ``fitted`` draws latents where the encoder puts the training data (a Gaussian mixture fitted now, see
            :mod:`castalia.creative.priors`), which avoids the holes of the trained prior; for models with latents.
        label: the class to draw, by number or name, from a conditional model; None lets the model choose.
        options: how to sample, an instance of the model's ``SampleOptions`` or texts ``name=value``.
        precision: of the networks; ``auto`` is that of the run's training. The arithmetic around them is float32.
        watch: told of every step, for models that sample in steps.

    Raises:
        UsageError: the model has no such class or option.
    """
    run = load(run) if not isinstance(run, Run) else run
    model, _ = run.model()
    mixture = fitted_prior(run, model) if prior == "fitted" else None
    chosen = options if options is None or isinstance(options, Config) else sample_options(model, options)
    return draw(
        model,
        n,
        seed=seed,
        temperature=temperature,
        start=start,
        mixture=mixture,
        label=label,
        options=chosen,
        precision=run.precision(model.device, precision),
        watch=watch,
    )


def sample_options(model: Model, settings: Sequence[str]) -> Config:
    """The model's sampling options with ``name=value`` texts applied.

    Raises:
        UsageError: it has no such option (near matches are listed), or the value is of another type.
    """
    return override(model.SampleOptions(), settings, "sampling options")


def label_of(model: Model, label: int | str | None) -> int | None:
    """The number of a class given by name or number; None stays None.

    Raises:
        UsageError: the model is not conditional, or has no such class.
    """
    if label is None:
        return None
    if not model.classes:
        raise UsageError("This model is not conditional: it was trained without labels, and takes no class.")
    names: tuple[str, ...] = getattr(model.spec, "classes", ())
    if label in names:
        return names.index(str(label))
    text = str(label)
    if not (text.isdecimal() and int(text) < model.classes):
        raise UsageError(f"There is no class {label!r} among the {model.classes} of this model. {near(text, names)}")
    return int(text)


def condition_of(model: Model, label: int | str | None, n: int) -> Tensor | None:
    """Labels ``int64`` (n,) on the model's device that all name one class; None stays None."""
    number = label_of(model, label)
    return None if number is None else torch.full((n,), number, dtype=torch.int64, device=model.device)


def fitted_prior(run: Run, model: Model) -> LatentMixture:
    """Fit a mixture to the latents of the run's training data.

    Raises:
        UsageError: the model has no latents.
    """
    from castalia.creative.priors import fit_mixture

    if not isinstance(model, Inference):
        raise UsageError(f"{run.recipe.model} does not encode examples, so no prior can be fitted to their latents.")
    return fit_mixture(model, open_data(run.recipe.data.source, split="train", image=run_image_options(run)))


def draw(
    model: Model,
    n: int,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    start: int = 0,
    mixture: LatentMixture | None = None,
    label: int | str | None = None,
    options: Config | None = None,
    precision: Precision = "float32",
    watch: Watch | None = None,
) -> Tensor:
    """:func:`sample` for a model, and a fitted prior, that are there already."""
    if n < 1 or start < 0:
        raise UsageError(f"The number of samples must be at least 1 and the first number at least 0, not {n}, {start}.")
    if not math.isfinite(temperature) or temperature < 0:
        raise UsageError(f"The temperature must be a number from 0 up, not {temperature}.")
    parts = []
    for first in range(start, start + n, SAMPLES_AT_ONCE):
        ids = range(first, min(first + SAMPLES_AT_ONCE, start + n))
        rng = SampleRng(seed, ids, model.device)
        condition = condition_of(model, label, len(ids))
        with torch.no_grad(), precision_context(precision, model.device):
            if mixture is not None and isinstance(model, Latents):
                parts.append(model.decode(mixture.sample(rng, temperature).to(model.device), condition).cpu())
            else:
                drawn = model.sample(
                    len(ids), condition, rng=rng, temperature=temperature, options=options, watch=watch
                )
                parts.append(drawn.cpu())
    return torch.cat(parts)


def save_pictures(pictures: Tensor, folder: str | Path) -> list[Path]:
    """Write samples and one overview, ``grid.png``, into a folder; return the paths.

    Pictures, ``uint8`` (n, C, H, W), become ``0000.png`` ...; points, ``float32`` (n, D), the rows of ``points.csv``.
    """
    medium = MEDIA["points" if pictures.is_floating_point() else "image"]
    paths = medium.write(pictures, Path(folder))
    medium.draw(pictures, Path(folder) / "grid.png")
    return [*paths, Path(folder) / "grid.png"]


def evaluate(run: Run | str | Path, data: str | None = None, *, split: str = "test", **options: Any) -> dict[str, Any]:
    """Measure a run and store the results in it; options are those of ``castalia evaluate``.

    Args:
        run: the run, or its folder.
        data: named set or path; None takes the one that it was trained on.
        split: which part.
        **options: ``samples``, ``refine``, ``limit``, ``seed``, ``baselines``, ``drawn`` (number of samples to draw and
            measure), ``options`` (how to draw them: texts ``name=value`` or the model's ``SampleOptions``),
            ``precision`` (in which, as for :func:`sample`),
            ``features`` (an ONNX file with a feature network of yours), ``inception`` (the same, and it is the
            Inception network of the FID), ``keep`` and ``progress``; see
            :func:`castalia.evaluation.evaluate.evaluate`.

    Returns:
        ``{"metrics": {name: {value, unit, kind, n, seed, interval, detail}}, "context": {...}}``, as stored in the
        run's ``results.json``.
    """
    import time

    from castalia.evaluation import evaluate as measuring

    run = load(run) if not isinstance(run, Run) else run
    image = run_image_options(run)
    held_out = open_data(data or run.recipe.data.source, split=split, image=image)
    seen = None
    if options.get("baselines") or options.get("drawn"):
        seen = open_data(run.recipe.data.source, split=run.recipe.data.split, image=image)
    chosen = options.pop("options", None)
    if not isinstance(chosen, Config):
        chosen = sample_options(run.model()[0], chosen or ())
    own, inception = options.pop("features", None), options.pop("inception", None)
    if own or inception:
        from castalia.evaluation.user_features import UserFeatures

        options["space"] = UserFeatures(Path(inception or own), inception=bool(inception))
    options["options"] = chosen
    options["precision"] = run.precision(run.model()[0].device, options.get("precision", "auto"))
    started = time.perf_counter()
    metrics = measuring.evaluate(run, held_out, split=split, train=seen, **options)
    seconds = time.perf_counter() - started
    sampling = None
    if options.get("drawn"):
        space = options.get("space")
        sampling = {
            "options": to_json(chosen),
            "precision": options["precision"],
            "features": "of the training data" if space is None else space.name,
        }
    context = measuring.context(run, held_out, metrics, split=split, seconds=seconds, sampling=sampling)
    return measuring.record(run, metrics, context)


def run_image_options(run: Run) -> ImageOptions:
    """Decode pictures as the run's training did, to exactly the size and channels of its spec.

    For a run of another medium these are the options of its recipe, which nothing looks at.
    """
    from castalia.core.data import ImageSpec

    if not isinstance(run.spec, ImageSpec):
        return run.recipe.data.image
    size = (run.spec.height, run.spec.width)
    return replace(run.recipe.data.image, size=size, channels=run.spec.channels, flip=False)


def config_json(run: Run) -> dict[str, Any]:
    """The run's model configuration as JSON-able data, for the recipe stored with each picture."""
    return to_json(run.recipe.config)
