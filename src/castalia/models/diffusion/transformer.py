"""The diffusion transformer: a vision transformer that is told time and label through its normalisations.

Paper
    Peebles & Xie 2023, "Scalable Diffusion Models with Transformers" (arXiv:2212.09748): patches, adaLN-Zero blocks
    (figure 3), sizes (table 1), initialisation (section 3.2 and appendix A).

    c = time(t) + label(y)
    h = h + g1 attention(n(h) (1 + s1) + b1)      (b1, s1, g1, b2, s2, g2) = linear(silu(c)), zero at the start
    h = h + g2 mlp(n(h) (1 + s2) + b2)            n: layer normalisation without gain

    Size: S 12 blocks of 384, 6 heads; B 12 of 768, 12; L 24 of 1,024, 16; XL 28 of 1,152, 16. Patches of 2, 4 or 8.

What differs, and why
    What all blocks are told is computed by :meth:`Transformer.embed`, once for a whole schedule: a third of a block's
    weights are in it, and in sampling it depends on nothing but time and label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.nn.attention import attend
from castalia.nn.embeddings import sinusoids

FEATURES = 256
"""Waves that stand for the time."""


@dataclass(frozen=True)
class TransformerConfig:
    """Configuration of a diffusion transformer.

    Attributes:
        patch: side of the squares that become tokens; divides the sides of the pictures.
        width: of a token.
        depth: blocks.
        heads: of attention; divides the width.
        ratio: width of the perceptron, relative to that of a token.
        dropout: of the perceptron's and attention's results; 0 in the paper.
    """

    patch: int = 2
    width: int = 384
    depth: int = 12
    heads: int = 6
    ratio: float = 4.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if min(self.patch, self.depth, self.heads) < 1 or self.width < 4 or self.ratio <= 0:
            raise ValueError("patch, depth and heads are at least 1, width at least 4, ratio positive")
        if self.width % 4 or self.width % self.heads:
            raise ValueError("width is divided by 4 (for the positions) and by the heads")
        if not 0 <= self.dropout < 1:
            raise ValueError("dropout lies in [0, 1)")


def size(name: Literal["S", "B", "L", "XL"], patch: int) -> TransformerConfig:
    """One of the paper's, table 1."""
    depth, width, heads = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}[name]
    return TransformerConfig(patch, width, depth, heads)


def positions(rows: int, columns: int, width: int) -> Tensor:
    """Fixed sines and cosines of column and row, ``float32`` (rows * columns, width): half of each (MAE's order)."""
    waves = 1 / 10_000 ** (np.arange(width // 4) / (width // 4))
    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    parts = [f(grid.reshape(-1, 1) * waves) for grid in (column, row) for f in (np.sin, np.cos)]
    return torch.from_numpy(np.concatenate(parts, 1)).float()


class Block(nn.Module):
    """Attention and perceptron, each between what the embedding makes of its input and how much of it counts."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        d, inner = config.width, int(config.width * config.ratio)
        self.heads = config.heads
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, inner), nn.Linear(inner, d)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, h: Tensor, told: Tensor) -> Tensor:
        """Tokens (B, N, width), and what the block is told (B or 1, 6 width)."""
        b1, s1, g1, b2, s2, g2 = told[:, None].chunk(6, -1)
        b, n, d = h.shape
        tokens = self.qkv(modulated(h, b1, s1)).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = attend(*tokens.unbind(0)).transpose(1, 2).reshape(b, n, d)
        h = h + g1 * self.dropout(self.out(mixed))
        return h + g2 * self.dropout(self.down(F.gelu(self.up(modulated(h, b2, s2)), approximate="tanh")))


def modulated(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """n(h) (1 + scale) + shift."""
    return torch.addcmul(shift, F.layer_norm(h, h.shape[-1:], eps=1e-6), 1 + scale)


@final
class Transformer(nn.Module):
    """Pictures (B, channels, H, W) and times to (B, outputs, H, W); called as :class:`castalia.nn.unet.UNet` is.

    Label number ``classes`` is the null class.

    Raises:
        ValueError: the patches do not divide the pictures.
    """

    def __init__(
        self, config: TransformerConfig, channels: int, outputs: int, height: int, width: int, classes: int = 0
    ) -> None:
        super().__init__()
        p, d = config.patch, config.width
        if height % p or width % p:
            raise ValueError(f"patches of {p} do not divide pictures of {width}x{height}: choose another patch or size")
        self.config, self.classes, self.outputs = config, classes, outputs
        self.rows, self.columns = height // p, width // p
        self.patch = nn.Conv2d(channels, d, p, stride=p)
        self.register_buffer("position", positions(self.rows, self.columns, d), persistent=False)
        self.time = nn.Sequential(nn.Linear(FEATURES, d), nn.SiLU(), nn.Linear(d, d))
        self.label = nn.Embedding(classes + 1, d) if classes else None
        self.tell = nn.ModuleList(nn.Linear(d, 6 * d) for _ in range(config.depth))
        self.tell_last = nn.Linear(d, 2 * d)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.last = nn.Linear(d, p * p * outputs)
        self.reset()

    def reset(self) -> None:
        """As in the paper: Xavier everywhere, small embeddings, nothing told and nothing put out at the start."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patch.weight.view(self.patch.out_channels, -1))
        nn.init.zeros_(cast(Tensor, self.patch.bias))
        for layer in (self.time[0], self.time[2]):
            nn.init.normal_(cast(Tensor, layer.weight), std=0.02)
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=0.02)
        for layer in (*self.tell, self.tell_last, self.last):
            nn.init.zeros_(cast(Any, layer).weight)

    def embed(self, t: Tensor, label: Tensor | None = None) -> Tensor:
        """What all blocks need to know of times (B,) and labels (B,); None is the null class."""
        features = sinusoids(t, FEATURES, cos_first=True, freq_shift=0.0)
        c = self.time(features.to(self.tell_last.weight.dtype))
        if self.label is not None:
            c = c + self.label(torch.full(t.shape, self.classes, device=t.device) if label is None else label)
        c = F.silu(c)
        return torch.cat([tell(c) for tell in (*self.tell, self.tell_last)], 1)

    def forward_embedded(self, x: Tensor, embedding: Tensor) -> Tensor:
        """The network without its embeddings, in the type of ``x``."""
        d, p = self.config.width, self.config.patch
        h = self.patch(x.to(self.patch.weight.dtype)).flatten(2).transpose(1, 2) + cast(Tensor, self.position).to(
            self.patch.weight.dtype
        )
        *told, last = embedding.split([6 * d] * self.config.depth + [2 * d], 1)
        for block, e in zip(self.blocks, told, strict=True):
            h = block(h, e)
        shift, scale = last[:, None].chunk(2, -1)
        h = self.last(modulated(h, shift, scale)).view(x.shape[0], self.rows, self.columns, p, p, self.outputs)
        return (
            h.permute(0, 5, 1, 3, 2, 4).reshape(x.shape[0], self.outputs, p * self.rows, p * self.columns).to(x.dtype)
        )

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Pictures, times (B,) and labels (B,) to the outputs."""
        return self.forward_embedded(x, self.embed(t, label))
