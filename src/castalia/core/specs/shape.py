"""The shape of a solid thing: which of the cells of a cube it fills."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from castalia.core.spec import Field, Spec, check_sizes


@dataclass(frozen=True)
class ShapeSpec(Spec):
    """Shapes as voxels: ``uint8`` (1, D, H, W) with D = H = W = ``size``, 1 where the shape is and 0 where it is not.

    Depth is first, then height, then width, and all three grow with the coordinates z, y and x of a mesh whose y is up,
    x right, and z towards whoever looks: voxel (0, d, h, w) lies around x = w, y = h, z = d. So height 0 is the floor.

    Attributes:
        size: voxels along each side.
        classes: names of the labels, in label order; empty where there are none.
    """

    size: int
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_sizes(self, size=512)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(1, size, size, size)."""
        return 1, self.size, self.size, self.size

    def fields(self) -> Mapping[str, Field]:
        return {"x": Field(torch.uint8, self.shape, low=0, high=1)}
