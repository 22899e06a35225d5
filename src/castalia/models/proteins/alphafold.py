"""AlphaFold: the structure of a protein from its sequence, and an alignment of its relatives where there is one.

Paper
    Jumper, Evans, Pritzel et al. 2021, "Highly accurate protein structure prediction with AlphaFold" (Nature 596), and
    its supplement, whose algorithms are named by their numbers.

Equations
    z_ij = Linear(f_i) + Linear(f_j) + relpos(i - j),  m_si = Linear(f_msa) + Linear(f_i)   (Algorithms 3 to 5), then
    what was found the time before (Algorithm 32), the extra alignment (18), the Evoformer (6), the structure module
    (20), and all of it again (30, 31). The loss is, with equation 7 of the supplement,
        0.5 FAPE + 0.5 aux + 0.3 distogram + 2 masked alignment + 0.01 confidence + w violations,
    for each example, times the root of its share of the crop.

What differs, and why
    No templates. Side chains are their centroids: the data have no more. Of Algorithm 24 that leaves the torsions
    omega, phi, psi and one of the side chain; there is no renaming of ambiguous atoms, no relaxation, and FAPE's atoms
    are N, CA, C, O and the centroid, its frames those of backbones and of psi.
    Gradients are clipped for the batch, by the recipe, where the paper clips each example at 0.1.
    Cells are masked in training only; the paper masks when it predicts, too, which takes much of a lone sequence.
    There is no head for atoms that experiments resolve, nor the later one for aligned errors.
    A sequence that nobody gives is one of the training set's, of which some are kept.

Expected: see ``recipes/alphafold.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.data import Batch, Dataset, some_of
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Preview, Watch
from castalia.core.spec import Spec
from castalia.core.specs.protein import STATES, ProteinSpec
from castalia.models.proteins import losses
from castalia.models.proteins.evoformer import Block, Stack
from castalia.models.proteins.frames import Frames
from castalia.models.proteins.inputs import (
    CLASSES,
    EXTRA_FEATURES,
    MSA_FEATURES,
    TARGET_FEATURES,
    Features,
    crop,
    features,
)
from castalia.models.proteins.settings import AlphaFoldConfig, FoldingSampling
from castalia.models.proteins.structure import Folded, StructureModule, beta, side_places, true_torsions

RELATIVE = 32
"""Positions further apart than this are told as if they were so far (Algorithm 4)."""
BINS = 15
"""Distances that recycling tells apart (Algorithm 32)."""
UNSAID = 32
"""Residues of a sequence that a network which has seen no data makes up."""


@dataclass(frozen=True)
class Found:
    """What one turn gives, and what the next is told.

    Attributes:
        m: chosen rows (B, S, L, c_m).
        z: pairs (B, L, L, c_z).
        folded: of the structure module.
    """

    m: Tensor
    z: Tensor
    folded: Folded


class Embedder(nn.Module):
    """Algorithms 3 to 5 and 32: the first alignment and pairs, with what was found the time before."""

    def __init__(self, config: AlphaFoldConfig) -> None:
        super().__init__()
        c = config
        self.left, self.right = (nn.Linear(TARGET_FEATURES, c.c_z) for _ in range(2))
        self.target, self.msa = nn.Linear(TARGET_FEATURES, c.c_m), nn.Linear(MSA_FEATURES, c.c_m)
        self.relative = nn.Linear(2 * RELATIVE + 1, c.c_z)
        self.m_norm, self.z_norm = nn.LayerNorm(c.c_m), nn.LayerNorm(c.c_z)
        self.far = nn.Linear(BINS, c.c_z)

    def forward(self, told: Features, before: Found | None) -> tuple[Tensor, Tensor]:
        f = told.target
        z = self.left(f)[:, :, None] + self.right(f)[:, None] + self.relative(apart(f.shape[1], f))
        m = self.msa(told.msa) + self.target(f)[:, None]
        if before is None:  # what was before is zero
            first, pairs, far = torch.zeros_like(m[:, 0]), torch.zeros_like(z), z.new_zeros(*z.shape[:3], BINS)
        else:
            first, pairs = before.m[:, 0], before.z
            far = bins(beta(before.folded.x)).to(z.dtype)
        m = torch.cat([m[:, :1] + self.m_norm(first)[:, None], m[:, 1:]], 1)
        return m, z + self.z_norm(pairs) + self.far(far)


def apart(length: int, like: Tensor) -> Tensor:
    """One-hot of how far residues lie apart in the sequence, (L, L, 65)."""
    at = torch.arange(length, device=like.device)
    offset = (at[:, None] - at).clamp(-RELATIVE, RELATIVE) + RELATIVE
    return F.one_hot(offset, 2 * RELATIVE + 1).to(like.dtype)


def bins(cb: Tensor) -> Tensor:
    """One-hot of the distances of CB atoms (B, L, 3): 15 bins from 3 3/8 to 21 3/8 Å, (B, L, L, 15)."""
    far = torch.cdist(cb, cb, compute_mode="donot_use_mm_for_euclid_dist")
    edges = torch.linspace(3.375, 21.375, BINS, device=cb.device)
    return F.one_hot(torch.bucketize(far, edges), BINS + 1)[..., 1:]


class AlphaFold(Generator[AlphaFoldConfig, ProteinSpec]):
    """Structures given sequences, or alignments."""

    Config = AlphaFoldConfig
    SampleOptions = FoldingSampling
    shard_units = (Block,)
    known: Tensor
    sequences: Tensor

    def __init__(self, config: AlphaFoldConfig, spec: ProteinSpec) -> None:
        super().__init__()
        if spec.kind != "structure":
            raise UsageError("AlphaFold is trained on structures: set data.options.kind=structure.")
        c = config
        self.config, self.spec = config, spec
        rows = dict(spec.columns).get("msa")
        self.rows = rows.sequences if isinstance(rows, ProteinSpec) else 1
        self.embed = Embedder(c)
        if c.extra_blocks:
            self.extra_embed = nn.Linear(EXTRA_FEATURES, c.c_e)
            self.extra = Stack(c.extra_blocks, c.sizes(True), extra=True, saving=c.saving)
        self.evoformer = Stack(c.blocks, c.sizes(False), saving=c.saving)
        self.single = nn.Linear(c.c_m, c.c_s)
        self.structure = StructureModule(c.c_s, c.c_z, c.layers, c.ipa_heads, c.ipa_head, c.ipa_points, c.ipa_values,
                                         c.torsion_width, c.structure_dropout, c.start)  # fmt: skip
        self.distances, self.cells = nn.Linear(c.c_z, 64), nn.Linear(c.c_m, CLASSES)
        width = c.confidence_width
        self.sure = nn.Sequential(nn.LayerNorm(c.c_s), nn.Linear(c.c_s, width), nn.ReLU(), nn.Linear(width, width),
                                  nn.ReLU(), nn.Linear(width, c.confidence_bins))  # fmt: skip
        self.register_buffer("sequences", torch.full((c.remembered, spec.most), -1, dtype=torch.int8))
        self.register_buffer("known", torch.zeros((), dtype=torch.int64))

    def accepts(self) -> Mapping[str, Spec]:
        return dict(self.spec.columns)

    def cost(self, options: FoldingSampling) -> int:
        """Of the pairs' numbers."""
        return self.spec.most**2 * self.config.c_z

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Keep some sequences, and measure where the centroids of side chains are."""
        batch = data.batch(some_of(data, self.config.remembered)).cpu()
        sequence = batch.extra["sequence"]
        place, there = side_places(batch.x.double()), batch.extra["there"]
        fine = (sequence >= 0) & (there[:, :, :3].amin(2) > 0) & (there[:, :, 4] > 0)
        side = torch.stack([place[..., 0], place[..., 1:].norm(dim=-1)], -1)[fine]
        kind = sequence[fine]
        with torch.no_grad():
            self.sequences[: len(sequence), : sequence.shape[1]] = sequence.to(torch.int8)
            self.known.fill_(len(sequence))
            usual = side.mean(0) if len(side) else self.structure.side[0].double()
            for k in range(21):
                mine = side[kind == k]
                self.structure.side[k] = (mine.mean(0) if len(mine) else usual).float()

    # the network

    def turn(self, told: Features, sequence: Tensor, mask: Tensor, before: Found | None) -> Found:
        """Once through the network (the body of Algorithm 2)."""
        m, z = self.embed(told, before)
        pairs = mask[:, :, None] * mask[:, None]
        if self.config.extra_blocks:
            _, z = self.extra(self.extra_embed(told.extra), z, told.extra_rows, pairs)
        m, z = self.evoformer(m, z, told.rows, pairs)
        return Found(m, z, self.structure(self.single(m[:, 0]), z, sequence, mask))

    def told(
        self, sequence: Tensor, msa: Tensor | None, rng: Rng, turn: int, masked: float, shuffled: bool
    ) -> Features:
        """The features of one turn; each chooses other rows."""
        c = self.config
        return features(sequence, msa, rng.at("turn", turn), clusters=c.clusters, extra=c.extra, rows=self.rows,
                        width=max(c.crop, c.fine_crop), masked=masked, shuffled=shuffled)  # fmt: skip

    def turns(
        self, sequence: Tensor, msa: Tensor | None, rng: Rng, turns: int, *, masked: float = 0.0, shuffled: bool = True
    ) -> Iterator[tuple[Found, Features]]:
        """Algorithms 30 and 31: turn after turn; gradients flow through the last one alone."""
        found: Found | None = None
        mask = (sequence >= 0).float()
        wanted = torch.is_grad_enabled()
        for turn in range(turns):
            told = self.told(sequence, msa, rng, turn, masked, shuffled)
            with torch.set_grad_enabled(wanted and turn == turns - 1):
                found = self.turn(told, sequence, mask, found)
            yield found, told

    def confidences(self, folded: Folded) -> Tensor:
        """The expected lDDT-CA of residues, percent (B, L)."""
        chance = self.sure(folded.s).float().softmax(-1)
        n = chance.shape[-1]
        middle = 100 * (torch.arange(n, device=chance.device) + 0.5) / n
        return (chance * middle).sum(-1)

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        """The first training, and the fine-tuning: longer crops, and violations count (supplement, table 4)."""
        first = Stage("train", (Objective("alphafold", self, self.loss),), share=1 - self.config.fine)
        if not self.config.fine:
            return (first,)
        return first, Stage("fine", (Objective("alphafold", self, self.fine_loss),), share=self.config.fine)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Equation 7 of the supplement, averaged over the batch."""
        return self.whole(batch, rng, self.config.crop, 0.0)

    def fine_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """The same of longer crops, with violations."""
        return self.whole(batch, rng, self.config.fine_crop, self.config.violation)

    def whole(self, batch: Batch, rng: Rng, residues: int, violation: float) -> tuple[Tensor, Logs]:
        """The loss of crops of so many residues, with so much weight on violations."""
        c = self.config
        batch = crop(batch, residues, rng)
        sequence, msa = batch.extra["sequence"], batch.extra.get("msa")
        turns = 1 + int(rng.shared(1).integers("turns", c.recycles + 1)) if c.recycles else 1
        found, told = list(self.turns(sequence, msa, rng, turns, masked=c.masked))[-1]
        with torch.autocast(batch.x.device.type, enabled=False):
            parts = self.parts(found, told, batch, rng)
            weight = {"fape": c.fape, "aux": c.aux, "distogram": c.distogram, "masked": c.masked_msa,
                      "confidence": c.confidence}  # fmt: skip
            if violation:
                weight["violation"] = violation
                parts["violation"] = losses.violations(found.folded.x, (sequence >= 0).float())
            total = torch.stack([weight[name] * parts[name] for name in weight]).sum(0)
            size = ((sequence >= 0).sum(1) / residues).sqrt()
            logs = {name: value.detach().mean() for name, value in parts.items()}
            return (total * size).mean(), logs

    def parts(self, found: Found, told: Features, batch: Batch, rng: Rng) -> dict[str, Tensor]:
        """The losses of each example, (B,), before they are weighted."""
        c, folded = self.config, found.folded
        x, there = batch.x, batch.extra["there"].float()
        mask, known = (batch.extra["sequence"] >= 0).float(), there[:, :, :3].amin(2)
        true = Frames.of_points(x[:, :, 0], x[:, :, 1], x[:, :, 2])
        limit = torch.where(rng.uniform("clamp").to(x.device) < c.clamped, losses.CLAMP, torch.inf)
        angles, angles_known = true_torsions(x, batch.extra["there"])
        steps = [
            losses.fape(frames, frames.t, true, x[:, :, 1], known, known, limit)
            + losses.torsion_loss(torsions, angles, angles_known, mask)
            for frames, torsions in zip(folded.frames, folded.torsions, strict=True)
        ]
        real = losses.local_ddt(folded.x[:, :, 1].detach(), x[:, :, 1], known)
        z = found.z.float()
        return {
            "fape": self.final(folded, x, there, known),
            "aux": torch.stack(steps).mean(0),
            "distogram": losses.distogram_loss(self.distances(z + z.transpose(1, 2)), x, known),
            "masked": losses.masked_loss(self.cells(found.m.float()), told.true, told.masked),
            "confidence": losses.confidence_loss(self.sure(folded.s), real, known),
            "lddt": 100 * losses.mean(real, known),
        }

    @staticmethod
    def final(folded: Folded, x: Tensor, there: Tensor, known: Tensor) -> Tensor:
        """Algorithm 20, lines 28 and 29: all atoms from all frames: those of backbones, and of CA, C, O."""
        frames, true = (
            (Frames.of_points(p[:, :, 0], p[:, :, 1], p[:, :, 2]), Frames.of_points(p[:, :, 3], p[:, :, 2], p[:, :, 1]))
            for p in (folded.x, x)
        )
        both = [Frames(torch.cat([f.r for f in pair], 1), torch.cat([f.t for f in pair], 1)) for pair in (frames, true)]
        seen = torch.cat([known, there[:, :, 1:4].amin(2)], 1)
        return losses.fape(both[0], folded.x.flatten(1, 2), both[1], x.flatten(1, 2), seen, there.flatten(1))

    # what it can do

    def draw(self, n: int, given: Given, rng: SampleRng, options: FoldingSampling, watch: Watch | None) -> Batch:
        """Fold what is given, or sequences of the training set."""
        sequence, msa = self.asked(n, given, rng)
        turns = 1 + (self.config.recycles if options.recycles < 0 else options.recycles)
        made: Batch | None = None
        folding = self.turns(sequence, msa, rng, turns, shuffled=options.temperature > 0)
        for step, (found, _) in enumerate(folding, 1):
            made = self.made(found.folded, sequence, msa)
            if watch is not None:
                watch(Preview(step, turns, lambda made=made: made))
        assert made is not None
        return made

    def made(self, folded: Folded, sequence: Tensor, msa: Tensor | None) -> Batch:
        """Structures as a batch in natural units."""
        mask = sequence >= 0
        x = torch.where(mask[..., None, None], folded.x, 0.0)
        extra = {
            "there": mask[..., None].expand(*mask.shape, x.shape[2]).to(torch.uint8).contiguous(),
            "confidence": torch.where(mask, self.confidences(folded), 0.0),
            "sequence": sequence,
        }
        return Batch.of(x, None, extra if msa is None else {**extra, "msa": msa})

    def asked(self, n: int, given: Given, rng: SampleRng) -> tuple[Tensor, Tensor | None]:
        """The sequences (n, L) to fold, and their alignments."""
        msa = given.get("msa")
        if "sequence" in given:
            sequence = given["sequence"]
        elif msa is not None:
            sequence = torch.where(msa[:, 0] >= 0, msa[:, 0] % STATES, -1)
        else:
            sequence = self.usual(rng)
        if msa is not None and (msa.shape[2] != sequence.shape[1] or not msa.shape[1]):
            raise UsageError(f"The alignment has {msa.shape[2]} columns, the sequence {sequence.shape[1]} residues.")
        if not sequence.numel() or (sequence < 0).all(1).any():
            raise UsageError("A sequence must have at least one residue.")
        if (sequence > 20).any():
            raise UsageError("The first row of an alignment is the sequence itself, and must have no gaps.")
        if self.rows > 1 and msa is None:
            msa = sequence[:, None]
        return sequence, msa

    def usual(self, rng: SampleRng) -> Tensor:
        """Sequences of the training set, one for each example; of a network that has seen none, any residues."""
        if not int(self.known):
            return rng.integers("residues", 20, min(UNSAID, self.spec.most))
        which = (rng.uniform("which").double() * int(self.known)).long()
        rows = self.sequences[which].long()
        return rows[:, : int((rows >= 0).sum(1).max())].contiguous()
