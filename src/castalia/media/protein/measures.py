"""What is measured of samples: how they fit the truth where it is known, and whether they are built as proteins are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from castalia.core.data import Batch
from castalia.estimators.metric import Metric, generator, mean_metric, subset
from castalia.media.base import Measure, Work
from castalia.media.measures import beside
from castalia.media.protein.chains import Chain
from castalia.media.protein.compare import Fit, Nearest, as_helix, fit
from castalia.media.protein.geometry import angles
from castalia.media.protein.write import chains_of

CLASH = 3.0
"""CA atoms nearer than this, two or more residues apart, clash, Å."""
UNLIKE = 0.4
"""Chains of which a smaller share of residues equals those of any training chain are unlike all of them."""
BINS = 24
"""Of each axis of a Ramachandran plot."""
_WHAT = {
    "tm": ("TM-score", "1", "TM-score over the best superposition found"),
    "gdt": ("GDT-TS", "%", "share of residues within 1, 2, 4 and 8 Å"),
    "lddt": ("lDDT-CA", "%", "distances within 15 Å that are right within 0.5, 1, 2 and 4 Å"),
    "rmsd": ("RMSD", "Å", "of CA atoms after superposition"),
    "contacts": (
        "contacts",
        "share",
        "of the L/5 nearest pairs of CB atoms, 12 apart or more, those in contact",
    ),
}


def folding(work: Work) -> dict[str, Metric]:
    """Samples of held-out sequences beside their true structures; nothing where samples have sequences of their own.

    Gives ``fold_tm``, ``fold_gdt``, ``fold_lddt``, ``fold_rmsd`` and ``fold_contacts``; each also as ``..._nearest``
    (the structure of the training chain whose sequence is most alike) and ``..._ceiling`` (every chain a helix); for
    TM-score and lDDT ``..._gain``, how much better than the better of these two, and ``..._unlike`` and
    ``..._unlike_nearest``, of chains alone that are unlike all training chains; and ``fold_confidence``, the
    correlation of the confidence with the lDDT of chains, ``fold_confidence_residues`` of residues.
    """
    assert work.samples is not None
    assert work.held_out is not None
    assert work.train is not None
    if work.asked is None or work.spec.kind != "structure":
        return {}
    true = chains_of(work.held_out.batch(work.asked).cpu())
    mine = chains_of(work.samples)
    kept = [(a, b) for a, b in zip(mine, true, strict=True) if len(a.x) == len(b.x)]
    nearest = Nearest(work.train)
    fits: dict[str, list[Fit]] = {"": [], "_nearest": [], "_ceiling": []}
    sure, real, alike = [], [], []
    for sample, chain in kept:
        first = fit(sample.x, chain)
        second, third = fit(nearest.structure(chain), chain), fit(as_helix(chain), chain)
        if first is None or second is None or third is None:
            continue
        for suffix, found in (("", first), ("_nearest", second), ("_ceiling", third)):
            fits[suffix].append(found)
        sure.append(sample.confidence)
        real.append(first.residues)
        alike.append(nearest.likeness(chain.residues))
    if not sure:
        return {}
    out: dict[str, Metric] = {}
    words = {"": "samples", "_nearest": "training chains most alike in sequence", "_ceiling": "ideal helices"}
    for suffix, found in fits.items():
        for key, (_, unit, what) in _WHAT.items():
            values = np.array([getattr(one, key) for one in found])
            values = values[~np.isnan(values)]
            if len(values):
                detail = f"{what}; {len(values)} {words[suffix]}, given held-out sequences"
                kind = "measured; interval: bootstrap over chains"
                out[f"fold_{key}{suffix}"] = mean_metric(values, unit, kind, work.seed, detail)
    for key in ("tm", "lddt"):
        table = {s: np.array([getattr(one, key) for one in found]) for s, found in fits.items()}
        best = max(("_nearest", "_ceiling"), key=lambda s: np.nanmean(table[s]))
        gain = table[""] - table[best]
        detail = f"{_WHAT[key][0]} less that of {words[best]}, chain by chain"
        kind = "paired difference; interval: bootstrap over chains"
        out[f"fold_{key}_gain"] = mean_metric(gain[~np.isnan(gain)], _WHAT[key][1], kind, work.seed, detail)
        far = np.array(alike) < UNLIKE
        for suffix in ("", "_nearest"):
            values = table[suffix][far & ~np.isnan(table[suffix])]
            if len(values):
                words_ = f"{_WHAT[key][2]}; {words[suffix]}, chains unlike all training chains (below {UNLIKE:.0%})"
                kind = "measured; interval: bootstrap over chains"
                out[f"fold_{key}_unlike{suffix}"] = mean_metric(values, _WHAT[key][1], kind, work.seed, words_)
    return out | _confidence(sure, real, work.seed)


def _confidence(sure: Sequence[np.ndarray], real: Sequence[np.ndarray], seed: int) -> dict[str, Metric]:
    """Correlations of predicted and true lDDT, with intervals over chains; nothing where one of them never changes."""
    rows = [np.stack([s, r])[:, ~np.isnan(r)] for s, r in zip(sure, real, strict=True)]
    rows = [row for row in rows if row.shape[1]]
    means = [row.mean(1, keepdims=True) for row in rows]
    out: dict[str, Metric] = {}
    for name, parts in (("fold_confidence", means), ("fold_confidence_residues", rows)):
        whole = np.concatenate(parts, 1) if parts else np.zeros((2, 0))
        if whole.shape[1] < 3 or whole.std(1).min() < 1e-6:
            continue
        random, drawn = generator(seed, name), []
        for _ in range(300):
            again = np.concatenate([parts[i] for i in random.integers(len(parts), size=len(parts))], 1)
            if again.std(1).min() > 1e-6:
                drawn.append(_correlation(again))
        low, high = (float(np.quantile(drawn or [0.0], share)) for share in (0.025, 0.975))
        value = _correlation(whole)
        what = "chains" if name == "fold_confidence" else "residues"
        detail = f"predicted against true lDDT-CA of {whole.shape[1]} {what}"
        kind = "Pearson correlation; interval: bootstrap over chains"
        out[name] = Metric(value, "1", kind, whole.shape[1], seed, (low, high) if drawn else None, detail)
    return out


def _correlation(pairs: np.ndarray) -> float:
    """Pearson's, of two rows (2, N)."""
    return float(np.asarray(np.corrcoef(pairs))[0, 1])


