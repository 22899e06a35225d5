"""The structure module (Jumper et al. 2021, supplement, section 1.8): Algorithms 20, 23 and, as far as data go, 24.

Every residue is a frame, all at the origin in the beginning ("black hole"), or on a chain built from first torsions.
Eight layers that share their weights let the residues see each other and move their frames. Atoms follow: N, CA and C
lie in the frame at ideal places, O turns with psi, and the centroid of the side chain turns about the bond of CA and
CB, at the distances usual for its residue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.models.proteins.evoformer import last
from castalia.models.proteins.frames import Frames, unit, update
from castalia.models.proteins.invariant import InvariantPointAttention

TORSIONS = ("omega", "phi", "psi", "chi")
"""The first is that of the bond before; ``chi`` is the torsion N, CA, CB, centroid of the side chain."""
HELIX = (180.0, -63.0, -42.0, -65.0)
"""Torsions of an alpha helix, degrees."""
UNIT = 10.0
"""Å in the module's unit of length (section 1.8: nanometres)."""

N_CA, CA_C, C_N, C_O = 1.458, 1.525, 1.329, 1.231
N_CA_C, CA_C_N, C_N_CA, CA_C_O = (math.radians(angle) for angle in (111.0, 117.2, 121.7, 120.1))
N_PLACE = (N_CA * math.cos(N_CA_C), N_CA * math.sin(N_CA_C), 0.0)
C_PLACE = (CA_C, 0.0, 0.0)
"""N and C in the frame of :meth:`Frames.of_points`: CA at the origin, C on the x axis, N in the plane."""
FLAT = 0.3
"""A centroid nearer than this to the axis has no torsion, Å."""


@dataclass(frozen=True)
class Folded:
    """What the structure module says.

    Attributes:
        frames: of residues (B, L) after each layer, Å; where it begins with a chain, that comes first.
        torsions: (B, L, 4, 2) after each layer, cosine and sine before they are normalised; likewise.
        s: residues (B, L, c_s) after the last layer.
        x: atoms (B, L, 5, 3) after the last layer, Å.
    """

    frames: list[Frames]
    torsions: list[Tensor]
    s: Tensor
    x: Tensor


class TorsionNet(nn.Module):
    """Algorithm 20, lines 11 to 14: torsions of each residue, (..., 4, 2)."""

    def __init__(self, s: int, width: int) -> None:
        super().__init__()
        self.now, self.first = nn.Linear(s, width), nn.Linear(s, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), last(nn.Linear(width, width)))
            for _ in range(2)
        )
        self.out = nn.Linear(width, 2 * len(TORSIONS))

    def forward(self, s: Tensor, first: Tensor) -> Tensor:
        a = self.now(s) + self.first(first)
        for block in self.blocks:
            a = a + block(a)
        return self.out(a.relu()).unflatten(-1, (len(TORSIONS), 2))


