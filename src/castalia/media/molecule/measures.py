"""What chemists count in sets of molecules, beside real ones.

Papers
    MOSES (Polykovskiy et al. 2020, arXiv:1811.12823): validity, uniqueness, novelty, internal diversity, nearest
    neighbours, fragments, scaffolds, properties. De Cao & Kipf 2018 (arXiv:1805.11973): the product of the first three.

Definitions
    valid: chemistry allows it, and it has at least one atom. whole: valid, and in one piece.
    unique: of the valid ones, the share of different molecules (canonical SMILES without stereochemistry, unless the
    model writes it). novel: of the different valid ones, the share that the training data do not have.
    Everything below them is of the valid ones alone.
    MOSES counts alerts by two lists of its own; here they are those of PAINS (Baell & Holloway 2010) and of BRENK et
    al. 2008, which RDKit brings along. Its Frechet distance needs ChemNet's weights and is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from castalia.chemistry.molecules import Mol, canonical, chem, molecules_of
from castalia.chemistry.properties import PROPERTIES, fingerprint, scaffold, similarities
from castalia.core.data import Batch
from castalia.core.specs.molecule import MoleculeSpec
from castalia.estimators.metric import Metric, mean_metric, subset
from castalia.media.base import Measure, Work
from castalia.media.measures import beside
from castalia.media.molecule.table import Molecules

MEASURED = "measured; interval: bootstrap"
MOST = 2_000
"""Molecules that are compared with one another at most."""


def key_of(mol: Mol, spec: MoleculeSpec) -> str:
    """What tells molecules apart."""
    return canonical(mol, stereo=spec.stereo)


def _real(work: Work) -> Batch:
    assert work.samples is not None
    assert work.held_out is not None
    return work.held_out.batch(subset(len(work.held_out), len(work.samples), work.seed, "floor")).cpu()


def _valid(work: Work) -> dict[str, Metric]:
    def share(batch: Batch) -> np.ndarray:
        return np.array([float(mol is not None) for mol in molecules_of(batch, work.spec)])

    return beside("valid", share, work, "share", "molecules that chemistry allows")


def _whole(work: Work) -> dict[str, Metric]:
    def share(batch: Batch) -> np.ndarray:
        return np.array(
            [float(mol is not None and len(chem().GetMolFrags(mol)) == 1) for mol in molecules_of(batch, work.spec)]
        )

    return beside("whole", share, work, "share", "molecules that chemistry allows and that are in one piece")


def known_to(train: object, spec: MoleculeSpec) -> set[str] | None:
    """Canonical SMILES of all training molecules, where they are known."""
    if not isinstance(train, Molecules):
        return None
    return set(train.files)


def counts(mols: Sequence[Mol | None], spec: MoleculeSpec, known: set[str] | None) -> dict[str, float]:
    """Shares of one set: ``valid``, ``whole``, ``unique`` and ``novel`` (see the module), and products.

    ``valid_unique_novel`` is the share of all that are made which are valid, different and new; ``whole_unique_novel``
    the same of those in one piece.
    """
    good = [mol for mol in mols if mol is not None]
    keys = [key_of(mol, spec) for mol in good]
    apart = set(keys)
    out = {"valid": len(good) / len(mols), "unique": len(apart) / len(good) if good else 0.0}
    whole = {key for key in apart if "." not in key}
    out["whole"] = sum("." not in key for key in keys) / len(mols)
    if known is not None:
        out["novel"] = len(apart - known) / len(apart) if apart else 0.0
        out["valid_unique_novel"] = len(apart - known) / len(mols)
        out["whole_unique_novel"] = len(whole - known) / len(mols)
    return out


def _unique(work: Work) -> dict[str, Metric]:
    out: dict[str, Metric] = {}
    assert work.samples is not None
    known = known_to(work.train, work.spec)
    for suffix, batch, words in (("", work.samples, "samples"), ("_floor", _real(work), "real held-out examples")):
        found = counts(molecules_of(batch, work.spec), work.spec, known)
        for name, what in (
            ("unique", "different ones among the valid"),
            ("unique_novel", "of the different valid ones, those that the training data do not have"),
            ("unique_valid_novel", "of all that are made, the share that is valid, different and new"),
            ("unique_whole_novel", "the same, in one piece"),
        ):
            key = {"unique_novel": "novel", "unique_valid_novel": "valid_unique_novel"}.get(name, name)
            key = "whole_unique_novel" if name == "unique_whole_novel" else key
            if key in found:
                out[name + suffix] = Metric(
                    found[key], "share", "measured", len(batch), work.seed, None, f"{what}; {len(batch)} {words}"
                )
    return out


def _compared(work: Work, run: Callable[[list[Mol], list[Mol] | None], float]) -> tuple[float, float, int] | None:
    """A number of samples against held-out molecules, and of training molecules against the same."""
    assert work.samples is not None
    assert work.train is not None
    mine = [mol for mol in molecules_of(work.samples, work.spec) if mol is not None][:MOST]
    if len(mine) < 2:
        return None
    real = [mol for mol in molecules_of(_real(work), work.spec) if mol is not None][:MOST]
    train = work.train.batch(subset(len(work.train), len(work.samples), work.seed, "trained"))
    known = [mol for mol in molecules_of(train.cpu(), work.spec) if mol is not None][:MOST]
    return run(mine, real), run(known, real), len(mine)


def _set_measure(name: str, unit: str, what: str, run: Callable[[list[Mol], list[Mol] | None], float]) -> Measure:
    def measure(work: Work) -> dict[str, Metric]:
        found = _compared(work, run)
        if found is None:
            return {}
        mine, floor, n = found
        of = "valid samples against real held-out molecules"
        return {
            name: Metric(mine, unit, "measured", n, work.seed, None, f"{what}; {of}"),
            f"{name}_floor": Metric(
                floor, unit, "measured", n, work.seed, None, f"{what}; training molecules in place of samples"
            ),
        }

    return Measure(name, ("samples", "train", "held-out"), measure)


def diversity(mols: list[Mol], p: int = 1) -> float:
    """1 less the mean p-th power of the similarity of all pairs, each with itself too, to the power 1/p (MOSES)."""
    prints = [fingerprint(mol) for mol in mols]
    mean = np.mean([np.mean(similarities(one, prints) ** p) for one in prints])
    return float(1 - mean ** (1 / p))


def nearest(mols: list[Mol], real: list[Mol]) -> float:
    """Mean similarity of each to its nearest of ``real``."""
    prints = [fingerprint(mol) for mol in real]
    return float(np.mean([similarities(fingerprint(mol), prints).max() for mol in mols]))


def cosine(a: Counter[str], b: Counter[str]) -> float:
    """Cosine of two counts."""
    both = sum(a[key] * b[key] for key in a.keys() & b.keys())
    size = np.sqrt(sum(v * v for v in a.values())) * np.sqrt(sum(v * v for v in b.values()))
    return float(both / size) if size else 0.0


def scaffolds(mols: list[Mol]) -> Counter[str]:
    """How often each Murcko scaffold of two rings or more occurs (MOSES)."""
    found = Counter(scaffold(mol) for mol in mols if mol.GetRingInfo().NumRings() >= 2)
    found.pop("", None)
    return found


def fragments(mols: list[Mol]) -> Counter[str]:
    """How often each BRICS fragment occurs, with the labels of the bonds that were cut, as in MOSES."""
    from rdkit.Chem import BRICS

    out: Counter[str] = Counter()
    for mol in mols:
        pieces = BRICS.BreakBRICSBonds(mol)
        out.update(canonical(piece, stereo=True) for piece in chem().GetMolFrags(pieces, asMols=True))
    return out


@cache
def _alerts() -> Any:
    from rdkit.Chem import FilterCatalog as catalogs

    parameters = catalogs.FilterCatalogParams()  # pyright: ignore[reportAttributeAccessIssue]
    kinds = catalogs.FilterCatalogParams.FilterCatalogs  # pyright: ignore[reportAttributeAccessIssue]
    parameters.AddCatalog(kinds.PAINS)
    parameters.AddCatalog(kinds.BRENK)
    return catalogs.FilterCatalog(parameters)  # pyright: ignore[reportAttributeAccessIssue]


def _alert(work: Work) -> dict[str, Metric]:
    def share(batch: Batch) -> np.ndarray:
        mols = molecules_of(batch, work.spec)
        return np.array([np.nan if m is None else float(not _alerts().HasMatch(m)) for m in mols])

    return beside("no_alerts", share, work, "share", "valid molecules without an alert of PAINS or BRENK")


def _properties(work: Work) -> dict[str, Metric]:
    assert work.samples is not None
    mine = [mol for mol in molecules_of(work.samples, work.spec) if mol is not None][:MOST]
    real = [mol for mol in molecules_of(_real(work), work.spec) if mol is not None][:MOST]
    out: dict[str, Metric] = {}
    for name, (unit, run) in PROPERTIES.items():
        for suffix, mols, words in (("", mine, "valid samples"), ("_floor", real, "real held-out molecules")):
            if mols:
                values = np.array([run(mol) for mol in mols])
                out[f"property_{name}{suffix}"] = mean_metric(
                    values, unit or name, MEASURED, work.seed, f"{name}; {words}"
                )
    return out


def wasserstein(a: Sequence[float], b: Sequence[float]) -> float:
    """Wasserstein-1 distance of two samples of numbers."""
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(a, b))


def _gap(name: str) -> Measure:
    unit, run = PROPERTIES[name]

    def gap(mine: list[Mol], real: list[Mol] | None) -> float:
        return wasserstein([run(m) for m in mine], [run(m) for m in real or ()])

    return _set_measure(f"{name}_gap", unit or name, f"Wasserstein-1 distance of {name}", gap)


MEASURES = (
    Measure("valid", ("samples", "held-out"), _valid),
    Measure("whole", ("samples", "held-out"), _whole),
    Measure("unique", ("samples", "train", "held-out"), _unique),
    _set_measure("diversity", "1 - Tanimoto", "internal diversity", lambda mine, real: diversity(mine)),
    _set_measure("nearest", "Tanimoto", "mean similarity to the nearest", lambda mine, real: nearest(mine, real or [])),
    _set_measure("scaffolds", "cosine", "Murcko scaffolds", lambda m, r: cosine(scaffolds(m), scaffolds(r or []))),
    _set_measure("fragments", "cosine", "BRICS fragments", lambda m, r: cosine(fragments(m), fragments(r or []))),
    Measure("no_alerts", ("samples", "held-out"), _alert),
    Measure("property", ("samples", "held-out"), _properties),
    *(_gap(name) for name in PROPERTIES),
)
