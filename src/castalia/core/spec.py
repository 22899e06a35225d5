"""What an example is: its tensors, and what stands beside it.

The specs of the media are in ``core/specs/<medium>.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Field:
    """One tensor of an example.

    Attributes:
        dtype: of the tensor.
        shape: of one example; None is an open dimension, which differs between examples.
        padding: fills open dimensions on the right where examples of several sizes lie in one batch.
        low: smallest value, where there is one.
        high: largest value, where there is one.
    """

    dtype: torch.dtype
    shape: tuple[int | None, ...] = ()
    padding: float = 0
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Spec(ABC):
    """The shape of one example of a medium, known before any example is read.

    Media subclass it with their own fields; it is stored in a run's ``config.json`` so that a model can be
    rebuilt without its data.

    Attributes:
        columns: what stands beside each example, by name: a caption, an artist, a wanted number. A batch has them in
            ``extra``.
    """

    columns: tuple[tuple[str, Spec], ...] = field(default=(), kw_only=True)

    @abstractmethod
    def fields(self) -> Mapping[str, Field]:
        """The tensors of one example: ``x``, and after it what else an example has, as keys of ``Batch.extra``."""

    def sides(self) -> Mapping[str, Spec]:
        """What stands beside an example: ``label`` where there are classes, and the columns."""
        classes: tuple[str, ...] = getattr(self, "classes", ())
        return {**({"label": LabelSpec(classes)} if classes else {}), **dict(self.columns)}


@dataclass(frozen=True)
class LabelSpec(Spec):
    """A class: ``int64`` () from 0 to ``len(classes) - 1``.

    Attributes:
        classes: their names, in label order.
    """

    classes: tuple[str, ...]

    def fields(self) -> Mapping[str, Field]:
        return {"x": Field(torch.int64, low=0, high=len(self.classes) - 1)}


@dataclass(frozen=True)
class ScalarSpec(Spec):
    """A number: ``float32`` ().

    Attributes:
        unit: what it is measured in, for people.
        low: smallest value that makes sense, where there is one.
        high: largest value that makes sense, where there is one.
    """

    unit: str = ""
    low: float | None = None
    high: float | None = None

    def fields(self) -> Mapping[str, Field]:
        return {"x": Field(torch.float32, low=self.low, high=self.high)}


def check_sizes(spec: Spec, **most: int) -> None:
    """Whether sizes are ones that something can have: at least 1, and no larger than given."""
    for name, limit in most.items():
        if not 1 <= getattr(spec, name) <= limit:
            raise ValueError(f"{name} must be 1 to {limit:,}, not {getattr(spec, name)}")