def bonds(chain: Chain) -> float:
    """Mean distance of CA atoms that follow one another, Å; 3.80 in proteins."""
    known = chain.there[:, 1] > 0
    both = known[1:] & known[:-1]
    far = np.linalg.norm(np.diff(chain.x[:, 1].astype(np.float64), axis=0), axis=-1)[both]
    return float(far.mean()) if len(far) else np.nan


def clashes(chain: Chain) -> float:
    """Pairs of CA atoms that clash, per 100 residues."""
    at = np.flatnonzero(chain.there[:, 1])
    if len(at) < 3:
        return np.nan
    ca = chain.x[at, 1].astype(np.float64)
    far = np.linalg.norm(ca[:, None] - ca[None], axis=-1)
    apart = at[None] - at[:, None] >= 2
    return float(100 * (far[apart] < CLASH).sum() / len(at))


def plot(chains: Sequence[Chain]) -> np.ndarray:
    """The Ramachandran plot of some chains: shares of residues by phi and psi, ``float64`` (BINS, BINS)."""
    count = np.zeros((BINS, BINS))
    for chain in chains:
        phi, psi, _ = angles(chain.x.astype(np.float64), chain.there > 0)
        fine = ~np.isnan(phi) & ~np.isnan(psi)
        i, j = (((a[fine] + np.pi) / (2 * np.pi) * BINS).astype(int).clip(0, BINS - 1) for a in (phi, psi))
        np.add.at(count, (i, j), 1)
    return count / max(count.sum(), 1)


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """The Jensen-Shannon divergence of two tables of shares, bits: 0 where equal, 1 where they share nothing."""
    m = (p + q) / 2
    terms = [np.where(a > 0, a * np.log2(np.where(a > 0, a, 1) / np.where(m > 0, m, 1)), 0).sum() for a in (p, q)]
    return float(max((terms[0] + terms[1]) / 2, 0.0))


def ramachandran(work: Work) -> dict[str, Metric]:
    """How far the torsions of samples lie from those of held-out chains; ``_floor``: as many training chains."""
    assert work.samples is not None
    assert work.held_out is not None
    assert work.train is not None
    if work.spec.kind != "structure":
        return {}
    n = len(work.samples)
    ids = subset(len(work.held_out), n, work.seed, "floor") if work.asked is None else work.asked
    real = plot(chains_of(work.held_out.batch(ids).cpu()))
    known = work.train.batch(subset(len(work.train), n, work.seed, "floor")).cpu()
    out: dict[str, Metric] = {}
    for suffix, batch, words in (("", work.samples, "samples"), ("_floor", known, "training chains")):
        mine = plot(chains_of(batch))
        if mine.sum() and real.sum():
            detail = f"phi and psi in {BINS} by {BINS} bins; {len(batch)} {words} and {len(ids)} held-out chains"
            value = divergence(mine, real)
            out["ramachandran" + suffix] = Metric(value, "bits", "Jensen-Shannon", len(batch), work.seed, None, detail)
    return out


def _measure(name: str, count: Callable[[Chain], float], unit: str, what: str) -> Measure:
    def run(work: Work) -> dict[str, Metric]:
        if work.spec.kind != "structure":
            return {}

        def per_example(batch: Batch) -> np.ndarray:
            return np.array([count(chain) for chain in chains_of(batch)])

        return beside(name, per_example, work, unit, what)

    return Measure(name, ("samples", "held-out"), run)


MEASURES = (
    Measure("fold", ("samples", "train", "held-out"), folding),
    _measure("ca_bond", bonds, "Å", "distance of CA atoms that follow one another"),
    _measure("clashes", clashes, "per 100 residues", f"CA atoms nearer than {CLASH:g} Å"),
    Measure("ramachandran", ("samples", "train", "held-out"), ramachandran),
)
