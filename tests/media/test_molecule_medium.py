"""Molecules: read, checked, in three forms, written and drawn."""

from __future__ import annotations

import csv
import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from castalia.chemistry.molecules import (
    bonds_of,
    canonical,
    chem,
    graph_molecule,
    kinds_of,
    molecules_of,
    read_smiles,
    split_smiles,
    texts_of,
)
from castalia.core.data import Batch
from castalia.core.errors import DataError, UsageError
from castalia.core.specs.molecule import MoleculeSpec
from castalia.media.molecule.measures import key_of
from castalia.media.molecule.medium import MoleculeMedium
from castalia.media.molecule.read import MoleculeOptions, open_molecules
from castalia.media.molecule.sets import rule, small
from castalia.media.molecule.source import is_molecules
from castalia.media.named import medium_for, open_data

DRUGS = (
    "CC(=O)Oc1ccccc1C(=O)O",
    "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
    "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "O=C(CCCN1CCC(O)(c2ccc(Cl)cc2)CC1)c1ccc(F)cc1",
    "C#CC1(OC)CCC2C3CCc4cc(OC)ccc4C3CCC21C",
    "CS(=O)(=O)c1ccc(cc1)C1=C(C(=O)OC1)c1ccccc1",
)
MEDIUM = MoleculeMedium()


