"""Sets of molecules that have a name, and the tiny one that is built in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np

from castalia.core.rng import derive
from castalia.core.specs.molecule import MoleculeSpec
from castalia.media.molecule.read import MoleculeOptions, made_of, open_molecules
from castalia.media.molecule.source import Line
from castalia.media.molecule.table import Molecules
from castalia.media.sets import DataFile, NamedData, Progress, find

QM9, ZINC, TINY = "qm9", "zinc250k", "small-molecules"

SETS: Mapping[str, NamedData] = {
    QM9: NamedData(
        "all small organic molecules of at most nine heavy atoms C, N, O, F (QM9), as SMILES; those with charged atoms "
        "left out in graphs",
        "CC0",
        (),
        {"train": 120_561, "test": 13_324},
        {
            "all": (
                DataFile(
                    "smiles.csv.gz",
                    "80c060e299a44112b89be3fc6d95145dfeda97aa3eab1e2662aafdfbb00f7929",
                    packed=("68909b8e7f4ededd8b78d6b2d6c61f080c713ee0a958ca31ed19a1c905b0e99f",),
                    inside=2171295,
                ),
            )
        },
        "qm9.csv of https://github.com/aspuru-guzik-group/selfies (tests/test_sets), its column of SMILES, with gzip",
    ),
    ZINC: NamedData(
        "a quarter of a million drug-like molecules that can be bought (ZINC), as SMILES",
        "ZINC: free to use, not to be redistributed in large parts",
        (),
        {"train": 224_421, "test": 25_034},
        {
            "all": (
                DataFile(
                    "smiles.txt.gz",
                    "df0aa677c770f15c9943684d6600cba8e7076c67be6a090c12f24da3aaa55b70",
                    packed=("4e9c6ab85040edf0ecccc6196992dc1a2873d75eb0c1521e0c3e8a3b67dee175",),
                    inside=11302921,
                ),
            )
        },
        "data/zinc.txt.gz of https://github.com/wenhao-gao/mol_opt, unpacked, and packed with gzip",
    ),
    TINY: NamedData(
        "small molecules put together by a rule: a chain or a ring, with groups of one or two atoms",
        "none needed: computed",
        (),
        {"train": 600, "test": 100},
        {},
    ),
}


def open_set(
    name: str, options: MoleculeOptions, split: str, like: MoleculeSpec | None, progress: Progress | None
) -> Molecules:
    """Open a named set."""
    if name == TINY:
        return small(split, options, like)
    entry = SETS[name]
    path = find(name, entry, entry.files["all"][0], progress)
    return open_molecules(path, options, split=split, like=like, name=name, progress=progress)


CORES = ("CC", "CCC", "CCCC", "C=C", "C1CC1", "C1CCC1", "C1CCCC1", "CC(C)C", "C=CC", "C1CCNC1")
GROUPS = ("O", "N", "F", "C", "=O", "C#N", "OC", "CO")


def small(split: str = "train", options: MoleculeOptions | None = None, like: MoleculeSpec | None = None) -> Molecules:
    """Molecules by a rule: a core of carbon with one or two groups on its atoms."""
    options = replace(options or MoleculeOptions(), labels="none")
    everything = rule()
    count = SETS[TINY].counts["train"]
    mine = everything[:count] if split == "train" else everything[count : count + SETS[TINY].counts["test"]]
    lines = [Line(f"{TINY}, molecule {i}", text) for i, text in enumerate(mine)]
    if like is None:  # the same shape, whatever the split
        like = made_of([Line(TINY, text) for text in everything], options).spec
    made = made_of(lines, options, like)
    return Molecules(made.smiles, made.rows, made.bonds, made.spec, name=TINY)


@cache
def rule() -> list[str]:
    """All different molecules of the rule, in an order that is always the same."""
    from castalia.chemistry.molecules import canonical, read_smiles

    found: dict[str, None] = {}
    for core in CORES:
        base = read_smiles(core)
        assert base is not None
        places = range(base.GetNumAtoms())
        for i in places:
            for a in GROUPS:
                one = _attached(core, {i: a})
                for j in places:
                    for b in GROUPS:
                        two = _attached(core, {i: a, j: b}) if i != j else one
                        mol = None if two is None else read_smiles(two)
                        if mol is not None and not any(atom.GetFormalCharge() for atom in mol.GetAtoms()):
                            found[canonical(mol)] = None
    names = sorted(found)
    order = np.random.Generator(np.random.Philox(derive(18, "small"))).permutation(len(names))
    return [names[i] for i in order.tolist()]


def _attached(core: str, groups: Mapping[int, str]) -> str | None:
    """A core with groups on its atoms, as SMILES; None where an atom has no room for one."""
    from castalia.chemistry.molecules import canonical, chem, read_smiles

    package = chem()
    base = read_smiles(core)
    assert base is not None
    mol = package.RWMol(base)
    for place, group in groups.items():
        double = group.startswith("=")
        part = read_smiles(group.removeprefix("="))
        assert part is not None
        start = mol.GetNumAtoms()
        mol.InsertMol(part)
        mol.AddBond(place, start, package.BondType.DOUBLE if double else package.BondType.SINGLE)
    try:
        package.SanitizeMol(mol)
    except ValueError:
        return None
    return canonical(mol)
