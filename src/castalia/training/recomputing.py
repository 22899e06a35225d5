"""Activation checkpointing: blocks keep their inputs only, and are computed again in the backward pass.

Chen et al. 2016 (arXiv:1604.06174). The operations are the same, dropout draws the same numbers, and so losses and
weights are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from castalia.core.errors import UsageError
from castalia.core.model import Model


def recompute(model: Model) -> None:
    """Let every one of a model's ``shard_units`` be computed again; names and state stay as they are.

    Raises:
        UsageError: it names none, or one changes statistics when it is computed.
    """
    units = [part for part in model.modules() if isinstance(part, model.shard_units)]
    if not units:
        raise UsageError(
            f"{type(model).__name__} names no blocks that could be computed again; leave training.recompute out."
        )
    for unit in units:
        if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in unit.modules()):
            raise UsageError(
                f"The blocks of {type(model).__name__} have batch normalisation, whose statistics would count twice; "
                "leave training.recompute out."
            )
        unit.forward = partial(_again, unit.forward)


def _again(forward: Callable[..., Any], *args: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **named)
    return checkpoint(forward, *args, use_reentrant=False, **named)
