"""The shape of a protein: a chain of residues in space, its sequence, an alignment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from castalia.core.spec import Field, Spec, check_sizes

LETTERS = "ARNDCQEGHILKMFPSTWYVX-"
"""Values of residues: the twenty by their one-letter codes, 20 unknown; in alignments 21 a gap."""
UNKNOWN, GAP, STATES = 20, 21, 22
ATOMS = ("N", "CA", "C", "O", "CEN")
"""The places of a residue: backbone atoms, and the centroid of its side chain (its heavy atoms' mean)."""
MOST_DELETED = 255
"""Deletions before a cell of an alignment that are counted; more count as so many."""


@dataclass(frozen=True)
class ProteinSpec(Spec):
    """Proteins in one of three forms, all with open dimensions.

    ``structure``: ``x`` ``float32`` (L, 5, 3), coordinates in Å of N, CA, C, O and the side chain's centroid of each
    residue; ``there`` ``uint8`` (L, 5): 1 where they are known. What is not known is 0, or placed by rule.
    ``confidence`` ``float32`` (L,): how sure each residue is, the predicted lDDT-CA in percent of samples, 100 of what
    was seen. What has a structure has its ``sequence`` beside it, and where there are alignments ``msa``: columns,
    with specs of the other two forms.
    ``sequence``: ``int64`` (L,), residues as numbers of ``LETTERS``, 0 to 20, padded with -1.
    ``alignment``: ``int64`` (S, L), padded with -1. A cell is ``k + 22 d``: k its residue or gap, 0 to 21, and d how
    many residues of that sequence were left out before it (deletions, 255 at most). The first row is the sequence
    itself, without gaps.

    Attributes:
        kind: the form.
        most: residues of an example at most.
        sequences: ``alignment``: rows at most.
    """

    kind: Literal["structure", "sequence", "alignment"] = "structure"
    most: int = 256
    sequences: int = 1

    def __post_init__(self) -> None:
        check_sizes(self, most=1 << 16, sequences=1 << 20)

    def fields(self) -> Mapping[str, Field]:
        if self.kind == "sequence":
            return {"x": Field(torch.int64, (None,), padding=-1, low=0, high=UNKNOWN)}
        if self.kind == "alignment":
            return {"x": Field(torch.int64, (None, None), padding=-1, low=0, high=STATES * (MOST_DELETED + 1) - 1)}
        return {
            "x": Field(torch.float32, (None, len(ATOMS), 3)),
            "there": Field(torch.uint8, (None, len(ATOMS)), low=0, high=1),
            "confidence": Field(torch.float32, (None,), low=0, high=100),
        }


def structure_spec(most: int, sequences: int = 1) -> ProteinSpec:
    """The spec of structures of at most ``most`` residues; with alignments where ``sequences`` is more than 1."""
    columns = (("sequence", ProteinSpec("sequence", most)),)
    if sequences > 1:
        columns += (("msa", ProteinSpec("alignment", most, sequences)),)
    return ProteinSpec("structure", most, columns=columns)
