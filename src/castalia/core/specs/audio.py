"""The shape of a sound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from castalia.core.spec import Field, Spec, check_sizes


@dataclass(frozen=True)
class AudioSpec(Spec):
    """Sound: ``float32`` (channels, T) waveforms in [-1, 1], T open, padded with silence.

    Attributes:
        rate: samples a second.
        channels: 1 mono, 2 stereo.
        length: samples of one training crop.
        classes: names of the labels, in label order; empty where there are none.
    """

    rate: int
    channels: int
    length: int
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_sizes(self, rate=1 << 24, channels=64, length=1 << 40)

    def fields(self) -> Mapping[str, Field]:
        return {"x": Field(torch.float32, (self.channels, None), low=-1, high=1)}
