"""Where the atoms of a chain lie: from torsions, and what a backbone says of atoms that a file lacks.

Everything is in Å and radians. Bond lengths and angles are those of Engh & Huber 1991.
"""

from __future__ import annotations

import numpy as np

N_CA, CA_C, C_N, C_O = 1.458, 1.525, 1.329, 1.231
N_CA_C, CA_C_N, C_N_CA, CA_C_O = np.deg2rad([111.0, 117.2, 121.7, 120.1])
CA_CB = 1.53
ALPHA = (np.deg2rad(-63.0), np.deg2rad(-42.0))
"""phi and psi of an alpha helix."""

CENTROIDS = (1.52, 4.12, 2.48, 2.47, 2.07, 3.10, 3.10, 1.00, 3.14, 2.31, 2.60, 3.50, 2.95, 3.40, 1.87, 1.89, 1.93, 3.90,
             3.76, 1.95, 2.50)  # fmt: skip
"""Mean distance of the side chain's centroid from CA, by the number of the residue (of glycine that of a hydrogen's
direction, 1 Å); used where chains are made by rule."""


def place(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, bond: float, angle: float, torsion: np.ndarray | float
) -> np.ndarray:
    """The point d with |c d| = bond, angle b c d and torsion a b c d; points (..., 3), torsion (...)."""
    along = _unit(c - b)
    normal = _unit(np.cross(b - a, along))
    across = np.cross(normal, along)
    t = np.asarray(torsion)[..., None]
    return c + bond * (-np.cos(angle) * along + np.sin(angle) * (np.cos(t) * across + np.sin(t) * normal))


def torsion(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """The torsion a b c d, (...), from -pi to pi; points (..., 3)."""
    along = _unit(c - b)
    u, v = np.cross(a - b, along), np.cross(d - c, along)
    return np.arctan2((np.cross(u, v) * along).sum(-1), (u * v).sum(-1))


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9)


def beta(x: np.ndarray) -> np.ndarray:
    """Where CB is, (..., 3), of ideal tetrahedral geometry, from N, CA, C (and more) (..., A, 3)."""
    n, ca, c = (x[..., i, :] for i in range(3))
    inward = _unit(_unit(n - ca) + _unit(c - ca))
    up = _unit(np.cross(n - ca, c - ca))
    tilt = np.deg2rad(54.75)  # half of the tetrahedral angle
    return ca + CA_CB * (-np.cos(tilt) * inward + np.sin(tilt) * up)


def oxygens(x: np.ndarray) -> np.ndarray:
    """Where O is, (L, 3), from N, CA, C of a chain (L, >= 3, 3): in the plane of the peptide bond.

    Of the last residue, and before a break, the psi of a helix is taken.
    """
    n, ca, c = x[:, 0], x[:, 1], x[:, 2]
    out = place(n, ca, c, C_O, CA_C_O, np.full(len(x), ALPHA[1] + np.pi))
    bonded = np.linalg.norm(n[1:] - c[:-1], axis=-1) < 2.0
    away = _unit(c[:-1] - ca[:-1]) + _unit(c[:-1] - n[1:])
    out[:-1][bonded] = (c[:-1] + C_O * _unit(away))[bonded]
    return out


def chain(phi: np.ndarray, psi: np.ndarray, residues: np.ndarray) -> np.ndarray:
    """Chains (..., L, 5, 3) of ideal bonds with flat peptide bonds, from their torsions.

    Args:
        phi: (..., L), radians; the first is not used.
        psi: (..., L); the last says only where O is.
        residues: their numbers (..., L), which say how far the centroid of the side chain is from CA.
    """
    shape = phi.shape[:-1]
    n = np.zeros((*shape, 3))
    ca = n + np.array([N_CA, 0.0, 0.0])
    c = ca + CA_C * np.array([-np.cos(N_CA_C), np.sin(N_CA_C), 0.0])
    rows = [np.stack([n, ca, c], -2)]
    for i in range(1, phi.shape[-1]):
        a, b, d = (rows[-1][..., k, :] for k in range(3))
        n = place(a, b, d, C_N, CA_C_N, psi[..., i - 1])
        ca = place(b, d, n, N_CA, C_N_CA, np.pi)
        c = place(d, n, ca, CA_C, N_CA_C, phi[..., i])
        rows.append(np.stack([n, ca, c], -2))
    x = np.stack(rows, -3)
    o = place(x[..., 0, :], x[..., 1, :], x[..., 2, :], C_O, CA_C_O, psi + np.pi)
    side = x[..., 1, :] + _unit(beta(x) - x[..., 1, :]) * np.array(CENTROIDS)[residues][..., None]
    return np.concatenate([x, o[..., None, :], side[..., None, :]], axis=-2)


def helix(residues: np.ndarray) -> np.ndarray:
    """An ideal alpha helix (L, 5, 3) of some residues (L,)."""
    n = len(residues)
    return chain(np.full(n, ALPHA[0]), np.full(n, ALPHA[1]), residues)


def angles(x: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """phi, psi and omega (of the bond before) of each residue, (L,); nan where an atom is unknown or the chain breaks.

    Args:
        x: coordinates (L, >= 3, 3).
        known: which of N, CA, C are known (L, >= 3), bool.
    """
    n, ca, c = x[:, 0], x[:, 1], x[:, 2]
    whole = np.asarray(known[:, :3].all(1))
    bonded = (np.linalg.norm(n[1:] - c[:-1], axis=-1) < 2.0) & whole[1:] & whole[:-1]
    phi, psi, omega = (np.full(len(x), np.nan) for _ in range(3))
    phi[1:][bonded] = torsion(c[:-1], n[1:], ca[1:], c[1:])[bonded]
    psi[:-1][bonded] = torsion(n[:-1], ca[:-1], c[:-1], n[1:])[bonded]
    omega[1:][bonded] = torsion(ca[:-1], c[:-1], n[1:], ca[1:])[bonded]
    return phi, psi, omega
