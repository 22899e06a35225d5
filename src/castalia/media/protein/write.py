"""Proteins as files: PDB with the confidence in the B-factors, and FASTA. Needs no optional package."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from castalia.core.data import Batch
from castalia.core.specs.protein import ATOMS, LETTERS
from castalia.media.protein.chains import Chain
from castalia.media.protein.structures import OURS

THREE: Mapping[str, str] = {
    "A": "ALA",
    "R": "ARG",
    "N": "ASN",
    "D": "ASP",
    "C": "CYS",
    "Q": "GLN",
    "E": "GLU",
    "G": "GLY",
    "H": "HIS",
    "I": "ILE",
    "L": "LEU",
    "K": "LYS",
    "M": "MET",
    "F": "PHE",
    "P": "PRO",
    "S": "SER",
    "T": "THR",
    "W": "TRP",
    "Y": "TYR",
    "V": "VAL",
    "X": "UNK",
}


def chains_of(batch: Batch, first: int = 0) -> list[Chain]:
    """The chains of a batch of structures without their padding, numbered from ``first``."""
    x, there, confidence = (t.cpu().numpy() for t in (batch.x, batch.extra["there"], batch.extra["confidence"]))
    sequence = batch.extra.get("sequence")
    out = []
    for i in range(len(x)):
        length = int(there[i].any(-1).nonzero()[0].max(initial=-1)) + 1
        residues = np.full(length, 20, np.int64)
        if sequence is not None:
            row = sequence[i].cpu().numpy()
            residues = row[row >= 0]
            length = len(residues)
        out.append(Chain(f"{first + i:04d}", residues, x[i, :length], there[i, :length], confidence[i, :length]))
    return out


def pdb_text(chain: Chain) -> str:
    """A PDB file of one chain; the centroid of a side chain is an atom CEN, as Rosetta writes it.

    The numbering goes round after 9,999 residues, and so does that of atoms after 99,999; coordinates have three
    decimals.
    """
    lines, atom = [OURS], 0
    for number, (residue, x, there, sure) in enumerate(
        zip(chain.residues, chain.x, chain.there, chain.confidence, strict=True), 1
    ):
        three = THREE[LETTERS[residue]]
        for name, place, known in zip(ATOMS, x, there, strict=True):
            if not known:
                continue
            atom += 1
            element = "X" if name == "CEN" else name[0]
            where = "".join(f"{v:8.3f}" for v in np.clip(place, -999.999, 9999.999))
            lines.append(
                f"ATOM  {atom % 100000:5d}  {name:<3s} {three} A{number % 10000:4d}    {where}{1:6.2f}{sure:6.2f}"
                f"          {element:>2s}"
            )
    last = THREE[LETTERS[chain.residues[-1]]]
    lines += [f"TER   {(atom + 1) % 100000:5d}      {last} A{len(chain.x) % 10000:4d}", "END"]
    return "\n".join(lines) + "\n"


def fasta_text(title: str, residues: np.ndarray) -> str:
    """One sequence as FASTA, 60 letters a line."""
    letters = "".join(LETTERS[i] for i in residues)
    return "\n".join([f">{title}", *(letters[i : i + 60] for i in range(0, len(letters), 60))]) + "\n"
