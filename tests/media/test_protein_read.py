"""Proteins: structures, sequences and alignments from files, good and bad; and back into files."""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path

import biotite.structure as structure
import biotite.structure.io.pdb as pdb
import biotite.structure.io.pdbx as pdbx
import numpy as np
import pytest
import torch

from castalia.core.data import Batch
from castalia.core.errors import DataError, UsageError
from castalia.core.specs.protein import GAP, LETTERS, STATES, ProteinSpec, structure_spec
from castalia.media.named import open_data
from castalia.media.protein.chains import Chain, Chains, Sequences, numbers
from castalia.media.protein.folds import folds
from castalia.media.protein.geometry import beta, chain, helix, oxygens, torsion
from castalia.media.protein.medium import ProteinMedium
from castalia.media.protein.read import ProteinOptions, open_proteins
from castalia.media.protein.sequences import read_alignment, read_fasta
from castalia.media.protein.sets import HELD_OUT
from castalia.media.protein.structures import read_structure
from castalia.media.protein.write import chains_of, pdb_text


def made(letters: str = "MKTAYIAKQRQISF") -> Chain:
    residues = numbers(letters)
    x = helix(residues).astype(np.float32)
    return Chain("made", residues, x, np.ones(x.shape[:2], np.uint8), np.linspace(20, 90, len(x)).astype(np.float32))


def text_of(letters: str = "MKTAYI") -> str:
    x = helix(numbers(letters))
    rows = [" ".join(f"{v:.3f}" for v in row[[0, 1, 2, 4]].ravel()) for row in x]
    return "\n".join([letters, "H" * len(letters), *rows]) + "\n"


# geometry


def test_a_helix_is_one() -> None:
    x = helix(numbers("A" * 12))
    rise = np.linalg.norm(x[1:, 1] - x[:-1, 1], axis=1)
    assert rise == pytest.approx(3.80, abs=0.03)
    hydrogen = np.linalg.norm(x[:-4, 3] - x[4:, 0], axis=1)  # O of i and N of i + 4
    assert (hydrogen < 3.4).all()
    assert (hydrogen > 2.5).all()
    turn = torsion(x[:-3, 1], x[1:-2, 1], x[2:-1, 1], x[3:, 1])
    assert np.rad2deg(turn) == pytest.approx(50, abs=6)  # right-handed


def test_torsions_go_in_and_come_out() -> None:
    rng = np.random.default_rng(0)
    phi, psi = rng.uniform(-3, 3, (2, 9))
    x = chain(phi, psi, numbers("A" * 9))
    n, ca, c = x[:, 0], x[:, 1], x[:, 2]
    assert np.cos(torsion(c[:-1], n[1:], ca[1:], c[1:]) - phi[1:]) == pytest.approx(1)
    assert np.cos(torsion(n[:-1], ca[:-1], c[:-1], n[1:]) - psi[:-1]) == pytest.approx(1)
    assert oxygens(x)[:-1] == pytest.approx(x[:-1, 3], abs=0.06)
    assert np.linalg.norm(beta(x) - ca, axis=1) == pytest.approx(1.53)
    both = chain(np.stack([phi, psi]), np.stack([psi, phi]), np.stack([numbers("A" * 9)] * 2))
    assert both[0] == pytest.approx(x)


# PDB and mmCIF


def test_pdb_comes_back_as_it_was_written() -> None:
    one = made()
    (back,) = read_structure(pdb_text(one).encode(), "x.pdb")
    assert back.letters == one.letters
    assert back.x == pytest.approx(one.x, abs=6e-4)
    assert back.confidence == pytest.approx(one.confidence, abs=6e-3)
    assert (back.there == 1).all()


def test_other_programs_read_what_is_written() -> None:
    atoms = pdb.PDBFile.read(io.StringIO(pdb_text(made()))).get_structure(model=1, extra_fields=["b_factor"])
    assert structure.get_residue_count(atoms) == 14
    assert atoms.b_factor[atoms.atom_name == "CA"] == pytest.approx(made().confidence, abs=6e-3)
    assert structure.filter_peptide_backbone(atoms).sum() == 3 * 14


