"""The shape of a clip of video."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from castalia.core.spec import Field, Spec, check_sizes


@dataclass(frozen=True)
class VideoSpec(Spec):
    """Clips: ``uint8`` (T, C, H, W), T ``frames`` one after the other, C 1 (grey) or 3 (RGB).

    Attributes:
        channels: C.
        frames: T.
        height: H.
        width: W.
        fps: frames a second, for players.
        classes: names of the labels, in label order; empty where there are none.
    """

    channels: int
    frames: int
    height: int
    width: int
    fps: float = 10.0
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_sizes(self, channels=3, frames=1 << 16, height=1 << 14, width=1 << 14)
        if self.channels not in (1, 3) or not 0 < self.fps <= 1_000:
            raise ValueError("channels are 1 or 3, fps lies between 0 and 1,000")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(frames, channels, height, width)."""
        return self.frames, self.channels, self.height, self.width

    @property
    def dims(self) -> int:
        """Values of one clip."""
        return math.prod(self.shape)

    def fields(self) -> Mapping[str, Field]:
        return {"x": Field(torch.uint8, self.shape)}