class StructureModule(nn.Module):
    """Algorithm 20.

    Args:
        s: channels of residues.
        z: channels of pairs.
        layers: how often the layer is applied.
        heads: of the invariant point attention.
        head: channels of each head.
        points: points of questions and keys.
        values: points of values.
        width: channels of the network of torsions.
        dropout: share of residues' channels that is dropped.
        start: where residues begin: ``origin``, or a ``chain`` of the torsions that the first channels say.
    """

    side: Tensor

    def __init__(
        self,
        s: int,
        z: int,
        layers: int,
        heads: int,
        head: int,
        points: int,
        values: int,
        width: int,
        dropout: float,
        start: Literal["origin", "chain"] = "origin",
    ) -> None:
        super().__init__()
        self.layers, self.dropout, self.start = layers, dropout, start
        self.s_norm, self.z_norm, self.first = nn.LayerNorm(s), nn.LayerNorm(z), nn.Linear(s, s)
        self.attention = InvariantPointAttention(s, z, heads, head, points, values)
        self.attention_norm, self.transition_norm = nn.LayerNorm(s), nn.LayerNorm(s)
        self.transition = nn.Sequential(nn.Linear(s, s), nn.ReLU(), nn.Linear(s, s), nn.ReLU(), last(nn.Linear(s, s)))
        self.move = last(nn.Linear(s, 6))
        self.torsions = TorsionNet(s, width)
        if start == "chain":  # the first chain is a helix, more or less
            with torch.no_grad():
                turns = torch.deg2rad(torch.tensor(HELIX))
                self.torsions.out.bias.copy_(torch.stack([turns.cos(), turns.sin()], -1).flatten())
                self.torsions.out.weight.mul_(0.1)
        # along the bond of CA and CB, and away from it, for each residue: fitted to the data
        self.register_buffer("side", torch.tensor([[2.0, 1.0]]).repeat(21, 1))

    def forward(self, s: Tensor, z: Tensor, sequence: Tensor, mask: Tensor) -> Folded:
        """Fold residues (B, L, s) with pairs (B, L, L, z) of a sequence (B, L), where ``mask`` is 1."""
        with torch.autocast(s.device.type, enabled=False):
            s, z, mask = s.float(), z.float(), mask.float()
            first, z = self.s_norm(s), self.z_norm(z)
            s = self.first(first)
            frames = Frames.identity(*mask.shape, like=s)
            every: list[Frames] = []
            torsions: list[Tensor] = []
            if self.start == "chain":
                torsions.append(self.torsions(s, first))
                built = chain(unit2(torsions[0]), mask)
                every.append(built)
                frames = built.scaled(1 / UNIT)
            for layer in range(self.layers):
                s = s + self.attention(s, z, frames, mask)
                s = self.attention_norm(F.dropout(s, self.dropout, self.training))
                s = s + self.transition(s)
                s = self.transition_norm(F.dropout(s, self.dropout, self.training))
                frames = frames.then(update(self.move(s)))
                every.append(frames.scaled(UNIT))
                torsions.append(self.torsions(s, first))
                if layer < self.layers - 1:
                    frames = frames.still()
            x = atoms(every[-1], unit2(torsions[-1]), self.side[sequence.clamp(min=0)])
            return Folded(every, torsions, s, x)


def unit2(v: Tensor) -> Tensor:
    """Pairs (..., 2) of length 1."""
    return v * torch.rsqrt(v.square().sum(-1, keepdim=True) + 1e-8)


def atoms(frames: Frames, torsions: Tensor, side: Tensor) -> Tensor:
    """Atoms N, CA, C, O and the side chain's centroid, (..., 5, 3), of frames in Å.

    Args:
        frames: of residues (...).
        torsions: (..., 4, 2), cosine and sine.
        side: (..., 2): how far the centroid is along the bond of CA and CB, and away from it.
    """
    psi, chi = torsions[..., 2, :], torsions[..., 3, :]
    shape = psi.shape[:-1]
    n, c = (psi.new_tensor(p).expand(*shape, 3) for p in (N_PLACE, C_PLACE))
    # the torsion N, CA, C, O is psi + pi
    o = torch.stack(
        [
            (CA_C - C_O * math.cos(CA_C_O)) * torch.ones_like(psi[..., 0]),
            -C_O * math.sin(CA_C_O) * psi[..., 0],
            -C_O * math.sin(CA_C_O) * psi[..., 1],
        ],
        -1,
    )
    axis, u, w = (v.to(psi) for v in _side_axes())
    around = chi[..., :1] * u + chi[..., 1:] * w
    centroid = side[..., :1] * axis + side[..., 1:] * around
    local = torch.stack([n, torch.zeros_like(n), c, o, centroid], -2)
    return local @ frames.r.transpose(-1, -2) + frames.t[..., None, :]


def place(a: Tensor, b: Tensor, c: Tensor, bond: float, angle: float, turn: Tensor) -> Tensor:
    """The point d, (..., 3), with |c d| = bond, angle b c d, and a torsion of cosine and sine ``turn`` (..., 2)."""
    along = unit(c - b)
    normal = unit(torch.cross(b - a, along, dim=-1))
    across = torch.cross(normal, along, dim=-1)
    sideways = turn[..., :1] * across + turn[..., 1:] * normal
    return c + bond * (-math.cos(angle) * along + math.sin(angle) * sideways)


