"""What AlphaFold is told (Jumper et al. 2021, supplement, section 1.2): crops, rows of alignments, masks, features.

Cells of alignments have values 0 to 21 (``core/specs/protein.py``), 22 where they are masked, and a number of
deletions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from castalia.core.data import Batch
from castalia.core.rng import Rng
from castalia.core.specs.protein import GAP, STATES

MASKED = STATES
CLASSES = STATES + 1
MSA_FEATURES = 2 * CLASSES + 3
EXTRA_FEATURES = CLASSES + 2
TARGET_FEATURES = 21
MUTED = (0.1, 0.1, 0.1)
"""Of cells that are masked: shares that become any residue, one of the column, and stay (section 1.2.7)."""


@dataclass(frozen=True)
class Features:
    """What one pass through the network is told.

    Attributes:
        target: the sequence, one-hot (B, L, 21).
        msa: chosen rows (B, S, L, 49).
        rows: (B, S, L), 1 where there is a cell.
        extra: further rows (B, E, L, 25).
        extra_rows: (B, E, L).
        true: what the chosen cells were before masking, ``int64`` (B, S, L).
        masked: which of them were masked, float (B, S, L).
    """

    target: Tensor
    msa: Tensor
    rows: Tensor
    extra: Tensor
    extra_rows: Tensor
    true: Tensor
    masked: Tensor


def crop(batch: Batch, size: int, rng: Rng) -> Batch:
    """At most ``size`` residues of each example: all of them, or a stretch that begins anywhere (section 1.2.8)."""
    length = (batch.extra["sequence"] >= 0).sum(1)
    start = (rng.uniform("crop").to(length.device).double() * (length - size + 1).clamp(min=1)).long()
    most = min(size, batch.x.shape[1])
    at = (start[:, None] + torch.arange(most, device=start.device)).clamp(max=batch.x.shape[1] - 1)
    inside = start[:, None] + torch.arange(most, device=start.device) < length[:, None]

    def cut(value: Tensor, fill: int) -> Tensor:
        index = at.view(*at.shape, *[1] * (value.ndim - 2)).expand(*at.shape, *value.shape[2:])
        return torch.where(inside.view(index.shape[:2] + (1,) * (value.ndim - 2)), value.gather(1, index), fill)

    extra = {name: cut(batch.extra[name], fill) for name, fill in (("there", 0), ("confidence", 0), ("sequence", -1))}
    if "msa" in batch.extra:
        extra["msa"] = cut(batch.extra["msa"].transpose(1, 2), -1).transpose(1, 2).contiguous()
    return Batch(cut(batch.x, 0), batch.ids, batch.label, extra)


def features(
    sequence: Tensor,
    msa: Tensor | None,
    rng: Rng,
    *,
    clusters: int,
    extra: int,
    rows: int,
    width: int,
    masked: float = 0.0,
    shuffled: bool = True,
) -> Features:
    """Features of sequences and alignments: rows are chosen, masked, and the rest are added to those most like them.

    Args:
        sequence: ``int64`` (B, L), -1 where there is none.
        msa: cells ``int64`` (B, S, L), -1 where there is none, the first row the sequence; None for it alone.
        rng: chooses rows and masks.
        clusters: rows that are chosen; the first always is.
        extra: of the others those that are told without their columns' counts.
        rows: rows that alignments have at most; those behind are not looked at. Random numbers are drawn for so many.
        width: residues that random numbers of masks are drawn for; L at most where ``masked`` is not 0.
        masked: share of the chosen cells that are masked.
        shuffled: choose any rows; or the first ones.
    """
    msa = sequence[:, None] if msa is None else msa[:, :rows]
    n, depth = msa.shape[:2]
    there = msa >= 0
    kind, deleted = torch.where(there, msa % STATES, GAP), torch.where(there, msa // STATES, 0).float()
    order = torch.arange(depth, device=msa.device).float().expand(n, -1)
    if shuffled and depth > 1:
        order = rng.uniform("rows", max(rows, depth))[:, :depth].to(msa.device)
    order = torch.where(there.any(2), order, math.inf)
    order = torch.cat([torch.full_like(order[:, :1], -1), order[:, 1:]], 1).argsort(dim=1, stable=True)
    kind, deleted, there = (t.gather(1, order[..., None].expand_as(t)) for t in (kind, deleted, there))
    many = min(clusters, depth)
    chosen, true = kind[:, :many], kind[:, :many]
    hidden = torch.zeros_like(chosen, dtype=torch.bool)
    if masked:
        chosen, hidden = _mask(kind, there, many, masked, clusters, width, rng)
    cells = there[:, :many].float()
    one = F.one_hot(chosen, CLASSES).float() * cells[..., None]
    profile, spread = _clusters(one, kind[:, many:], there[:, many:], deleted, cells, many)
    gone = deleted[:, :many]
    told = torch.cat([one, _marks(gone), profile, _count(spread)[..., None]], -1)
    others = slice(many, many + max(extra, 0))
    beside, beside_there = kind[:, others], there[:, others].float()
    if not beside.shape[1]:  # something must be looked at
        beside, beside_there = kind[:, :1], torch.zeros_like(cells[:, :1])
        more = torch.zeros_like(deleted[:, :1])
    else:
        more = deleted[:, others]
    rest = torch.cat([F.one_hot(beside, CLASSES).float(), _marks(more)], -1) * beside_there[..., None]
    target = F.one_hot(sequence.clamp(min=0), TARGET_FEATURES).float() * (sequence >= 0)[..., None]
    return Features(target, told, cells, rest, beside_there, true, hidden.float())


def _marks(deleted: Tensor) -> Tensor:
    return torch.stack([deleted.clamp(0, 1), _count(deleted)], -1)


def _count(deleted: Tensor) -> Tensor:
    return 2 / math.pi * torch.atan(deleted / 3)


def _mask(
    kind: Tensor, there: Tensor, many: int, share: float, clusters: int, width: int, rng: Rng
) -> tuple[Tensor, Tensor]:
    """The chosen rows with some cells masked, and which (section 1.2.7)."""
    n, _, length = kind.shape
    draw = [rng.uniform(name, clusters, width).to(kind.device)[:, :many, :length] for name in ("mask", "how", "which")]
    chosen = kind[:, :many]
    hidden = (draw[0] < share) & there[:, :many]
    counts = (F.one_hot(kind, STATES).float() * there[..., None]).sum(1)
    chance = (counts / counts.sum(-1, keepdim=True).clamp(min=1)).cumsum(-1)[:, None].expand(n, many, length, STATES)
    likely = (draw[2][..., None] > chance).sum(-1).clamp(max=STATES - 1)
    anything = (draw[2] * 20).long()
    any_, same_column, stays = MUTED
    new = torch.where(draw[1] < any_, anything, torch.full_like(chosen, MASKED))
    new = torch.where((draw[1] >= any_) & (draw[1] < any_ + same_column), likely, new)
    new = torch.where((draw[1] >= any_ + same_column) & (draw[1] < any_ + same_column + stays), chosen, new)
    return torch.where(hidden, new, chosen), hidden


def _clusters(
    one: Tensor, rest: Tensor, rest_there: Tensor, deleted: Tensor, cells: Tensor, many: int
) -> tuple[Tensor, Tensor]:
    """The counts of residues and the mean deletions of each chosen row with the others that are most like it."""
    total, gone, count = one, deleted[:, :many] * cells, cells
    if rest.shape[1]:
        other = F.one_hot(rest, CLASSES).float() * rest_there[..., None]
        real = torch.ones(CLASSES, device=one.device)
        real[[GAP, MASKED]] = 0  # gaps and masks are like nothing
        equal = torch.einsum("belk,bslk->bes", other * real, one * real)
        mine = F.one_hot(equal.argmax(2), many).float()  # (B, E, S)
        total = total + torch.einsum("bes,belk->bslk", mine, other)
        gone = gone + torch.einsum("bes,bel->bsl", mine, deleted[:, many:] * rest_there)
        count = count + torch.einsum("bes,bel->bsl", mine, rest_there.float())
    count = count.clamp(min=1)
    return total / count[..., None], gone / count
