"""Rotations as six numbers, and where the joints of a skeleton are.

Paper
    Zhou, Barnes, Lu, Yang & Li 2019, "On the Continuity of Rotation Representations in Neural Networks"
    (arXiv:1812.07035), section 4: two columns, made orthonormal by Gram and Schmidt; the third is their product.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.specs.motion import ROOT, ROTATION, MotionSpec


def matrices(six: Tensor) -> Tensor:
    """Rotations (..., 3, 3) of (..., 6); what is degenerate becomes some rotation, never nan."""
    a, b = six[..., :3], six[..., 3:]
    first = F.one_hot(torch.zeros_like(a[..., 0], dtype=torch.int64), 3).to(a)
    x = torch.where(a.norm(dim=-1, keepdim=True) < 1e-8, first, F.normalize(a, dim=-1, eps=1e-8))
    rest = b - (x * b).sum(-1, keepdim=True) * x
    along = rest.norm(dim=-1, keepdim=True) <= 1e-6 * b.norm(dim=-1, keepdim=True) + 1e-8
    # what is along the first column, or nothing: the axis that is least so takes its place
    axis = F.one_hot(x.abs().argmin(-1), 3).to(a)
    rest = torch.where(along, axis - (x * axis).sum(-1, keepdim=True) * x, rest)
    y = F.normalize(rest, dim=-1, eps=1e-8)
    return torch.stack([x, y, torch.linalg.cross(x, y)], -1)


def six_of(rotation: Tensor) -> Tensor:
    """The first two columns (..., 6) of rotations (..., 3, 3)."""
    return torch.cat([rotation[..., 0], rotation[..., 1]], -1)


class Skeleton(nn.Module):
    """Forward kinematics of a spec's skeleton; no parameters."""

    offsets: Tensor
    ends: Tensor

    def __init__(self, spec: MotionSpec) -> None:
        super().__init__()
        self.parents: Sequence[int] = [joint.parent for joint in spec.joints]
        self.held: Sequence[int] = [end[0] for end in spec.ends]
        self.register_buffer(
            "offsets", torch.tensor([joint.offset for joint in spec.joints], dtype=torch.float32), persistent=False
        )
        self.register_buffer(
            "ends", torch.tensor([e[1:] for e in spec.ends], dtype=torch.float32).view(-1, 3), persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Where all joints are, and behind them the ends: (..., joints + ends, 3) of frames (..., 3 + 6 joints)."""
        turned = matrices(x[..., ROOT:].unflatten(-1, (-1, ROTATION)))
        places: list[Tensor] = [x[..., :ROOT]]
        frames: list[Tensor] = [turned[..., 0, :, :]]
        for j, parent in enumerate(self.parents):
            if j:
                places.append(places[parent] + (frames[parent] @ self.offsets[j]))
                frames.append(frames[parent] @ turned[..., j, :, :])
        held = [places[j] + frames[j] @ self.ends[i] for i, j in enumerate(self.held)]
        return torch.stack([*places, *held], -2)


def bones(spec: MotionSpec) -> list[tuple[int, int]]:
    """Pairs of numbers of :meth:`Skeleton.forward` between which there is a bone."""
    found = [(joint.parent, i) for i, joint in enumerate(spec.joints) if i]
    return found + [(end[0], len(spec.joints) + i) for i, end in enumerate(spec.ends)]


def mirrored(names: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs (left, right) of joints whose names differ only in the side: ``Hand_L``, ``LeftHand``, ``l_hand``."""
    number = {name: i for i, name in enumerate(names)}
    swaps = (("Left", "Right"), ("left", "right"), ("_L", "_R"), ("_l", "_r"), ("L_", "R_"), ("l_", "r_"), ("L", "R"))
    pairs: dict[int, int] = {}
    for name, i in number.items():
        for left, right in swaps:
            other = name.replace(left, right, 1) if left in name else name
            if other != name and other in number and i not in pairs:
                pairs[i] = number[other]
    return sorted(pairs.items())
