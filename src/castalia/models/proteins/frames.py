"""Rigid frames: a rotation and a shift each (Jumper et al. 2021, supplement, sections 1.1 and 1.8)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-8


@dataclass(frozen=True)
class Frames:
    """Frames T = (R, t), which bring local points x to R x + t.

    Attributes:
        r: rotations (..., 3, 3).
        t: shifts (..., 3).
    """

    r: Tensor
    t: Tensor

    @classmethod
    def identity(cls, *shape: int, like: Tensor) -> Frames:
        """Frames that leave everything where it is."""
        eye = torch.eye(3, dtype=like.dtype, device=like.device)
        return cls(eye.expand(*shape, 3, 3), like.new_zeros(*shape, 3))

    @classmethod
    def of_points(cls, a: Tensor, b: Tensor, c: Tensor) -> Frames:
        """Algorithm 21: frames from points (..., 3) by Gram-Schmidt; b is the origin, c on the x axis, a in the plane.

        For the backbone these are N, CA, C. Points that lie on one another give frames that mean nothing, but no nan.
        """
        first = unit(c - b)
        away = a - b
        second = unit(away - first * (first * away).sum(-1, keepdim=True))
        third = torch.cross(first, second, dim=-1)
        return cls(torch.stack([first, second, third], -1), b)

    def __getitem__(self, index: tuple[slice | None, ...]) -> Frames:
        """Some of the frames; ``index`` is of the leading dimensions."""
        return Frames(self.r[(*index, slice(None), slice(None))], self.t[(*index, slice(None))])

    def apply(self, x: Tensor) -> Tensor:
        """Local points (..., 3) seen from outside; leading dimensions broadcast."""
        return (self.r @ x[..., None])[..., 0] + self.t

    def undo(self, x: Tensor) -> Tensor:
        """Points (..., 3) from outside as seen in the frame: T^-1 x."""
        return (self.r.transpose(-1, -2) @ (x - self.t)[..., None])[..., 0]

    def then(self, inner: Frames) -> Frames:
        """T after ``inner``: (R R', R t' + t)."""
        return Frames(self.r @ inner.r, self.apply(inner.t))

    def inverse(self) -> Frames:
        """T^-1."""
        back = self.r.transpose(-1, -2)
        return Frames(back, -(back @ self.t[..., None])[..., 0])

    def scaled(self, factor: float) -> Frames:
        """The same in other units of length."""
        return Frames(self.r, self.t * factor)

    def still(self) -> Frames:
        """The same, with no gradients through the rotations (Algorithm 20, line 20)."""
        return Frames(self.r.detach(), self.t)


def unit(v: Tensor) -> Tensor:
    """Vectors (..., 3) of length 1."""
    return v * torch.rsqrt(v.square().sum(-1, keepdim=True) + EPSILON)


def update(six: Tensor) -> Frames:
    """Algorithm 23: frames from (b, c, d, t), (..., 6): the quaternion is (1, b, c, d), normalised."""
    bcd, t = six.split(3, -1)
    scale = torch.rsqrt(1 + bcd.square().sum(-1, keepdim=True))
    return Frames(rotation(torch.cat([scale, bcd * scale], -1)), t)


def rotation(q: Tensor) -> Tensor:
    """The rotations (..., 3, 3) of unit quaternions (a, b, c, d), (..., 4)."""
    a, b, c, d = q.unbind(-1)
    rows = [
        torch.stack([a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)], -1),
        torch.stack([2 * (b * c + a * d), a * a - b * b + c * c - d * d, 2 * (c * d - a * b)], -1),
        torch.stack([2 * (b * d - a * c), 2 * (c * d + a * b), a * a - b * b - c * c + d * d], -1),
    ]
    return torch.stack(rows, -2)
