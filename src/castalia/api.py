"""The verbs in Python; the command line is a thin layer over them."""

from __future__ import annotations

import io
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from castalia import fitting, recipes, runs
from castalia.asked import Wish, given_of
from castalia.catalogue import entry
from castalia.configuration import Recipe
from castalia.core.capabilities import Inference, Latents
from castalia.core.config import Config, override, to_json
from castalia.core.data import Batch, Dataset, join
from castalia.core.errors import UsageError
from castalia.core.files import write_bytes
from castalia.core.guest import guest
from castalia.core.model import Generator, Model
from castalia.core.precision import Precision, precision_context
from castalia.core.rng import SampleRng
from castalia.core.sampling import Given, Sampling, Watch
from castalia.core.spec import Spec
from castalia.core.threads import look_again
from castalia.making import as_settings, make_recipe, source_of
from castalia.media import named
from castalia.media.named import medium_for
from castalia.media.named import open_data as _open_data
from castalia.media.rooms import medium_of, room
from castalia.runs import Run
from castalia.showing import Samples

if TYPE_CHECKING:
    from castalia.creative.priors import LatentMixture
    from castalia.recipes.preset import Preset

__all__ = [
    "evaluate",
    "load",
    "make_recipe",
    "open_data",
    "sample",
    "save",
    "train",
    "training_data",
]

DRAWN = 1_000
"""Samples that are measured where nobody says how many."""

DRAWN_ALONE = 64
"""The same of media that are not compared in a feature space: each is long to make, and a mean needs few."""

SAMPLES_AT_ONCE = 256
"""Examples drawn at once, at most."""

NUMBERS_AT_ONCE = SAMPLES_AT_ONCE * 3 * 64 * 64
"""Numbers drawn at once, at most: of examples that are larger than a colour picture of 64 pixels, fewer."""


def open_data(
    source: str, *, split: str | None = None, options: Config | None = None, like: Run | Spec | None = None
) -> Dataset:
    """Open a named set, or a path of pictures, points or whatever else some medium reads.

    Args:
        source: the name or path.
        split: ``train``, ``test``, ...; a path without splits of its own is cut into nine tenths and one tenth.
            None: the training split, or everything where a path has none; ``all``: likewise.
        options: how to read files, an instance of the medium's options; None is the default, or how ``like`` was read.
        like: read it as the training data of this run (or shape) were: the same size, rate, vocabulary.

    Raises:
        DataError: it cannot be read; the text names the file and what is wrong.
        UsageError: there is no such set or path.
    """
    split = None if split == "all" else split
    if isinstance(like, Run):
        data = like.recipe.data
        options = data.options if options is None else options
        with _still_there(source if source == data.source else ""):
            return _open_data(source, options, split, medium=room(data.medium), like=like.spec)
    medium = None if like is None else medium_of(like)
    return _open_data(source, options, split, medium=medium, like=like)


def training_data(recipe: Recipe) -> Dataset:
    """Open the data that a recipe trains on.

    Raises:
        UsageError: the data is of a medium that the recipe's model does not make.
    """
    data, made = recipe.data, entry(recipe.model).media
    medium = medium_for(data.source, (data.medium,))
    if medium.name not in made:
        raise UsageError(
            f"{data.source} is of the medium {medium.name!r}; {recipe.model} makes only {', '.join(made)}."
        )
    options = data.options if medium.name == data.medium else None
    return _open_data(data.source, options, None if data.split == "all" else data.split, medium=medium)


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
        with _still_there(made.data.source if continued else ""):
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


@contextmanager
def _still_there(source: str) -> Iterator[None]:
    """Open data of a run, which may have moved since: then the error says what to do."""
    try:
        yield
    except UsageError as error:
        if not source or source in named.table() or Path(source).exists():
            raise
        raise UsageError(
            f"{error} The run was trained on data that lay there; say where they are now with --data."
        ) from error


def _presets(model: str | None, data: str | None, recipe: str | None) -> tuple[Preset, ...]:
    """The presets among which to choose, where the person leaves that to us."""
    if model is None or data is None or recipe is not None:
        return ()
    return recipes.presets(model, data, medium_for(data, entry(model).media).name)


def load(path: str | Path) -> Run:
    """Open a run folder."""
    return runs.open_run(Path(path))