def file(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def kept(smiles: str) -> str:
    mol = read_smiles(smiles)
    assert mol is not None
    return canonical(mol)


@pytest.mark.parametrize("kind", ["graph", "smiles", "selfies"])
def test_every_form_gives_the_molecule_back(kind: str, tmp_path: Path) -> None:
    path = file(tmp_path / "drugs.smi", *DRUGS)
    data = open_molecules(path, MoleculeOptions(kind=kind))
    batch = data.batch(np.arange(len(data)))
    found = [canonical(mol) for mol in molecules_of(batch, data.spec) if mol is not None]
    assert found == [kept(text) for text in DRUGS]
    assert list(data.files) == found


@pytest.mark.parametrize("kind", ["graph", "smiles", "selfies"])
def test_the_rule_round_trips(kind: str) -> None:
    data = small("test", MoleculeOptions(kind=kind))
    batch = data.batch(np.arange(len(data)))
    assert [canonical(mol) for mol in molecules_of(batch, data.spec)] == list(data.files)
    assert set(data.files).isdisjoint(small("train").files)
    assert len(set(rule())) == len(rule()) >= 700


def test_graphs_are_symmetric_and_in_kekules_form(tmp_path: Path) -> None:
    data = open_molecules(file(tmp_path / "a.smi", "c1ccccc1O", "C#N"), MoleculeOptions())
    batch = data.batch(np.arange(2))
    bonds = batch.extra["bonds"]
    assert torch.equal(bonds, bonds.mT)
    assert (bonds.diagonal(dim1=1, dim2=2) == 0).all()
    assert data.spec.atoms == ("C", "N", "O")
    assert sorted(bonds[0].triu().flatten().tolist())[-7:] == [1, 1, 1, 1, 2, 2, 2]
    assert int(bonds[1].max()) == 3


def test_a_graph_that_chemistry_does_not_allow_is_told(tmp_path: Path) -> None:
    spec = MoleculeSpec("graph", 3, atoms=("C", "F"))
    x = torch.tensor([[2, 2, 2], [0, 0, 0], [1, 2, 0]])
    bonds = torch.zeros(3, 3, 3, dtype=torch.int64)
    bonds[0, 0, 1] = bonds[0, 1, 0] = 2  # F=F
    bonds[2, 0, 1] = bonds[2, 1, 0] = 1
    batch = Batch.of(x, None, {"bonds": bonds})
    mols = molecules_of(batch, spec)
    assert mols[0] is None
    assert mols[1] is None
    assert canonical(mols[2]) == "CF"
    assert texts_of(batch, spec)[0] != ""
    assert texts_of(batch, spec)[1] == ""
    MEDIUM.write(batch, spec, tmp_path)
    rows = list(csv.DictReader((tmp_path / "molecules.csv").read_text().splitlines()))
    assert [row["valid"] for row in rows] == ["no", "no", "yes"]
    assert float(rows[2]["weight"]) == pytest.approx(34.03, abs=0.01)


def test_charges_and_kinds() -> None:
    mol = read_smiles("[O-][N+](=O)C")
    assert mol is not None
    assert sorted(kinds_of(mol)) == ["C", "N+", "O", "O-"]
    order = kinds_of(mol)
    atoms = ("C", "N+", "O", "O-")
    x = np.array([1 + atoms.index(kind) for kind in order])
    again = graph_molecule(x, bonds_of(mol), atoms)
    assert again is not None
    assert canonical(again) == canonical(mol)


def test_charged_ones_are_left_out_of_graphs_unless_wanted(tmp_path: Path) -> None:
    path = file(tmp_path / "a.smi", "C[N+](=O)[O-]", "CCO")
    data = open_molecules(path, MoleculeOptions())
    assert list(data.files) == ["CCO"]
    assert "1 of 2" in data.notes[0]
    assert len(open_molecules(path, MoleculeOptions(charged=True))) == 2


def test_the_largest_piece_of_a_salt_is_used(tmp_path: Path) -> None:
    path = file(tmp_path / "a.smi", "CC(=O)O.Cl")
    assert list(open_molecules(path, MoleculeOptions(kind="smiles")).files) == ["CC(=O)O"]
    assert list(open_molecules(path, MoleculeOptions(kind="smiles", fragments=True)).files) == ["CC(=O)O.Cl"]


def test_stereochemistry_is_kept_where_wanted(tmp_path: Path) -> None:
    path = file(tmp_path / "a.smi", "C[C@H](N)C(=O)O")
    assert open_molecules(path, MoleculeOptions(kind="smiles")).files[0] == "CC(N)C(=O)O"
    data = open_molecules(path, MoleculeOptions(kind="smiles", stereo=True))
    assert "@" in data.files[0]
    assert canonical(molecules_of(data.batch(np.arange(1)), data.spec)[0], stereo=True) == data.files[0]


def test_a_line_that_is_no_molecule_is_named(tmp_path: Path) -> None:
    path = file(tmp_path / "a.smi", "CCO", "C1CC", "CCN")
    with pytest.raises(DataError, match=r"line 2: 'C1CC' is not a molecule.*on_bad_line=skip"):
        open_molecules(path, MoleculeOptions())
    data = open_molecules(path, MoleculeOptions(on_bad_line="skip"))
    assert len(data) == 2
    assert "line 2" in data.notes[0]


def test_tables_sdf_gzip_zip_and_folders(tmp_path: Path) -> None:
    table = file(tmp_path / "t.csv", "name,SMILES,class", 'a,"CC(=O)O",acid', "b,CCO,alcohol")
    data = open_molecules(table, MoleculeOptions(kind="smiles", labels="column:class"))
    assert list(data.files) == ["CC(=O)O", "CCO"]
    assert data.spec.classes == ("acid", "alcohol")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1]
    with pytest.raises(DataError, match="no column 'klass'"):
        open_molecules(table, MoleculeOptions(labels="column:klass"))
    blocks = "".join(chem().MolToMolBlock(read_smiles(s)) + "$$$$\n" for s in DRUGS[:2])
    (tmp_path / "d.sdf").write_text(blocks)
    assert list(open_molecules(tmp_path / "d.sdf", MoleculeOptions()).files) == [kept(s) for s in DRUGS[:2]]
    (tmp_path / "z.smi.gz").write_bytes(gzip.compress(b"CCO\nCCN\n"))
    assert len(open_molecules(tmp_path / "z.smi.gz", MoleculeOptions())) == 2
    for name, text in (("acids/a.smi", "CC(=O)O"), ("alcohols/b.smi", "CCO")):
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        file(tmp_path / "f" / name, text)
    folder = open_molecules(tmp_path / "f", MoleculeOptions(labels="folders"))
    assert folder.spec.classes == ("acids", "alcohols")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as packed:
        packed.write(table, "t.csv")
    assert len(open_molecules(tmp_path / "all.zip", MoleculeOptions())) == 2


