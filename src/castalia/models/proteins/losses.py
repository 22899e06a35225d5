"""The losses of AlphaFold (Jumper et al. 2021, supplement, section 1.9): Algorithms 27 to 29, distances, violations.

Each is one number for each example, (B,), a mean over what is known of it; of what is not known it says nothing.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from castalia.models.proteins.frames import Frames
from castalia.models.proteins.structure import beta

Z = 10.0
"""Å that FAPE is measured in."""
CLAMP = 10.0
"""Errors above this count as much, Å."""


def mean(value: Tensor, mask: Tensor) -> Tensor:
    """The mean of (B, ...) where ``mask`` is 1, (B,); 0 where it is nowhere."""
    value, mask = value.flatten(1), mask.flatten(1)
    return (value * mask).sum(1) / mask.sum(1).clamp(min=1)


def fape(
    frames: Frames,
    points: Tensor,
    true_frames: Frames,
    true_points: Tensor,
    frame_mask: Tensor,
    point_mask: Tensor,
    clamp: Tensor | float | None = CLAMP,
    epsilon: float = 1e-4,
) -> Tensor:
    """Algorithm 28: how far points lie from where they should, seen from every frame, in units of 10 Å, (B,).

    Args:
        frames: predicted (B, F), Å.
        points: predicted (B, P, 3).
        true_frames: (B, F).
        true_points: (B, P, 3).
        frame_mask: (B, F), 1 where a frame is known.
        point_mask: (B, P).
        clamp: largest error that counts: for all, or for each example (B,); None clamps nothing.
        epsilon: inside the square root, Å^2.
    """
    mine, true = (_seen(f, p) for f, p in ((frames, points), (true_frames, true_points)))
    far = ((mine - true).square().sum(-1) + epsilon).sqrt()
    if clamp is not None:
        far = torch.minimum(far, clamp[:, None, None] if isinstance(clamp, Tensor) else far.new_tensor(clamp))
    return mean(far, frame_mask[:, :, None] * point_mask[:, None]) / Z


def _seen(frames: Frames, points: Tensor) -> Tensor:
    """Points (B, P, 3) in each of the frames (B, F), (B, F, P, 3)."""
    back = frames.inverse()
    return torch.einsum("bfij,bpj->bfpi", back.r, points) + back.t[:, :, None]


def torsion_loss(torsions: Tensor, true: Tensor, known: Tensor, there: Tensor) -> Tensor:
    """Algorithm 27: squared distance on the circle of each torsion, and 0.02 times how far vectors are from length 1.

    Args:
        torsions: (B, L, 4, 2), not normalised.
        true: (B, L, 4, 2).
        known: (B, L, 4).
        there: residues (B, L).
    """
    size = (torsions.square().sum(-1) + 1e-8).sqrt()
    off = (torsions / size[..., None] - true).square().sum(-1)
    return mean(off, known) + 0.02 * mean((size - 1).abs().mean(-1), there)


def distogram_edges(bins: int = 64) -> Tensor:
    """Edges of the distogram's bins, Å, (bins - 1,): 2.3125 to 21.6875."""
    return torch.linspace(2.3125, 21.6875, bins - 1)


def distogram_loss(logits: Tensor, x: Tensor, known: Tensor) -> Tensor:
    """Section 1.9.8: cross-entropy of distances between CB atoms, pairs (B, L, L, bins)."""
    cb = beta(x)
    far = (cb[:, :, None] - cb[:, None]).square().sum(-1).add(1e-8).sqrt()
    bins = torch.bucketize(far, distogram_edges(logits.shape[-1]).to(far))
    nats = F.cross_entropy(logits.movedim(-1, 1), bins, reduction="none")
    return mean(nats, known[:, :, None] * known[:, None])


def masked_loss(logits: Tensor, true: Tensor, masked: Tensor) -> Tensor:
    """Section 1.9.9: cross-entropy of the cells of an alignment that were masked, (B, S, L, 23)."""
    return mean(F.cross_entropy(logits.movedim(-1, 1), true, reduction="none"), masked)


def local_ddt(x: Tensor, true: Tensor, known: Tensor) -> Tensor:
    """lDDT-CA of each residue (B, L), 0 to 1, and 0 where nothing is near; CA atoms (B, L, 3), ``known`` (B, L)."""
    mine, real = (torch.cdist(p, p, compute_mode="donot_use_mm_for_euclid_dist") for p in (x, true))
    eye = torch.eye(x.shape[1], device=x.device)
    pairs = (real < 15.0).float() * known[:, :, None] * known[:, None] * (1 - eye)
    right = sum(((mine - real).abs() < limit).float() for limit in (0.5, 1.0, 2.0, 4.0)) / 4
    return (right * pairs).sum(2) / pairs.sum(2).clamp(min=1)


def confidence_loss(logits: Tensor, score: Tensor, known: Tensor) -> Tensor:
    """Algorithm 29: cross-entropy of the lDDT of residues, in as many bins as there are logits (B, L, bins)."""
    bins = (score * logits.shape[-1]).long().clamp(0, logits.shape[-1] - 1)
    return mean(F.cross_entropy(logits.movedim(-1, 1), bins, reduction="none"), known)


C_N, C_N_STD = 1.329, 0.014
ANGLES = ((math.cos(math.radians(117.2)), 0.0311), (math.cos(math.radians(121.7)), 0.0353))
"""Cosine, and its spread, of the angles CA C N and C N CA (of Engh & Huber 1991, in cosines)."""
RADII = (1.55, 1.7, 1.7, 1.52)
"""Van der Waals radii of N, CA, C and O, Å."""
TOLERANCE = 12.0
"""Spreads within which a bond or angle is none of a violation's."""
OVERLAP = 1.5
"""Å by which atoms may overlap."""


def violations(x: Tensor, mask: Tensor) -> Tensor:
    """Section 1.9.11: bonds and angles between residues that are out of bounds, and backbone atoms that clash, (B,).

    Args:
        x: predicted (B, L, 5, 3), Å; residues that follow one another are bonded.
        mask: (B, L).
    """
    both = mask[:, 1:] * mask[:, :-1]
    ca, c, n, after = x[:, :-1, 1], x[:, :-1, 2], x[:, 1:, 0], x[:, 1:, 1]
    bond = _norm(c - n)
    out = mean((((bond - C_N).abs() - TOLERANCE * C_N_STD).relu()), both)
    for (cosine, spread), a, b, d in zip(ANGLES, (ca, c), (c, n), (n, after), strict=True):
        found = ((a - b) * (d - b)).sum(-1) / (_norm(a - b) * _norm(d - b))
        out = out + mean(((found - cosine).abs() - TOLERANCE * spread).relu(), both)
    length = x.shape[1]
    points, radius = x[:, :, :4].flatten(1, 2), x.new_tensor(RADII).repeat(length)
    number = torch.arange(length, device=x.device).repeat_interleave(4)
    apart = (number[None] - number[:, None] > 1).float()  # neighbours are bonded
    there = mask.repeat_interleave(4, 1)
    far = (points[:, :, None] - points[:, None]).square().sum(-1).add(1e-8).sqrt()
    deep = (radius[:, None] + radius - OVERLAP - far).relu() * apart * there[:, :, None] * there[:, None]
    return out + deep.sum((1, 2)) / there.sum(1).clamp(min=1)


def _norm(v: Tensor) -> Tensor:
    return (v.square().sum(-1) + 1e-8).sqrt()
