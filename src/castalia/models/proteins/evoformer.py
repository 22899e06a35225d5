"""The Evoformer (Jumper et al. 2021, supplement, sections 1.6 and 1.7): Algorithms 6 to 15, 18 and 19.

Shapes: ``m`` (B, S, L, c_m), an alignment; ``z`` (B, L, L, c_z), pairs of residues. Masks are 1 where there is
    something:
``rows`` (B, S, L) of cells, ``pairs`` (B, L, L) of two residues that are both there. What is masked is never seen, and
its own values mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

NEVER = -1e9
"""Added to logits of what must not be looked at."""

ROWS_AT_ONCE = 1 << 26
"""Logits of a triangle attention that are held at once where no gradients are wanted."""


@dataclass(frozen=True)
class Sizes:
    """Widths of a stack.

    Attributes:
        m: channels of the alignment.
        z: channels of pairs.
        heads: of attention along and across rows of the alignment.
        head: channels of each of these heads.
        outer: channels of the outer product mean.
        triangle: channels of the triangle multiplications.
        pair_heads: of the triangle attentions.
        pair_head: channels of each of these heads.
        factor: by which transitions widen.
        row_dropout: share of what row attention adds that is dropped.
        pair_dropout: the same of what triangles add to pairs.
    """

    m: int
    z: int
    heads: int
    head: int
    outer: int
    triangle: int
    pair_heads: int
    pair_head: int
    factor: int = 4
    row_dropout: float = 0.15
    pair_dropout: float = 0.25


def last(linear: nn.Linear) -> nn.Linear:
    """The last layer of a branch: it begins at zero, so that the branch begins by doing nothing (section 1.11.4)."""
    nn.init.zeros_(linear.weight)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear


def gate(linear: nn.Linear) -> nn.Linear:
    """The linear layer of a gate: it begins at sigmoid(1), whatever it sees."""
    nn.init.zeros_(linear.weight)
    nn.init.ones_(linear.bias)
    return linear


def shared_dropout(x: Tensor, p: float, training: bool, dim: int) -> Tensor:
    """Dropout with one mask for all positions along ``dim`` (section 1.11.6)."""
    if not training or p == 0:
        return x
    shape = list(x.shape)
    shape[dim] = 1
    return x * F.dropout(x.new_ones(shape), p)


class Attention(nn.Module):
    """Gated attention: softmax(q k / sqrt(c) + bias) v, each head times a gate.

    Args:
        width: channels in and out.
        heads: how many.
        head: channels of each.
    """

    def __init__(self, width: int, heads: int, head: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(width, heads * head, bias=False) for _ in range(3))
        self.gate, self.out = gate(nn.Linear(width, heads * head)), last(nn.Linear(heads * head, width))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Attend among (..., N, width); ``bias`` broadcasts with (..., heads, N, N)."""
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(-2, -3) for f in (self.q, self.k, self.v))
        weight = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + bias
        mixed = (weight.softmax(-1).to(v.dtype) @ v).transpose(-2, -3).flatten(-2)
        return self.out(self.gate(x).sigmoid() * mixed)


class RowAttention(nn.Module):
    """Algorithm 7: attention along the rows of an alignment, with a bias from pairs."""

    def __init__(self, m: int, z: int, heads: int, head: int) -> None:
        super().__init__()
        self.norm, self.pair_norm = nn.LayerNorm(m), nn.LayerNorm(z)
        self.bias = nn.Linear(z, heads, bias=False)
        self.attention = Attention(m, heads, head)

    def forward(self, m: Tensor, z: Tensor, rows: Tensor) -> Tensor:
        bias = self.bias(self.pair_norm(z)).permute(0, 3, 1, 2)[:, None]
        return self.attention(self.norm(m), bias + NEVER * (1 - rows)[:, :, None, None])


class ColumnAttention(nn.Module):
    """Algorithm 8: attention across the rows of an alignment, one residue at a time."""

    def __init__(self, m: int, heads: int, head: int) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(m), Attention(m, heads, head)

    def forward(self, m: Tensor, rows: Tensor) -> Tensor:
        bias = NEVER * (1 - rows.transpose(1, 2))[:, :, None, None]
        return self.attention(self.norm(m).transpose(1, 2), bias).transpose(1, 2)


