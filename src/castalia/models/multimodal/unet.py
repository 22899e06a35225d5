"""The U-Net of the diffusion family with words in it: cross-attention to a sequence at every level with attention.

Papers
    Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models" (arXiv:2112.10752): section 3.3,
    appendix E.2.1: at each attention a normalisation, a map into the width, blocks of self-attention, cross-attention
    and a gated perceptron, a map back, and the sum with what came in. Shazeer 2020 (arXiv:2002.05202): GEGLU.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from castalia.nn.attention import attend
from castalia.nn.groupnorm import GroupNorm
from castalia.nn.unet import UNet, UNetConfig


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d)) v of tokens (B, N, width) that ask tokens (B, M, asked); those hidden are not seen."""

    def __init__(self, width: int, asked: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key, self.value = nn.Linear(asked, width, bias=False), nn.Linear(asked, width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, asked: Tensor, seen: Tensor | None = None) -> Tensor:
        q, k, v = (
            layer(z).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, z in ((self.query, x), (self.key, asked), (self.value, asked))
        )
        mask = None if seen is None else seen[:, None, None]
        return self.out(attend(q, k, v, mask).transpose(1, 2).flatten(2))


class WordBlock(nn.Module):
    """Self-attention, cross-attention, gated perceptron, each added to its input behind a normalisation."""

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.own = Attention(width, width, heads)
        self.cross = Attention(width, context, heads)
        self.up, self.down = nn.Linear(width, 8 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, context: Tensor, seen: Tensor | None) -> Tensor:
        h = self.norm1(x)
        x = x + self.own(h, h)
        x = x + self.cross(self.norm2(x), context, seen)
        value, gate = self.up(self.norm3(x)).chunk(2, -1)
        return x + self.down(value * F.gelu(gate))


class WordAttention(nn.Module):
    """A picture (B, channels, H, W) in which every place asks the words (B, M, context)."""

    def __init__(self, channels: int, context: int, heads: int, groups: int, blocks: int = 1) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels, 1e-6, silu=False)
        self.enter, self.leave = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.blocks = nn.ModuleList(WordBlock(channels, context, heads) for _ in range(blocks))

    def forward(self, x: Tensor, context: Tensor, seen: Tensor | None = None) -> Tensor:
        b, c, h, w = x.shape
        tokens = self.enter(self.norm(x)).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens, context, seen)
        return x + self.leave(tokens.transpose(1, 2).reshape(b, c, h, w))


class WordUNet(UNet):
    """Pictures, times, words and a vector to pictures of the same size.

    Args:
        config: what it is made of.
        in_channels: of the input, conditions that are pictures among them.
        out_channels: of the output.
        context: width of the words.
        vector: length of a vector that is added to the embedding of the time; 0 for none.
        blocks: of self- and cross-attention at each place that has attention.
    """

    def __init__(
        self, config: UNetConfig, in_channels: int, out_channels: int, context: int, vector: int = 0, blocks: int = 1
    ) -> None:
        super().__init__(config, in_channels, out_channels)
        groups = config.groups
        self.exchange(lambda old: WordAttention(old.qkv.in_channels, context, old.heads, groups, blocks))
        self.vector = nn.Linear(vector, config.embedding_dims) if vector else None
        for module in self.modules():
            if isinstance(module, WordAttention):
                nn.init.zeros_(module.leave.weight)

    def look(
        self, x: Tensor, t: Tensor, context: Tensor, vector: Tensor | None = None, seen: Tensor | None = None
    ) -> Tensor:
        """Pictures (B, in_channels, H, W), times (B,), words (B, M, context), of which ``seen`` (B, M) can be seen."""
        beside = None if self.vector is None or vector is None else self.vector(vector)

        def attend(module: nn.Module, h: Tensor) -> Tensor:
            return module(h, context, seen) if isinstance(module, WordAttention) else module(h)

        return self.walk(x, self.embed(t, beside=beside), attend).to(x.dtype)
