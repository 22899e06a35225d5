"""Comparing two structures of the same chain, point by point: RMSD, TM-score, GDT-TS, lDDT.

Points are CA atoms in Å, ``float64`` (L, 3), prediction first. Residues that are not compared are left out before. All
but lDDT depend on a superposition: RMSD has a closed one (Kabsch 1976); those of TM-score (Zhang & Skolnick 2004) and
GDT-TS (Zemla 2003) are searched for, from fragments of several lengths, as the authors' programs do.
"""

from __future__ import annotations

import numpy as np

GDT = (1.0, 2.0, 4.0, 8.0)
"""Distances of GDT-TS, Å."""
LDDT = (0.5, 1.0, 2.0, 4.0)
"""Tolerances of lDDT (Mariani et al. 2013), Å."""
RADIUS = 15.0
"""Pairs of residues that lDDT looks at are nearer than this in the true structure, Å."""
ROUNDS = 20
SEEDS = 60
"""Fragments of each length from which superpositions are searched for, at most."""


def kabsch(moved: np.ndarray, fixed: np.ndarray, weight: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The rotation and shift that lay one set of points on another with the least squares, proper rotations only.

    Args:
        moved: ``float64`` (..., L, 3).
        fixed: the same shape.
        weight: (..., L), not negative and not all 0; None weighs all alike.

    Returns:
        R (..., 3, 3) and t (..., 3): ``moved @ R.T + t`` lies on ``fixed``.
    """
    w = np.ones(moved.shape[:-1]) if weight is None else np.asarray(weight, np.float64)
    w = (w / w.sum(-1, keepdims=True))[..., None]
    a, b = (w * moved).sum(-2, keepdims=True), (w * fixed).sum(-2, keepdims=True)
    u, _, vh = np.linalg.svd(np.swapaxes(w * (moved - a), -1, -2) @ (fixed - b))
    flip = np.sign(np.linalg.det(u @ vh))
    vh[..., 2, :] *= np.where(flip == 0, 1.0, flip)[..., None]
    r = np.swapaxes(u @ vh, -1, -2)
    return r, (b - a @ np.swapaxes(r, -1, -2))[..., 0, :]


def rmsd(moved: np.ndarray, fixed: np.ndarray) -> float:
    """Root mean square distance of CA atoms after the best superposition, Å."""
    r, t = kabsch(moved, fixed)
    return float(np.sqrt(np.square(moved @ r.T + t - fixed).sum(-1).mean()))


def _searched(moved: np.ndarray, fixed: np.ndarray, reach: float) -> np.ndarray:
    """Distances (K, L) of the points under many superpositions, each grown from a fragment until it stands still."""
    n = len(moved)
    lengths = sorted({max(min(4, n), n // k) for k in (1, 2, 4, 8, 16)} | {min(4, n)})
    masks = []
    for length in lengths:
        starts = np.unique(np.linspace(0, n - length, min(SEEDS, n - length + 1)).astype(int))
        for start in starts:
            mask = np.zeros(n)
            mask[start : start + length] = 1
            masks.append(mask)
    chosen = np.stack(masks)
    found = []
    for turn in range(ROUNDS):
        r, t = kabsch(np.broadcast_to(moved, (len(chosen), n, 3)), np.broadcast_to(fixed, (len(chosen), n, 3)), chosen)
        far = np.linalg.norm(moved @ np.swapaxes(r, -1, -2) + t[:, None] - fixed, axis=-1)
        found.append(far)
        limit = np.full(len(chosen), reach - 1 if turn == 0 else reach + 1)
        near = far < limit[:, None]
        while (few := near.sum(1) < min(3, n)).any():
            limit[few] += 0.5
            near = far < limit[:, None]
        if np.array_equal(near, chosen > 0):
            break
        chosen = np.unique(near, axis=0).astype(float)
    return np.concatenate(found)


def tm_scale(length: int) -> float:
    """d0 of the TM-score, Å: 1.24 (L - 15)^(1/3) - 1.8, at least 0.5."""
    return max(1.24 * np.cbrt(length - 15) - 1.8, 0.5) if length > 15 else 0.5


def tm_score(moved: np.ndarray, fixed: np.ndarray, length: int | None = None) -> float:
    """The TM-score, 0 to 1, over the best superposition found; ``length`` is of the whole chain where points miss."""
    length = len(fixed) if length is None else length
    scale = tm_scale(length)
    far = _searched(moved, fixed, min(max(scale, 4.5), 8.0))
    return float((1 / (1 + np.square(far / scale))).sum(1).max() / length)


def gdt_ts(moved: np.ndarray, fixed: np.ndarray, length: int | None = None) -> float:
    """GDT-TS, 0 to 100: the mean share of residues within 1, 2, 4 and 8 Å, each over its best superposition."""
    length = len(fixed) if length is None else length
    far = [_searched(moved, fixed, reach) for reach in GDT]
    every = np.concatenate(far)
    return float(100 * np.mean([(every <= reach).sum(1).max() / length for reach in GDT]))


def lddt(moved: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """The lDDT-CA of each residue, 0 to 100, ``float64`` (L,); nan for one that has no other within 15 Å."""
    true, mine = (np.linalg.norm(p[:, None] - p[None], axis=-1) for p in (fixed, moved))
    pairs = (true < RADIUS) & ~np.eye(len(true), dtype=bool)
    kept = np.mean([np.abs(true - mine) < limit for limit in LDDT], axis=0) * pairs
    count = pairs.sum(1)
    return 100 * kept.sum(1) / np.where(count, count, np.nan)