class GlobalColumnAttention(nn.Module):
    """Algorithm 19: the same for many rows: one question for each residue, the mean of its column, and shared keys."""

    def __init__(self, m: int, heads: int, head: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(m)
        self.q = nn.Linear(m, heads * head, bias=False)
        self.k, self.v = (nn.Linear(m, head, bias=False) for _ in range(2))
        self.gate, self.out = gate(nn.Linear(m, heads * head)), last(nn.Linear(heads * head, m))

    def forward(self, m: Tensor, rows: Tensor) -> Tensor:
        x, there = self.norm(m).transpose(1, 2), rows.transpose(1, 2)  # (B, L, S, c)
        mean = (x * there[..., None]).sum(2) / (there.sum(2)[..., None] + 1e-10)
        q = self.q(mean).unflatten(-1, (self.heads, -1))
        weight = (q * q.shape[-1] ** -0.5) @ self.k(x).transpose(-1, -2) + NEVER * (1 - there)[:, :, None]
        mixed = (weight.softmax(-1).to(x.dtype) @ self.v(x)).flatten(-2)[:, :, None]
        return self.out(self.gate(x).sigmoid() * mixed).transpose(1, 2)


class Transition(nn.Module):
    """Algorithms 9 and 15: two layers with a wider one between."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.norm, self.wide = nn.LayerNorm(width), nn.Linear(width, factor * width)
        self.out = last(nn.Linear(factor * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.wide(self.norm(x)).relu())


class OuterProductMean(nn.Module):
    """Algorithm 10: what an alignment says of pairs: the mean over rows of outer products."""

    def __init__(self, m: int, z: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(m)
        self.left, self.right = nn.Linear(m, width), nn.Linear(m, width)
        self.out = last(nn.Linear(width * width, z))

    def forward(self, m: Tensor, rows: Tensor) -> Tensor:
        x = self.norm(m)
        a, b = (f(x) * rows[..., None] for f in (self.left, self.right))
        count = torch.einsum("bsi,bsj->bij", rows, rows)[..., None]
        total = self.few(a, b) if m.shape[1] <= a.shape[-1] else self.many(a, b)
        return (total + self.out.bias * count) / (count + 1e-3)

    def many(self, a: Tensor, b: Tensor) -> Tensor:
        """The sum over rows of outer products, through the last layer without its bias, (B, L, L, z)."""
        return F.linear(torch.einsum("bsic,bsjd->bijcd", a, b).flatten(-2), self.out.weight)

    def few(self, a: Tensor, b: Tensor) -> Tensor:
        """The same in another order, which holds no (L, L, width, width): for few rows it is faster."""
        n, s, length, width = b.shape
        weight = self.out.weight.view(-1, width, width).to(a.dtype)
        left = torch.einsum("bsic,zcd->bizsd", a, weight).reshape(n, -1, s * width)
        total = left @ b.permute(0, 1, 3, 2).reshape(n, s * width, length)
        return total.view(n, length, -1, length).transpose(2, 3)


class TriangleMultiplication(nn.Module):
    """Algorithms 11 (outgoing: z_ik with z_jk) and 12 (incoming: z_ki with z_kj)."""

    def __init__(self, z: int, width: int, kind: Literal["outgoing", "incoming"]) -> None:
        super().__init__()
        self.outgoing = kind == "outgoing"
        self.norm, self.inner_norm = nn.LayerNorm(z), nn.LayerNorm(width)
        self.a, self.b = nn.Linear(z, width), nn.Linear(z, width)
        self.a_gate, self.b_gate = gate(nn.Linear(z, width)), gate(nn.Linear(z, width))
        self.gate, self.out = gate(nn.Linear(z, z)), last(nn.Linear(width, z))

    def forward(self, z: Tensor, pairs: Tensor) -> Tensor:
        x, there = self.norm(z), pairs[..., None]
        a = (there * self.a_gate(x).sigmoid() * self.a(x)).permute(0, 3, 1, 2)
        b = (there * self.b_gate(x).sigmoid() * self.b(x)).permute(0, 3, 1, 2)
        mixed = a @ b.transpose(-1, -2) if self.outgoing else a.transpose(-1, -2) @ b
        return self.gate(x).sigmoid() * self.out(self.inner_norm(mixed.permute(0, 2, 3, 1)))


class TriangleAttention(nn.Module):
    """Algorithms 13 (around the starting node: along rows) and 14 (around the ending node: along columns)."""

    def __init__(self, z: int, heads: int, head: int, kind: Literal["starting", "ending"]) -> None:
        super().__init__()
        self.starting = kind == "starting"
        self.norm, self.bias = nn.LayerNorm(z), nn.Linear(z, heads, bias=False)
        self.attention = Attention(z, heads, head)

    def forward(self, z: Tensor, pairs: Tensor) -> Tensor:
        x = self.norm(z if self.starting else z.transpose(1, 2))
        keys = pairs.amax(1)  # the same for all rows that are there
        bias = (self.bias(x).permute(0, 3, 1, 2) + NEVER * (1 - keys)[:, None, None])[:, None]
        size = x.shape[0] * x.shape[2] ** 2 * self.attention.heads
        rows = x.shape[1] if torch.is_grad_enabled() else max(1, ROWS_AT_ONCE // size)
        parts = [self.attention(part, bias) for part in x.split(rows, 1)]
        y = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return y if self.starting else y.transpose(1, 2)


class PairUpdate(nn.Module):
    """Lines 6 to 10 of Algorithm 6: what happens to pairs in each block."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        c, self.dropout = sizes, sizes.pair_dropout
        self.outgoing = TriangleMultiplication(c.z, c.triangle, "outgoing")
        self.incoming = TriangleMultiplication(c.z, c.triangle, "incoming")
        self.starting = TriangleAttention(c.z, c.pair_heads, c.pair_head, "starting")
        self.ending = TriangleAttention(c.z, c.pair_heads, c.pair_head, "ending")
        self.transition = Transition(c.z, c.factor)

    def forward(self, z: Tensor, pairs: Tensor) -> Tensor:
        p, t = self.dropout, self.training
        z = z + shared_dropout(self.outgoing(z, pairs), p, t, 1)
        z = z + shared_dropout(self.incoming(z, pairs), p, t, 1)
        z = z + shared_dropout(self.starting(z, pairs), p, t, 1)
        z = z + shared_dropout(self.ending(z, pairs), p, t, 2)
        return z + self.transition(z)


class Block(nn.Module):
    """One block of Algorithm 6, or with ``extra`` of Algorithm 18, which attends across rows globally."""

    def __init__(self, sizes: Sizes, extra: bool = False) -> None:
        super().__init__()
        c, self.dropout = sizes, sizes.row_dropout
        self.row = RowAttention(c.m, c.z, c.heads, c.head)
        self.column = (GlobalColumnAttention if extra else ColumnAttention)(c.m, c.heads, c.head)
        self.transition = Transition(c.m, c.factor)
        self.outer = OuterProductMean(c.m, c.z, c.outer)
        self.pair = PairUpdate(sizes)

    def forward(self, m: Tensor, z: Tensor, rows: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        m = m + shared_dropout(self.row(m, z, rows), self.dropout, self.training, 1)
        m = m + self.column(m, rows)
        m = m + self.transition(m)
        return m, self.pair(z + self.outer(m, rows), pairs)


class Stack(nn.Module):
    """Algorithms 6 and 18: blocks one after another.

    Args:
        blocks: how many.
        sizes: their widths.
        extra: the stack of the extra alignment.
        saving: keep only what stands between blocks for the backward pass, and compute the rest again.
    """

    def __init__(self, blocks: int, sizes: Sizes, *, extra: bool = False, saving: bool = False) -> None:
        super().__init__()
        self.saving = saving
        self.blocks = nn.ModuleList(Block(sizes, extra) for _ in range(blocks))

    def forward(self, m: Tensor, z: Tensor, rows: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            if self.saving and torch.is_grad_enabled():
                m, z = checkpoint(block, m, z, rows, pairs, use_reentrant=False)  # pyright: ignore[reportGeneralTypeIssues]
            else:
                m, z = block(m, z, rows, pairs)
        return m, z
