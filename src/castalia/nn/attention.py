"""Self-attention over the positions of a picture (Ho et al. 2020, arXiv:2006.11239, appendix B)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.nn.convolutions import pointwise
from castalia.nn.groupnorm import GroupNorm


class PictureAttention(nn.Module):
    """``gain * (x + out(attention(norm(x))))``, shape (B, channels, H, W) in and out.

    The tokens are the pixels. In channels-last order no copy is made to see them so.

    Args:
        channels: of the input.
        heads: how many; divides ``channels``.
        groups: of the normalisation; 0 leaves it out.
        eps: of the normalisation.
        gain: multiplies the sum.
    """

    def __init__(self, channels: int, heads: int, groups: int, eps: float, gain: float = 1.0) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be cut into {heads} heads")
        self.heads, self.gain = heads, gain
        self.norm = GroupNorm(groups, channels, eps, silu=False) if groups else nn.Identity()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        tokens = pointwise(self.qkv, self.norm(x)).permute(0, 2, 3, 1).reshape(b, h * w, 3, self.heads, c // self.heads)
        q, k, v = tokens.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attend(q, k, v)
        y = x + pointwise(self.out, mixed.transpose(1, 2).reshape(b, h, w, c).permute(0, 3, 1, 2))
        return y if self.gain == 1 else y * self.gain


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """softmax(q k^T / sqrt(d) + mask) v for queries (B, heads, N, d), keys and values (B, heads, M, d).

    On CPUs, torch's fused kernel does its bfloat16 products slowly; up to some hundreds of tokens, three plain steps
    take half of its time forwards and a third (of tiny pictures, a tenth) backwards (measured with torch 2.13).
    They round scores to bfloat16 as well: results are off by 0.4 % where scores deviate by 1 and by 1.6 % at 16, those
    of the fused kernel by 0.2 %.

    Args:
        q: queries.
        k: keys.
        v: values.
        seen: bool, of a shape that (B, heads, N, M) is a repetition of: which keys a query sees; at least one.
        dropout: share of attention weights that is dropped.
    """
    b, heads, n, d = q.shape
    if not plainly(q, max(n, k.shape[2])) or not q.numel():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout)
    q, k, v = (z.reshape(b * heads, -1, d) for z in (q, k, v))
    if seen is None:
        scores = torch.bmm(q * d**-0.5, k.transpose(1, 2))
    else:
        mask = torch.zeros(seen.shape, dtype=q.dtype, device=seen.device).masked_fill(~seen, float("-inf"))
        if mask.numel() > mask.shape[-1] * mask.shape[-2]:
            mask = mask.expand(b, heads, *mask.shape[-2:]).reshape(b * heads, *mask.shape[-2:])
        else:
            mask = mask.view(mask.shape[-2:])
        scores = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=d**-0.5)
    weights = torch.softmax(scores, dim=-1)
    return torch.bmm(F.dropout(weights, dropout, training=dropout > 0), v).view(b, heads, n, d)


def plainly(q: Tensor, tokens: int) -> bool:
    """Whether three plain steps are faster than torch's fused kernel, with so many tokens at most."""
    return q.dtype == torch.bfloat16 and q.device.type == "cpu" and tokens <= 512
