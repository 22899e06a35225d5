"""A small GPT as they are made today: other details, the same idea.

Papers
    Su et al. 2021 (arXiv:2104.09864): rotary positions.
    Henry et al. 2020 (arXiv:2010.04245): normalised queries and keys.
    Zhang & Sennrich 2019 (arXiv:1910.07467): RMSNorm. So et al. 2021 (arXiv:2109.08668): squared ReLU.
    Jordan et al. 2024, "modded-nanogpt": normalisation without gain, projections that start at zero, an untied head,
    Muon for matrices (see ``training/muon.py``); Karpathy 2025, "nanochat", has the same.

    h_0 = norm(E[x]);   h <- h + W_o attention(norm(h)),   h <- h + W_2 relu(W_1 norm(h))^2,   logits = s U norm(h)
    norm(x) = x / sqrt(mean x^2 + eps);   q_t, k_t <- 1.2 R_t norm(W_q h_t), 1.2 R_t norm(W_k h_t);
    R_t turns the i-th pair of a head's numbers by the angle t base^(-2 i / d).

What differs, and why
    Left out are what the records have beyond that: embeddings of values, skips that are learned, soft caps, windows.
    ``head_scale`` s stands for a learning rate of the head that is so much smaller than that of the embedding: Adam
    moves a weight by the rate whatever its gradient is, so that the two are the same.
    Sampling, ``restarts`` and how a full context is forgotten are as in ``gpt2.py``.

Expected: see ``recipes/gpt_modern.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.config import Config
from castalia.core.model import Cut, Objective, Stage
from castalia.core.specs.text import TextSpec
from castalia.models.sequence.gpt2 import GPT2
from castalia.nn.causal import Cache, attend_back

SHARPER = 1.2
"""Normalised queries and keys are so much longer: attention may be sharper than their angles allow (nanochat)."""


@dataclass(frozen=True)
class GPTModernConfig(Config):
    """Configuration of a modern GPT. The context is the ``length`` of the data.

    Attributes:
        layers: blocks.
        heads: of attention.
        dim: of a token.
        hidden: width of the perceptrons, in multiples of ``dim``.
        dropout: share that is dropped of what blocks add.
        base: of the angles of rotary positions.
        head_scale: multiplies the logits; see above.
        restarts: share of training windows that are read as beginnings of texts.
    """

    layers: int = 12
    heads: int = 6
    dim: int = 768
    hidden: int = 4
    dropout: float = 0.0
    base: float = 10_000.0
    head_scale: float = 0.1
    restarts: float = 0.0

    def __post_init__(self) -> None:
        if min(self.layers, self.heads, self.dim, self.hidden) < 1 or self.dim % (2 * self.heads):
            raise ValueError("layers, heads, dim and hidden must be positive, and 2 heads must divide dim")
        if not 0 <= self.dropout < 1 or not 0 <= self.restarts <= 1:
            raise ValueError("dropout and restarts are shares")
        if self.base <= 1 or self.head_scale <= 0:
            raise ValueError("base must be above 1, head_scale above 0")


def norm(x: Tensor) -> Tensor:
    """``x`` (..., d) with a mean square of 1 along the last dimension."""
    return F.rms_norm(x, (x.shape[-1],))


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """``x`` (n, heads, t, d) with its pairs, numbers i and i + d / 2, turned by ``angles`` (n or 1, 1, t, d / 2)."""
    a, b = x.chunk(2, -1)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class ModernBlock(nn.Module):
    """Attention to what is before, and a perceptron; both begin by adding nothing.

    Args:
        config: of the system.
    """

    def __init__(self, config: GPTModernConfig) -> None:
        super().__init__()
        dim, hidden = config.dim, config.hidden * config.dim
        self.heads, self.dropout = config.heads, config.dropout
        # three matrices and not one: Muon makes each orthogonal by itself
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(dim, hidden, bias=False), nn.Linear(hidden, dim, bias=False)
        for layer in (self.q, self.k, self.v, self.up):
            nn.init.uniform_(layer.weight, -math.sqrt(3 / dim), math.sqrt(3 / dim))
        for layer in (self.out, self.down):
            nn.init.zeros_(layer.weight)

    def forward(self, x: Tensor, angles: Tensor, cache: Cache | None = None, places: Tensor | None = None) -> Tensor:
        """Tokens (n, t, dim) in and out, turned by ``angles`` (n or 1, 1, t, d / 2).

        With a cache they follow what it holds, at ``places`` ``int64`` (n, t).
        """
        x = x + F.dropout(self._attend(norm(x), angles, cache, places), self.dropout, self.training)
        y = self.down(F.relu(self.up(norm(x))).square())
        return x + F.dropout(y, self.dropout, self.training)

    def _attend(self, x: Tensor, angles: Tensor, cache: Cache | None, places: Tensor | None) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (layer(x).view(n, t, self.heads, -1).transpose(1, 2) for layer in (self.q, self.k, self.v))
        q, k = (turned(norm(z) * SHARPER, angles).to(v.dtype) for z in (q, k))
        if cache is None:
            y = attend_back(q, k, v)
        else:
            assert places is not None
            cache.put(k, v, places)
            seen = int(places.max()) + 1
            mask = places[:, None, :, None] >= torch.arange(seen, device=x.device)
            keys, values = cache.keys[:, :, :seen].to(q.dtype), cache.values[:, :, :seen].to(q.dtype)
            y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(n, t, -1))


class GPTModern(GPT2):
    """p(x_t | x_1 ... x_{t-1}) by a transformer with the details of today."""

    Config = GPTModernConfig  # pyright: ignore[reportAssignmentType]
    config: GPTModernConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    shard_units = (ModernBlock,)
    cuts: ClassVar[Mapping[str, Cut]] = {
        **{name: Cut("outputs") for name in ("q", "k", "v", "up")},
        **{name: Cut("inputs") for name in ("out", "down")},
    }

    def __init__(self, config: GPTModernConfig, spec: TextSpec) -> None:
        super(GPT2, self).__init__()  # none of its parts is in here
        self.config, self.spec = config, spec
        self.tokens = nn.Embedding(spec.size, config.dim)
        self.blocks = nn.ModuleList(ModernBlock(config) for _ in range(config.layers))
        self.head = nn.Embedding(spec.size, config.dim)  # a table of directions: AdamW moves it, not Muon
        nn.init.zeros_(self.head.weight)

    def angles(self, places: Tensor) -> Tensor:
        """Angles ``float32`` (n, 1, t, d / 2) at places ``int64`` (n, t)."""
        d = self.config.dim // self.config.heads
        speeds = self.config.base ** (-torch.arange(0, d, 2, device=places.device) / d)
        return (places[:, :, None] * speeds)[:, None]

    def features(self, x: Tensor, caches: list[Cache] | None = None, places: Tensor | None = None) -> Tensor:
        at = torch.arange(x.shape[1], device=x.device)[None] if places is None else places
        h, angles = norm(self.tokens(x.clamp(min=0))), self.angles(at)
        for i, block in enumerate(self.blocks):
            h = block(h, angles, None if caches is None else caches[i], places)
        return norm(h)

    def logits(self, h: Tensor) -> Tensor:
        return F.linear(h, self.head.weight) * self.config.head_scale

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("gpt-modern", self, self.loss),)),)