def chain(torsions: Tensor, mask: Tensor) -> Frames:
    """The frames (B, L) of chains of ideal bonds with these torsions (B, L, 4, 2), their middle at the origin, Å."""
    omega, phi, psi = (torsions[:, :, i] for i in range(3))
    n0, c0 = (psi.new_tensor(p).expand_as(phi[:, 1:, :1].expand(-1, -1, 3)) for p in (N_PLACE, C_PLACE))
    n = place(n0, torch.zeros_like(n0), c0, C_N, CA_C_N, psi[:, :-1])
    ca = place(torch.zeros_like(n0), c0, n, N_CA, C_N_CA, omega[:, 1:])
    c = place(c0, n, ca, CA_C, N_CA_C, phi[:, 1:])
    steps = Frames.of_points(n, ca, c)  # of each residue, seen from the one before
    first = Frames.identity(len(psi), 1, like=psi)
    whole = Frames(torch.cat([first.r, steps.r], 1), torch.cat([first.t, steps.t], 1))
    shift, length = 1, psi.shape[1]
    while shift < length:  # products of all steps up to each residue, by doubling
        later = whole[:, :-shift].then(whole[:, shift:])
        whole = Frames(torch.cat([whole.r[:, :shift], later.r], 1), torch.cat([whole.t[:, :shift], later.t], 1))
        shift *= 2
    middle = (whole.t * mask[..., None]).sum(1, keepdim=True) / mask.sum(1).clamp(min=1)[:, None, None]
    return Frames(whole.r, whole.t - middle)


def beta(x: Tensor) -> Tensor:
    """Where CB is, (..., 3), by ideal geometry, from N, CA, C (..., >= 3, 3)."""
    n, ca, c = x[..., 0, :], x[..., 1, :], x[..., 2, :]
    inward = unit(unit(n - ca) + unit(c - ca))
    up = unit(torch.cross(n - ca, c - ca, dim=-1))
    tilt = math.radians(54.75)
    return ca + 1.53 * (-math.cos(tilt) * inward + math.sin(tilt) * up)


def _side_axes() -> tuple[Tensor, Tensor, Tensor]:
    """In a residue's frame: the direction of CB, that towards N across it, and the third."""
    n, c = torch.tensor(N_PLACE, dtype=torch.float64), torch.tensor(C_PLACE, dtype=torch.float64)
    axis = unit(beta(torch.stack([n, torch.zeros_like(n), c])))
    u = unit(n - axis * (axis * n).sum())
    return axis, u, torch.linalg.cross(axis, u)


def side_places(x: Tensor) -> Tensor:
    """Where the centroids of real residues are in their frames, as (along, cos away, sin away), (..., 3), Å."""
    frames = Frames.of_points(x[..., 0, :], x[..., 1, :], x[..., 2, :])
    local = frames.undo(x[..., 4, :])
    return torch.stack([(local * v.to(local)).sum(-1) for v in _side_axes()], -1)


def dihedral(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Cosine and sine of the torsion a b c d, (..., 2); points (..., 3)."""
    along = unit(c - b)
    u, v = torch.cross(a - b, along, dim=-1), torch.cross(d - c, along, dim=-1)
    pair = torch.stack([(u * v).sum(-1), (torch.cross(u, v, dim=-1) * along).sum(-1)], -1)
    return unit2(pair)


def true_torsions(x: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """The torsions of real chains: (B, L, 4, 2), and which are known, float (B, L, 4).

    Args:
        x: (B, L, 5, 3), Å.
        there: (B, L, 5), 1 where an atom is known.
    """
    n, ca, c, o = (x[:, :, i] for i in range(4))
    whole = there[:, :, :3].amin(2).float()
    before = F.pad(whole[:, 1:] * whole[:, :-1], (1, 0))
    gone = torch.roll(x, 1, 1)
    omega = dihedral(gone[:, :, 1], gone[:, :, 2], n, ca)
    phi = dihedral(gone[:, :, 2], n, ca, c)
    psi = -dihedral(n, ca, c, o)  # O lies opposite of the next N
    side = side_places(x)
    chi = unit2(side[..., 1:])
    turned = (side[..., 1:].square().sum(-1) > FLAT**2).float() * there[:, :, 4].float() * whole
    known = torch.stack([before, before, whole * there[:, :, 3].float(), turned], -1)
    return torch.stack([omega, phi, psi, chi], 2), known
