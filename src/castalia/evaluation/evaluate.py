"""Measure a run: whatever its capabilities allow, with everything that is needed to repeat it."""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from castalia import card
from castalia.core.capabilities import Density, Inference, Matching
from castalia.core.data import Dataset
from castalia.core.errors import RunError, UsageError
from castalia.core.files import write_sealed
from castalia.core.guest import guest
from castalia.core.locks import PATIENCE, Lock
from castalia.core.model import Generator
from castalia.core.precision import Precision
from castalia.core.sampling import Sampling
from castalia.core.specs.episode import EpisodeSpec
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.music import MusicSpec
from castalia.estimators.metric import Metric, counted, subset
from castalia.estimators.progress import Show
from castalia.evaluation import baselines as trivial
from castalia.evaluation import dreams, equivariance, likelihood, matching, measures, notes, pictures, shapes, views
from castalia.evaluation.drawn import Measured
from castalia.evaluation.features import FeatureSpace
from castalia.evaluation.measures import measured_by
from castalia.runs import Run
from castalia.version import __version__

SAME = ("weights", "data", "fingerprint", "split")
"""Results that agree in these belong together in one table; others are kept as ``earlier``."""

SAMPLING = "sampling"
"""Part of the context of measured samples: how they were drawn and in which features they were seen. Results without
samples have none, and go with any."""

SPEEDS = ("sampling_speed", "likelihood_speed")
"""What a clock says, and no seed repeats."""

EARLIER = 20
"""Older tables kept."""


