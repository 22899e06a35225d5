"""Self-attention that looks back, with and without a cache, and the block of a transformer around it.

Shared by all systems that write one token after another. With a cache each row may hold another number of tokens: rows
are padded on the right, and nothing sees the padding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.nn.attention import attend, plainly

Pattern = Callable[[Tensor, Tensor], Tensor]
"""Places of tokens that look and of tokens before them or their own, to whether those are seen; see ``sparse.py``."""


@dataclass
class Cache:
    """Keys and values of the tokens that a block has seen, of n rows.

    Attributes:
        keys: (n, heads, room, d).
        values: (n, heads, room, d).
    """

    keys: Tensor
    values: Tensor

    @classmethod
    def empty(cls, n: int, heads: int, room: int, d: int, dtype: torch.dtype, device: torch.device) -> Cache:
        """Room for ``room`` tokens in each of ``n`` rows."""
        keys, values = (torch.zeros(n, heads, room, d, dtype=dtype, device=device) for _ in range(2))
        return cls(keys, values)

    def put(self, keys: Tensor, values: Tensor, places: Tensor) -> None:
        """Write keys and values (n, heads, t, d) of tokens at ``places`` ``int64`` (n, t)."""
        rows = torch.arange(len(places), device=places.device)[:, None]
        self.keys[rows, :, places] = keys.transpose(1, 2).to(self.keys.dtype)
        self.values[rows, :, places] = values.transpose(1, 2).to(self.values.dtype)


class CausalAttention(nn.Module):
    """Multi-head self-attention in which a token sees itself and those before it.

    Args:
        dim: of a token.
        heads: how many; divides ``dim``.
        dropout: share of attention weights that is dropped in training.
        window: how many tokens one sees, itself among them; None for all before it.
        pattern: which of them it sees; None for all.
        inner: dimensions of queries, keys and values of all heads together; None for ``dim``.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        dropout: float = 0.0,
        window: int | None = None,
        pattern: Pattern | None = None,
        inner: int | None = None,
    ) -> None:
        super().__init__()
        inner = dim if inner is None else inner
        if inner % heads:
            raise ValueError(f"{inner} dimensions cannot be cut into {heads} heads")
        self.heads, self.dropout, self.window, self.pattern = heads, dropout, window, pattern
        self.qkv = nn.Linear(dim, 3 * inner)
        self.out = nn.Linear(inner, dim)

    def forward(self, x: Tensor, cache: Cache | None = None, places: Tensor | None = None) -> Tensor:
        """Tokens (n, t, dim) in and out; with a cache they follow what it holds, at ``places`` ``int64`` (n, t)."""
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        drop = self.dropout if self.training else 0.0
        if cache is None:
            if self.pattern is None:
                y = attend_back(q, k, v, drop, self.window)
            else:
                at = torch.arange(t, device=x.device)
                mask = ~hidden(t, self.window, x.device) & self.pattern(at[:, None], at)
                y = attend(q, k, v, mask, drop)
        else:
            assert places is not None
            cache.put(k, v, places)
            seen = int(places.max()) + 1
            back = places[:, None, :, None] - torch.arange(seen, device=x.device)
            mask = back >= 0 if self.window is None else (back >= 0) & (back < self.window)
            if self.pattern is not None:
                mask = mask & self.pattern(places[:, None, :, None], torch.arange(seen, device=x.device))
            keys, values = cache.keys[:, :, :seen].to(q.dtype), cache.values[:, :, :seen].to(q.dtype)
            y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(n, t, -1))


def attend_back(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, window: int | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + mask) v for (n, heads, t, d) each, where a token sees itself and what is before it."""
    t = q.shape[2]
    if (window is None or window >= t) and not plainly(q, t):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
    return attend(q, k, v, ~hidden(t, window, q.device), dropout)


def hidden(t: int, window: int | None, device: torch.device) -> Tensor:
    """Which tokens (columns) a token (row) does not see, bool (t, t)."""
    later = torch.ones(t, t, dtype=torch.bool, device=device).triu(1)
    return later if window is None else later | torch.ones_like(later).tril(-window)


class CausalBlock(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``: the block of GPT-2, with tanh GELU.

    Args:
        dim: of a token.
        heads: of attention.
        hidden: width of the perceptron.
        dropout: share that is dropped of attention weights and of what is added to ``x``.
        window: as in :class:`CausalAttention`.
        eps: of the normalisations.
        pattern: as in :class:`CausalAttention`.
        inner: as in :class:`CausalAttention`.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        dropout: float = 0.0,
        window: int | None = None,
        eps: float = 1e-5,
        pattern: Pattern | None = None,
        inner: int | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps)
        self.attention = CausalAttention(dim, heads, dropout, window, pattern, inner)
        self.norm2 = nn.LayerNorm(dim, eps)
        self.up = nn.Linear(dim, hidden)
        self.down = nn.Linear(hidden, dim)
        self.dropout = dropout

    def forward(self, x: Tensor, cache: Cache | None = None, places: Tensor | None = None) -> Tensor:
        """Tokens (n, t, dim) in and out; the rest as in :class:`CausalAttention`."""
        x = x + F.dropout(self.attention(self.norm1(x), cache, places), self.dropout, self.training)
        y = self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))
        return x + F.dropout(y, self.dropout, self.training)
