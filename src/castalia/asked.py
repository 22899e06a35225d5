"""From what a person asks for, in words and numbers, to what a model is given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from castalia.core.errors import UsageError, near
from castalia.core.model import Generator
from castalia.core.sampling import check_field
from castalia.core.spec import LabelSpec, ScalarSpec, Spec
from castalia.media.rooms import medium_of

Wish = Tensor | int | float | str
"""What may be given: a tensor for each example, or one number or text (``@FILE``) for all."""


def wishes(texts: Sequence[str], short: Mapping[str, str | None]) -> dict[str, str]:
    """What ``name=value`` texts ask for, and what has an option of its own (``--label``, ``--prompt``).

    Raises:
        UsageError: a text has no name, or the same thing is asked for twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--given {text}: write it as name=value, for example --given caption='red heart'.")
        found[name] = value
    for name, value in short.items():
        if value is not None:
            if name in found:
                raise UsageError(f"--{name} and --given {name}= ask for the same thing.")
            found[name] = value
    return found


def given_of(model: Generator, wishes: Mapping[str, Wish], n: int) -> dict[str, Tensor]:
    """What a person wishes for ``n`` examples as tensors on the model's device.

    Raises:
        UsageError: the model accepts no such thing (near matches are listed), or it cannot be read.
    """
    known = model.accepts()
    found: dict[str, Tensor] = {}
    for name, wish in wishes.items():
        if name not in known:
            if name == "label":
                raise UsageError("This model is not conditional: it was trained without labels, and takes no class.")
            what = f"It takes {', '.join(known)}. {near(name, known)}" if known else "It takes nothing."
            raise UsageError(f"This model cannot be given {name!r}. {what}")
        spec = known[name]
        if not isinstance(wish, Tensor):
            x = _read(name, wish, spec)
            wish = x[None].expand(n, *x.shape).contiguous()
            check_field(name, wish, spec, n)
        found[name] = wish.to(model.device)
    return found


def _read(name: str, wish: int | float | str, spec: Spec) -> Tensor:
    if isinstance(spec, LabelSpec):
        return torch.tensor(class_number(wish, spec.classes))
    if isinstance(spec, ScalarSpec):
        try:
            return torch.tensor(float(wish))
        except ValueError as error:
            raise UsageError(f"{name}={wish}: a number is expected{f' ({spec.unit})' if spec.unit else ''}.") from error
    return medium_of(spec).given(str(wish), spec)


def class_number(label: int | float | str, names: tuple[str, ...]) -> int:
    """The number of a class given by its name, or by its number where no name is a whole number.

    Raises:
        UsageError: there is no such class.
    """
    text = str(label)
    if text in names:
        return names.index(text)
    numbered = any(re.fullmatch("-?[0-9]+", name) for name in names)
    if numbered or not (re.fullmatch("[0-9]{1,9}", text) and int(text) < len(names)):
        alike = [name for name in names if name.lower() == text.lower()]
        hint = f"Did you mean {alike[0]!r}?" if alike else near(text, names)
        raise UsageError(f"There is no class {label!r} among the {len(names)} of this model. {hint}")
    return int(text)
