"""Optimizers, learning-rate schedules, and their state as plain tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from castalia.configuration import Schedule, Training
from castalia.core.errors import RunError, UsageError
from castalia.core.model import Optimizer
from castalia.training.muon import Muon, hidden_matrices
from castalia.training.sharding import is_shard, place

SHORTEST = 5
"""A warm-up takes no more than one of this many parts of a stage."""


def make(
    parameters: Sequence[nn.Parameter], settings: Optimizer, training: Training, module: nn.Module
) -> torch.optim.Optimizer:
    """Build an optimizer over some parameters of a module.

    Not decayed are vectors and scalars, and parameters whose names their module has in ``undecayed``: biases of another
    shape, such as a map per pixel.
    """
    lr = settings.lr or training.lr
    groups = [{"params": list(parameters), "weight_decay": 0.0}]
    if settings.weight_decay:
        still = {id(getattr(part, name)) for part in module.modules() for name in getattr(part, "undecayed", ())}
        matrices = [p for p in parameters if p.ndim > 1 and id(p) not in still]
        vectors = [p for p in parameters if p.ndim <= 1 or id(p) in still]
        groups = [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        groups = [g for g in groups if g["params"]]
    if settings.name == "adamw":
        made = torch.optim.AdamW(groups, lr, settings.betas, settings.eps, fused=True)
    elif settings.name == "muon":
        if any(is_shard(p) for p in parameters):
            raise UsageError(
                "Muon needs whole matrices, and a sharded model has none. Take another optimizer, or no --shard."
            )
        hidden = {id(p) for p in hidden_matrices(module)}
        matrices = [p for p in parameters if id(p) in hidden]
        rest = [p for p in parameters if id(p) not in hidden]
        groups = [
            {"params": matrices, "muon": True, "weight_decay": settings.weight_decay},
            {"params": rest, "lr": lr * settings.others, "weight_decay": 0.0},
        ]
        made = Muon([g for g in groups if g["params"]], lr, settings.betas, settings.eps)
    elif settings.name == "adam":
        made = torch.optim.Adam(groups, lr, settings.betas, settings.eps, fused=True)
    elif settings.name == "adamax":
        made = torch.optim.Adamax(groups, lr, settings.betas, settings.eps)
    elif settings.name == "rmsprop":
        made = torch.optim.RMSprop(groups, lr, alpha=settings.betas[1], eps=settings.eps, momentum=settings.betas[0])
    else:
        made = torch.optim.SGD(groups, lr, momentum=settings.betas[0])
    for group in made.param_groups:
        group["peak_lr"] = group["lr"]
    return made


def multiplier(schedule: Schedule, step: int, steps: int) -> float:
    """Learning-rate multiplier for ``step`` (from 0) of ``steps``."""
    # a stage that is hardly longer than the warm-up would never reach its rate
    warmup = min(schedule.warmup, max(1, steps // SHORTEST))
    warm = min(1.0, (step + 1) / warmup) if schedule.warmup else 1.0
    done = step / max(steps, 1)
    if schedule.shape == "cosine":
        body = schedule.end + (1 - schedule.end) * 0.5 * (1 + math.cos(math.pi * done))
    elif schedule.shape == "linear":
        body = 1 + (schedule.end - 1) * done
    elif schedule.shape == "step":
        body = schedule.end ** sum(done >= m for m in schedule.milestones)
    else:
        body = 1.0
    return warm * body


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to its peak times ``factor``."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def state_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The optimizer's state as named tensors: ``prefix/<parameter number>/<moment>``."""
    return {
        f"{prefix}/{number}/{key}": torch.as_tensor(value)
        for number, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
        if value is not None
    }


def load_state_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """The inverse of :func:`state_tensors`.

    Raises:
        RunError: the tensors belong to other parameters.
    """
    parameters = [p for g in optimizer.param_groups for p in g["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        head, number, key = ["", "", *name.rsplit("/", 2)][-3:]
        if head == prefix:
            index = int(number) if number.isdecimal() else len(parameters)
            if index >= len(parameters) or (tensor.ndim and tensor.shape != parameters[index].shape):
                raise RunError(f"The optimizer state {name!r} of the checkpoint does not fit the model.")
            # fused kernels walk memory without looking at strides: moments must lie as their parameter does
            like = parameters[index].detach() if tensor.ndim else tensor
            state.setdefault(index, {})[key] = made = torch.empty_like(like, dtype=tensor.dtype)
            place({name: made}, {name: tensor})
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
