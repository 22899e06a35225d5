"""Genetic search on graphs of molecules: the baseline that is hard to beat.

Paper
    Jensen 2019, "A graph-based genetic algorithm and generative model/Monte Carlo tree search for the exploration of
    chemical space" (Chem. Sci. 10): parents by their score, crossover by cutting one bond of each, mutations of atoms,
    bonds and rings. Population, offspring and rate of mutation are those of PMO (Gao et al. 2022).
    Crossover here cuts single bonds outside rings; Jensen's also cuts rings in two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from castalia.chemistry.molecules import Mol, canonical, chem, read_smiles
from castalia.creative.directed.oracle import Oracle

POPULATION, OFFSPRING, MUTATION = 120, 70, 0.067
SYMBOLS = (6, 6, 6, 7, 8, 9, 16, 17)
"""Atomic numbers that mutations choose from; carbon more often."""
LARGEST_RING, MOST_ATOMS = 7, 50
STALE = 20
"""Generations that may bring nothing new before the search gives up."""


def search(oracle: Oracle, start: Sequence[str], rng: np.random.Generator) -> None:
    """Search until the oracle's budget is spent.

    Args:
        oracle: what is asked.
        start: SMILES of the first population.
        rng: decides everything.
    """
    population = [mol for mol in map(read_smiles, start) if mol is not None]
    scores = oracle(population)
    stale = 0
    while not oracle.spent and stale < STALE:
        before = len(oracle.found)
        chance = np.maximum(scores, 0) + 1e-9
        chance = chance / chance.sum()
        children: list[Mol] = []
        for _ in range(20 * OFFSPRING):
            if len(children) >= OFFSPRING:
                break
            a, b = rng.choice(len(population), size=2, p=chance)
            child = crossed(population[a], population[b], rng)
            if child is not None and rng.random() < MUTATION:
                child = mutated(child, rng)
            if child is not None:
                children.append(child)
        population = _apart([*population, *children])
        scores = oracle(population)
        order = np.argsort(-scores, kind="stable")[:POPULATION]
        population, scores = [population[i] for i in order], scores[order]
        stale = stale + 1 if len(oracle.found) == before else 0


def _apart(mols: Sequence[Mol]) -> list[Mol]:
    """Each molecule once."""
    return list({canonical(mol): mol for mol in mols}.values())


def checked(mol: Mol) -> Mol | None:
    """The molecule where it is one piece that chemistry allows, not too large, without large or strained rings."""
    try:
        chem().SanitizeMol(mol)
    except ValueError:
        return None
    plain = read_smiles(canonical(mol))
    if plain is None or not 3 <= plain.GetNumAtoms() <= MOST_ATOMS or len(chem().GetMolFrags(plain)) != 1:
        return None
    rings = plain.GetRingInfo().AtomRings()
    if max((len(ring) for ring in rings), default=0) > LARGEST_RING:
        return None
    return None if plain.HasSubstructMatch(_strained()) else plain


def _strained() -> Mol:
    return chem().MolFromSmarts("[R]=[R]=[R]")


def crossed(a: Mol, b: Mol, rng: np.random.Generator) -> Mol | None:
    """A part of one molecule bound to a part of another; None where they cannot be cut, or do not fit."""
    parts = [_cut(mol, rng) for mol in (a, b)]
    if parts[0] is None or parts[1] is None:
        return None
    whole = chem().RWMol(chem().CombineMols(parts[0][0], parts[1][0]))
    whole.AddBond(parts[0][1], parts[0][0].GetNumAtoms() + parts[1][1], chem().BondType.SINGLE)
    return checked(whole)


def _cut(mol: Mol, rng: np.random.Generator) -> tuple[Mol, int] | None:
    """One side of a single bond outside rings, and the number of its atom that was bound."""
    bonds = [b for b in mol.GetBonds() if not b.IsInRing() and b.GetBondType() == chem().BondType.SINGLE]
    if not bonds:
        return None
    bond = bonds[int(rng.integers(len(bonds)))]
    ends = (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
    kept = ends[int(rng.integers(2))]
    edit = chem().RWMol(mol)
    edit.RemoveBond(*ends)
    side = next(piece for piece in chem().GetMolFrags(edit) if kept in piece)
    place = sorted(side).index(kept)
    for other in sorted(set(range(mol.GetNumAtoms())) - set(side), reverse=True):
        edit.RemoveAtom(other)
    # what lost a neighbour takes a hydrogen, unless it gets another
    return edit.GetMol(), place


def mutated(mol: Mol, rng: np.random.Generator) -> Mol | None:
    """One of seven changes, tried up to ten times; None where nothing came of it."""
    for _ in range(10):
        edit = chem().RWMol(mol)
        try:
            chem().Kekulize(edit, clearAromaticFlags=True)
        except ValueError:
            return None
        change = CHANGES[int(rng.integers(len(CHANGES)))]
        if change(edit, rng):
            found = checked(edit)
            if found is not None:
                return found
    return None


def _atom(edit: Mol, rng: np.random.Generator) -> int:
    return int(rng.integers(edit.GetNumAtoms()))


def _append(edit: Mol, rng: np.random.Generator) -> bool:
    """A new atom on one that is there."""
    order = (chem().BondType.SINGLE, chem().BondType.SINGLE, chem().BondType.DOUBLE)[int(rng.integers(3))]
    place = _atom(edit, rng)
    edit.AddBond(place, edit.AddAtom(chem().Atom(int(rng.choice(SYMBOLS)))), order)
    return True


def _insert(edit: Mol, rng: np.random.Generator) -> bool:
    """A new atom into a bond."""
    if not edit.GetNumBonds():
        return False
    bond = edit.GetBondWithIdx(int(rng.integers(edit.GetNumBonds())))
    a, b = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
    edit.RemoveBond(a, b)
    new = edit.AddAtom(chem().Atom(int(rng.choice(SYMBOLS))))
    edit.AddBond(a, new, chem().BondType.SINGLE)
    edit.AddBond(new, b, chem().BondType.SINGLE)
    return True


def _change_atom(edit: Mol, rng: np.random.Generator) -> bool:
    """Another element in one place."""
    atom = edit.GetAtomWithIdx(_atom(edit, rng))
    atom.SetAtomicNum(int(rng.choice(SYMBOLS)))
    atom.SetFormalCharge(0)
    atom.SetNoImplicit(False)
    atom.SetNumExplicitHs(0)
    return True


def _change_bond(edit: Mol, rng: np.random.Generator) -> bool:
    """Another order of a bond."""
    if not edit.GetNumBonds():
        return False
    kinds = (chem().BondType.SINGLE, chem().BondType.DOUBLE, chem().BondType.TRIPLE)
    edit.GetBondWithIdx(int(rng.integers(edit.GetNumBonds()))).SetBondType(
        kinds[int(rng.choice(3, p=(0.45, 0.45, 0.1)))]
    )
    return True


def _remove_atom(edit: Mol, rng: np.random.Generator) -> bool:
    """An atom at an end, or one with two neighbours, which are bound to one another."""
    atom = edit.GetAtomWithIdx(_atom(edit, rng))
    near = [n.GetIdx() for n in atom.GetNeighbors()]
    if len(near) > 2:
        return False
    if len(near) == 2 and edit.GetBondBetweenAtoms(*near) is None:
        edit.AddBond(near[0], near[1], chem().BondType.SINGLE)
    edit.RemoveAtom(atom.GetIdx())
    return True


def _open_ring(edit: Mol, rng: np.random.Generator) -> bool:
    """A single bond of a ring less."""
    chem().FastFindRings(edit)
    bonds = [b for b in edit.GetBonds() if b.IsInRing() and b.GetBondType() == chem().BondType.SINGLE]
    if not bonds:
        return False
    bond = bonds[int(rng.integers(len(bonds)))]
    edit.RemoveBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
    return True


def _close_ring(edit: Mol, rng: np.random.Generator) -> bool:
    """A bond between atoms that are two to five bonds apart."""
    distance = chem().GetDistanceMatrix(edit)
    pairs = np.argwhere((distance >= 2) & (distance <= 5))
    if not len(pairs):
        return False
    a, b = pairs[int(rng.integers(len(pairs)))].tolist()
    edit.AddBond(a, b, chem().BondType.SINGLE)
    return True


CHANGES = (_append, _insert, _change_atom, _change_bond, _remove_atom, _open_ring, _close_ring)
