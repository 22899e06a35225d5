"""The shape of a point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from castalia.core.spec import Field, Spec, check_sizes


@dataclass(frozen=True)
class PointsSpec(Spec):
    """Points: ``float32`` vectors of ``dims`` coordinates in the data's own units.

    Attributes:
        dims: coordinates of one point, the D of bits per dimension.
        classes: names of the labels, in label order; empty where there are none.
    """

    dims: int
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_sizes(self, dims=1 << 24)

    @property
    def shape(self) -> tuple[int]:
        """(dims,)."""
        return (self.dims,)

    def fields(self) -> Mapping[str, Field]:
        return {"x": Field(torch.float32, self.shape)}
