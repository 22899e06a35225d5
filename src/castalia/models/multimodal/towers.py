"""The networks of CLIP: a vision transformer, a residual network with attention at its end, and a transformer of words.

Papers
    Radford et al. 2021 (arXiv:2103.00020), sections 2.4 and 2.5. Dosovitskiy et al. 2021 (arXiv:2010.11929): pictures
    as tokens. He et al. 2019 (arXiv:1812.01187): ResNet-D; Zhang 2019 (arXiv:1904.11486): blur before strides.

All towers end with one vector for each example, of the width that pictures and words have in common.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.models.multimodal.words import ends
from castalia.nn.attention import attend
from castalia.nn.causal import attend_back


@dataclass(frozen=True)
class TextConfig:
    """A transformer of words.

    Attributes:
        width: of a token.
        layers: blocks.
        heads: of attention.
    """

    width: int = 512
    layers: int = 12
    heads: int = 8

    def __post_init__(self) -> None:
        if min(self.width, self.layers, self.heads) < 1 or self.width % self.heads:
            raise ValueError("width, layers and heads must be positive, and heads must divide width")


@dataclass(frozen=True)
class VisionConfig:
    """A vision transformer.

    Attributes:
        patch: side of the squares that become tokens; what does not fill one is cut off.
        width: of a token.
        layers: blocks.
        heads: of attention.
    """

    patch: int = 32
    width: int = 768
    layers: int = 12
    heads: int = 12

    def __post_init__(self) -> None:
        if min(self.patch, self.width, self.layers, self.heads) < 1 or self.width % self.heads:
            raise ValueError("patch, width, layers and heads must be positive, and heads must divide width")


@dataclass(frozen=True)
class ResNetConfig:
    """A residual network with attention at its end.

    Attributes:
        blocks: bottleneck blocks of each of four levels.
        width: channels of the first; 64 times the network's own multiplier.
        heads: of the attention at the end.
    """

    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    width: int = 64
    heads: int = 32

    def __post_init__(self) -> None:
        if min(*self.blocks, self.width, self.heads) < 1 or (32 * self.width) % self.heads or self.width % 2:
            raise ValueError("blocks, width and heads must be positive, width even, and heads must divide 32 width")


class Block(nn.Module):
    """x + attention(n(x)), then x + mlp(n(x)), with the GELU that is approximated by a sigmoid."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attend_back(q, k, v) if self.causal else attend(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, d))
        inner = self.up(self.norm2(x))
        return x + self.down(inner * torch.sigmoid(1.702 * inner))


def start(blocks: nn.ModuleList, width: int) -> None:
    """The deviations of the authors' code, by width and depth."""
    inside, fan = width**-0.5 * (2 * len(blocks)) ** -0.5, (2 * width) ** -0.5
    for block in cast("list[Block]", list(blocks)):
        for layer, std in ((block.qkv, width**-0.5), (block.out, inside), (block.up, fan), (block.down, inside)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)


class TextTower(nn.Module):
    """Tokens ``int64`` (B, length) to vectors (B, dims): what stands at the end of the caption.

    With ``dims`` 0 it is left as it is, for those who want what stands at every token.
    """

    def __init__(self, config: TextConfig, vocabulary: int, length: int, dims: int) -> None:
        super().__init__()
        w = config.width
        self.tokens = nn.Embedding(vocabulary, w)
        self.places = nn.Parameter(torch.empty(length, w))
        self.blocks = nn.ModuleList(Block(w, config.heads, causal=True) for _ in range(config.layers))
        self.norm = nn.LayerNorm(w)
        self.project = nn.Linear(w, dims, bias=False) if dims else nn.Identity()
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.places, std=0.01)
        if isinstance(self.project, nn.Linear):
            nn.init.normal_(self.project.weight, std=w**-0.5)
        start(self.blocks, w)

    def every(self, tokens: Tensor) -> Tensor:
        """What stands at every token, normalised, (B, length, width)."""
        h = self.tokens(tokens) + self.places[: tokens.shape[1]]
        for block in self.blocks:
            h = block(h)
        return self.norm(h)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.every(tokens)
        return self.project(h[torch.arange(h.shape[0], device=h.device), ends(tokens)])


