"""Locally banded attention: a token sees the last ``window`` tokens, itself among them, and pays for no more.

Child et al. 2019 (arXiv:1904.10509) call it local; Brown et al. 2020 (arXiv:2005.14165) alternate it with attention to
everything. The work is that of two windows for each token, however long the text, and a cache has room for one window.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from castalia.nn.causal import Cache, CausalAttention, CausalBlock, attend_back


class BandedAttention(CausalAttention):
    """:class:`CausalAttention` with a window, in time and memory that do not grow with what lies before it.

    Caches of it are rings: place p lies in slot p modulo their size, which is at least the window.

    Args:
        dim: of a token.
        heads: how many.
        window: how many tokens one sees, itself among them.
        dropout: share of attention weights that is dropped in training.
        inner: dimensions of queries, keys and values of all heads together; None for ``dim``.
    """

    def __init__(self, dim: int, heads: int, window: int, dropout: float = 0.0, inner: int | None = None) -> None:
        super().__init__(dim, heads, dropout, window, inner=inner)
        if window < 1:
            raise ValueError("a band is at least one token wide")
        self.band = window

    def forward(self, x: Tensor, cache: Cache | None = None, places: Tensor | None = None) -> Tensor:
        """Tokens (n, t, dim) in and out; with a cache they follow what it holds, at ``places`` ``int64`` (n, t).

        Places rise by one from the first; behind a row's last token it may be repeated, as padding.
        """
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if cache is None:
            y = attend_band(q, k, v, self.band, self.dropout if self.training else 0.0)
        else:
            assert places is not None
            y = self._with_cache(q, k, v, cache, places)
        return self.out(y.transpose(1, 2).reshape(n, t, -1))

    def _with_cache(self, q: Tensor, k: Tensor, v: Tensor, cache: Cache, places: Tensor) -> Tensor:
        size = cache.keys.shape[2]
        before = places[:, :1] - 1
        slots = torch.arange(size, device=places.device)
        held = before - (before - slots) % size  # the newest place of each slot; below 0 where there is none
        repeated = F.pad(places[:, 1:] == places[:, :-1], (1, 0))
        at = torch.cat([held, places.masked_fill(repeated, -1)], 1)
        back = places[:, :, None] - at[:, None]
        seen = (at[:, None] >= 0) & (back >= 0) & (back < self.band)
        keys = torch.cat([cache.keys.to(k.dtype), k], 2)
        values = torch.cat([cache.values.to(v.dtype), v], 2)
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=seen[:, None])
        # only the last of a row's new places: no slot is written twice
        kept = ~repeated & (places > places[:, -1:] - size)
        rows, columns = kept.nonzero(as_tuple=True)
        slot = places[rows, columns] % size
        cache.keys[rows, :, slot] = k[rows, :, columns].to(cache.keys.dtype)
        cache.values[rows, :, slot] = v[rows, :, columns].to(cache.values.dtype)
        return y


class BandedBlock(CausalBlock):
    """The block of GPT-2 with banded attention; see :class:`CausalBlock`."""

    def __init__(
        self, dim: int, heads: int, hidden: int, window: int, dropout: float = 0.0, inner: int | None = None
    ) -> None:
        super().__init__(dim, heads, hidden, dropout, inner=inner)
        self.attention = BandedAttention(dim, heads, window, dropout, inner)


def attend_band(q: Tensor, k: Tensor, v: Tensor, window: int, dropout: float = 0.0) -> Tensor:
    """Attention (n, heads, t, d) of tokens to the last ``window`` up to their own, with gradients.

    Queries are cut into blocks of ``window``, each of which looks at its own keys and those of the block before.
    """
    n, heads, t, d = q.shape
    if t <= 2 * window:  # a dense mask costs no more
        return attend_back(q, k, v, dropout, window)
    blocks = -(-t // window)
    q, k, v = (F.pad(z, (0, 0, 0, blocks * window - t)).view(n, heads, blocks, window, d) for z in (q, k, v))
    k, v = (torch.cat([F.pad(z, (0, 0, 0, 0, 1, 0))[:, :, :-1], z], 3) for z in (k, v))
    back = torch.arange(window, device=q.device)[:, None] - torch.arange(-window, window, device=q.device)
    mask = ((back >= 0) & (back < window)).expand(blocks, -1, -1).clone()
    mask[0, :, :window] = False  # before the first block there is nothing
    if q.dtype == torch.bfloat16 and q.device.type == "cpu":  # as in attend_back
        scores = (q @ k.mT) * d**-0.5
        weights = torch.softmax(scores.masked_fill(~mask, float("-inf")), -1)
        y = F.dropout(weights, dropout, training=dropout > 0) @ v
    else:
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    return y.reshape(n, heads, blocks * window, d)[:, :, :t]
