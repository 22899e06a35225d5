"""A score that is asked a limited number of times, and what was found with it.

Paper
    Gao et al. 2022, "Sample Efficiency Matters: A Benchmark for Practical Molecular Optimization" (arXiv:2206.12411):
    a budget of calls, repeated molecules free, and the area under the curve of the mean of the ten best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from castalia.chemistry.molecules import Mol, canonical, chem
from castalia.chemistry.properties import Score, fingerprint, similarities

TOP = 10
EVERY = 100
"""Calls between two points of the curve."""


@dataclass(frozen=True)
class Found:
    """A molecule that was scored.

    Attributes:
        smiles: canonical, without stereochemistry.
        score: its score.
        call: the number of the call, from 1.
    """

    smiles: str
    score: float
    call: int


class Oracle:
    """A score with a budget. A molecule that was scored before costs nothing.

    Attributes:
        found: what was scored, in order.
    """

    def __init__(self, score: Score, budget: int) -> None:
        if budget < 1:
            raise ValueError("budget must be at least 1")
        self.score, self.budget = score, budget
        self.found: list[Found] = []
        self._known: dict[str, float] = {}

    @property
    def spent(self) -> bool:
        """Whether no call is left."""
        return len(self.found) >= self.budget

    def __call__(self, mols: Sequence[Mol | None]) -> np.ndarray:
        """Scores ``float64`` (N,); 0 where there is no molecule, where it is in pieces, or where no call is left.

        Of scores that may be negative it is the lowest so far, so that no molecule is worse than none.
        """
        out = np.full(len(mols), np.nan)
        for i, mol in enumerate(mols):
            if mol is None or len(chem().GetMolFrags(mol)) != 1:
                continue
            key = canonical(mol)
            if key not in self._known and not self.spent:
                self._known[key] = float(self.score(mol))
                self.found.append(Found(key, self._known[key], len(self.found) + 1))
            out[i] = self._known.get(key, np.nan)
        return np.where(np.isnan(out), min(0.0, min(self._known.values(), default=0.0)), out)

    def best(self, n: int = TOP) -> list[Found]:
        """The best so far, the best first."""
        return sorted(self.found, key=lambda one: (-one.score, one.call))[:n]

    def area(self, top: int = TOP) -> float:
        """Area under the mean of the ``top`` best over calls, divided by the budget (PMO's AUC top-10).

        Where fewer calls were made than there might have been, the last mean holds on.
        """
        scores = [one.score for one in self.found]
        at = [*range(EVERY, len(scores) + 1, EVERY)]
        if not at or at[-1] < len(scores):
            at.append(len(scores))
        total, last, before = 0.0, 0.0, 0
        for calls in at:
            now = float(np.mean(sorted(scores[:calls])[-top:])) if calls else 0.0
            total += (calls - before) * (last + now) / 2
            last, before = now, calls
        return (total + (self.budget - before) * last) / self.budget

    def diversity(self, n: int = 100) -> float:
        """1 less the mean similarity of all pairs of the ``n`` best."""
        prints = [fingerprint(chem().MolFromSmiles(one.smiles)) for one in self.best(n)]
        if len(prints) < 2:
            return 0.0
        total = sum(float(similarities(one, prints).sum()) - 1 for one in prints)
        return 1 - total / (len(prints) * (len(prints) - 1))

    def said(self) -> dict[str, float]:
        """The numbers that are told of a search."""
        best = [one.score for one in self.best(TOP)]
        return {
            "calls": len(self.found),
            "best": best[0] if best else 0.0,
            "top10": float(np.mean(best)) if best else 0.0,
            "auc_top10": self.area(),
            "diversity_top100": self.diversity(),
        }
