"""The shape of a motion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from castalia.core.spec import Field, Spec, check_sizes

ROOT, ROTATION = 3, 6
"""Numbers of the root's place, and of a joint's rotation."""


@dataclass(frozen=True)
class Joint:
    """A joint of a skeleton.

    Attributes:
        name: what it is called.
        parent: number of the joint that it hangs on; -1 for the root, which is the first.
        offset: where it is in its parent's frame, in the data's unit of length.
    """

    name: str
    parent: int
    offset: tuple[float, float, float]


@dataclass(frozen=True)
class MotionSpec(Spec):
    """A skeleton that moves: ``float32`` (length, 3 + 6 joints), y is up.

    The first three numbers of a frame are the root's place. Behind them are six for each joint: the first two columns
    of the matrix of its rotation in its parent's frame, one after the other (Zhou et al. 2019, arXiv:1812.07035), which
    have no jumps; any six numbers that are not degenerate are a rotation.

    Attributes:
        length: frames.
        fps: frames a second.
        joints: the skeleton; parents stand before their children.
        ends: where bones end that have no joint at their end: (joint, x, y, z).
        classes: names of the labels, in label order; empty where there are none.
    """

    length: int
    fps: float
    joints: tuple[Joint, ...]
    ends: tuple[tuple[int, float, float, float], ...] = ()
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_sizes(self, length=1 << 20)
        if not 0 < self.fps <= 1000:
            raise ValueError(f"fps is at most 1,000, not {self.fps}")
        if not 1 <= len(self.joints) <= 1024 or self.joints[0].parent != -1:
            raise ValueError("a skeleton has 1 to 1,024 joints, the first of which is the root")
        if any(not 0 <= joint.parent < i for i, joint in enumerate(self.joints) if i):
            raise ValueError("parents stand before their children")
        if any(not 0 <= end[0] < len(self.joints) for end in self.ends):
            raise ValueError("an end belongs to a joint that there is")

    @property
    def numbers(self) -> int:
        """Numbers of a frame."""
        return ROOT + ROTATION * len(self.joints)

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.length / self.fps

    def fields(self) -> Mapping[str, Field]:
        return {"x": Field(torch.float32, (self.length, self.numbers))}