@guest()
def sample(
    run: Run | str | Path,
    n: int,
    *,
    seed: int = 0,
    temperature: float | None = None,
    start: int = 0,
    prior: Literal["trained", "fitted"] = "trained",
    given: Mapping[str, Wish] | None = None,
    label: int | str | None = None,
    prompt: str | None = None,
    options: Sampling | Sequence[str] | None = None,
    precision: Precision | Literal["auto"] = "auto",
    watch: Watch | None = None,
) -> Samples:
    """Draw ``n`` examples; ``x`` of the result is in natural units (for pictures ``uint8`` (n, C, H, W)).

    Example number i depends on (seed, i) only: asking for more, or for others, does not change it.

    Args:
        run: the run, or its folder.
        n: how many.
        seed: another seed gives other examples.
        temperature: 1 samples the model; less stays closer to its modes. None leaves it to the options.
        start: number of the first example.
        prior: ``fitted`` draws latents where the encoder puts the training data (a Gaussian mixture fitted now, see
            :mod:`castalia.creative.priors`), which avoids the holes of the trained prior; for models with latents.
        given: what is asked for, by the names that the model accepts.
        label: short for ``given={"label": ...}``: the class to draw, by number or name.
        prompt: short for ``given={"prompt": ...}``: the beginning.
        options: how to sample, an instance of the model's ``SampleOptions`` or texts ``name=value``.
        precision: of the networks; ``auto`` is that of the run's training. The arithmetic around them is float32.
        watch: told of every step, for models that sample in steps.

    Raises:
        UsageError: the model has no such class or option, accepts no such thing, or makes nothing at all.
    """
    run = load(run) if not isinstance(run, Run) else run
    model = generator(run)
    mixture = fitted_prior(run, model) if prior == "fitted" else None
    short = {"label": label, "prompt": prompt}
    drawn = draw(
        model,
        n,
        seed=seed,
        start=start,
        mixture=mixture,
        given={**(given or {}), **{name: value for name, value in short.items() if value is not None}},
        options=sampling_options(model, options, temperature),
        precision=run.precision(model.device, precision),
        watch=watch,
    )
    return Samples.told(drawn, run.spec)


def generator(run: Run) -> Generator:
    """The run's model.

    Raises:
        UsageError: it makes nothing.
    """
    model, _ = run.model()
    if not isinstance(model, Generator):
        raise UsageError(f"{run.path} holds a {run.recipe.model}, which makes nothing that could be sampled.")
    return model


def sampling_options(
    model: Generator, settings: Sampling | Sequence[str] | None, temperature: float | None = None
) -> Sampling:
    """The model's sampling options with ``name=value`` texts, and a temperature, applied.

    Raises:
        UsageError: it has no such option (near matches are listed), or the value is of another type.
    """
    if temperature is not None and not (math.isfinite(temperature) and temperature >= 0):
        raise UsageError(f"The temperature must be a finite number from 0 up, not {temperature}.")
    base = settings if isinstance(settings, Sampling) else model.SampleOptions()
    texts = [] if settings is None or isinstance(settings, Sampling) else list(settings)
    return override(
        base, [*texts, *([] if temperature is None else [f"temperature={temperature}"])], "sampling options"
    )


def fitted_prior(run: Run, model: Model) -> LatentMixture:
    """Fit a mixture to the latents of the run's training data.

    Raises:
        UsageError: the model has no latents.
    """
    from castalia.creative.priors import fit_mixture

    if not isinstance(model, Inference):
        raise UsageError(f"{run.recipe.model} does not encode examples, so no prior can be fitted to their latents.")
    return fit_mixture(model, open_data(run.recipe.data.source, split="train", like=run))


def at_once(model: Generator, options: Sampling) -> int:
    """How many examples to draw at once."""
    return max(1, min(SAMPLES_AT_ONCE, NUMBERS_AT_ONCE // max(1, model.cost(options))))


@guest()
def draw(
    model: Generator,
    n: int,
    *,
    seed: int = 0,
    start: int = 0,
    mixture: LatentMixture | None = None,
    given: Mapping[str, Wish] | None = None,
    options: Sampling | None = None,
    precision: Precision = "float32",
    watch: Watch | None = None,
) -> Batch:
    """:func:`sample` for a model, and a fitted prior, that are there already."""
    if n < 1 or start < 0:
        raise UsageError(f"The number of samples must be at least 1 and the first number at least 0, not {n}, {start}.")
    options = sampling_options(model, options)
    wanted = given_of(model, given or {}, n)
    parts: list[Batch] = []
    rows = at_once(model, options)
    for first in range(0, n, rows):
        look_again()
        ids = range(start + first, start + min(first + rows, n))
        rng = SampleRng(seed, ids, model.device)
        mine: Given = {name: value[first : first + rows] for name, value in wanted.items()}
        with torch.no_grad(), precision_context(precision, model.device):
            if mixture is not None and isinstance(model, Latents):
                z = mixture.sample(rng, options.temperature).to(model.device)
                parts.append(model.decode(z, mine).cpu())
            else:
                parts.append(model.sample(len(ids), mine, rng=rng, options=options, watch=watch).cpu())
    return join(parts, model.spec)


def save(examples: Batch, spec: Run | Spec, folder: str | Path) -> list[Path]:
    """Write examples as files of their medium and one overview, ``grid.png``, into a folder; return the paths.

    Args:
        examples: in natural units.
        spec: their shape, or the run that made them.
        folder: where to write; made when missing.
    """
    spec = spec.spec if isinstance(spec, Run) else spec
    medium = medium_of(spec)
    paths = medium.write(examples, spec, Path(folder))
    medium.draw(examples, spec, Path(folder) / "grid.png")
    return [*paths, Path(folder) / "grid.png"]


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
