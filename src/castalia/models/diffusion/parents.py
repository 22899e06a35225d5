"""The denoiser of a finished run, taken over by a system that adds a network to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from castalia.core.config import Config
from castalia.core.errors import UsageError
from castalia.core.model import Model
from castalia.models.diffusion.base import Diffusion


def take_over(ours: Diffusion[Any], parents: Mapping[str, Model], role: str, kind: type[Diffusion[Any]]) -> None:
    """Copy network, units and labels of the parent ``role``; what a system has besides is its own matter.

    Args:
        ours: takes them.
        parents: by their roles.
        role: which one.
        kind: the system that the parent has to be of, and no other that derives from it.

    Raises:
        UsageError: the parent is missing, is of another system, or was made with other settings or data.
    """
    parent, name = parents.get(role), kind.__name__.lower()
    if not isinstance(parent, kind) or type(parent) is not kind:
        raise UsageError(
            f"The denoiser is to be that of a finished run of `{name}`: give --parent {role}=RUN, or train one "
            f"(config.{role}=train)."
        )
    config: type[Config] = kind.Config
    for one in fields(config):
        mine, theirs = getattr(ours.config, one.name), getattr(parent.config, one.name)
        if mine != theirs:
            raise UsageError(f"The parent `{role}` has {one.name}={theirs}, and this run {mine}: set it alike.")
    if parent.spec.shape != ours.spec.shape or (ours.classes and parent.spec != ours.spec):
        raise UsageError(f"The parent `{role}` was trained on examples of another shape, or with other classes.")
    for part in ("network", "units", "labels"):
        getattr(ours, part).load_state_dict(getattr(parent, part).state_dict())
