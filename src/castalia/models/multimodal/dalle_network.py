"""The transformer of DALL-E: one sequence of words and codes, with attention along rows, columns and squares.

Ramesh et al. 2021 (arXiv:2102.12092), section 2.2 and appendix B.1. A sequence is L words and then h w codes. A word
sees the words before it. A code sees all words, and of the codes before it

    row      those of its own row, and those of the row above from its own column on: the last w,
    column   those of its own column,
    square   those in a square around it (11 wide in the paper).

Layer i (from 1) sees columns where (i - 2) mod 4 = 0, rows else, and the last layer squares.

Words that a caption lacks are padding, with a token of its own for each place. Codes have an embedding of their row and
one of their column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.rng import Rng
from castalia.models.autoencoders.codes import pick
from castalia.models.multimodal.words import END
from castalia.nn.causal import Cache, CausalBlock, Pattern


@dataclass(frozen=True)
class PriorConfig:
    """The transformer; the defaults are the paper's 12 billion.

    Attributes:
        layers: blocks.
        heads: of attention.
        dim: of a token.
        dropout: share that is dropped.
        square: side of what the last layer sees around a code; odd.
        masks: ``sparse``: as above; ``dense``: every code sees all before it.
    """

    layers: int = 64
    heads: int = 62
    dim: int = 3968
    dropout: float = 0.1
    square: int = 11
    masks: Literal["sparse", "dense"] = "sparse"

    def __post_init__(self) -> None:
        if min(self.layers, self.heads, self.dim) < 1 or self.dim % self.heads:
            raise ValueError("layers, heads and dim must be positive, and heads must divide dim")
        if self.square < 1 or self.square % 2 == 0 or not 0 <= self.dropout < 1:
            raise ValueError("square must be odd, dropout lies in [0, 1)")


def pattern(kind: str, words: int, width: int, square: int) -> Pattern:
    """What a token at place i sees of those at places j <= i; codes begin at place ``words``."""

    def split(at: Tensor) -> tuple[Tensor, Tensor]:
        number = (at - words).clamp(min=0)
        return torch.div(number, width, rounding_mode="floor"), number % width

    def sees(i: Tensor, j: Tensor) -> Tensor:
        (row, column), (other, beside) = split(i), split(j)
        if kind == "row":
            found = i - j <= width
        elif kind == "column":
            found = column == beside
        else:
            found = ((row - other) <= square // 2) & ((column - beside).abs() <= square // 2)
        return (j < words) | ((i >= words) & found)

    return sees


def kinds(layers: int) -> Sequence[str]:
    """What each layer sees."""
    return ["square" if i == layers - 1 else "column" if i % 4 == 1 else "row" for i in range(layers)]


@final
class Transformer(nn.Module):
    """p(words, codes) = prod_t p(t-th | all before it).

    Args:
        config: sizes.
        vocabulary: different word tokens.
        length: L.
        codes: K.
        rows: h.
        columns: w.
    """

    def __init__(self, config: PriorConfig, vocabulary: int, length: int, codes: int, rows: int, columns: int) -> None:
        super().__init__()
        c, self.config = config, config
        self.vocabulary, self.length, self.codes, self.columns = vocabulary, length, codes, columns
        self.cells = rows * columns
        self.words = nn.Embedding(vocabulary + length, c.dim)  # the last ones are the padding of each place
        self.places = nn.Parameter(torch.empty(length, c.dim))
        self.pictures = nn.Embedding(codes, c.dim)
        self.rows, self.across = nn.Parameter(torch.empty(rows, c.dim)), nn.Parameter(torch.empty(columns, c.dim))
        patterns = [None if c.masks == "dense" else pattern(k, length, columns, c.square) for k in kinds(c.layers)]
        blocks = [CausalBlock(c.dim, c.heads, 4 * c.dim, c.dropout, pattern=p) for p in patterns]
        self.blocks, self.norm = nn.ModuleList(blocks), nn.LayerNorm(c.dim)
        self.to_words = nn.Linear(c.dim, vocabulary + length)
        self.to_codes = nn.Linear(c.dim, codes)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for parameter in (self.places, self.rows, self.across):
            nn.init.normal_(parameter, std=0.02)
        for block in blocks:
            for layer in (block.attention.out, block.down):
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * c.layers))

    def padded(self, words: Tensor) -> Tensor:
        """Word tokens (B, L), those behind the first end replaced by the padding of their places."""
        behind = ((words == END).int().cumsum(1) - (words == END).int()) > 0
        return torch.where(behind, self.vocabulary + torch.arange(self.length, device=words.device), words)

    def embedded(self, words: Tensor, codes: Tensor) -> Tensor:
        """All but the last token as vectors (B, L + cells - 1, dim); ``codes`` may be fewer than there are cells."""
        h = self.words(words) + self.places
        number = torch.arange(codes.shape[1], device=codes.device)
        where = self.rows[torch.div(number, self.columns, rounding_mode="floor")] + self.across[number % self.columns]
        return torch.cat([h, self.pictures(codes) + where], 1)

    def features(self, h: Tensor, caches: list[Cache] | None = None, places: Tensor | None = None) -> Tensor:
        h = F.dropout(h, self.config.dropout, self.training)
        for i, block in enumerate(self.blocks):
            h = block(h, None if caches is None else caches[i], places)
        return self.norm(h)

    def forward(self, words: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of words 2 to L (B, L - 1, vocabulary + L) and of all codes (B, cells, K); words padded."""
        h = self.features(self.embedded(words, codes[:, :-1]))
        return self.to_words(h[:, : self.length - 1]).float(), self.to_codes(h[:, self.length - 1 :]).float()

    def nats(self, words: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Nats of every word but the first (B, L - 1), and of every code (B, cells)."""
        words = self.padded(words)
        text, picture = self(words, codes)
        return (
            F.cross_entropy(text.mT, words[:, 1:], reduction="none"),
            F.cross_entropy(picture.mT, codes, reduction="none"),
        )

    # writing

    def room(self, n: int) -> list[Cache]:
        """Caches for ``n`` sequences."""
        c, kind = self.config, self.norm.weight.dtype
        size = (n, c.heads, self.length + self.cells, c.dim // c.heads, kind, self.norm.weight.device)
        return [Cache.empty(*size) for _ in self.blocks]

    def captions(self, start: Tensor, rng: Rng, temperature: float) -> Tensor:
        """Word tokens (n, L) that follow ``start`` (n, 1), drawn; padded as captions of the data are, with ends."""
        n, device = len(start), start.device
        words = torch.full((n, self.length), END, dtype=torch.int64, device=device)
        words[:, :1] = start
        caches, uniform = self.room(n), rng.uniform("words", self.length)
        ended = torch.zeros(n, dtype=torch.bool, device=device)
        for t in range(self.length - 1):
            h = self.words(words[:, t : t + 1]) + self.places[t]
            at = torch.full((n, 1), t, dtype=torch.int64, device=device)
            logits = self.to_words(self.features(h, caches, at))[:, 0].float()[:, : self.vocabulary]
            if t == self.length - 2:
                break  # the last place is an end
            drawn = pick(logits, uniform[:, t], temperature, 0, 1.0)
            words[:, t + 1] = torch.where(ended, END, drawn)
            ended |= drawn == END
            if bool(ended.all()):
                break
        return words

    def write(
        self,
        words: Tensor,
        rng: Rng,
        *,
        temperature: float,
        top_k: int,
        top_p: float,
        guidance: float,
        nothing: Tensor,
        held: Tensor | None = None,
        free: Tensor | None = None,
    ) -> Tensor:
        """Codes ``int64`` (n, cells) for word tokens (n, L), one after the other with a cache.

        Args:
            words: of the captions.
            rng: one stream per picture.
            temperature: divides the logits; 0 takes the likeliest code.
            top_k: only so many of the likeliest codes; 0: all.
            top_p: only the likeliest that together have this probability.
            guidance: scale between the logits without caption and with it; 1 is none.
            nothing: word tokens (n, L) of an empty caption.
            held: codes (n, cells) that stand where ``free`` (n, cells) is False.
            free: which cells are drawn; None: all.
        """
        n, device = len(words), words.device
        both = torch.cat([words, nothing]) if guidance != 1 else words
        both = self.padded(both)
        caches, uniform = self.room(len(both)), rng.uniform("codes", self.cells)
        at = torch.arange(self.length, device=device).expand(len(both), -1)
        h = self.features(self.words(both) + self.places, caches, at)[:, -1:]
        out = torch.zeros(n, self.cells, dtype=torch.int64, device=device)
        for t in range(self.cells):
            logits = self.to_codes(h)[:, 0].float()
            if guidance != 1:
                asked, plain = logits.chunk(2)
                logits = plain + guidance * (asked - plain)
            token = pick(logits, uniform[:, t], temperature, top_k, top_p)
            if held is not None and free is not None:
                token = torch.where(free[:, t], token, held[:, t])
            out[:, t] = token
            if t == self.cells - 1:
                break
            token = torch.cat([token, token]) if guidance != 1 else token
            where = self.rows[t // self.columns] + self.across[t % self.columns]
            at = torch.full((len(both), 1), self.length + t, dtype=torch.int64, device=device)
            h = self.features((self.pictures(token) + where)[:, None], caches, at)
        return out
