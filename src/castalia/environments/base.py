"""What an environment is, and the literal table of those that there are.

An environment has lanes: so many independent worlds that are stepped together, as a population of controllers is tried.
What happens in a lane depends on its seed and its actions only.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from castalia.core.errors import UsageError, near

Squash = Literal["signed", "half", "positive"]


@dataclass(frozen=True)
class About:
    """What is known of an environment before it is made.

    Attributes:
        what: one sentence.
        path: module and class below ``castalia.environments``.
        actions: names of the numbers of an action.
        low: smallest value of each.
        high: largest value of each.
        squash: how each follows from a number in [-1, 1]: ``signed`` is it, ``half`` is (a + 1) / 2, ``positive`` is a
            with what is negative set to 0 (Ha & Schmidhuber's steering, gas and brake).
        channels: of a frame.
        longest: steps after which an episode is cut off.
        fps: steps a second, for films.
        quick: whether a hundred episodes take seconds.
    """

    what: str
    path: str
    actions: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    squash: tuple[Squash, ...]
    channels: int
    longest: int
    fps: float
    quick: bool


ENVIRONMENTS: Mapping[str, About] = {
    "paddle": About(
        "a ball falls and bounces off the walls, a slow paddle has to be where it lands; a miss ends the episode",
        "paddle:Paddle",
        ("move",),
        (-1.0,),
        (1.0,),
        ("signed",),
        3,
        128,
        15,
        True,
    ),
    "carracing": About(
        "gymnasium's CarRacing: a car seen from above on a track that is random in every episode",
        "racing:CarRacing",
        ("steer", "gas", "brake"),
        (-1.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
        ("signed", "half", "positive"),
        3,
        1000,
        50,
        False,
    ),
}


@dataclass(frozen=True)
class Step:
    """What a step brings to each lane.

    Attributes:
        frames: ``uint8`` (N, C, H, W) after the step.
        rewards: ``float32`` (N,); 0 in lanes that are over.
        dones: bool (N,), whether the episode is over, now or before.
    """

    frames: np.ndarray
    rewards: np.ndarray
    dones: np.ndarray


class Environment(ABC):
    """So many worlds, side by side.

    Args:
        lanes: how many.
        size: pixels along the side of a frame.
    """

    def __init__(self, lanes: int, size: int) -> None:
        self.lanes, self.size = lanes, size

    @abstractmethod
    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """Begin an episode in every lane; its first frames ``uint8`` (N, C, H, W)."""

    @abstractmethod
    def step(self, actions: np.ndarray) -> Step:
        """Act: ``float32`` (N, actions), in the environment's own ranges. A lane that is over stays as it is."""


def about(name: str) -> About:
    """What is known of an environment.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in ENVIRONMENTS:
        raise UsageError(f"There is no environment {name!r}. {near(name, ENVIRONMENTS)}")
    return ENVIRONMENTS[name]


def make(name: str, lanes: int, size: int) -> Environment:
    """An environment by name.

    Args:
        name: of the table.
        lanes: worlds side by side.
        size: pixels along the side of a frame.

    Raises:
        UsageError: there is none of that name.
        MissingExtra: what it needs is not installed.
    """
    module, kind = about(name).path.split(":")
    found = importlib.import_module(f"castalia.environments.{module}")  # safe: from the literal table above
    return vars(found)[kind](lanes, size)


def squashed(x: Tensor, squash: Sequence[Squash]) -> Tensor:
    """Numbers (..., A) in [-1, 1] as actions in the environment's own ranges."""
    made = {"signed": lambda a: a, "half": lambda a: (a + 1) / 2, "positive": lambda a: a.clamp(min=0)}
    return torch.stack([made[how](x[..., i]) for i, how in enumerate(squash)], -1)


class Wandering:
    """Actions of one who does not know what to do: numbers in [-1, 1], which become actions as :class:`About` says.

    They make random walks, for white noise would hardly move a car: its mean is what counts. (Ha & Schmidhuber recorded
    random networks, which wander as well.)

    Args:
        known: of the environment.
        seeds: of the walks, one for each lane.
        step: deviation of a step; 0 draws each number anew.
    """

    def __init__(self, known: About, seeds: Sequence[int], step: float) -> None:
        self.known, self.step = known, step
        self.random = [np.random.Generator(np.random.Philox(seed)) for seed in seeds]
        self.at = np.stack([r.uniform(-1, 1, len(known.actions)) for r in self.random])

    def __call__(self) -> np.ndarray:
        """The next actions ``float32`` (N, A), in the environment's own ranges."""
        now = torch.from_numpy(self.at.astype(np.float32))
        if self.step:
            moves = np.stack([r.standard_normal(len(self.known.actions)) for r in self.random])
            self.at = np.clip(self.at + self.step * moves, -1, 1)
        else:
            self.at = np.stack([r.uniform(-1, 1, len(self.known.actions)) for r in self.random])
        return squashed(now, self.known.squash).numpy()
