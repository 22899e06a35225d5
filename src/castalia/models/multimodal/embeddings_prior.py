"""The prior of DALL-E 2: from the embedding of a caption to embeddings of pictures that could have it.

Paper
    Ramesh, Dhariwal, Nichol, Chu & Chen 2022, "Hierarchical Text-Conditional Image Generation with CLIP Latents"
    (arXiv:2204.06125), section 2.2: a causal transformer over the encoded words, the caption's embedding, the time, the
    noisy embedding and a last token, at which it predicts the embedding itself, with mean squared error (eq. 2).

Embeddings are of unit length, times sqrt(d), so that their values are of order 1. Dropped captions (10 %) are the empty
caption's words and a learned vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.nn.causal import CausalBlock
from castalia.nn.embeddings import sinusoids


@dataclass(frozen=True)
class EmbeddingPriorConfig:
    """The transformer; the defaults are the paper's.

    Attributes:
        width: of a token.
        layers: blocks.
        heads: of attention.
    """

    width: int = 2048
    layers: int = 24
    heads: int = 32

    def __post_init__(self) -> None:
        if min(self.width, self.layers, self.heads) < 1 or self.width % self.heads or self.width % 2:
            raise ValueError("width, layers and heads must be positive, width even, and heads must divide it")


class EmbeddingPrior(nn.Module):
    """Noisy embeddings of pictures to clean ones, given captions.

    Args:
        config: sizes.
        dims: d, of an embedding.
        words: width of the encoded words.
        length: words of a caption.
    """

    def __init__(self, config: EmbeddingPriorConfig, dims: int, words: int, length: int) -> None:
        super().__init__()
        w, self.width = config.width, config.width
        self.words, self.caption, self.picture = nn.Linear(words, w), nn.Linear(dims, w), nn.Linear(dims, w)
        self.time = nn.Sequential(nn.Linear(w, w), nn.SiLU(), nn.Linear(w, w))
        self.query = nn.Parameter(0.02 * torch.randn(w))
        self.places = nn.Parameter(0.02 * torch.randn(length + 4, w))
        self.none = nn.Parameter(0.02 * torch.randn(dims))
        self.blocks = nn.ModuleList(CausalBlock(w, config.heads, 4 * w) for _ in range(config.layers))
        self.norm, self.out = nn.LayerNorm(w), nn.Linear(w, dims)

    def forward(self, z: Tensor, t: Tensor, words: Tensor, caption: Tensor) -> Tensor:
        """Noisy embeddings (B, d), times (B,), encoded words (B, L, words), embeddings of captions (B, d) to (B, d)."""
        time = self.time(sinusoids(t, self.width, cos_first=True, freq_shift=0.0).to(self.query.dtype))
        query = self.query.expand(len(z), 1, -1)
        parts = [self.words(words), self.caption(caption)[:, None], time[:, None], self.picture(z)[:, None], query]
        h = torch.cat(parts, 1) + self.places
        for block in self.blocks:
            h = block(h)
        return self.out(self.norm(h[:, -1]))


def scaled(embedding: Tensor) -> Tensor:
    """Of unit length, times sqrt(d)."""
    return F.normalize(embedding.float(), dim=1) * embedding.shape[1] ** 0.5
