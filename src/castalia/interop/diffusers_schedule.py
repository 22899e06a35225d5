"""What a scheduler of diffusers says about the training of its network; how to draw is not read, and not needed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from castalia.core.config import from_json, to_json
from castalia.core.errors import RunError, UsageError
from castalia.interop.diffusers_files import fields_of, header_fields

FILE = "scheduler_config.json"

SCHEDULERS = (
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
)
"""Schedulers of networks that were trained on steps with betas."""

_SAMPLING = """
    thresholding dynamic_thresholding_ratio sample_max_value timestep_spacing steps_offset set_alpha_to_one
    skip_prk_steps solver_order algorithm_type solver_type lower_order_final euler_at_final use_karras_sigmas
    use_exponential_sigmas use_beta_sigmas use_lu_lambdas use_flow_sigmas flow_shift final_sigmas_type
    lambda_min_clipped use_dynamic_shifting time_shift_type interpolation_type sigma_min sigma_max timestep_type
    predict_x0 disable_corrector solver_p shift_terminal
"""
"""Fields that choose how to draw, which is for whoever draws to choose."""


@dataclass(frozen=True)
class Schedule:
    """Noise per step, and what the network predicts, with the names and defaults of diffusers.

    Attributes:
        num_train_timesteps: T; the network is told a step's number, 0 to T - 1.
        beta_start: the first beta.
        beta_end: the last.
        beta_schedule: how they run from one to the other. ``squaredcos_cap_v2`` is the cosine of Nichol & Dhariwal, and
            needs neither.
        trained_betas: all of them, in place of the three above.
        rescale_betas_zero_snr: shift and scale them so that nothing of the picture is left at the last step.
        prediction_type: the noise, v, or the picture (``sample``).
        variance_type: of a step of the ancestral sampler.
        clip_sample: whether that sampler cuts the predicted picture to [-clip_sample_range, clip_sample_range].
        clip_sample_range: where.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"] = "linear"
    trained_betas: tuple[float, ...] | None = None
    rescale_betas_zero_snr: bool = False
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    variance_type: Literal[
        "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range"
    ] = "fixed_small"
    clip_sample: bool = True
    clip_sample_range: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.num_train_timesteps <= 1 << 20:
            raise ValueError(f"num_train_timesteps is {self.num_train_timesteps}; it must lie between 1 and {1 << 20}")
        if self.trained_betas is not None and len(self.trained_betas) != self.num_train_timesteps:
            raise ValueError(
                f"trained_betas has {len(self.trained_betas)} values, num_train_timesteps is {self.num_train_timesteps}"
            )
        values = (self.beta_start, self.beta_end) if self.trained_betas is None else self.trained_betas
        if not all(0 <= beta <= 1 for beta in values):
            raise ValueError("beta_start, beta_end and trained_betas lie in [0, 1]")
        if self.clip_sample_range <= 0:
            raise ValueError("clip_sample_range must be positive")

    def values(self) -> Tensor:
        """All betas, ``float64`` (T,)."""
        a, b, n = self.beta_start, self.beta_end, self.num_train_timesteps
        if self.trained_betas is not None:
            betas = torch.tensor(self.trained_betas, dtype=torch.float64)
        elif self.beta_schedule == "linear":
            betas = torch.linspace(a, b, n, dtype=torch.float64)
        elif self.beta_schedule == "scaled_linear":
            betas = torch.linspace(a**0.5, b**0.5, n, dtype=torch.float64) ** 2
        elif self.beta_schedule == "sigmoid":
            betas = torch.linspace(-6, 6, n, dtype=torch.float64).sigmoid() * (b - a) + a
        else:
            t = torch.arange(n + 1, dtype=torch.float64) / n
            kept = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
            betas = (1 - kept[1:] / kept[:-1]).clamp(max=0.999)
        if self.rescale_betas_zero_snr:
            root = (1 - betas).cumprod(0).sqrt()
            kept = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
            betas = 1 - torch.cat([kept[:1], kept[1:] / kept[:-1]])
        return betas


def read_schedule(path: Path) -> Schedule:
    """Read a ``scheduler_config.json``.

    Raises:
        RunError: it is not one of a process that Castalia knows; the text names the field.
    """
    fields = fields_of(path, *SCHEDULERS)
    for name in ("use_flow_sigmas", "use_dynamic_shifting"):
        if fields.get(name, False) is not False:
            raise RunError(f"{path}: {name} is set; Castalia reads processes with betas.")
    for name in _SAMPLING.split():
        fields.pop(name, None)
    if fields.get("variance_type") is None:  # schedulers that draw without noise leave it open
        fields.pop("variance_type", None)
    try:
        return from_json(Schedule, fields, str(path))
    except UsageError as error:
        raise RunError(str(error)) from error


def schedule_of_file(fields: Mapping[str, Any]) -> Schedule:
    """What :func:`scheduler_file` was made of."""
    return from_json(Schedule, {name: value for name, value in fields.items() if not name.startswith("_")})


def scheduler_file(schedule: Schedule) -> dict[str, Any]:
    """The file of a ``DDPMScheduler``."""
    return {**header_fields("DDPMScheduler"), **cast(dict[str, Any], to_json(schedule))}
