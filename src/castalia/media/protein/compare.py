"""Samples beside the true structures of the same sequences, and what folding without a network would give.

Two trivial predictions stand beside a model's: every chain an ideal helix; and the training chain whose sequence
matches best, laid under it residue by residue without gaps. Where that one ends, it goes on as a helix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from castalia.core.data import Dataset
from castalia.estimators.superposition import gdt_ts, kabsch, lddt, rmsd, tm_score
from castalia.media.protein.chains import Chain, Chains
from castalia.media.protein.geometry import beta, helix

CONTACT = 8.0
"""Residues whose CB atoms are nearer than this are in contact, Å."""
APART = 12
"""Contacts are counted between residues that are at least so many apart in the sequence."""
LEAST = 4
"""Chains of which fewer residues are known are not compared."""


@dataclass(frozen=True)
class Fit:
    """How well one prediction fits the truth.

    Attributes:
        tm: TM-score, 0 to 1.
        gdt: GDT-TS, 0 to 100.
        lddt: mean lDDT-CA, 0 to 100.
        rmsd: of CA atoms after superposition, Å.
        contacts: share of the L/5 likeliest contacts that are there; nan where there are none to find.
        residues: lDDT-CA of each residue of the whole chain (L,), nan where unknown.
    """

    tm: float
    gdt: float
    lddt: float
    rmsd: float
    contacts: float
    residues: np.ndarray


def fit(prediction: np.ndarray, truth: Chain) -> Fit | None:
    """Compare a prediction (L, >= 3, 3) with a chain; None where too little of the chain is known.

    Raises:
        ValueError: they have different lengths.
    """
    if len(prediction) != len(truth.residues):
        raise ValueError(f"{len(prediction)} residues predicted of {len(truth.residues)}")
    known = np.asarray(truth.there[:, :3].all(1))
    if known.sum() < LEAST:
        return None
    p, t = prediction[known].astype(np.float64), truth.x[known].astype(np.float64)
    local = np.full(len(known), np.nan)
    local[known] = lddt(p[:, 1], t[:, 1])
    where = np.flatnonzero(known)
    return Fit(
        tm_score(p[:, 1], t[:, 1]),
        gdt_ts(p[:, 1], t[:, 1]),
        float(np.nanmean(local)) if np.isfinite(local).any() else np.nan,
        rmsd(p[:, 1], t[:, 1]),
        _contacts(p, t, where),
        local,
    )


def _contacts(p: np.ndarray, t: np.ndarray, where: np.ndarray) -> float:
    """Of the L/5 pairs that lie nearest in the prediction, the share that is in contact in truth."""
    i, j = np.triu_indices(len(p), 1)
    apart = where[j] - where[i] >= APART
    i, j = i[apart], j[apart]
    mine, true = (np.linalg.norm(beta(x)[i] - beta(x)[j], axis=-1) for x in (p, t))
    if not (true < CONTACT).any():
        return np.nan
    top = np.argsort(mine, kind="stable")[: max(len(p) // 5, 1)]
    return float((true[top] < CONTACT).mean())


def as_helix(chain: Chain) -> np.ndarray:
    """An ideal helix of the chain's sequence (L, 5, 3)."""
    return helix(chain.residues)


class Nearest:
    """Finds for a sequence the training chain with the most equal residues below it, and its structure.

    Args:
        train: the training set; of one that holds no structures all, they are read.
        most: training chains that are looked at, evenly spaced.
    """

    def __init__(self, train: Dataset, most: int = 20_000) -> None:
        chains = known_chains(train, most)
        self.chains = [chain for chain in chains if chain.there[:, :3].all(1).sum() >= LEAST]
        widest = max((len(chain.residues) for chain in self.chains), default=0)
        self.letters = np.full((len(self.chains), widest), -1, np.int64)
        for row, chain in zip(self.letters, self.chains, strict=True):
            row[: len(chain.residues)] = chain.residues
        self.lengths = np.array([len(chain.residues) for chain in self.chains])

    def match(self, residues: np.ndarray) -> tuple[int, int]:
        """The number of the chain, and by how much the sequence lies behind its beginning (may be negative).

        Equal residues count 1; every residue that lies under nothing costs a tenth.
        """
        n, widest = len(residues), self.letters.shape[1]
        padded = np.full((len(self.chains), widest + 2 * n), -1, np.int64)
        padded[:, n : n + widest] = self.letters
        best, found = -np.inf, (0, 0)
        for at in range(1, widest + n):
            shift = at - n
            equal = (padded[:, at : at + n] == residues).sum(1)
            under = np.clip(np.minimum(self.lengths - shift, n) - max(-shift, 0), 0, None)
            score = equal - 0.1 * (n - under)
            k = int(score.argmax())
            if score[k] > best:
                best, found = float(score[k]), (k, shift)
        return found

    def likeness(self, residues: np.ndarray) -> float:
        """The share of a sequence's residues that equal those of its best match."""
        k, shift = self.match(residues)
        other = self.chains[k].residues
        rows = np.arange(max(0, -shift), min(len(residues), len(other) - shift))
        return float((residues[rows] == other[rows + shift]).sum() / len(residues))

    def structure(self, chain: Chain) -> np.ndarray:
        """The structure of the best match for a chain, (L, 5, 3)."""
        n = len(chain.residues)
        k, shift = self.match(chain.residues)
        other = self.chains[k]
        out, there = np.zeros((n, 5, 3)), np.zeros(n, bool)
        rows = np.arange(max(0, -shift), min(n, len(other.residues) - shift))
        fine = other.there[rows + shift, :3].all(1)
        out[rows[fine]] = other.x[rows[fine] + shift]
        there[rows[fine]] = True
        return continued(out, there, chain)


def continued(x: np.ndarray, there: np.ndarray, chain: Chain) -> np.ndarray:
    """Fill residues that have no place: an ideal helix is laid on the nearest four that have one."""
    spots = np.flatnonzero(there)
    if not len(spots):
        return as_helix(chain)
    ideal, out = helix(chain.residues), x.copy()
    for begin, end in _runs(~there):
        near = spots[np.argsort(np.minimum(np.abs(spots - begin), np.abs(spots - end)), kind="stable")[:4]]
        r, t = kabsch(ideal[near][:, :3].reshape(-1, 3), x[near][:, :3].reshape(-1, 3).astype(np.float64))
        out[begin:end] = ideal[begin:end] @ r.T + t
    return out


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def known_chains(data: Dataset, most: int) -> Sequence[Chain]:
    """At most ``most`` chains of a set, evenly spaced."""
    from castalia.core.data import some_of
    from castalia.media.protein.write import chains_of

    ids = some_of(data, most)
    if isinstance(data, Chains):
        return [data.chains[i] for i in ids]
    return [chain for i in range(0, len(ids), 256) for chain in chains_of(data.batch(ids[i : i + 256]).cpu())]