def test_what_is_read_as_molecules(tmp_path: Path) -> None:
    assert is_molecules(file(tmp_path / "a.smi", "CCO"))
    assert is_molecules(file(tmp_path / "a.txt", "CCO", "c1ccccc1"))
    assert not is_molecules(file(tmp_path / "b.txt", "Call me Ishmael.", "Some years ago"))
    assert not is_molecules(file(tmp_path / "p.csv", "x,y", "1,2"))
    assert is_molecules(file(tmp_path / "m.csv", "id,canonical_smiles", "1,CCO"))
    assert medium_for(str(tmp_path / "m.csv")).name == "molecule"
    assert medium_for(str(tmp_path / "p.csv")).name == "points"


def test_a_run_reads_other_data_in_its_own_shape(tmp_path: Path) -> None:
    like = open_molecules(file(tmp_path / "a.smi", "CCO", "CCN"), MoleculeOptions()).spec
    data = open_molecules(file(tmp_path / "b.smi", "CO", "CF", "CCCC"), MoleculeOptions(), like=like)
    assert data.spec == like
    assert list(data.files) == ["CO"]
    assert any("atoms that the run" in note for note in data.notes)
    assert any("more than 3 atoms" in note for note in data.notes)


def test_splits_are_by_molecule(tmp_path: Path) -> None:
    lines = rule()[:200]
    path = file(tmp_path / "a.smi", *lines, *lines[:50])
    train, test = (open_molecules(path, MoleculeOptions(), split=s) for s in ("train", "test"))
    assert len(train) + len(test) == 250
    assert set(train.files).isdisjoint(test.files)
    with pytest.raises(DataError, match="too few"):
        open_molecules(file(tmp_path / "b.smi", "CCO"), MoleculeOptions(), split="test")


