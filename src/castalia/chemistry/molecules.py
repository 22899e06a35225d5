"""What chemistry is needed: RDKit reads, checks and writes molecules; graphs and strings of the same one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from castalia.core.data import Batch
from castalia.core.errors import MissingExtra
from castalia.core.specs.molecule import MoleculeSpec

Mol = Any
"""A molecule of RDKit."""

TOKEN = re.compile(r"\[[^\[\]]{1,40}\]|Br|Cl|%\d\d|[BCNOPSFIbcnops]|[=#$:/\\.\-+()~*@]|\d")
"""One token of SMILES: a bracket atom, an atom of the organic subset, a bond, a branch, a ring closure."""

ATOM = re.compile(r"([A-Z][a-z]?)(?:(\d*)([+-]))?")
"""A kind of atom: a symbol, and a charge."""


@cache
def chem() -> ModuleType:
    """``rdkit.Chem``, which keeps quiet from then on.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        from rdkit import Chem, RDLogger
    except (ImportError, OSError) as error:
        raise MissingExtra("Molecules", "molecules") from error
    RDLogger.DisableLog("rdApp.*")  # pyright: ignore[reportAttributeAccessIssue]
    return Chem


@cache
def selfies() -> ModuleType:
    """The package ``selfies``.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import selfies as package
    except ImportError as error:
        raise MissingExtra("SELFIES", "molecules") from error
    return package


LONGEST_SMILES = 4_096
"""Longer texts are not read: the time that RDKit takes grows with the square, to minutes at ten times this."""


def read_smiles(text: str) -> Mol | None:
    """A molecule with at least one atom, or None where the text is none that chemistry allows, or is too long."""
    mol = chem().MolFromSmiles(text) if 0 < len(text) <= LONGEST_SMILES else None
    return mol if mol is not None and mol.GetNumAtoms() else None


def canonical(mol: Mol, stereo: bool = False) -> str:
    """The canonical SMILES."""
    return chem().MolToSmiles(mol, isomericSmiles=stereo)


def split_smiles(text: str) -> list[str] | None:
    """The tokens of a SMILES; None where it is not made of them."""
    tokens = TOKEN.findall(text)
    return tokens if "".join(tokens) == text and tokens else None


# graphs


def kind_of(atom: Any) -> str:
    """The kind of an atom: symbol and charge."""
    charge = atom.GetFormalCharge()
    if not charge:
        return atom.GetSymbol()
    size = str(abs(charge)) if abs(charge) > 1 else ""
    return f"{atom.GetSymbol()}{size}{'+' if charge > 0 else '-'}"


def kinds_of(mol: Mol) -> list[str]:
    """The kind of each heavy atom, in the molecule's order."""
    return [kind_of(atom) for atom in mol.GetAtoms()]


def bonds_of(mol: Mol) -> np.ndarray:
    """Bonds ``uint8`` (atoms, atoms) in Kekule's form; values above 3 are bonds of other kinds."""
    mol = chem().Mol(mol)
    chem().Kekulize(mol, clearAromaticFlags=True)
    table = np.zeros((mol.GetNumAtoms(),) * 2, np.uint8)
    kinds = chem().BondType
    orders = {kinds.SINGLE: 1, kinds.DOUBLE: 2, kinds.TRIPLE: 3}
    for bond in mol.GetBonds():
        value = orders.get(bond.GetBondType(), 4)  # a dative bond is 4, though its order is 1
        table[bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()] = table[bond.GetEndAtomIdx(), bond.GetBeginAtomIdx()] = (
            value
        )
    return table


def graph_molecule(x: np.ndarray, bonds: np.ndarray, atoms: Sequence[str]) -> Mol | None:
    """The molecule of a graph, checked; None where chemistry does not allow it, or it has no atoms.

    Args:
        x: (length,), as in :class:`~castalia.core.specs.molecule.MoleculeSpec`.
        bonds: (length, length).
        atoms: the kinds.
    """
    mol = _assembled(x, bonds, atoms)
    if mol is None:
        return None
    try:
        chem().SanitizeMol(mol)
    except ValueError:  # all that RDKit refuses derives from it
        return None
    return mol


def _assembled(x: np.ndarray, bonds: np.ndarray, atoms: Sequence[str]) -> Mol | None:
    package = chem()
    mol, place = package.RWMol(), {}
    orders = (None, package.BondType.SINGLE, package.BondType.DOUBLE, package.BondType.TRIPLE)
    for i in np.flatnonzero(x).tolist():
        found = ATOM.fullmatch(atoms[int(x[i]) - 1])
        assert found is not None
        atom = package.Atom(found[1])
        if found[3]:
            atom.SetFormalCharge(int(found[2] or 1) * (1 if found[3] == "+" else -1))
        place[i] = mol.AddAtom(atom)
    for i, j in zip(*np.nonzero(np.triu(bonds, 1)), strict=True):
        if int(i) in place and int(j) in place:
            mol.AddBond(place[int(i)], place[int(j)], orders[int(bonds[i, j])])
    return mol.GetMol() if place else None


# batches


def texts_of(batch: Batch, spec: MoleculeSpec) -> list[str]:
    """Each molecule as SMILES, as it was made: it may be none that chemistry allows; empty where nothing was made."""
    if spec.kind == "graph":
        texts = []
        for x, bonds in zip(batch.x.numpy(), batch.extra["bonds"].numpy(), strict=True):
            mol = _assembled(x, bonds, spec.atoms)
            texts.append("" if mol is None else chem().MolToSmiles(mol))
        return texts
    rows = ["".join(spec.tokens[t] for t in row if 0 <= t < spec.end) for row in batch.x.tolist()]
    return [selfies().decoder(row) for row in rows] if spec.kind == "selfies" else rows


def molecules_of(batch: Batch, spec: MoleculeSpec) -> list[Mol | None]:
    """Each molecule, or None where chemistry does not allow it."""
    if spec.kind == "graph":
        pairs = zip(batch.x.numpy(), batch.extra["bonds"].numpy(), strict=True)
        return [graph_molecule(x, bonds, spec.atoms) for x, bonds in pairs]
    return [read_smiles(text) for text in texts_of(batch, spec)]


def tokens_in(text: str, spec: MoleculeSpec) -> list[int] | None:
    """The tokens of a molecule's string, without its end; None where the spec does not have them all."""
    try:
        parts = split_smiles(text) if spec.kind == "smiles" else list(selfies().split_selfies(text))
    except ValueError:  # a bracket that stays open
        return None
    number = {token: i for i, token in enumerate(spec.tokens)}
    return None if parts is None or not all(p in number for p in parts) else [number[p] for p in parts]
