"""How a model is asked: what is given, sampling options, previews; and the checks of all that, in one place.

Whatever a person or a program asks a model for goes through these checks before the model sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from castalia.core.config import Config
from castalia.core.data import Batch
from castalia.core.errors import UsageError, near
from castalia.core.spec import Field, LabelSpec, Spec

Given = Mapping[str, Tensor]
"""What is asked for, by the names of :meth:`Generator.accepts`: each the ``x`` of its spec, first dimension n."""


@dataclass(frozen=True)
class Sampling(Config):
    """How to sample. Systems add options of their own, each with a default, so that all can be typed and stored.

    Attributes:
        temperature: 1 samples the model; less is closer to its modes.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError("temperature must be a number from 0 up")


@dataclass(frozen=True)
class Preview:
    """Where sampling step by step stands.

    Attributes:
        step: steps done, from 1.
        steps: steps at most; a sampler may stop before.
        examples: computes what the finished examples would be as far as can be told now, or their beginning where they
            are made piece by piece.
    """

    step: int
    steps: int
    examples: Callable[[], Batch]


Watch = Callable[[Preview], None]
"""Called after each step of a sampler that has steps. What it raises ends the sampling."""


def check_given(model: Any, given: Given | None, n: int) -> dict[str, Tensor]:
    """What was given, on the model's device.

    Raises:
        UsageError: the model does not accept it, or it is of another type, shape or range than it should be.
    """
    known = model.accepts()
    checked: dict[str, Tensor] = {}
    for name, value in (given or {}).items():
        if name not in known:
            if name == "label":
                raise UsageError("This model is not conditional: it was trained without labels, and takes no class.")
            what = f"It takes: {', '.join(known)}. {near(name, known)}" if known else "It takes nothing."
            raise UsageError(f"This model cannot be given {name!r}. {what}")
        check_field(name, value, known[name], n)
        checked[name] = value.to(model.device)
    return checked


def check_field(name: str, value: Tensor, spec: Spec, n: int) -> None:
    """Refuse a tensor that is not n times the ``x`` of ``spec``.

    Raises:
        UsageError: the text names it and says what is wrong.
    """
    field: Field = spec.fields()["x"]
    shape = "(" + ", ".join([str(n), *("any" if d is None else str(d) for d in field.shape)]) + ")"
    fits = value.ndim == 1 + len(field.shape) and len(value) == n
    sizes = zip(field.shape, value.shape[1:], strict=False)
    if value.dtype != field.dtype or not fits or any(d not in (None, s) for d, s in sizes):
        raise UsageError(f"{name} must be {field.dtype} of shape {shape}, not {value.dtype} {tuple(value.shape)}.")
    if value.is_floating_point() and not value.isfinite().all():
        raise UsageError(f"{name}: some values are not finite.")
    if not value.numel() or (field.low is None and field.high is None):
        return
    open_ended = any(d is None for d in field.shape)
    inside = value[value != field.padding] if open_ended else value
    if not inside.numel():
        return
    low, high = inside.min().item(), inside.max().item()
    if (field.low is not None and low < field.low) or (field.high is not None and high > field.high):
        bounds = f"from {field.low:g} up" if field.high is None else f"between {field.low:g} and {field.high:g}"
        what = "labels" if isinstance(spec, LabelSpec) else "values"
        raise UsageError(f"{name}: the {what} must lie {bounds}, not {low:g} to {high:g}.")


def check_redraw(x: Tensor, strength: float, mask: Tensor | None, shape: tuple[int | None, ...]) -> None:
    """Refuse what cannot be redrawn.

    Raises:
        UsageError: examples of another shape, a strength outside [0, 1], or a mask that does not fit.
    """
    if tuple(x.shape[1:]) != shape:
        raise UsageError(f"This model redraws examples of shape {shape}, not {tuple(x.shape[1:])}.")
    if not 0 <= strength <= 1:
        raise UsageError(f"strength lies between 0 and 1; {strength:g} does not.")
    if mask is None:
        return
    fits = mask.dtype == torch.bool and mask.ndim == x.ndim and mask.shape[0] in (1, len(x))
    if not fits or any(m not in (1, s) for m, s in zip(mask.shape[1:], shape, strict=True)):
        raise UsageError(
            f"The mask must be bool and fit {tuple(x.shape)} (1 or all examples, 1 or all channels, the same size), "
            f"not {mask.dtype} {tuple(mask.shape)}."
        )


def sampling(model: Any, options: Sampling | None) -> Any:
    """The sampling options to use: the given ones, or the model's defaults.

    Raises:
        UsageError: they are those of another system.
    """
    kind = model.SampleOptions
    if options is None:
        return kind()
    if not isinstance(options, kind):
        raise UsageError(f"{type(model).__name__} takes {kind.__name__}, not {type(options).__name__}.")
    return options