def lines_of(one: Chain) -> list[str]:
    return pdb_text(one).splitlines()


def test_missing_residues_are_there_without_places() -> None:
    kept = [line for line in lines_of(made()) if not line.startswith("ATOM") or int(line[22:26]) not in (5, 6)]
    (back,) = read_structure("\n".join(kept[1:]).encode(), "x.pdb")
    assert back.letters == "MKTAXXAKQRQISF"
    assert back.there[[4, 5]].sum() == 0
    assert (back.x[[4, 5]] == 0).all()
    assert (back.confidence == 100).all()  # these B-factors are not said to be ours


def test_missing_atoms_other_models_and_alternates() -> None:
    lines = lines_of(made())
    without = [line for line in lines if line[12:16].strip() not in ("O", "CEN")]
    (back,) = read_structure("\n".join(without).encode(), "x.pdb")
    assert back.x[:-1, 3] == pytest.approx(made().x[:-1, 3], abs=0.06)  # placed by rule
    assert back.there[:, 3].tolist() == [1] * 13 + [0]
    assert (back.there[:, 4] == 0).all()
    alternate = []
    for line in lines:
        if line.startswith("ATOM") and int(line[22:26]) == 3 and line[12:16].strip() == "CA":
            moved = f"{line[:16]}B{line[17:30]}{0.0:8.3f}{line[38:54]}{0.7:6.2f}{line[60:]}"
            alternate += [f"{line[:16]}A{line[17:54]}{0.3:6.2f}{line[60:]}", moved]
        else:
            alternate.append(line)
    (back,) = read_structure("\n".join(alternate).encode(), "x.pdb")
    assert back.x[2, 1, 0] == 0  # the likelier place
    two = ["MODEL        1", *lines[:-1], "ENDMDL", "MODEL        2", *lines[1:-1], "ENDMDL", "END"]
    assert read_structure("\n".join(two).encode(), "x.pdb")[0].letters == made().letters


def test_side_chains_become_centroids_and_modified_residues_their_parents() -> None:
    lines = [
        "ATOM      1  N   MSE A   1      11.000   0.000   0.000  1.00 10.00           N",
        "ATOM      2  CA  MSE A   1      12.400   0.000   0.000  1.00 10.00           C",
        "ATOM      3  C   MSE A   1      13.000   1.400   0.000  1.00 10.00           C",
        "ATOM      4  CB  MSE A   1      13.000  -1.000   1.000  1.00 10.00           C",
        "ATOM      5  HB  MSE A   1      99.000  -1.000   1.000  1.00 10.00           H",
        "ATOM      6 SE   MSE A   1      15.000  -3.000   1.000  1.00 10.00          SE",
        "HETATM    7  O   HOH A   2      30.000   0.000   0.000  1.00 10.00           O",
    ]
    (back,) = read_structure("\n".join(lines).encode(), "x.pdb")
    assert back.letters == "M"
    assert back.x[0, 4] == pytest.approx([14, -2, 1])


def cif_of(one: Chain, gap: bool = False) -> str:
    atoms = pdb.PDBFile.read(io.StringIO(pdb_text(one))).get_structure(model=1)
    file = pdbx.CIFFile()
    pdbx.set_structure(file, atoms[~np.isin(atoms.res_id, (5, 6))] if gap else atoms, data_block="x")
    if gap:
        three = atoms.res_name[structure.get_residue_starts(atoms)]
        file.block["pdbx_poly_seq_scheme"] = pdbx.CIFCategory(
            {"asym_id": ["A"] * 14, "seq_id": [str(i) for i in range(1, 15)], "mon_id": list(three)}
        )
        site = file.block["atom_site"]
        site["label_seq_id"] = pdbx.CIFColumn(site["auth_seq_id"].as_array())
    stream = io.StringIO()
    file.write(stream)
    return stream.getvalue()


def test_mmcif_and_what_it_says_of_missing_residues() -> None:
    (back,) = read_structure(cif_of(made()).encode(), "x.cif")
    assert back.letters == made().letters
    assert back.x == pytest.approx(made().x, abs=6e-4)
    (back,) = read_structure(cif_of(made(), gap=True).encode(), "x.cif")
    assert back.letters == made().letters  # their names are known, their places are not
    assert back.there[[4, 5]].sum() == 0


