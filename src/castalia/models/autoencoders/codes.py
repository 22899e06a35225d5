"""A prior over grids of codes: a transformer that reads them row by row, with or without classes.

van den Oord et al. 2017 take a PixelCNN; a transformer sees the whole grid behind it (as in DALL-E, Ramesh et al. 2021,
arXiv:2102.12092), and writes with a cache.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.rng import Rng
from castalia.core.spec import Field, Spec
from castalia.nn.causal import Cache, CausalBlock


@dataclass(frozen=True)
class CodesSpec(Spec):
    """Grids of code numbers: ``int32`` (height, width), 0 to ``size`` - 1."""

    size: int
    height: int
    width: int

    def fields(self) -> Mapping[str, Field]:
        return {"x": Field(torch.int32, (self.height, self.width), low=0, high=self.size - 1)}


@final
class CodePrior(nn.Module):
    """p(c_t | c_1 ... c_{t-1}, class) over the cells of a grid, row by row.

    Args:
        size: codes.
        places: cells.
        classes: number of classes; 0 for none. Class number ``classes`` stands for none given.
        dim: of a token.
        layers: blocks.
        heads: of attention.
        dropout: share that is dropped.
    """

    def __init__(self, size: int, places: int, classes: int, dim: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.size, self.places, self.dropout, self.heads, self.dim = size, places, dropout, heads, dim
        self.tokens = nn.Embedding(size + 1, dim)  # the last one stands before the first code
        self.where = nn.Parameter(torch.zeros(places, dim))
        self.classes = nn.Embedding(classes + 1, dim) if classes else None
        blocks = [CausalBlock(dim, heads, 4 * dim, dropout) for _ in range(layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, size)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, 0, 0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.where, 0, 0.02)
        for block in blocks:
            for layer in (block.attention.out, block.down):
                nn.init.normal_(layer.weight, 0, 0.02 / math.sqrt(2 * layers))

    def read(
        self,
        tokens: Tensor,
        label: Tensor | None,
        caches: list[Cache] | None = None,
        places: Tensor | None = None,
        beside: Tensor | None = None,
    ) -> Tensor:
        """Logits (n, t, size) of what follows each token ``int64`` (n, t); ``beside`` (n, t, dim) is known of it."""
        h = self.tokens(tokens) + (self.where[: tokens.shape[1]] if places is None else self.where[places])
        if beside is not None:
            h = h + beside
        if self.classes is not None and label is not None:
            h = h + self.classes(label)[:, None]
        h = F.dropout(h, self.dropout, self.training)
        for i, block in enumerate(self.blocks):
            h = block(h, None if caches is None else caches[i], places)
        return self.head(self.norm(h)).float()

    def forward(self, codes: Tensor, label: Tensor | None, beside: Tensor | None = None) -> Tensor:
        """Logits (n, places, size) of each code of ``int64`` (n, places) given those before it.

        ``beside`` (n, places, dim) is known of every cell before any code is: a coarser grid.
        """
        start = codes.new_full((codes.shape[0], 1), self.size)  # len() would fix it in exported programs
        return self.read(torch.cat([start, codes[:, :-1]], 1), label, beside=beside)

    def log_prob(self, codes: Tensor, label: Tensor | None, beside: Tensor | None = None) -> Tensor:
        """Log p(codes | class), nats ``float64`` (n,), for ``int64`` (n, places)."""
        nats = F.cross_entropy(self(codes, label, beside).mT, codes, reduction="none")
        return -nats.double().sum(1)

    def write(
        self,
        n: int,
        label: Tensor | None,
        rng: Rng,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        held: Tensor | None = None,
        free: Tensor | None = None,
        beside: Tensor | None = None,
    ) -> Tensor:
        """Codes ``int64`` (n, places), one after the other with a cache.

        Args:
            n: how many grids.
            label: class numbers (n,).
            rng: one stream per grid.
            temperature: divides the logits; 0 takes the likeliest code.
            top_k: only so many of the likeliest codes; 0: all.
            top_p: only the likeliest that together have this probability.
            held: codes (n, places) that stand where ``free`` (n, places) is False.
            free: which cells are drawn; None: all.
            beside: as in :meth:`forward`.
        """
        device, kind = self.where.device, self.where.dtype
        d = self.dim // self.heads
        caches = [Cache.empty(n, self.heads, self.places, d, kind, device) for _ in self.blocks]
        uniform = rng.uniform("codes", self.places)
        token, out = torch.full((n,), self.size, device=device), torch.zeros(n, self.places, dtype=torch.int64)
        out = out.to(device)
        for t in range(self.places):
            at = torch.full((n, 1), t, dtype=torch.int64, device=device)
            known = None if beside is None else beside[:, t : t + 1]
            logits = self.read(token[:, None], label, caches, at, known)[:, 0]
            token = pick(logits, uniform[:, t], temperature, top_k, top_p)
            if held is not None and free is not None:
                token = torch.where(free[:, t], token, held[:, t])
            out[:, t] = token
        return out


def pick(logits: Tensor, uniform: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Numbers ``int64`` (n,) drawn from logits (n, size) by inverting their distribution at ``uniform`` (n,)."""
    if temperature == 0:
        return logits.argmax(1)
    logits = logits / temperature
    if 0 < top_k < logits.shape[1]:
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    p = torch.softmax(logits, 1)
    if top_p < 1:
        ranked, order = p.sort(1, descending=True)
        beyond = (ranked.cumsum(1) - ranked) >= top_p
        p = p.scatter(1, order, ranked.masked_fill(beyond, 0.0))
    edges = p.double().cumsum(1)
    at = uniform.double()[:, None] * edges[:, -1:]
    found = torch.searchsorted(edges, at, right=True)[:, 0]
    return found.clamp(max=logits.shape[1] - 1)
