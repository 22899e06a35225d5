"""Motion as networks see it: where the root goes from frame to frame, and rotations, all scaled.

A place on the ground is a sum of steps, so that a motion can go anywhere; the height is as it is. The geometric losses
are those of MDM (Tevet et al. 2022, arXiv:2209.14916, eqs. 3 to 5): places of joints, their velocities, and feet that
stand still while they stand.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from castalia.core.data import Dataset, spread
from castalia.core.specs.motion import ROOT, MotionSpec
from castalia.nn.skeletons import Skeleton

FITTED = 2_000
"""Examples from which scales are found, at most."""
NEAR_GROUND, SLOW = 0.06, 0.25
"""A foot stands below this height and speed (a second), in heights of the body."""


class Steps(nn.Module):
    """Between motions ``float32`` (B, T, 3 + 6 joints) and what networks see, of the same shape."""

    mean: Tensor
    scale: Tensor
    tall: Tensor

    def __init__(self, spec: MotionSpec) -> None:
        super().__init__()
        self.spec = spec
        self.skeleton = Skeleton(spec)
        self.register_buffer("mean", torch.zeros(spec.numbers))
        self.register_buffer("scale", torch.ones(spec.numbers))
        self.register_buffer("tall", torch.ones(()))

    @torch.no_grad()
    def fit(self, data: Dataset) -> None:
        """Find means and deviations, and the height of the body, from the data."""
        x = data.batch(spread(len(data), FITTED)).x.float()
        flat = steps_of(x).flatten(0, 1)
        self.mean.copy_(flat.mean(0))
        # numbers that hardly move (a stiff joint) are not blown up
        deviation = flat.std(0)
        groups = torch.cat([deviation[:ROOT], deviation[ROOT:].clamp(min=0.25 * float(deviation[ROOT:].median()))])
        self.scale.copy_(groups.clamp(min=1e-4))
        places = self.skeleton(x[:, 0])
        self.tall.copy_((places[..., 1].amax(1) - places[..., 1].amin(1)).mean().clamp(min=1e-6))

    def inside(self, x: Tensor) -> Tensor:
        """Motions as networks see them."""
        return (steps_of(x) - self.mean) / self.scale

    def outside(self, seen: Tensor) -> Tensor:
        """The inverse; rotations are made ones."""
        from castalia.nn.skeletons import matrices, six_of

        x = seen.float() * self.scale + self.mean
        ground = x[..., [0, 2]].clone()
        ground[:, 0] = 0
        ground = ground.cumsum(1)
        turned = six_of(matrices(x[..., ROOT:].unflatten(-1, (-1, 6)))).flatten(-2)
        return torch.cat([ground[..., :1], x[..., 1:2], ground[..., 1:], turned], -1)

    def places(self, seen: Tensor) -> Tensor:
        """Where joints are, in heights of the body (B, T, joints + ends, 3)."""
        return self.skeleton(self.outside(seen)) / self.tall

    def geometry(self, seen: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean squared errors (B,) of places and of velocities, and squared speed of feet that should stand."""
        made, real = self.places(seen), self.places(truth)
        errors = (made - real).square().sum(-1)
        moves, true = (p.diff(dim=1) * self.spec.fps for p in (made, real))
        velocity = ((moves - true) / 10).square().sum(-1)
        low = real[..., 1] - real[..., 1].flatten(1).amin(1)[:, None, None]
        still = (low[:, 1:] < NEAR_GROUND) & (low[:, :-1] < NEAR_GROUND) & (true.norm(dim=-1) < SLOW)
        feet = torch.where(still, moves.square().sum(-1), 0).flatten(1).sum(1) / still.flatten(1).sum(1).clamp(min=1)
        return errors.flatten(1).mean(1), velocity.flatten(1).mean(1), feet


def steps_of(x: Tensor) -> Tensor:
    """The same with places on the ground as steps from the frame before; the first step is 0."""
    ground = x[..., [0, 2]]
    moved = torch.cat([torch.zeros_like(ground[:, :1]), ground.diff(dim=1)], 1)
    return torch.cat([moved[..., :1], x[..., 1:2], moved[..., 1:], x[..., ROOT:]], -1)


def encoder(dim: int, heads: int, hidden: int, layers: int, dropout: float) -> nn.TransformerEncoder:
    """A transformer that sees everything (Vaswani et al. 2017; GELU, as MDM and ACTOR have it)."""
    block = nn.TransformerEncoderLayer(dim, heads, hidden, dropout, "gelu", batch_first=True)
    return nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
