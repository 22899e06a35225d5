"""What is said of one molecule in numbers: how drug-like, how oily, how hard to make; and how alike two are.

Papers
    Bickerton et al. 2012, "Quantifying the chemical beauty of drugs" (QED). Wildman & Crippen 1999 (logP). Ertl &
    Schuffenhauer 2009 (synthetic accessibility, 1 easy to 10 hard). Gomez-Bombarelli et al. 2018 (penalised logP).
    De Cao & Kipf 2018 (MolGAN): logP and accessibility brought to 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from castalia.chemistry.molecules import Mol, chem, read_smiles
from castalia.core.errors import UsageError, near

LOGP_RANGE = (-2.12178879609, 6.0429063424)
"""Octanol-water coefficients that MolGAN calls 0 and 1: the 0.1 % ends of QM9's."""
HARDEST, EASIEST = 5.0, 1.5
"""Accessibilities that MolGAN calls 0 and 1."""


def logp(mol: Mol) -> float:
    """Logarithm of the octanol-water partition coefficient, by atoms (Crippen)."""
    from rdkit.Chem import Crippen

    return float(Crippen.MolLogP(mol))  # pyright: ignore[reportAttributeAccessIssue]


def qed(mol: Mol) -> float:
    """Quantitative estimate of drug-likeness, 0 to 1."""
    from rdkit.Chem import QED

    return float(QED.qed(mol))


def accessibility(mol: Mol) -> float:
    """How hard a molecule is to make, 1 (easy) to 10."""
    return float(_scorer().calculateScore(mol))


@cache
def _scorer() -> Any:
    # its table of fragments comes with RDKit
    from rdkit.Contrib.SA_Score import sascorer  # pyright: ignore[reportMissingImports]

    return sascorer


def weight(mol: Mol) -> float:
    """Molecular weight in daltons, hydrogens included."""
    from rdkit.Chem import Descriptors

    return float(Descriptors.MolWt(mol))  # pyright: ignore[reportAttributeAccessIssue]


def penalised_logp(mol: Mol) -> float:
    """logP, less accessibility, less one for each atom of the largest ring beyond six; not normalised."""
    rings = mol.GetRingInfo().AtomRings()
    return logp(mol) - accessibility(mol) - max(0, max((len(ring) for ring in rings), default=0) - 6)


def solubility(mol: Mol) -> float:
    """MolGAN's solubility: logP from its 0.1 % ends in QM9, 0 to 1."""
    low, high = LOGP_RANGE
    return float(np.clip((logp(mol) - low) / (high - low), 0, 1))


def ease(mol: Mol) -> float:
    """MolGAN's synthesizability: 1 where the accessibility is 1.5 or less, 0 from 5 on."""
    return float(np.clip((HARDEST - accessibility(mol)) / (HARDEST - EASIEST), 0, 1))


PROPERTIES: Mapping[str, tuple[str, Callable[[Mol], float]]] = {
    "qed": ("0 to 1", qed),
    "logp": ("", logp),
    "accessibility": ("1 to 10", accessibility),
    "weight": ("Da", weight),
}
"""What is told of every molecule: unit, and how it is computed."""

KNOWN: Mapping[str, str] = {
    "albuterol": "CC(C)(C)NCC(O)c1ccc(O)c(CO)c1",
    "celecoxib": "Cc1ccc(-c2cc(C(F)(F)F)nn2-c2ccc(S(N)(=O)=O)cc2)cc1",
    "mestranol": "C#CC1(O)CCC2C3CCc4cc(OC)ccc4C3CCC21C",
    "thiothixene": "CN(C)S(=O)(=O)c1ccc2c(c1)C(=CCCN1CCN(C)CC1)c1ccccc1S2",
    "troglitazone": "Cc1c(C)c2c(c(C)c1O)CCC(C)(COc1ccc(CC3SC(=O)NC3=O)cc1)O2",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "caffeine": "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
    "haloperidol": "O=C(CCCN1CCC(O)(c2ccc(Cl)cc2)CC1)c1ccc(F)cc1",
    "risperidone": "Cc1nc2n(c(=O)c1CCN1CCC(c3noc4cc(F)ccc34)CC1)CCCC2",
}
"""Molecules that people know, to be alike to: those of GuacaMol's tasks (Brown et al. 2019), and some more."""

DOPAMINE = ("haloperidol", "risperidone", "thiothixene")
"""Drugs that bind to the dopamine receptor D2."""


def fingerprint(mol: Mol, radius: int = 2, bits: int = 1024) -> Any:
    """Morgan's fingerprint."""
    return _morgan(radius, bits).GetFingerprint(mol)


@cache
def _morgan(radius: int, bits: int) -> Any:
    from rdkit.Chem import rdFingerprintGenerator

    return rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=bits)


def similarities(one: Any, many: Sequence[Any]) -> np.ndarray:
    """Tanimoto similarities ``float64`` (N,) of a fingerprint to others."""
    from rdkit.DataStructs import BulkTanimotoSimilarity

    return np.asarray(BulkTanimotoSimilarity(one, list(many)), np.float64)  # pyright: ignore[reportCallIssue]


Score = Callable[[Mol], float]


def score_of(name: str) -> Score:
    """The score of a name: a property, or a task.

    ``qed``; ``logp``, ``penalised-logp``; ``solubility``, ``ease`` (MolGAN's, 0 to 1); ``similar:MOLECULE``, how alike
    (0 to 1) to one of :data:`KNOWN` or to any SMILES; ``dopamine``, a stand-in for activity at D2 that needs no
    download: how alike to the nearest of three drugs that bind there, times QED. Several with ``*`` between them are
    multiplied.

    Raises:
        UsageError: there is no such score.
    """
    parts = [_one(part.strip()) for part in name.split("*")]
    if len(parts) == 1:
        return parts[0]

    def product(mol: Mol) -> float:
        return float(np.prod([part(mol) for part in parts]))

    return product


def _one(name: str) -> Score:
    plain: Mapping[str, Score] = {
        "qed": qed,
        "logp": logp,
        "penalised-logp": penalised_logp,
        "solubility": solubility,
        "ease": ease,
    }
    if name in plain:
        return plain[name]
    if name == "dopamine":
        wanted = [_wanted(KNOWN[drug]) for drug in DOPAMINE]
        return lambda mol: float(similarities(fingerprint(mol), wanted).max()) * qed(mol)
    kind, _, target = name.partition(":")
    if kind != "similar" or not target:
        raise UsageError(f"There is no score {name!r}. {near(name, [*plain, 'dopamine', 'similar:MOLECULE'])}")
    wanted = [_wanted(KNOWN.get(target, target))]
    return lambda mol: float(similarities(fingerprint(mol), wanted)[0])


def _wanted(text: str) -> Any:
    mol = read_smiles(text)
    if mol is None:
        raise UsageError(f"similar:{text}: neither a molecule that is known here nor a SMILES. {near(text, KNOWN)}")
    return fingerprint(mol)


def scaffold(mol: Mol) -> str:
    """The Murcko scaffold as SMILES; empty where there is no ring."""
    from rdkit.Chem.Scaffolds import MurckoScaffold

    return chem().MolToSmiles(MurckoScaffold.GetScaffoldForMol(mol))