@guest()
def evaluate(
    run: Run,
    data: Dataset,
    *,
    split: str,
    seed: int = 0,
    samples: int = 100,
    refine: int = 0,
    limit: int | None = None,
    baselines: bool = False,
    drawn: int = 0,
    options: Sampling | None = None,
    precision: Precision = "float32",
    space: FeatureSpace | None = None,
    train: Dataset | None = None,
    keep: Callable[[Measured], None] | None = None,
    progress: Show | None = None,
) -> dict[str, Metric]:
    """Measure what the run's model can do; nothing is written (see :func:`record`).

    A ``Density`` gives ``nll``, ``bits_per_dim`` and (with an importance-weighted bound) ``elbo``; ``Inference`` give
    ``kl``, ``active_units``, ``mse`` and ``psnr`` (of music ``accuracy`` and ``forced_accuracy``); what makes shapes of
    views gives ``view_ap`` and ``view_iou``; what matches pictures and words gives ``recall_1``, ``recall_5``,
    ``recall_pictures_1`` and ``named_accuracy``; what dreams episodes ``frame_mse``, ``memory_nats``, ``dream_mse_...``
    and, where that takes seconds, ``score``; what makes meshes of pictures ``picture_iou`` and its like
    (:func:`castalia.evaluation.views.reconstruction`); every model gives ``sampling_speed``, a ``Density``
    ``likelihood_speed``; ``baselines`` adds
    ``baseline_pixels_...`` and ``baseline_mixture_...``; ``drawn`` adds all of
    :func:`castalia.evaluation.measures.measure`, which compares samples with the whole of ``data``, and of models whose
    input can be moved :func:`castalia.evaluation.equivariance.measure`.

    Args:
        run: whose averaged weights are measured.
        data: examples of the run's own shape.
        split: name of the part that ``data`` is.
        seed: of all randomness; the same seed gives the same numbers (the speed apart).
        samples: importance samples per example, for a likelihood that is a bound.
        refine: see :func:`castalia.evaluation.likelihood.measure`.
        limit: likelihoods and reconstructions of only this many random examples; their ``n`` and ``detail`` say so.
        baselines: also fit and measure trivial models (needs ``train``).
        drawn: samples to draw and measure (needs ``train``); 0 leaves that out, and only times a few.
        options: sampling options of the model, for ``drawn``; None for its own.
        precision: of the networks when sampling; likelihoods are always computed in float32.
        space: feature space for ``drawn``; None for the one of the training data, which is trained where the cache
            has none.
        train: the run's training data, for the baselines and for ``drawn``.
        keep: receives the samples and their nearest training examples, for a page.
        progress: receives lines of text.

    Raises:
        UsageError: the data has another shape than the run, is empty, or an option makes no sense.
        NonFiniteError: some example cannot be measured; no number is returned.
    """
    check_fits(run, data)
    if limit is not None and limit < 1:
        raise UsageError("limit must be at least 1.")
    if drawn < 0:
        raise UsageError("drawn must be at least 0.")
    if baselines or drawn:
        if train is None:
            raise UsageError("Baselines and samples are compared with the training data: give it as train=.")
        check_fits(run, train)
    ids = subset(len(data), limit, seed, "limit")
    model, _ = run.model()
    if drawn and train is not None and isinstance(model, Generator) and (words := measures.too_few(drawn, train, data)):
        raise UsageError(words)  # before anything is measured, so that no hours of likelihoods are lost for it
    out: dict[str, Metric] = {}
    binarise: trivial.Binarise = "none"
    values: tuple[int, ...] | None = None
    if isinstance(model, Density):
        begun = time.perf_counter()
        out |= likelihood.measure(model, data, ids, samples=samples, refine=refine, seed=seed, show=progress)
        rate, where = len(ids) / (time.perf_counter() - begun), f"{hardware()}, K = {samples}"
        out["likelihood_speed"] = Metric(rate, "examples/s", "wall-clock", len(ids), seed, None, where)
        out |= likelihood.label_gain(model, data, ids, seed=seed, show=progress)
        if baselines and isinstance(run.spec, ImageSpec):  # what they have to be measured over
            one = likelihood.log_likelihoods(model, data, ids[:1], seed=seed)
            binarise, values = trivial.binarisation(one.preprocessing), one.values
    if isinstance(model, Inference):
        out |= likelihood.latent_use(model, data, ids, seed=seed, show=progress)
        if isinstance(run.spec, ImageSpec):
            out |= pictures.reconstruction(model, data, ids, seed=seed, show=progress)
        if isinstance(run.spec, MusicSpec):
            out |= notes.reconstruction(model, data, ids, seed=seed, show=progress)
    if isinstance(model, Generator) and isinstance(model, shapes.Rebuilding) and shapes.rebuilds(model):
        out |= shapes.reconstruction(model, data, ids, seed=seed, show=progress)
    if isinstance(model, Matching):
        out |= matching.measure(model, data, ids, seed=seed, show=progress)
    if isinstance(model, views.Retaking) and views.retakes(model, data):
        out |= views.reconstruction(model, data, ids, seed=seed, show=progress)
    if isinstance(model, dreams.Dreaming) and isinstance(run.spec, EpisodeSpec):
        out |= dreams.dreams(model, data, ids, seed=seed, show=progress) | dreams.score(model, run.spec, seed=seed)
    if baselines and train is not None:
        out |= trivial.baselines(train, data, ids, binarise=binarise, values=values, seed=seed, show=progress)
    if len(ids) < len(data):
        out = {name: _limited(metric, len(data)) for name, metric in out.items()}
    if not isinstance(model, Generator):
        return out
    if not drawn or train is None:
        return out | {"sampling_speed": pictures.sampling_speed(model, seed=seed, precision=precision)}
    measured = measures.measure(
        model, train, data, n=drawn, seed=seed, options=options, precision=precision, space=space, show=progress
    )
    if keep is not None:
        keep(measured)
    if isinstance(model, equivariance.Movable):
        out |= equivariance.measure(model, min(drawn, equivariance.MOST), seed=seed, show=progress)
    return out | measured.metrics


def _limited(metric: Metric, total: int) -> Metric:
    detail = f"{metric.n} random examples of {total}" + (f"; {metric.detail}" if metric.detail else "")
    return Metric(metric.value, metric.unit, metric.kind, metric.n, metric.seed, metric.interval, detail)


def check_fits(run: Run, data: Dataset) -> None:
    """Refuse data that the run's model cannot take.

    Raises:
        UsageError: another shape, or no examples; the text says what to do.
    """
    if not len(data):
        raise UsageError(f"{data.name} holds no examples.")
    ours, theirs = run.spec, data.spec
    if isinstance(ours, ImageSpec) and isinstance(theirs, ImageSpec):
        if ours.shape != theirs.shape:
            c, h, w = ours.shape
            raise UsageError(
                f"{run.path} makes pictures of {_size(ours)}, but {data.name} holds {_size(theirs)}. Read "
                f"the data with size=({h}, {w}) and channels={c} so that it is resized to the run's shape."
            )
    elif ours != theirs:
        raise UsageError(f"{run.path} models {ours}, but {data.name} holds {theirs}.")


