"""What AlphaFold is told when it is built and when it folds: configuration and sampling options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from castalia.core.config import Config
from castalia.core.sampling import Sampling
from castalia.models.proteins.evoformer import Sizes


@dataclass(frozen=True)
class AlphaFoldConfig(Config):
    """Configuration of AlphaFold; the defaults are the paper's.

    Attributes:
        blocks: of the Evoformer.
        extra_blocks: of the stack of the extra alignment; 0 has none, for lone sequences.
        c_m: channels of the alignment.
        c_z: channels of pairs.
        c_s: channels of residues.
        c_e: channels of the extra alignment.
        msa_heads: heads of attention in alignments.
        msa_head: channels of each of them.
        extra_head: the same in the extra alignment.
        pair_heads: heads of triangle attention.
        pair_head: channels of each of them.
        triangle: channels of triangle multiplication.
        outer: channels of the outer product mean.
        row_dropout: share of what row attention adds that is dropped.
        pair_dropout: the same of triangles.
        layers: of the structure module.
        ipa_heads: heads of invariant point attention.
        ipa_head: channels of each of them.
        ipa_points: points of questions and keys.
        ipa_values: points of values.
        start: where the structure module begins: with all residues at the ``origin``, as in the paper; or with a
            ``chain`` built from torsions, which learns in hundreds of steps what takes thousands.
        torsion_width: channels of the network of torsions.
        structure_dropout: dropout of the structure module.
        confidence_width: channels of the network of confidences.
        confidence_bins: its bins.
        recycles: times that the network sees its own result at most.
        crop: residues of an example in the first training.
        fine: share of steps of the fine-tuning, of both together; 0 has none.
        fine_crop: residues of an example in the fine-tuning.
        clusters: rows of an alignment that are chosen.
        extra: rows of the extra alignment.
        masked: share of cells that are masked in training.
        clamped: share of examples whose errors of the backbone are clamped at 10 Å.
        fape: weight of the final FAPE.
        aux: weight of FAPE and torsions after each layer.
        distogram: weight of the distogram.
        masked_msa: weight of the masked alignment.
        confidence: weight of the confidence.
        violation: weight of violations, in the fine-tuning alone.
        remembered: sequences of the training set that are kept.
        saving: compute blocks twice in training, for the memory.
    """

    blocks: int = 48
    extra_blocks: int = 4
    c_m: int = 256
    c_z: int = 128
    c_s: int = 384
    c_e: int = 64
    msa_heads: int = 8
    msa_head: int = 32
    extra_head: int = 8
    pair_heads: int = 4
    pair_head: int = 32
    triangle: int = 128
    outer: int = 32
    row_dropout: float = 0.15
    pair_dropout: float = 0.25
    layers: int = 8
    ipa_heads: int = 12
    ipa_head: int = 16
    ipa_points: int = 4
    ipa_values: int = 8
    start: Literal["origin", "chain"] = "origin"
    torsion_width: int = 128
    structure_dropout: float = 0.1
    confidence_width: int = 128
    confidence_bins: int = 50
    recycles: int = 3
    crop: int = 256
    fine: float = 0.13
    fine_crop: int = 384
    clusters: int = 128
    extra: int = 1024
    masked: float = 0.15
    clamped: float = 0.9
    fape: float = 0.5
    aux: float = 0.5
    distogram: float = 0.3
    masked_msa: float = 2.0
    confidence: float = 0.01
    violation: float = 1.0
    remembered: int = 256
    saving: bool = True

    def __post_init__(self) -> None:
        whole = ("blocks", "c_m", "c_z", "c_s", "c_e", "msa_heads", "msa_head", "extra_head", "pair_heads", "pair_head",
                 "triangle", "outer", "layers", "ipa_heads", "ipa_head", "ipa_points", "ipa_values", "torsion_width",
                 "confidence_width", "confidence_bins", "crop", "fine_crop", "clusters", "remembered")  # fmt: skip
        for name in whole:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("row_dropout", "pair_dropout", "structure_dropout", "masked"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is a share, 0 to below 1")
        if min(self.extra_blocks, self.recycles, self.extra, self.clamped, self.fine) < 0:
            raise ValueError("extra_blocks, recycles, extra, clamped and fine must not be negative")
        if self.clamped > 1 or self.fine >= 1:
            raise ValueError("clamped is a share, 1 at most; fine is one below 1")
        for name in ("fape", "aux", "distogram", "masked_msa", "confidence", "violation"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")

    def sizes(self, extra: bool) -> Sizes:
        """Widths of the Evoformer, or of the stack of the extra alignment."""
        c = self
        width, head = (c.c_e, c.extra_head) if extra else (c.c_m, c.msa_head)
        return Sizes(width, c.c_z, c.msa_heads, head, c.outer, c.triangle, c.pair_heads, c.pair_head, 4,
                     c.row_dropout, c.pair_dropout)  # fmt: skip


@dataclass(frozen=True)
class FoldingSampling(Sampling):
    """How to fold.

    Attributes:
        temperature: 0 takes the first rows of an alignment, anything else rows at random, others in each turn.
        recycles: times that the network sees its own result; -1 as often as in training at most.
    """

    recycles: int = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 <= self.recycles <= 1000:
            raise ValueError("recycles is 0 to 1,000, or -1")
