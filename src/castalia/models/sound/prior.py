"""Jukebox's priors: transformers over the codes of one level, told who plays, when, what is sung, and the codes above.

Dhariwal et al. 2020 (arXiv:2005.00341), section 4 and figure 3: layers see the row, the column and the row before of
codes laid out in rows. Words stand before the codes, in one vocabulary with them, and every layer sees them (the
paper's single model with "prime" attention); their own prediction is a part of the loss. Who plays and when stands in
front as in the paper, and is added to every token as well: short trainings obey sooner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.nn.causal import Cache, CausalBlock, Pattern
from castalia.nn.sparse import block, column, previous

LETTERS = 257
"""Bytes of UTF-8, and the end of a text."""
TIMES = 64
"""Steps into which each of the three times is cut."""


@dataclass(frozen=True)
class Known:
    """What a prior is told of each of n clips.

    Attributes:
        speaker: ``int64`` (n,), the number of speakers where nobody knows.
        label: ``int64`` (n,), the number of classes where nobody knows.
        words: bytes ``int64`` (n, letters), padded with -1.
    """

    speaker: Tensor
    label: Tensor
    words: Tensor


def behind(pattern: Pattern, size: int) -> Pattern:
    """A pattern for what stands behind ``size`` tokens that everything behind them sees, and that see one another."""

    def whole(i: Tensor, j: Tensor) -> Tensor:
        inside = pattern((i - size).clamp(min=0), (j - size).clamp(min=0))
        return (j < size) | ((i >= size) & inside)

    return whole


class Conditioner(nn.Module):
    """The codes of the level above as a vector for each code of this one (B, T ratio, dim)."""

    def __init__(self, codes: int, dim: int, ratio: int, depth: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, dim)
        self.convolutions = nn.ModuleList(nn.Conv1d(dim, dim, 3, padding=3**i, dilation=3**i) for i in range(depth))
        self.up = nn.ConvTranspose1d(dim, dim, ratio, ratio)
        self.norm = nn.LayerNorm(dim)

    def forward(self, above: Tensor) -> Tensor:
        h = self.embedding(above).transpose(1, 2)
        for convolution in self.convolutions:
            h = h + convolution(F.relu(h))
        return self.norm(self.up(h).transpose(1, 2))


class Prior(nn.Module):
    """p(codes | who, when, words, codes above), a window of ``context`` codes at a time.

    Args:
        codes: size of the codebook.
        context: codes of a window.
        row: codes in a row, for the patterns; 0: all layers see everything.
        letters: most bytes of words; 0 for none.
        speakers: how many; 0 for none.
        classes: how many; 0 for none.
        ratio: codes of this level to one of the level above; 0 for the top.
        dim: of a token.
        layers: blocks.
        heads: of attention.
        dropout: share that is dropped.
        inner: dimensions of queries, keys and values of all heads together.
        hidden: width of the blocks' perceptrons.
    """

    def __init__(
        self,
        codes: int,
        context: int,
        row: int,
        letters: int,
        speakers: int,
        classes: int,
        ratio: int,
        dim: int,
        layers: int,
        heads: int,
        dropout: float,
        inner: int,
        hidden: int,
    ) -> None:
        super().__init__()
        self.codes, self.context, self.letters, self.ratio = codes, context, letters, ratio
        self.dim, self.heads, self.dropout, self.inner = dim, heads, dropout, inner
        self.front = 1 + letters
        self.tokens = nn.Embedding(codes + LETTERS, dim)
        self.places = nn.Parameter(torch.zeros(self.front + context, dim))
        self.speaker, self.label = nn.Embedding(speakers + 1, dim), nn.Embedding(classes + 1, dim)
        self.times = nn.ModuleList(nn.Embedding(TIMES + 1, dim) for _ in range(3))
        self.above = Conditioner(codes, dim, ratio, 3) if ratio else None
        turns: Sequence[Pattern] = (block(row), column(row), previous(row)) if row else ()
        patterns = [behind(turns[i % 3], self.front) if turns else None for i in range(layers)]
        stack = [CausalBlock(dim, heads, hidden, dropout, pattern=pattern, inner=inner) for pattern in patterns]
        self.blocks = nn.ModuleList(stack)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, codes + LETTERS, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, 0, 0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for table in (self.speaker, self.label):  # far enough apart to be heard from the first step on
            nn.init.normal_(table.weight, 0, 0.3)
        nn.init.normal_(self.places, 0, 0.02)
        for layer in stack:
            for linear in (layer.attention.out, layer.down):
                nn.init.normal_(linear.weight, 0, 0.02 / math.sqrt(2 * layers))

    def words(self, known: Known) -> Tensor:
        """Words as tokens ``int64`` (n, letters): bytes behind the codes' numbers, filled up with the end."""
        if not self.letters:
            return known.words.new_zeros(len(known.speaker), 0)
        words = known.words[:, : self.letters]
        words = F.pad(words, (0, self.letters - words.shape[1]), value=-1)
        return self.codes + torch.where(words < 0, LETTERS - 1, words)

    def begin(self, known: Known, when: Tensor) -> Tensor:
        """The vector that stands in front (n, dim). ``when`` is (n, 3): total time, when it begins, both in seconds,
        and the share of the whole that is before it; less than 0 where nobody knows.
        """
        h = self.speaker(known.speaker) + self.label(known.label)
        # total and start by their logarithm from 1/16 s to an hour, the share evenly
        scaled = (when[:, :2].clamp(min=0) * 16 + 1).log() / math.log(16 * 3600)
        shares = torch.cat([scaled, when[:, 2:]], 1)
        steps = (shares * TIMES).long().clamp(0, TIMES - 1)
        steps = torch.where(when < 0, TIMES, steps)
        for i, table in enumerate(self.times):
            h = h + table(steps[:, i])
        return h

    def inputs(self, codes: Tensor, known: Known, when: Tensor, above: Tensor | None) -> Tensor:
        """Inputs (n, front + t, dim) for codes (n, t); those of the level above cover the whole window."""
        t = codes.shape[1]
        tokens, who = torch.cat([self.words(known), codes], 1), self.begin(known, when)[:, None]
        h = torch.cat([who, self.tokens(tokens) + who], 1) + self.places[: self.front + t]
        if self.above is not None and above is not None:
            # a code is told what is above it where it is predicted, which is one place before its own
            beside = self.above(above)[:, : t + 1]
            h = h + F.pad(beside, (0, 0, self.front - 1, 0))[:, : self.front + t]
        return h

    def through(self, h: Tensor, caches: list[Cache] | None = None, places: Tensor | None = None) -> Tensor:
        """Logits (n, t, codes + letters) of what follows each input."""
        h = F.dropout(h, self.dropout, self.training)
        for i, layer in enumerate(self.blocks):
            h = layer(h, None if caches is None else caches[i], places)
        return self.head(self.norm(h)).float()

    def forward(self, codes: Tensor, known: Known, when: Tensor, above: Tensor | None) -> tuple[Tensor, Tensor]:
        """Nats that each code costs (n, t), and each letter (n, letters)."""
        logits = self.through(self.inputs(codes[:, :-1], known, when, above))
        words = self.words(known)
        letters = F.cross_entropy(logits[:, : self.letters, self.codes :].mT, words - self.codes, reduction="none")
        of_codes = logits[:, self.front - 1 :, : self.codes]
        return F.cross_entropy(of_codes.mT, codes, reduction="none"), letters
