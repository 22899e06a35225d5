"""Invariant point attention (Jumper et al. 2021, supplement, Algorithm 22): attention that knows where residues are.

Each residue has points in its own frame. Attention prefers residues whose points come near, seen from outside; what
comes back is turned into the residue's own frame, so nothing depends on where the whole chain lies or how it is turned.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.models.proteins.evoformer import NEVER, last
from castalia.models.proteins.frames import Frames


class InvariantPointAttention(nn.Module):
    """Algorithm 22.

    Args:
        s: channels of residues.
        z: channels of pairs.
        heads: how many.
        head: channels of each head.
        points: points of questions and keys, for each head.
        values: points of values.
    """

    def __init__(self, s: int, z: int, heads: int, head: int, points: int, values: int) -> None:
        super().__init__()
        self.heads, self.points, self.values = heads, points, values
        self.q, self.k, self.v = (nn.Linear(s, heads * head, bias=False) for _ in range(3))
        self.q_points, self.k_points = (nn.Linear(s, heads * points * 3, bias=False) for _ in range(2))
        self.v_points = nn.Linear(s, heads * values * 3, bias=False)
        self.bias = nn.Linear(z, heads, bias=False)
        # softplus(gamma) begins at 1
        self.gamma = nn.Parameter(torch.full((heads,), math.log(math.expm1(1.0))))
        self.out = last(nn.Linear(heads * (z + head + 4 * values), s))

    def forward(self, s: Tensor, z: Tensor, frames: Frames, mask: Tensor) -> Tensor:
        """What residues (B, L, s) learn of each other, (B, L, s).

        Args:
            s: residues (B, L, s).
            z: pairs (B, L, L, z).
            frames: of residues (B, L).
            mask: (B, L), 1 where there is a residue.
        """
        h = self.heads
        q, k, v = (f(s).unflatten(-1, (h, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))  # (B, h, L, c)
        outside = frames[:, :, None, None]
        qp, kp, vp = (
            outside.apply(f(s).unflatten(-1, (h, n, 3)))  # (B, L, h, n, 3)
            for f, n in ((self.q_points, self.points), (self.k_points, self.points), (self.v_points, self.values))
        )
        near = math.sqrt(2 / (9 * self.points)) / 2 * F.softplus(self.gamma)
        far = _square_distances(qp, kp)  # (B, h, L, L), summed over points
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + self.bias(z).permute(0, 3, 1, 2)
        logits = math.sqrt(1 / 3) * (logits - near[:, None, None] * far)
        a = (logits + NEVER * (1 - mask)[:, None, None]).softmax(-1)
        from_pairs = a.permute(0, 2, 1, 3) @ z  # (B, L, h, z)
        from_values = (a @ v).transpose(1, 2)  # (B, L, h, c)
        moved = (a @ vp.permute(0, 2, 1, 3, 4).flatten(-2)).transpose(1, 2)
        points = outside.undo(moved.unflatten(-1, (self.values, 3)))  # (B, L, h, n, 3)
        size = (points.square().sum(-1) + 1e-8).sqrt()
        parts = (from_pairs, from_values, points.flatten(-2), size)
        return self.out(torch.cat([part.flatten(2) for part in parts], -1))


def _square_distances(a: Tensor, b: Tensor) -> Tensor:
    """Sums over points of |a_i - b_j|^2, (B, h, L, L), of points (B, L, h, n, 3).

    Multiplied out, which needs no (L, L, n, 3); all points of a head are moved together first, so that little cancels.
    """
    middle = a.mean((1, 2, 3), keepdim=True).detach()
    a, b = ((p - middle).permute(0, 2, 1, 3, 4).flatten(-2) for p in (a, b))  # (B, h, L, 3 n)
    return a.square().sum(-1)[..., None] + b.square().sum(-1)[..., None, :] - 2 * a @ b.transpose(-1, -2)