def _size(spec: ImageSpec) -> str:
    return f"{spec.height}x{spec.width} with {spec.channels} channel{'s' if spec.channels > 1 else ''}"


def context(
    run: Run,
    data: Dataset,
    metrics: Mapping[str, Metric],
    *,
    split: str,
    seconds: float,
    sampling: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What surrounds a measurement: weights, data, split, preprocessing, hardware, versions.

    Args:
        run: what was measured.
        data: on what.
        metrics: what :func:`evaluate` returned.
        split: name of the part that ``data`` is.
        seconds: how long it took.
        sampling: how samples were drawn and seen; None where none were.
    """
    drawn = {} if sampling is None else {SAMPLING: dict(sampling)}
    measured = (m.n for name, m in metrics.items() if name not in SPEEDS and not measured_by(run.spec, name))
    n = max(measured, default=0)
    return {
        "weights": _weights(run),
        "data": data.name,
        "fingerprint": data.fingerprint,
        "split": split,
        # the likelihood's own words, which end the detail
        "preprocessing": metrics["nll"].detail.rsplit("; ", 1)[-1] if "nll" in metrics else "none",
        "n": n,
        "of": len(data),
        "notes": list(data.notes),
        "hardware": hardware(),
        "versions": {
            "castalia": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "seconds": round(seconds, 3),
        **drawn,
    }


def _weights(run: Run) -> str:
    """Step and digest of the weights that the run's model has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whoever measured the model was warned already
        return run.model()[1]


def hardware() -> str:
    """What computed, in words, for example ``cpu (x86_64), 2 threads``."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu ({platform.machine()}), {counted(torch.get_num_threads(), 'thread')}"


def record(run: Run, metrics: Mapping[str, Metric], context: Mapping[str, Any]) -> dict[str, Any]:
    """Store a finished measurement in the run's ``results.json`` and its model card.

    Metrics of the same weights, data and split are merged. Where one of those changed, the old table moves to
    ``earlier`` as it is, so that one table never mixes two measurements. Where only the samples were drawn or seen in
    another way, the old table is kept there too, and what does not depend on samples stays. The file is replaced in one
    step.

    Args:
        run: what was measured.
        metrics: what :func:`evaluate` returned.
        context: what :func:`context` returned.

    Returns:
        What ``results.json`` now holds.

    Raises:
        RunError: it cannot be read or written; the old file is untouched.
        UsageError: another process has been writing for a minute.
    """
    with Lock(run.path / "config.json").take(PATIENCE):  # not the lock of a training, which lasts for hours
        return _record(run, metrics, context)


def _record(run: Run, metrics: Mapping[str, Metric], context: Mapping[str, Any]) -> dict[str, Any]:
    """Read what is there, merge, write."""
    old = run.results()
    if not isinstance(old, dict) or not all(isinstance(old.get(key, {}), dict) for key in ("metrics", "context")):
        raise RunError(f"{run.path}/results.json is not a table of results; move it away and measure again.")
    earlier = old["earlier"] if isinstance(old.get("earlier"), list) else []
    kept = dict(old.get("metrics", {}))
    before = old.get("context", {})
    same = all(before.get(key) == context.get(key) for key in SAME)
    drawn = context.get(SAMPLING)
    alike = drawn is None or before.get(SAMPLING, drawn) == drawn
    if kept and not (same and alike):
        earlier = [{"metrics": kept, "context": before}, *earlier][:EARLIER]
        kept = {name: metric for name, metric in kept.items() if same and not measured_by(run.spec, name)}
    if same and SAMPLING in before:
        context = {SAMPLING: before[SAMPLING], **context}
    new: dict[str, Any] = {
        "metrics": kept | {name: metric.to_json() for name, metric in metrics.items()},
        "context": dict(context),
    }
    if earlier:
        new["earlier"] = earlier
    write_sealed(run.path / "results.json", new)
    card.write(run)
    return new
