"""Examples, drawn from a run or from a model that is there, and written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from castalia.asked import Wish, given_of
from castalia.core.capabilities import Inference, Latents
from castalia.core.config import override
from castalia.core.data import Batch, join
from castalia.core.errors import UsageError
from castalia.core.guest import guest
from castalia.core.model import Generator, Model
from castalia.core.precision import Precision, precision_context
from castalia.core.rng import SampleRng
from castalia.core.sampling import Given, Sampling, Watch
from castalia.core.spec import Spec
from castalia.core.threads import look_again
from castalia.media.rooms import medium_of
from castalia.opening import load, open_data
from castalia.runs import Run
from castalia.showing import Samples

if TYPE_CHECKING:
    from castalia.creative.priors import LatentMixture

SAMPLES_AT_ONCE = 256
"""Examples drawn at once, at most."""

NUMBERS_AT_ONCE = SAMPLES_AT_ONCE * 3 * 64 * 64
"""Numbers drawn at once, at most: of examples that are larger than a colour picture of 64 pixels, fewer."""


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
