"""The parts of RETRO: what reads neighbours, and the block of a decoder that attends to them; see ``retro.py``."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.nn.causal import Cache, CausalBlock


class CrossAttention(nn.Module):
    """Attention of tokens to others, normalised before; it begins by adding nothing.

    Args:
        dim: of a token.
        heads: how many.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim, 1e-5)
        self.q, self.kv, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, seen: Tensor, there: Tensor) -> Tensor:
        """What is added to tokens (b, t, dim) that see (b, s, dim), of which ``there`` bool (b, s) are there."""
        b, t, dim = x.shape
        q = self.q(self.norm(x)).view(b, t, self.heads, -1).transpose(1, 2)
        k, v = self.kv(seen).view(b, seen.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=there[:, None, None])
        return self.out(y.transpose(1, 2).reshape(b, t, dim))


class EncoderBlock(nn.Module):
    """Attention both ways, attention to the chunk that asked, and a perceptron, each of a normalised input.

    Args:
        dim: of a token.
        heads: of attention.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, 1e-5), nn.LayerNorm(dim, 1e-5)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.cross = CrossAttention(dim, heads)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor, there: Tensor, chunk: Tensor) -> Tensor:
        """Tokens (b, r, dim) in and out, of which ``there`` (b, r) are there; ``chunk`` (b, m, dim) asked for them."""
        b, r, dim = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, r, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=there[:, None, None])
        x = x + self.out(y.transpose(1, 2).reshape(b, r, dim))
        x = x + self.cross(x, chunk, torch.ones_like(chunk[..., 0], dtype=torch.bool))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Encoder(nn.Module):
    """Reads neighbours, both ways, knowing what the decoder has made of the chunk that asked.

    Args:
        dim: of a token.
        heads: of attention.
        blocks: how many.
        length: tokens of a neighbour.
    """

    def __init__(self, dim: int, heads: int, blocks: int, length: int) -> None:
        super().__init__()
        self.places = nn.Embedding(length, dim)
        self.blocks = nn.ModuleList(EncoderBlock(dim, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim, 1e-5)

    def forward(self, tokens: Tensor, there: Tensor, chunk: Tensor) -> tuple[Tensor, Tensor]:
        """Encodings (b, k r, dim) of k neighbours, and which are there.

        Args:
            tokens: embeddings (b, k, r, dim).
            there: bool (b, k, r).
            chunk: (b, m, dim).
        """
        b, k, r, dim = tokens.shape
        h, seen = (tokens + self.places.weight[:r]).view(b * k, r, dim), there.view(b * k, r)
        asked = chunk.repeat_interleave(k, 0)
        for block in self.blocks:
            h = block(h, seen, asked)
        return self.norm(h).view(b, k * r, dim), there.reshape(b, k * r)


class RetroBlock(CausalBlock):
    """The block of GPT-2, with something added between attention and perceptron."""

    def forward(
        self,
        x: Tensor,
        cache: Cache | None = None,
        places: Tensor | None = None,
        between: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """As :meth:`CausalBlock.forward`; ``between`` gives what is added to tokens (n, t, dim)."""
        x = x + F.dropout(self.attention(self.norm1(x), cache, places), self.dropout, self.training)
        if between is not None:
            x = x + F.dropout(between(x), self.dropout, self.training)
        y = self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))
        return x + F.dropout(y, self.dropout, self.training)