def test_chains_are_apart_and_equal_ones_count_once(tmp_path: Path) -> None:
    lines = lines_of(made())
    second = [line[:21] + "B" + line[22:] for line in lines if line.startswith("ATOM")]
    (tmp_path / "two.pdb").write_text("\n".join([*lines[:-1], *second, "END"]))
    assert [c.name for c in read_structure((tmp_path / "two.pdb").read_bytes(), "two.pdb")] == ["two_A", "two_B"]
    for chains, count in (("different", 1), ("all", 2), ("first", 1)):
        assert len(open_proteins(tmp_path, ProteinOptions(chains=chains))) == count


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("x.pdb", "hello", "x.pdb"),
        ("x.pdb", "HETATM    1  O   HOH A   1      30.000   0.000   0.000  1.00 10.00           O", "no protein"),
        ("x.pdb", pdb_text(made()).replace(" 1.458", "   nan"), "x.pdb, line 3: 'nan' is no coordinate"),
        ("x.pdb", pdb_text(made()).replace(" 1.458", "abcdef"), "x.pdb, line 3: 'abcdef' is no coordinate"),
        ("x.cif", "hello", "x.cif"),
        ("x.cif", "data_x\n_cell.a 1\n", "x.cif: not an mmCIF file"),
        ("x.txt", "MK\nHH\n1 2 3\n", "x.txt: 2 letters"),
        ("x.txt", "MK\nHH\n1 2 3\n" + "0 " * 12, "x.txt, line 3: not twelve finite"),
        ("x.txt", "MK\nHH\n" + "0 " * 11 + "a\n" + "0 " * 12, "x.txt, line 3: not twelve numbers"),
        ("x.txt", "MK\nHH\n" + "inf " * 12 + "\n" + "0 " * 12, "x.txt, line 3: not twelve finite"),
        ("x.txt", "M1\nHH\n", "chain has its letters"),
        ("x.txt", "M1\nHH\n0\n0", "line 1: '1' is not the one-letter code"),
        ("x.pdb", "\0\0\0", "null bytes"),
    ],
)
def test_files_that_are_none_are_named(name: str, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_structure(text.encode(), name)


def test_every_cut_of_a_file_is_read_or_refused() -> None:
    for name, whole in (("x.pdb", pdb_text(made())), ("x.cif", cif_of(made())), ("x.txt", text_of())):
        for size in range(0, len(whole), 211):
            with contextlib.suppress(DataError):  # and nothing else
                read_structure(whole[:size].encode(), name)


def test_text_files_of_coordinates(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(text_of())
    assert ProteinMedium().reads(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text("once upon a time\nthere was a text\n")
    assert not ProteinMedium().reads(tmp_path / "b.txt")
    data = open_proteins(tmp_path / "a.txt", ProteinOptions())
    assert data.batch(np.arange(1)).extra["there"][0, :, 3].tolist() == [1, 1, 1, 1, 1, 0]
    one = helix(numbers("MKTAYI"))
    assert data.batch(np.arange(1)).x[0, :-1].numpy() == pytest.approx(one[:-1], abs=0.07)


# sequences and alignments


def test_fasta() -> None:
    text = b">one\nMKT\nAYI*\n;remark\n>two words\nmk-tX\n"
    (one, a), (two, b) = read_fasta(text, "x.fasta")
    assert (one, two) == ("one", "two words")
    assert "".join(LETTERS[i] for i in a) == "MKTAYI"
    assert "".join(LETTERS[i] for i in b) == "MKTX"
    for bad, words in ((b"MKT\n", "line 1"), (b">a\n>b\nM\n", "line 1"), (b">a\nM1\n", "line 1: '1'"), (b"", "no seq")):
        with pytest.raises(DataError, match=words):
            read_fasta(bad, "x.fasta")


def test_a3m_counts_deletions() -> None:
    rows = read_alignment(b">q\nMKT\n>a\nM-aaT\n>b\nbMKcT\n", "x.a3m", 10)
    assert (rows % STATES).tolist() == [[12, 11, 16], [12, GAP, 16], [12, 11, 16]]
    assert (rows // STATES).tolist() == [[0, 0, 0], [0, 0, 2], [1, 0, 1]]
    assert len(read_alignment(b">q\nMKT\n>a\nM-aaT\n", "x.a3m", 1)) == 1


def test_stockholm_and_aligned_fasta_say_the_same() -> None:
    sto = b"# STOCKHOLM 1.0\n#=GF X\nq MK-\na MKA\n\nq T\na T\n//\n"
    fasta = b">q\nMK-T\n>a\nMKAT\n"
    expected = [[12, 11, 16], [12, 11, 16 + STATES]]
    assert read_alignment(sto, "x.sto", 9).tolist() == expected
    assert read_alignment(fasta, "x.fasta", 9).tolist() == expected


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b">q\nMKT\n>a\nMK\n", "line 3: 2 columns where the first row has 3"),
        (b">q\nMKT\n>a\nM1T\n", "line 3: '1'"),
        (b"# STOCKHOLM 1.0\nq M K T\n", "line 2: a row has a name"),
        (b"# STOCKHOLM 1.0\n//\n", "no rows"),
        (b">q\nM-Ta\n", "no gaps"),
        (b"\xff\xfe", "not a text file"),
    ],
)
def test_alignments_that_are_none_are_named(data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=f"x.a3m.*{words}"):
        read_alignment(data, "x.a3m", 9)


# sources


def test_folders_splits_alignments_and_what_is_left_out(tmp_path: Path) -> None:
    for i in range(30):
        letters = "MKTAYIAKQR" + LETTERS[i % 20] * (1 + i % 3)
        (tmp_path / f"p{i}.pdb").write_text(pdb_text(made(letters)))
        if i % 2:
            (tmp_path / f"p{i}.a3m").write_text(f">q\n{letters}\n>r\n{letters[::-1]}\n")
    whole = open_proteins(tmp_path, ProteinOptions(sequences=8))
    train, test = (open_proteins(tmp_path, ProteinOptions(sequences=8), split=s) for s in ("train", "test"))
    assert len(train) + len(test) == len(whole) == 30
    assert not set(train.files) & set(test.files)
    batch = whole.batch(np.arange(30))
    assert batch.extra["msa"].shape == (30, 2, 13)
    assert (batch.extra["msa"][:, 1] >= 0).any(1).sum() == 15
    short = open_proteins(tmp_path, ProteinOptions(most=11))
    assert "Left out" in " ".join(short.notes)
    assert len(short) == 10
    again = open_proteins(tmp_path, ProteinOptions(most=500), like=whole.spec)
    assert again.spec == whole.spec
    with pytest.raises(DataError, match="no chain can be used"):
        open_proteins(tmp_path, ProteinOptions(most=5))
    (tmp_path / "p1.a3m").write_text(">q\nMK\n")
    with pytest.raises(DataError, match=r"p1\.a3m: an alignment of 2 columns"):
        open_proteins(tmp_path, ProteinOptions(sequences=8))
    (tmp_path / "p1.pdb").write_text("no")
    assert "Skipped 1 files" in " ".join(open_proteins(tmp_path, ProteinOptions(on_bad_file="skip")).notes)


def test_zips_and_sequences_alone(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a.pdb", pdb_text(made()))
        file.writestr("b.fasta", ">x\nMKTAYI\n>y\nMKTA\n")
    assert ProteinMedium().reads(tmp_path / "a.zip")
    assert len(open_proteins(tmp_path / "a.zip", ProteinOptions())) == 1
    data = open_proteins(tmp_path / "a.zip", ProteinOptions(kind="sequence"))
    assert isinstance(data, Sequences)
    assert data.batch(np.arange(3)).x.shape == (3, 14)
    (tmp_path / "only.fasta").write_text(">x\nMKTAYI\n")
    with pytest.raises(DataError, match=r"data\.options\.kind=sequence"):
        open_proteins(tmp_path / "only.fasta", ProteinOptions())


def test_the_named_set() -> None:
    try:
        test = open_data("small-proteins", split="test")
    except DataError:
        pytest.skip("small-proteins is not here")
    assert len(test) == 200
    assert set(test.files) == HELD_OUT
    batch = test.batch(np.arange(3))
    assert batch.x.shape[2:] == (5, 3)
    bonds = torch.linalg.vector_norm(batch.x[:, 1:, 1] - batch.x[:, :-1, 1], dim=-1)
    both = (batch.extra["there"][:, 1:, 1] * batch.extra["there"][:, :-1, 1]) > 0
    assert float(bonds[both].median()) == pytest.approx(3.81, abs=0.03)


def test_the_built_in_set_has_relatives() -> None:
    data = folds("test", ProteinOptions(sequences=6, most=20))
    assert isinstance(data, Chains)
    batch = data.batch(np.arange(len(data)))
    assert torch.equal(batch.extra["msa"][:, 0], batch.extra["sequence"])
    assert 3 <= batch.extra["msa"].shape[1] <= 6
    assert torch.equal(folds("test").batch(np.arange(3)).x, folds("test").batch(np.arange(3)).x)
    assert isinstance(open_data("folds", ProteinOptions(kind="sequence")), Sequences)


# the medium


def test_what_people_type(tmp_path: Path) -> None:
    medium, one, rows = ProteinMedium(), ProteinSpec("sequence", 50), ProteinSpec("alignment", 50, 9)
    assert torch.equal(medium.read("mkt AYI", one), torch.from_numpy(numbers("MKTAYI")))
    assert medium.read("MKT", rows).shape == (1, 3)
    for text in ("M1", "", "M-T"):
        with pytest.raises(UsageError, match="one-letter codes"):
            medium.read(text, one)
    with pytest.raises(UsageError, match="give a file"):
        medium.read("MKT", structure_spec(9))
    (tmp_path / "a.fasta").write_text(">x\nMKT\n")
    (tmp_path / "a.a3m").write_text(">x\nMKT\n>y\nM-T\n")
    (tmp_path / "a.pdb").write_text(pdb_text(made()))
    (tmp_path / "two.fasta").write_text(">x\nMKT\n>y\nMKT\n")
    assert medium.given(f"@{tmp_path / 'a.fasta'}", one).tolist() == [12, 11, 16]
    assert medium.given(f"@{tmp_path / 'a.a3m'}", rows).shape == (2, 3)
    assert medium.given(f"@{tmp_path / 'a.a3m'}", one).tolist() == [12, 11, 16]
    assert medium.given(f"@{tmp_path / 'a.pdb'}", one).shape == (14,)
    assert medium.given(f"@{tmp_path / 'a.pdb'}", structure_spec(50)).shape == (14, 5, 3)
    with pytest.raises(UsageError, match="2 sequences"):
        medium.given(f"@{tmp_path / 'two.fasta'}", one)
    with pytest.raises(UsageError, match="no structure"):
        medium.given(f"@{tmp_path / 'a.fasta'}", structure_spec(50))


def test_sequences_are_written_and_drawn(tmp_path: Path) -> None:
    medium, spec = ProteinMedium(), ProteinSpec("sequence", 50)
    batch = Batch.of(torch.tensor([[12, 11, 16], [0, 1, -1]]))
    paths = medium.write(batch, spec, tmp_path, 3, {"seed": 1})
    assert [path.name for path in paths] == ["0003.fasta", "0004.fasta"]
    assert paths[1].read_text() == ">0004\nAR\n"
    assert medium.picture(batch, spec).size[0] > 20
    assert medium.rates(batch, spec)["bits_per_residue"].counts.tolist() == [3, 2]
    assert medium.distance(batch, batch, spec) == pytest.approx(0, abs=1e-6)


def test_padding_is_not_written() -> None:
    batch = folds("test").batch(np.arange(4))
    for row, one in enumerate(chains_of(batch)):
        assert len(one.x) == int((batch.extra["sequence"][row] >= 0).sum())
    without = Batch.of(batch.x, None, {k: batch.extra[k] for k in ("there", "confidence")})
    assert [len(one.x) for one in chains_of(without)] == [len(one.x) for one in chains_of(batch)]
