"""Paths between latents.

Sources
    Shoemake 1985, "Animating rotation with quaternion curves", SIGGRAPH: spherical interpolation.
    White 2016, "Sampling Generative Networks" (arXiv:1609.04468), section 2.1: why latents of a Gaussian
    prior should follow arcs. Nearly all of the prior's mass lies near a sphere of radius sqrt(dimensions),
    and a straight line between two draws leaves it.

All latents are ``float32`` (..., z); computations run in ``float64``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from castalia.core.errors import UsageError

How = Literal["spherical", "linear"]

PARALLEL = 1e-6
"""Rows whose sine of the angle between them is smaller have no well-defined arc and are joined by a line."""


def linear(a: Tensor, b: Tensor, t: float | Tensor) -> Tensor:
    """Points on the straight line from ``a`` (t = 0) to ``b`` (t = 1), both ends exact.

    Args:
        a: latents (B, z).
        b: latents (B, z).
        t: a number, or one per row (B,).
    """
    weight = _per_row(a, t)
    return torch.lerp(a.double(), b.double(), weight).to(a.dtype)


def spherical(a: Tensor, b: Tensor, t: float | Tensor) -> Tensor:
    """Points on the arc from ``a`` (t = 0) to ``b`` (t = 1), both ends exact, each row on its own.

    sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b, where w is the angle between the two (Shoemake 1985).
    Applied to vectors of different length, as here, the length changes smoothly from one to the other
    (White 2016).
    Parallel, opposite and zero vectors, which no single arc joins, are joined by a line.

    Args:
        a: latents (B, z).
        b: latents (B, z).
        t: a number, or one per row (B,).
    """
    weight, x, y = _per_row(a, t), a.double(), b.double()
    lengths = x.norm(dim=-1, keepdim=True) * y.norm(dim=-1, keepdim=True)
    cosine = (x * y).sum(-1, keepdim=True) / lengths.clamp(min=torch.finfo(torch.float64).tiny)
    angle = torch.acos(cosine.clamp(-1, 1))
    sine = torch.sin(angle)
    arc = (torch.sin((1 - weight) * angle) * x + torch.sin(weight * angle) * y) / sine
    # acos(0) of a zero vector is a right angle: its rows have to be named
    straight = (sine < PARALLEL) | (lengths == 0)
    between = torch.where(straight, torch.lerp(x, y, weight), arc)
    # division by the sine may round; the ends are promised to be exact
    return torch.where(weight == 0, x, torch.where(weight == 1, y, between)).to(a.dtype)


PATHS: dict[How, Callable[[Tensor, Tensor, float | Tensor], Tensor]] = {
    "spherical": spherical,
    "linear": linear,
}


def walk(points: Tensor, frames: int, how: How = "spherical", loop: bool = False) -> Tensor:
    """Latents of a path that visits points in order, the same number of frames from each to the next.

    Args:
        points: latents (P, z) to visit, P >= 1.
        frames: how many latents to return.
        how: arcs or straight lines between neighbours.
        loop: return to the first point. The last frame then stops one step short of it, so that a film that
            is repeated shows no frame twice.

    Returns:
        Latents (frames, z). The first is the first point; without ``loop`` the last is the last point.

    Raises:
        UsageError: no points, or less than one frame.
    """
    if points.ndim != 2 or not len(points):
        raise UsageError(f"a walk needs points of shape (P, z) with at least one row, not {tuple(points.shape)}")
    if frames < 1:
        raise UsageError(f"a walk needs at least one frame, not {frames}")
    legs = len(points) if loop else len(points) - 1
    steps = frames if loop else max(frames - 1, 1)
    # whole numbers, so that a point that a frame falls upon is met exactly
    position = torch.arange(frames) * legs
    leg, t = position // steps, (position % steps).double() / steps
    start, end = leg % len(points), (leg + 1) % len(points)
    return PATHS[how](points[start], points[end], t.to(points.device))


def _per_row(a: Tensor, t: float | Tensor) -> Tensor:
    """``t`` as ``float64`` (B, 1) or (1, 1), on the device of ``a``."""
    return torch.as_tensor(t, dtype=torch.float64, device=a.device).reshape(-1, 1)
