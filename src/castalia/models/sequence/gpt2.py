"""GPT-2.

Papers
    Radford, Wu, Child, Luan, Amodei & Sutskever 2019, "Language Models are Unsupervised Multitask Learners":
    section 2 (the task, eq. 1), 2.2 (bytes and their pairs), 2.3 (the network).
    Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training": section 4.1 (GELU, dropout).
    Vaswani et al. 2017 (arXiv:1706.03762): attention.

    p(x) = prod_t p(x_t | x_1 ... x_{t-1})                                                              (eq. 1)
    h_0 = E[x] + P,   h_l = block_l(h_{l-1}),   logits = norm(h_L) E^T

    A block is x + attention(norm(x)), then x + mlp(norm(x)): normalisation before, and once more at the end. Weights
    start from N(0, 0.02^2); what is added to the residual stream is divided by sqrt(2 L) at the start. The head is the
    embedding. The four sizes are those of Hugging Face's files: 124,439,808, 354,823,168, 774,030,080 and
    1,557,611,200 parameters (the paper's table rounds, and counts the smallest as 117M).

What differs, and why
    The paper publishes neither optimizer nor schedule; the recipes say what they use.
    The position embedding starts like everything else (OpenAI's code has 0.01 for it).
    ``restarts``: in that share of the training windows the first token, which is context only, is replaced by the end
    of a text. Of one long text (a play) the model then knows how to begin without a prompt.
    A text that is longer than the context forgets its first half at once, and is read again from there; so one in
    every length / 2 tokens is dear, and all others cost one step of the network.

Expected: see ``recipes/gpt2.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.capabilities import Density, Exportable, Likelihood, Streaming
from castalia.core.config import Config
from castalia.core.data import Batch
from castalia.core.model import Cut, Generator, Logs, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch
from castalia.core.spec import Spec
from castalia.core.specs.text import TextSpec
from castalia.models.sequence.slots import CachedSlots, Continuing, Slots, attention_type
from castalia.models.sequence.writing import Anew, Reader, Writing, WritingOptions, advance, begin, full, write
from castalia.nn.causal import Cache, CausalBlock


@dataclass(frozen=True)
class GPT2Config(Config):
    """Configuration of GPT-2; the defaults are its smallest size. The context is the ``length`` of the data.

    Attributes:
        layers: blocks.
        heads: of attention.
        dim: of a token.
        dropout: share that is dropped of embeddings, attention weights and what blocks add.
        init: standard deviation of the weights at the start.
        restarts: share of training windows that are read as beginnings of texts.
    """

    layers: int = 12
    heads: int = 12
    dim: int = 768
    dropout: float = 0.1
    init: float = 0.02
    restarts: float = 0.0

    def __post_init__(self) -> None:
        if min(self.layers, self.heads, self.dim) < 1 or self.dim % self.heads:
            raise ValueError("layers, heads and dim must be positive, and heads must divide dim")
        if not 0 <= self.dropout < 1 or not 0 <= self.restarts <= 1 or self.init < 0:
            raise ValueError("dropout and restarts are shares, init must not be negative")


LOGITS = 1 << 26
"""Numbers held at once while measuring; bounds the memory."""

SIZES: Mapping[str, GPT2Config] = {
    "small": GPT2Config(12, 12, 768),
    "medium": GPT2Config(24, 16, 1024),
    "large": GPT2Config(36, 20, 1280),
    "xl": GPT2Config(48, 25, 1600),
}
"""Table 2 of the paper; d / heads is 64 throughout."""


class GPT2(Generator[GPT2Config, TextSpec], Density, Streaming, Exportable, Continuing):
    """p(x_t | x_1 ... x_{t-1}) by a transformer that looks back."""

    Config = GPT2Config
    SampleOptions: ClassVar[type[Sampling]] = WritingOptions
    shard_units = (CausalBlock,)
    cuts: ClassVar[Mapping[str, Cut]] = {
        "attention.qkv": Cut("outputs", 3),
        "attention.out": Cut("inputs"),
        "up": Cut("outputs"),
        "down": Cut("inputs"),
    }

    def __init__(self, config: GPT2Config, spec: TextSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        c = config
        self.tokens = nn.Embedding(spec.size, c.dim)  # also the head
        self.places = nn.Embedding(spec.length, c.dim)
        blocks = [self.block(layer) for layer in range(c.layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(c.dim, 1e-5)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, 0, c.init)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for block in blocks:
            for layer in (block.attention.out, block.down):
                nn.init.normal_(layer.weight, 0, c.init / math.sqrt(2 * c.layers))

    def block(self, layer: int) -> CausalBlock:
        """A block as it is before training, the one number ``layer``; systems with other attention make others."""
        c = self.config
        return CausalBlock(c.dim, c.heads, 4 * c.dim, c.dropout)

    def caches(self, n: int, dtype: torch.dtype, spare: int = 0) -> list[Cache]:
        """Room in every block for the context of ``n`` texts, and for ``spare`` tokens that are taken back."""
        c, length = self.config, self.spec.length
        return [Cache.empty(n, c.heads, length, c.dim // c.heads, dtype, self.device) for _ in range(c.layers)]

    def features(self, x: Tensor, caches: list[Cache] | None = None, places: Tensor | None = None) -> Tensor:
        """What the head sees, (n, t, dim), for tokens ``int64`` (n, t); padding may stand behind them.

        With caches the tokens follow those that were seen before, at ``places`` ``int64`` (n, t).
        """
        at = self.places.weight[: x.shape[1]] if places is None else self.places(places)
        h = F.dropout(self.tokens(x.clamp(min=0)) + at, self.config.dropout, self.training)
        for i, block in enumerate(self.blocks):
            h = block(h, None if caches is None else caches[i], places)
        return self.norm(h)

    def logits(self, h: Tensor) -> Tensor:
        """Logits (..., size) of what follows the places whose features are (..., dim)."""
        return F.linear(h, self.tokens.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, t, size) of the token after each of ``int64`` (n, t), t at most the context."""
        return self.logits(self.features(x))

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("gpt2", self, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Nats per token, averaged over all tokens of the batch but the first of each window."""
        return self.scored(self.begun(batch.x, rng))

    def begun(self, x: Tensor, rng: Rng) -> Tensor:
        """Windows (n, t + 1), of which a share of ``restarts`` begin as texts do."""
        if not self.config.restarts:
            return x
        anew = rng.uniform("restart") < self.config.restarts
        return torch.cat([torch.where(anew, self.spec.end, x[:, 0])[:, None], x[:, 1:]], 1)

    def scored(self, x: Tensor) -> tuple[Tensor, Logs]:
        """The loss of windows (n, t + 1), and what is logged."""
        logits = full(self(x[:, :-1]))
        nats = F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), ignore_index=-1)
        return nats, {"nats_per_token": nats.detach()}

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        return {"prompt": self.spec}

    def draw(self, n: int, given: Given, rng: SampleRng, options: WritingOptions, watch: Watch | None) -> Batch:
        """Texts (n, T): the prompt, and what follows it."""
        return write(self.start(n, given, rng, options), watch)

    def cost(self, options: WritingOptions) -> int:
        c = self.config
        return 2 * c.layers * c.dim * self.spec.length + 4 * self.spec.size

    @torch.no_grad()
    def start(self, n: int, given: Given, rng: SampleRng, options: WritingOptions) -> Writing:
        return begin(Cached(self, n), self.spec, n, given, rng, options)

    @torch.no_grad()
    def advance(self, state: Writing) -> tuple[Tensor, Writing]:
        return advance(state)

    @torch.no_grad()
    def naive(self, n: int, given: Given, rng: SampleRng, options: WritingOptions) -> Batch:
        reader: Reader = Anew(lambda x: self(x)[:, -1], self.forgotten, n)
        return write(begin(reader, self.spec, n, given, rng, options))

    def slots(self, n: int, spare: int = 0) -> Slots:
        return CachedSlots(self, n, spare)

    def forgotten(self, count: int) -> int:
        """How many of the first of ``count`` tokens are not looked at any more when the next is predicted."""
        length = self.spec.length
        return -(-max(count - length, 0) // (hop := length - length // 2)) * hop

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """Nats of every token but the first, given those before it in its window of ``length`` + 1 tokens."""
        length, nats = self.spec.length, torch.zeros(len(batch.x), dtype=torch.float64, device=batch.x.device)
        for rows in torch.arange(len(batch.x)).split(max(1, LOGITS // (length * self.spec.size))):
            for at in range(0, batch.x.shape[1] - 1, length):
                window = batch.x[rows, at : at + length + 1]
                logits = full(self(window[:, :-1])).mT
                scores = F.cross_entropy(logits, window[:, 1:], ignore_index=-1, reduction="none")
                nats[rows] -= scores.double().sum(1)
        return Likelihood(nats, "exact", f"all tokens but the first, in windows of {length}", "none")

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """Tokens (B, length) to logits (B, length, size)."""
        return {"logits": (self, (torch.zeros(2, self.spec.length, dtype=torch.int64, device=self.device),))}


class Cached:
    """Reads on with a cache of keys and values; rows may have read different numbers of tokens."""

    def __init__(self, model: GPT2, n: int) -> None:
        self.model, self.n = model, n
        self.caches = model.caches(n, attention_type(model.tokens.weight))
        self.texts = torch.zeros(n, 0, dtype=torch.int64, device=model.device)
        self.read_so_far = [0] * n

    def read(self, tokens: Tensor, counts: Tensor) -> Tensor:
        """Logits (n, size) after reading on; see :class:`castalia.models.sequence.writing.Reader`."""
        before = self.read_so_far
        after = [b + c for b, c in zip(before, counts.tolist(), strict=True)]
        self._remember(tokens, before, max(after))
        self.read_so_far = after
        forgotten = [self.model.forgotten(a) for a in after]
        logits = tokens.new_zeros(self.n, self.model.spec.size, dtype=torch.float32)
        anew = [f != self.model.forgotten(b) for f, b in zip(forgotten, before, strict=True)]
        for again in (True, False):
            rows = [i for i in range(self.n) if anew[i] == again]
            if rows:
                first = [forgotten[i] if again else before[i] for i in rows]
                logits[rows] = self._step(rows, first, [after[i] for i in rows], [forgotten[i] for i in rows]).float()
        return logits

    def through(self, x: Tensor, caches: list[Cache], places: Tensor, rows: Tensor, stop: Tensor) -> Tensor:
        """Features of tokens ``int64`` (r, t) of some rows, which now have ``stop`` (r,) tokens."""
        return self.model.features(x, caches, places)

    def _remember(self, tokens: Tensor, before: list[int], longest: int) -> None:
        if (more := longest - self.texts.shape[1]) > 0:
            self.texts = F.pad(self.texts, (0, max(more, self.model.spec.length)))
        at = torch.tensor(before, device=tokens.device)[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        self.texts.scatter_(1, at.clamp(max=self.texts.shape[1] - 1), tokens)

    def _step(self, rows: list[int], first: list[int], end: list[int], forgotten: list[int]) -> Tensor:
        """Read the tokens from ``first`` to ``end`` of some rows; logits (rows, size) behind the last of each."""
        device = self.texts.device
        start, stop = torch.tensor(first, device=device), torch.tensor(end, device=device)
        t = int((stop - start).max())
        at = (start[:, None] + torch.arange(t, device=device)).minimum((stop - 1)[:, None])
        index = torch.tensor(rows, device=device)
        x = self.texts[index[:, None], at]
        places = at - torch.tensor(forgotten, device=device)[:, None]
        whole = len(rows) == self.n
        caches = self.caches if whole else [Cache(c.keys[index], c.values[index]) for c in self.caches]
        h = self.through(x, caches, places, index, stop)
        if not whole:
            for mine, part in zip(self.caches, caches, strict=True):
                mine.keys[index], mine.values[index] = part.keys, part.values
        last = h[torch.arange(len(rows), device=device), stop - start - 1]
        return self.model.logits(last)