def test_many_molecules_are_kept_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from castalia.media.molecule import read

    monkeypatch.setenv("CASTALIA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(read, "MANY", 10)
    path = file(tmp_path / "a.smi", *DRUGS, *rule()[:20])
    first = open_molecules(path, MoleculeOptions(kind="selfies"))
    (kept_file,) = (tmp_path / "cache" / "molecules").iterdir()
    monkeypatch.setattr(read, "made_of", lambda *a: pytest.fail("read anew"))
    again = open_molecules(path, MoleculeOptions(kind="selfies"))
    assert again.fingerprint == first.fingerprint
    assert again.files == first.files
    monkeypatch.undo()
    monkeypatch.setenv("CASTALIA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(read, "MANY", 10)
    data = bytearray(kept_file.read_bytes())
    data[-3] ^= 1
    kept_file.write_bytes(bytes(data))  # damaged: made anew
    assert open_molecules(path, MoleculeOptions(kind="selfies")).fingerprint == first.fingerprint


def test_damage_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.smi").write_bytes(b"CCO\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"a\.smi cannot be read"):
        open_molecules(tmp_path / "a.smi", MoleculeOptions())
    (tmp_path / "b.smi.gz").write_bytes(gzip.compress(b"CCO\n" * 1000)[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        open_molecules(tmp_path / "b.smi.gz", MoleculeOptions())
    file(tmp_path / "c.smi", "C" * 70_000)
    with pytest.raises(DataError, match="line 1: longer than"):
        open_molecules(tmp_path / "c.smi", MoleculeOptions())
    file(tmp_path / "d.csv", "smiles,x", "CCO,1", "CC")
    with pytest.raises(DataError, match=r"line 3: 1 columns|not a molecule"):
        open_molecules(tmp_path / "d.csv", MoleculeOptions(column="x"))
    with pytest.raises(UsageError, match="labels is"):
        MoleculeOptions(labels="klass")


def test_typed_molecules(tmp_path: Path) -> None:
    data = small("test", MoleculeOptions(kind="smiles"))
    x = MEDIUM.read("OCC", data.spec)
    assert texts_of(Batch.of(x[None]), data.spec) == ["CCO"]
    with pytest.raises(UsageError, match="not a molecule"):
        MEDIUM.read("hello", data.spec)
    with pytest.raises(UsageError, match="larger than the run"):
        MEDIUM.read("CCBr", data.spec)
    assert torch.equal(MEDIUM.read_file(file(tmp_path / "a.smi", "OCC"), data.spec), x)
    begun = MEDIUM.read("CC(...", data.spec)
    assert [data.spec.tokens[t] for t in begun.tolist()] == ["C", "C", "("]


def test_written_files_are_read_again(tmp_path: Path) -> None:
    data = small("test")
    batch = data.batch(np.arange(9))
    (path,) = MEDIUM.write(batch, data.spec, tmp_path, recipe={"seed": 3})
    assert path.with_suffix(".json").is_file()
    for name in ("molecules.csv", "molecules.sdf"):
        again = open_molecules(tmp_path / name, MoleculeOptions())
        assert list(again.files) == list(data.files[:9])
    assert MEDIUM.picture(batch, data.spec, 3).size[0] == 3 * 220


@pytest.mark.parametrize("text", ["c1cc(Cl)ccc1[N+](=O)[O-]", "C%12CC%12", "F/C=C/F", "[13CH4]", "BrC#N"])
def test_tokens_of_smiles(text: str) -> None:
    tokens = split_smiles(text)
    assert tokens is not None
    assert "".join(tokens) == text
    assert split_smiles("Hello") is None
    assert split_smiles("") is None


def test_qm9(castalia_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASTALIA_CACHE", str(tmp_path))
    data = open_data("qm9", MoleculeOptions(kind="smiles"), split="test")
    assert len(data) == 13_324
    assert data.spec.size == 31
    batch = data.batch(np.arange(0, 13_000, 100))
    assert all(mol is not None and mol.GetNumAtoms() <= 9 for mol in molecules_of(batch, data.spec))


def test_graphs_of_what_they_cannot_tell(tmp_path: Path) -> None:
    path = file(tmp_path / "a.smi", "CCO", "[NH3]->[Fe]", "*CC", "C" * 600)
    data = open_molecules(path, MoleculeOptions())
    assert data.files == ("CCO",)
    assert data.spec.length == 3
    assert bonds_of(read_smiles("[NH3]->[Fe]")).max() > 3
    with pytest.raises(UsageError, match="has other atoms"):
        MEDIUM.read("*C", data.spec)


@pytest.mark.parametrize("kind", ["smiles", "selfies"])
def test_stereochemistry_of_double_bonds_alone(tmp_path: Path, kind) -> None:
    path = file(tmp_path / "a.smi", r"C/C=C/CC", r"C/C=C\CC", "CCC")
    data = open_molecules(path, MoleculeOptions(kind, stereo=True))
    assert data.spec.stereo
    keys = [key_of(one, data.spec) for one in molecules_of(data.batch(np.arange(3)), data.spec)]
    assert tuple(keys) == data.files
    assert len(set(keys)) == 3
    assert torch.equal(MEDIUM.read(data.files[0], data.spec), data.batch(np.array([0])).x[0])


def test_a_beginning_that_is_cut_in_a_token_is_told() -> None:
    with pytest.raises(UsageError, match="not the beginning"):
        MEDIUM.read("[C...", MoleculeSpec("selfies", 10, tokens=("[C]", "[O]")))
