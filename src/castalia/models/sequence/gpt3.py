"""GPT-3.

Papers
    Brown et al. 2020 (arXiv:2005.14165), "Language Models are Few-Shot Learners": section 2.1 (the network), table 2.1
    (its sizes), appendix B (its training), 2.4 and appendix G (how it is asked; see ``media/text/fewshot.py``).
    Child et al. 2019 (arXiv:1904.10509), "Generating Long Sequences with Sparse Transformers": banded attention.
    Radford et al. 2019: everything else is GPT-2 (``gpt2.py``).

    p(x) = prod_t p(x_t | x_1 ... x_{t-1}),   h_l = block_l(h_{l-1});  of the blocks every second one is banded:
    token t sees tokens t - window + 1 to t; the first, the third and so on see all tokens before them.

The sizes, and errors of table 2.1
    Where d is not heads x d_head as printed, one of the three is wrong. The numbers of parameters in the paper's table
    D.1 say which: 1.3B has 1,320 million with 16 heads of 128 (1,517 with the 24 that are printed), 13B has 12,850
    million with d = 5,120 (12,936 with 5,140). ``head_dim`` makes the printed ones all the same.

What differs, and why
    The width of the band is not published. 256 is GPT-Neo's, which is the same network but for a scale and biases.
    The batch grows linearly in the paper, from 32 thousand tokens over the first 4 to 12 billion. Here it doubles
    (``ramp``, ``begin``): every k-th row of a batch is used, k a power of two, so that every process and every part of
    an accumulated batch has its share, and optimizer and schedule go on undisturbed. Rows left out wait for the next
    epoch.
    Its texts are its own; so is the tokenizer, which is GPT-2's.
    ``restarts``, and how a full context is forgotten, are as in ``gpt2.py``.

Expected: see ``recipes/gpt3.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from castalia.core.data import Batch
from castalia.core.model import Logs, Objective, Progress, Stage
from castalia.core.rng import Rng
from castalia.models.sequence.gpt2 import GPT2, GPT2Config
from castalia.models.sequence.writing import WritingOptions
from castalia.nn.banded import BandedBlock
from castalia.nn.causal import Cache, CausalBlock


@dataclass(frozen=True)
class GPT3Config(GPT2Config):
    """Configuration of GPT-3; the defaults are its smallest size. The context is the ``length`` of the data.

    Attributes:
        layers: blocks; the second, the fourth and so on are banded.
        heads: of attention.
        dim: of a token.
        dropout: share that is dropped of embeddings, attention weights and what blocks add.
        init: standard deviation of the weights at the start.
        restarts: share of training windows that are read as beginnings of texts.
        head_dim: of a head; 0: ``dim`` / ``heads``.
        window: tokens that one of a banded block sees, itself among them.
        ramp: share of the training in which the batch grows; 0: it is whole from the first step.
        begin: with a ramp, one in so many rows of the batch is used at first; a power of two.
    """

    dropout: float = 0.0
    head_dim: int = 0
    window: int = 256
    ramp: float = 0.0
    begin: int = 16

    def __post_init__(self) -> None:
        if min(self.layers, self.heads, self.dim, self.window, self.begin) < 1 or self.head_dim < 0:
            raise ValueError("layers, heads, dim, window and begin must be positive")
        if not self.head_dim and self.dim % self.heads:
            raise ValueError("without a head_dim, heads must divide dim")
        if not 0 <= self.dropout < 1 or not 0 <= self.restarts <= 1 or self.init < 0 or not 0 <= self.ramp <= 1:
            raise ValueError("dropout, restarts and ramp are shares, init must not be negative")
        if self.begin & (self.begin - 1):
            raise ValueError("begin must be a power of two")

    @property
    def inner(self) -> int:
        """Dimensions of all heads together."""
        return self.heads * (self.head_dim or self.dim // self.heads)


SIZES: Mapping[str, GPT3Config] = {
    "125m": GPT3Config(12, 12, 768),
    "350m": GPT3Config(24, 16, 1024),
    "760m": GPT3Config(24, 16, 1536),
    "1.3b": GPT3Config(24, 16, 2048),
    "2.7b": GPT3Config(32, 32, 2560),
    "6.7b": GPT3Config(32, 32, 4096),
    "13b": GPT3Config(40, 40, 5120),
    "175b": GPT3Config(96, 96, 12288),
}
"""Table 2.1 of the paper, with 1.3b and 13b corrected."""

PRINTED: Mapping[str, GPT3Config] = {
    "1.3b": GPT3Config(24, 24, 2048, head_dim=128),
    "13b": GPT3Config(40, 40, 5140, head_dim=128),
}
"""Those two as they are printed."""


class GPT3(GPT2):
    """GPT-2 in which every second block sees a band only."""

    Config = GPT3Config
    config: GPT3Config  # pyright: ignore[reportIncompatibleVariableOverride]
    shard_units = (CausalBlock, BandedBlock)

    def block(self, layer: int) -> CausalBlock:
        c = self.config
        if layer % 2:
            return BandedBlock(c.dim, c.heads, 4 * c.dim, c.window, c.dropout, c.inner)
        return CausalBlock(c.dim, c.heads, 4 * c.dim, c.dropout, inner=c.inner)

    def caches(self, n: int, dtype: torch.dtype, spare: int = 0) -> list[Cache]:
        """Room for the context in blocks that see everything, and for the band in the others.

        A token that is taken back has pushed another one out of a band; with ``spare`` that one was not seen any more.
        """
        c, length = self.config, self.spec.length
        rooms = [min(c.window + spare, length) if layer % 2 else length for layer in range(c.layers)]
        return [Cache.empty(n, c.heads, room, c.inner // c.heads, dtype, self.device) for room in rooms]

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("gpt3", self, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Nats per token, averaged over the rows in use and all of their tokens but the first of each window."""
        return self.scored(self.begun(batch.x, rng)[:: min(self.apart(progress), len(batch))])

    def apart(self, progress: Progress) -> int:
        """One in so many rows of the batch is used: from ``begin`` down to 1, a power of two."""
        if progress.fraction >= self.config.ramp:
            return 1
        levels = int(math.log2(self.config.begin))
        return self.config.begin >> int(progress.fraction / self.config.ramp * levels)

    def cost(self, options: WritingOptions) -> int:
        c = self.config
        rooms = sum(min(c.window, self.spec.length) if layer % 2 else self.spec.length for layer in range(c.layers))
        return 2 * c.inner * rooms + 4 * self.spec.size
