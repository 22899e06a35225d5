"""The shape of a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from castalia.core.spec import Field, Spec, check_sizes


@dataclass(frozen=True)
class ImageSpec(Spec):
    """Pictures: ``uint8`` tensors of shape (channels, height, width) with values 0 to 255.

    Attributes:
        channels: 1 grey, 3 RGB, 4 RGBA (straight, not premultiplied, alpha).
        height: rows.
        width: columns.
        classes: names of the labels, in label order; empty where there are none.
    """

    channels: int
    height: int
    width: int
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_sizes(self, channels=64, height=1 << 15, width=1 << 15)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width

    @property
    def dims(self) -> int:
        """Number of values in one picture, the D of bits per dimension."""
        return self.channels * self.height * self.width

    def fields(self) -> Mapping[str, Field]:
        return {"x": Field(torch.uint8, self.shape, low=0, high=255)}
