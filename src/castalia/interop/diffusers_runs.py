"""Runs of ``ddpm`` as pipelines of diffusers, and the way back; see diffusers.py for the folders themselves.

What is lost on the way out: that samples hold only the values of the training data (diffusers rounds to 256 values),
and what was measured. On the way in: which data it was, and how a scheduler would draw.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from castalia import card
from castalia.configuration import Data, Recipe
from castalia.core.config import from_json, to_json
from castalia.core.errors import RunError, UsageError
from castalia.core.model import build
from castalia.core.specs.image import ImageSpec
from castalia.core.weights import save_tensors
from castalia.interop.diffusers import Received, from_diffusers, to_diffusers
from castalia.interop.diffusers_schedule import Schedule
from castalia.interop.target import new_folder
from castalia.models.diffusion.base import Diffusion
from castalia.models.diffusion.ddpm import DDPM, DDPMConfig
from castalia.nn.unet import UNet
from castalia.nn.units import PictureUnits
from castalia.runs import Run, create, open_run

_SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
_PREDICTIONS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
_VARIANCES = {"fixed_small": "fixed_small", "fixed_large": "fixed_large", "learned": "learned_range"}
"""Ours and theirs."""

SAME = 1e-6
"""Largest difference of two betas that count as equal: theirs are float32."""


def schedule_of(config: DDPMConfig) -> Schedule:
    """What a ``ddpm`` was trained for, in the words of diffusers.

    Where their formulas do not give our betas, all betas are listed.
    """
    betas, scale = config.process().betas, 1000 / config.timesteps
    first, last = (0.00085, 0.012) if config.schedule == "scaled_linear" else (1e-4, 0.02)
    fields = {
        "num_train_timesteps": config.timesteps,
        "prediction_type": _PREDICTIONS[config.prediction],
        "variance_type": _VARIANCES[config.variance],
    }
    named = {
        **fields,
        "beta_schedule": _SCHEDULES[config.schedule],
        "beta_start": min(first * scale, 0.999),
        "beta_end": min(last * scale, 0.999),
        "rescale_betas_zero_snr": config.zero_snr,
    }
    found = from_json(Schedule, named)
    if np.abs(found.values().numpy() - betas).max() <= SAME:
        return found
    return from_json(Schedule, {**fields, "trained_betas": betas.tolist()})


def config_of(received: Received) -> DDPMConfig:
    """The ``ddpm`` that was trained as a received network was.

    Raises:
        UsageError: there is none; the text names the field.
    """
    schedule = received.schedule
    if schedule is None:
        raise UsageError("a network alone does not say what it was trained for; give the folder of its pipeline")
    variances = {theirs: ours for ours, theirs in _VARIANCES.items()}
    variance = variances.get(schedule.variance_type.removesuffix("_log"))
    learned = received.out_channels == 2 * received.in_channels
    if not learned and received.out_channels != received.in_channels:
        raise UsageError(f"out_channels is {received.out_channels} for {received.in_channels} in_channels")
    if variance is None or (variance == "learned" and not learned):
        raise UsageError(f"variance_type is {schedule.variance_type!r} for {received.out_channels} out_channels")
    if received.classes and not received.config.null_class:
        raise UsageError(
            f'num_class_embeds is {received.classes}, and none of them means "no class", which Castalia\'s ddpm needs'
        )
    for name in _SCHEDULES:
        fields = {
            "unet": to_json(received.config),
            "timesteps": schedule.num_train_timesteps,
            "schedule": name,
            "zero_snr": schedule.rescale_betas_zero_snr,
            "prediction": {theirs: ours for ours, theirs in _PREDICTIONS.items()}[schedule.prediction_type],
            # a network of two outputs has learned it, whatever a scheduler that does not use it says
            "variance": "learned" if learned else variance,
            "conditional": received.classes > 0,
        }
        config = from_json(DDPMConfig, fields)
        if np.abs(config.process().betas - schedule.values().numpy()).max() <= SAME:
            return config
    raise UsageError(
        f"beta_schedule {schedule.beta_schedule!r} from {schedule.beta_start} to {schedule.beta_end} in "
        f"{schedule.num_train_timesteps} steps is not one of Castalia's ddpm ({', '.join(_SCHEDULES)})"
    )


def import_diffusers(path: Path, out: Path) -> Run:
    """Make a ``ddpm`` run of a pipeline folder that diffusers wrote.

    Args:
        path: the folder; see :func:`from_diffusers`.
        out: a new or empty folder for the run; it appears whole or not at all.

    Returns:
        The run: it can be sampled, redrawn and evaluated. There are no checkpoints, so it cannot be resumed, and
        its data are unknown.

    Raises:
        UsageError: ``out`` holds something already.
        RunError: the folder is damaged, or holds something that Castalia does not have; the text names the field.
    """
    received = from_diffusers(path)
    if received.size is None:
        raise RunError(f"{path}: sample_size is missing, so nobody knows how large its pictures are.")
    try:
        config = config_of(received)
    except UsageError as error:
        raise RunError(f"{path}: {str(error).rstrip('.')}.") from error
    spec = ImageSpec(received.in_channels, *received.size, tuple(str(i) for i in range(received.classes)))
    if spec.channels not in (1, 3, 4):
        raise RunError(f"{path}: in_channels is {spec.channels}; pictures have 1, 3 or 4 channels.")
    model = build(DDPM, config, spec)
    assert isinstance(model, DDPM)
    model.network.load_state_dict(received.state)
    with new_folder(out) as folder:
        run = create(folder, Recipe("ddpm", config, Data("unknown")), spec, "")
        save_tensors(run.weights, model.state_dict(), {"castalia.model": "ddpm", "castalia.step": "imported"})
        card.write(run)
    return open_run(out)


def whole_range(model: Diffusion) -> None:
    """Refuse pictures whose values are not those from 0 to 255."""
    assert isinstance(model.units, PictureUnits)
    low, high = (int(model.units.table[i]) for i in (0, model.units.levels - 1))
    if (low, high) != (0, 255):
        raise UsageError(
            f"This run knows pictures with values from {low} to {high}; diffusers would stretch them to 0 ... 255."
        )


def export_diffusers(run: Run, out: Path, *, label: int | None = None, drop_variance: bool = False) -> Path:
    """Write a ``ddpm`` run as a pipeline folder that diffusers loads and runs.

    Args:
        run: a run with weights, of pictures.
        out: a new or empty folder; it appears whole or not at all.
        label: write a network that draws this class only; the number of classes stands for no class.
        drop_variance: leave out the learned variance, which ``DDIMPipeline`` cannot use.

    Returns:
        ``out``.

    Raises:
        UsageError: ``out`` holds something already, or diffusers has no such model; the text names the option.
        RunError: the run has no readable weights, or the folder cannot be written.
    """
    if not isinstance(run.config, DDPMConfig):
        raise UsageError(
            f"A {run.recipe.model} cannot be exported for diffusers, which has no such network. --format folder writes "
            "any run."
        )
    if not isinstance(run.spec, ImageSpec):
        raise UsageError("Diffusers draws pictures; this run makes something else.")
    model, _ = run.model(torch.device("cpu"))
    assert isinstance(model, DDPM)
    net = model.network
    assert isinstance(net, UNet)
    whole_range(model)
    return to_diffusers(
        net.config,
        net.in_channels,
        net.out_channels,
        net.classes,
        net.state_dict(),
        (run.spec.height, run.spec.width),
        out,
        schedule_of(run.config),
        label=label,
        drop_variance=drop_variance,
    )
