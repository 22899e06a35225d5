"""The shape of a stretch of an episode: what was seen, done and won in an environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from castalia.core.spec import Field, Spec, check_sizes

START = "start"
"""The column that holds the first frame."""


@dataclass(frozen=True)
class EpisodeSpec(Spec):
    """Steps of an environment: ``length`` of them, one behind the other.

    ``x``: ``uint8`` (length, channels, height, width), what was seen before each step. ``actions``: ``float32``
    (length, numbers), what was done then. ``rewards``: ``float32`` (length,), what it brought. ``dones``: ``uint8``
    (length,), 1 where the episode was over after the step; an episode that is over stays as it is: its last frame, no
    reward, action 0, done.

    Attributes:
        length: steps.
        channels: of a frame: 1 or 3.
        height: of a frame.
        width: of a frame.
        actions: names of the numbers of an action.
        low: smallest value of each.
        high: largest value of each.
        environment: the one that it was recorded in, of ``castalia.environments``; empty where it is none of those.
        fps: steps a second.
    """

    length: int
    channels: int
    height: int
    width: int
    actions: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    environment: str = ""
    fps: float = 15.0

    def __post_init__(self) -> None:
        check_sizes(self, length=1 << 16, height=1024, width=1024)
        if self.channels not in (1, 3):
            raise ValueError(f"frames have 1 or 3 channels, not {self.channels}")
        if not 1 <= len(self.actions) <= 256 or not len(self.actions) == len(self.low) == len(self.high):
            raise ValueError("an action has 1 to 256 numbers, each with a name, a lowest and a highest value")
        if any(not a < b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError("the lowest value of an action lies below the highest")
        if not 0 < self.fps <= 1000:
            raise ValueError(f"fps is at most 1,000, not {self.fps}")

    @property
    def frame(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width

    def fields(self) -> Mapping[str, Field]:
        return {
            "x": Field(torch.uint8, (self.length, *self.frame)),
            "actions": Field(torch.float32, (self.length, len(self.actions)), low=min(self.low), high=max(self.high)),
            "rewards": Field(torch.float32, (self.length,)),
            "dones": Field(torch.uint8, (self.length,), low=0, high=1),
        }