class VisionTower(nn.Module):
    """Pictures (B, C, H, W) to vectors (B, dims): what stands at the token before all patches."""

    def __init__(self, config: VisionConfig, channels: int, height: int, width: int, dims: int) -> None:
        super().__init__()
        w, p = config.width, config.patch
        if height < p or width < p:
            raise ValueError(f"patches of {p} are larger than pictures of {width}x{height}: choose a smaller patch")
        scale = w**-0.5
        self.patch = nn.Conv2d(channels, w, p, stride=p, bias=False)
        self.first = nn.Parameter(scale * torch.randn(w))
        self.places = nn.Parameter(scale * torch.randn((height // p) * (width // p) + 1, w))
        self.norm_before, self.norm = nn.LayerNorm(w), nn.LayerNorm(w)
        self.blocks = nn.ModuleList(Block(w, config.heads, causal=False) for _ in range(config.layers))
        self.project = nn.Linear(w, dims, bias=False)
        nn.init.normal_(self.project.weight, std=scale)
        start(self.blocks, w)

    def forward(self, x: Tensor) -> Tensor:
        h = self.patch(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.first.to(h.dtype).expand(h.shape[0], 1, -1), h], 1) + self.places
        h = self.norm_before(h)
        for block in self.blocks:
            h = block(h)
        return self.project(self.norm(h[:, 0]))


class Bottleneck(nn.Module):
    """Convolutions of 1, 3 and 1 beside a skip; strides are means of squares."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * inner
        self.conv1, self.norm1 = nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.norm2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.norm3 = nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            layers = [("pool", self.pool), ("conv", nn.Conv2d(inputs, outputs, 1, bias=False))]
            self.skip = nn.Sequential(OrderedDict([*layers, ("norm", nn.BatchNorm2d(outputs))]))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        h = self.pool(F.relu(self.norm2(self.conv2(h))))
        return F.relu(self.norm3(self.conv3(h)) + self.skip(x))


class AttentionPool(nn.Module):
    """The mean of all places asks all places, itself among them: (B, C, H, W) to (B, dims)."""

    def __init__(self, places: int, channels: int, heads: int, dims: int) -> None:
        super().__init__()
        self.heads = heads
        self.places = nn.Parameter(torch.randn(places + 1, channels) / channels**0.5)
        self.query, self.key, self.value = (nn.Linear(channels, channels) for _ in range(3))
        self.out = nn.Linear(channels, dims)

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(2).transpose(1, 2)
        h = torch.cat([h.mean(1, keepdim=True), h], 1) + self.places
        parts = [layer(z).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                 for layer, z in ((self.query, h[:, :1]), (self.key, h), (self.value, h))]  # fmt: skip
        return self.out(F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(1))


class ResNetTower(nn.Module):
    """Pictures (B, C, H, W) to vectors (B, dims), by a residual network of sixteenths and attention over the rest.

    In training its normalisations see the batch of one process.
    """

    def __init__(self, config: ResNetConfig, channels: int, height: int, width: int, dims: int) -> None:
        super().__init__()
        if min(height, width) < 32:
            raise ValueError(f"the residual network wants pictures of at least 32x32, not {width}x{height}")
        w = config.width
        self.stem = nn.Sequential(
            nn.Conv2d(channels, w // 2, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(w // 2), nn.ReLU(),
            nn.Conv2d(w // 2, w // 2, 3, padding=1, bias=False), nn.BatchNorm2d(w // 2), nn.ReLU(),
            nn.Conv2d(w // 2, w, 3, padding=1, bias=False), nn.BatchNorm2d(w), nn.ReLU(), nn.AvgPool2d(2),
        )  # fmt: skip
        levels, inputs = [], w
        for level, blocks in enumerate(config.blocks):
            inner = w * 2**level
            for i in range(blocks):
                levels.append(Bottleneck(inputs, inner, 2 if level and i == 0 else 1))
                inputs = 4 * inner
        self.levels = nn.Sequential(*levels)
        places = (height // 32) * (width // 32)
        self.pool = AttentionPool(places, inputs, config.heads, dims)
        for block in levels:
            nn.init.zeros_(block.norm3.weight)
        for layer in (self.pool.query, self.pool.key, self.pool.value, self.pool.out):
            nn.init.normal_(layer.weight, std=inputs**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.levels(self.stem(x))
        return self.pool(h)
