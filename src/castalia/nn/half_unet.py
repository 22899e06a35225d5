"""The way down of a U-Net with attention at its end: what tells classes of noisy pictures apart.

Papers
    Dhariwal & Nichol 2021, "Diffusion Models Beat GANs on Image Synthesis" (arXiv:2105.05233), section 4: the trunk of
    the U-Net on the way down, with a pool by attention at its lowest level.
    Radford et al. 2021 (arXiv:2103.00020), section 2.4: that pool. The mean of all places, at a position of its own,
    asks all places and itself.

What differs, and why
    Only the mean asks, because only what it is answered is used; the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.nn.attention import PictureAttention
from castalia.nn.embeddings import FourierFeatures, sinusoids
from castalia.nn.groupnorm import GroupNorm
from castalia.nn.unet import Down, Level, ResidualBlock, UNetConfig


class AttentionPool(nn.Module):
    """Pictures (B, channels, H, W) to vectors (B, outputs).

    Args:
        channels: of the input.
        places: H times W.
        heads: how many; divides ``channels``.
        outputs: length of the result.
    """

    def __init__(self, channels: int, places: int, heads: int, outputs: int) -> None:
        super().__init__()
        self.heads = heads
        self.position = nn.Parameter(torch.randn(places + 1, channels) / channels**0.5)
        self.query, self.out = nn.Linear(channels, channels), nn.Linear(channels, outputs)
        self.key_value = nn.Linear(channels, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + self.position
        key, value = self.key_value(tokens).chunk(2, -1)
        q, k, v = (z.unflatten(-1, (self.heads, -1)).transpose(1, 2) for z in (self.query(tokens[:, :1]), key, value))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(1))


class HalfUNet(nn.Module):
    """Noisy pictures and times to a vector each: of logits, for example.

    Args:
        config: what it is made of; what only concerns the way up, or classes, has no use here.
        channels: of the pictures.
        height: of the pictures.
        width: of the pictures.
        outputs: length of the vector.
    """

    def __init__(self, config: UNetConfig, channels: int, height: int, width: int, outputs: int) -> None:
        super().__init__()
        self.config = c = config
        dims, fourier = c.embedding_dims, c.time == "fourier"
        self.fourier = (
            FourierFeatures(c.channels[0], c.fourier_scale, cos_first=c.cos_first) if fourier else nn.Identity()
        )
        self.time = nn.Sequential(
            nn.Linear((2 if fourier else 1) * c.channels[0], dims), nn.SiLU(), nn.Linear(dims, dims)
        )
        self.first = nn.Conv2d(channels, c.channels[0], 3, padding=1)
        last, wide = len(c.channels) - 1, c.channels[0]
        self.down = nn.ModuleList()
        for i, out in enumerate(c.channels):
            widths = [(wide if j == 0 else out, out) for j in range(c.blocks)]
            self.down.append(Level(widths, c, i in c.attention, Down(out, c) if i < last else None))
            wide = out
            if i < last:
                up = c.down != "conv" or c.down_padding == 1 or min(height, width) == 1
                height, width = ((s + 1) // 2 if up else s // 2 for s in (height, width))
        self.middle = nn.ModuleList()
        if c.middle != "none":
            between = nn.Identity()
            if c.middle == "attention":
                groups = c.groups if c.middle_groups is None else c.middle_groups
                between = PictureAttention(wide, c.heads_of(wide), groups, c.eps, c.gain)
            self.middle.extend((ResidualBlock(wide, wide, c), between, ResidualBlock(wide, wide, c)))
        self.norm = GroupNorm(c.groups, wide, c.eps)
        self.pool = AttentionPool(wide, height * width, c.heads_of(wide), outputs)
        blocks = [m for m in self.modules() if isinstance(m, ResidualBlock)]
        self._widths = [block.width for block in blocks]
        self.projection = nn.Linear(dims, sum(self._widths))
        with torch.no_grad():
            for block in blocks:
                nn.init.zeros_(block.conv2.weight)
            for module in self.modules():
                if isinstance(module, PictureAttention):
                    nn.init.zeros_(module.out.weight)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Pictures (B, channels, H, W), any floating type, and times, float (B,), to ``float32`` (B, outputs)."""
        c, kind = self.config, self.projection.weight.dtype
        features = (
            self.fourier(t)
            if c.time == "fourier"
            else sinusoids(t, c.channels[0], cos_first=c.cos_first, freq_shift=c.freq_shift, max_period=c.max_period)
        )
        embedding = self.projection(F.silu(self.time(features.to(kind))))
        parts: Iterator[Tensor] = iter(embedding.split(self._widths, dim=1))
        h = self.first(x.to(kind))
        for level in self.down:
            assert isinstance(level, Level)
            for block, attention in zip(level.blocks, level.attentions, strict=True):
                h = attention(block(h, next(parts)))
            if level.step is not None:
                h = level.step(h, parts)
        if len(self.middle):
            before, between, after = self.middle
            h = after(between(before(h, next(parts))), next(parts))
        return self.pool(self.norm(h)).float()
