"""RETRO.

Papers
    Borgeaud et al. 2021 (arXiv:2112.04426), "Improving language models by retrieving from trillions of tokens": section
    2 (chunks, neighbours, chunked cross-attention), algorithm 1, appendix B, listing 1.
    Radford et al. 2019: the decoder without its neighbours is GPT-2 (``gpt2.py``), by the names of its weights too.

    A window is cut into chunks C_1 ... C_l of m tokens; Ret(C_u) are k chunks of a database with what follows each.
    E_u = encoder(Ret(C_u), H_u), with H_u what the decoder has made of C_u at its first cross-attention
    h_i <- h_i + attention(norm h_i, E_u)   for the last token of C_u and the m - 1 after it;   h_i for i < m  (CCA)
    so that p(x_t | ...) depends on Ret(C_u) only where C_u lies before t.

What differs, and why
    Chunks are compared by hashed runs of tokens, weighted by rarity (``retrieval.py``), not by a mean of BERT. There
    are no weights of a BERT here, they would fit one language and no code, and what makes neighbours useful is mostly
    what they share literally (Doostmohammadi et al. 2023, arXiv:2305.16243, found BM25 better than BERT). ``index`` is
    ``terms`` for BM25 itself.
    Positions are learned and not relative. The encoder is as wide as the decoder and has its embedding.
    The database are the training data, at most ``most`` tokens of them: an asset of the run, named by its hash. What is
    barred in training is the text of the window, of long texts the sections (``section``) that it touches.
    Attention to neighbours begins by adding nothing, so a run of GPT-2 can be started from (``--start``): RETRO-fit.
    The last token of a window attends to the neighbours of the chunk that it ends, as in the paper's listing 1.

Expected: see ``recipes/retro.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core import assets
from castalia.core.assets import Asset
from castalia.core.data import Batch, Dataset
from castalia.core.errors import RunError
from castalia.core.model import Cut, Logs, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given
from castalia.core.specs.text import TextSpec
from castalia.models.sequence.gpt2 import GPT2, Cached, GPT2Config
from castalia.models.sequence.neighbours import CrossAttention, Encoder, RetroBlock
from castalia.models.sequence.retrieval import Database, by_terms, by_vectors
from castalia.models.sequence.slots import ReadingSlots, Slots
from castalia.models.sequence.writing import Writing, WritingOptions, begin, full
from castalia.nn.causal import Cache, CausalBlock

MOST = 1 << 26
"""Tokens of a database that fit into an asset."""


@dataclass(frozen=True)
class RetroConfig(GPT2Config):
    """Configuration of RETRO; the defaults are the smallest of the paper's. The context is the ``length`` of the data.

    Attributes:
        layers: blocks.
        heads: of attention, everywhere.
        dim: of a token.
        dropout: share that is dropped of embeddings, attention weights and what blocks add.
        init: standard deviation of the weights at the start.
        restarts: share of training windows that are read as beginnings of texts.
        cross: blocks with attention to neighbours, from 1; none: GPT-2.
        chunk: tokens of a chunk.
        neighbours: of each chunk; each is a chunk and what follows it.
        encoder: blocks of the network that reads them.
        index: how chunks are compared: ``vectors`` (hashed runs of tokens) or ``terms`` (BM25 of them).
        runs: sizes of the runs of tokens by which chunks are compared.
        keys: ``vectors``: dimensions.
        section: a text longer than so many tokens counts as several when it is barred from itself.
        most: tokens of the training data in the database.
        database: those tokens; made of the data when the run begins.
    """

    heads: int = 14
    dim: int = 896
    dropout: float = 0.0
    cross: tuple[int, ...] = (6, 9, 12)
    chunk: int = 64
    neighbours: int = 2
    encoder: int = 2
    index: Literal["vectors", "terms"] = "vectors"
    runs: tuple[int, ...] = (1, 2)
    keys: int = 512
    section: int = 8_192
    most: int = MOST
    database: Asset | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.chunk, self.neighbours, self.encoder, self.keys, self.section) < 1:
            raise ValueError("chunk, neighbours, encoder, keys and section must be positive")
        if any(not 1 <= layer <= self.layers for layer in self.cross) or len(set(self.cross)) < len(self.cross):
            raise ValueError(f"cross names blocks from 1 to {self.layers}, each once")
        if not self.runs or not all(1 <= size <= self.chunk for size in self.runs):
            raise ValueError("runs are at least one size, from 1 to chunk")
        if not 1 <= self.most <= MOST:
            raise ValueError(f"most is 1 to {MOST:,}")


SIZES: Mapping[str, RetroConfig] = {
    "172m": RetroConfig(),
    "425m": RetroConfig(12, 12, 1536),
    "1.5b": RetroConfig(24, 16, 2048, cross=tuple(range(9, 25, 3))),
    "7.5b": RetroConfig(32, 32, 4096, cross=tuple(range(9, 33, 3))),
}
"""The sizes of the paper, by its names for them."""


@dataclass
class Memory:
    """What of n texts the decoder has to remember from one token to the next, beside its caches.

    Attributes:
        held: what the first cross-attention saw of the chunk that is being read, (n, m, dim).
        seen: the neighbours of the chunk before it, encoded, (n, k r, dim).
        there: which of these are there, bool (n, k r); at least one.
        recent: the last m tokens, ``int64`` (n, m), of the chunk where it is whole.
    """

    held: Tensor
    seen: Tensor
    there: Tensor
    recent: Tensor

    def of(self, rows: Tensor) -> Memory:
        """A copy for some texts."""
        return Memory(self.held[rows], self.seen[rows], self.there[rows], self.recent[rows])

    def put(self, rows: Tensor, part: Memory) -> None:
        """Put such a copy back."""
        self.held[rows], self.seen[rows], self.there[rows] = part.held, part.seen, part.there


class Retro(GPT2):
    """GPT-2 that reads what is like the text before it in a database."""

    Config = RetroConfig
    config: RetroConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    shard_units = (RetroBlock,)
    cuts: ClassVar[Mapping[str, Cut]] = {}

    def __init__(self, config: RetroConfig, spec: TextSpec) -> None:
        super().__init__(config, spec)
        if config.cross and config.chunk > spec.length:
            raise ValueError(f"a chunk of {config.chunk} tokens is longer than the context of {spec.length}")
        if not config.cross:
            return
        self.crosses = nn.ModuleDict({str(i): CrossAttention(config.dim, config.heads) for i in sorted(config.cross)})
        self.encoder = Encoder(config.dim, config.heads, config.encoder, 2 * config.chunk)
        for part in (self.crosses, self.encoder):
            for module in part.modules():
                if isinstance(module, nn.Linear | nn.Embedding):
                    nn.init.normal_(module.weight, 0, config.init)
                if isinstance(module, nn.Linear):
                    nn.init.zeros_(module.bias)
        for cross in self.crosses.values():
            nn.init.zeros_(cross.out.weight)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]

    @classmethod
    def complete(cls, config: RetroConfig, data: Dataset) -> RetroConfig:  # pyright: ignore[reportIncompatibleMethodOverride]
        if config.database is not None or not config.cross:
            return config
        row = _row(data, config.most)
        kind = np.uint16 if row.max(initial=0) < 1 << 16 else np.uint32
        name = f"database-{kind.__name__}.tokens"
        return replace(config, database=assets.keep(row.astype(kind).tobytes(), name))

    def block(self, layer: int) -> CausalBlock:
        c = self.config
        return RetroBlock(c.dim, c.heads, 4 * c.dim, c.dropout)

    def adapters(self) -> tuple[nn.Module, ...]:
        return (self.crosses, self.encoder) if self.config.cross else ()

    @property
    def database(self) -> Database:
        """What is retrieved from.

        Raises:
            RunError: the asset is missing or damaged, or there is none.
        """
        c = self.config
        if c.database is None:
            raise RunError("This RETRO has no database: its run makes one of the training data when it begins.")
        return _database(c.database, c.chunk, self.spec.end, c.section, c.index, c.runs, c.keys)

    # the network

    def features(
        self,
        x: Tensor,
        caches: list[Cache] | None = None,
        places: Tensor | None = None,
        near: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """As :meth:`GPT2.features`; tokens that are read with caches are one, or begin at place 0.

        Args:
            x: tokens (n, t).
            caches: of the blocks.
            places: of the tokens (n, t).
            near: neighbours of all whole chunks, ``int64`` (n, t // m, k, 2 m) as :meth:`Database.neighbours` gives
                them; None looks for them.
            memory: with caches, what is remembered; changed in place.
        """
        at = self.places.weight[: x.shape[1]] if places is None else self.places(places)
        h = F.dropout(self.tokens(x.clamp(min=0)) + at, self.config.dropout, self.training)
        if x.shape[1] == 1 and memory is not None:
            add = self._step(places, memory)
        else:
            add = self._whole(x, near, places, memory)
        for i, block in enumerate(self.blocks):
            between = partial(add, str(i + 1)) if i + 1 in self.config.cross else None
            h = block(h, None if caches is None else caches[i], places, between)
        return self.norm(h)

    def _whole(self, x: Tensor, near: Tensor | None, places: Tensor | None, memory: Memory | None) -> Add:
        """Chunked cross-attention of texts from their beginning."""
        n, t, m = *x.shape, self.config.chunk
        count = t // m
        encoded: list[tuple[Tensor, Tensor]] = []

        def add(layer: str, h: Tensor) -> Tensor:
            if not encoded:
                if count:
                    found = self.near(x) if near is None else near
                    encoded.append(self._encode(found.flatten(0, 1), h[:, : count * m].reshape(n * count, m, -1)))
                if memory is not None:
                    self._remember(memory, h, encoded[0] if count else None)
            if not count:
                return torch.zeros_like(h)
            asking = F.pad(h[:, m - 1 :], (0, 0, 0, count * m - (t - m + 1))).view(n * count, m, -1)
            y = self.crosses[layer](asking, *encoded[0]).view(n, count * m, -1)
            y = F.pad(y[:, : t - m + 1], (0, 0, m - 1, 0))
            # padding is a row's last token once more, and goes into the cache as that
            return y if places is None else y.gather(1, places[..., None].expand_as(y))

        return add

    def _remember(self, memory: Memory, h: Tensor, encoded: tuple[Tensor, Tensor] | None) -> None:
        """Fill the memory behind the last of the tokens that were read; each row's own number of them."""
        m = self.config.chunk
        for row, stop in enumerate(memory.recent[:, 0].tolist()):
            chunks = stop // m
            memory.held[row, : stop - chunks * m] = h[row, chunks * m : stop].to(memory.held.dtype)
            if encoded is not None and chunks:
                at = row * (len(encoded[0]) // len(h)) + chunks - 1
                memory.seen[row], memory.there[row] = encoded[0][at].to(memory.seen.dtype), encoded[1][at]

    def _step(self, places: Tensor | None, memory: Memory) -> Add:
        """The same of one more token of each text."""
        assert places is not None
        m, at = self.config.chunk, places[:, 0]
        every = torch.arange(len(at), device=at.device)
        ready: list[bool] = []

        def add(layer: str, h: Tensor) -> Tensor:
            if not ready:
                memory.held[every, at % m] = h[:, 0].to(memory.held.dtype)
                ends = ((at + 1) % m == 0).nonzero()[:, 0]
                if len(ends):
                    found = self.near(memory.recent[ends])[:, 0]
                    seen, there = self._encode(found, memory.held[ends].to(h.dtype))
                    memory.seen[ends], memory.there[ends] = seen.to(memory.seen.dtype), there
                ready.append(True)
            y = self.crosses[layer](h, memory.seen.to(h.dtype), memory.there)
            return torch.where((at + 1 >= m)[:, None, None], y, torch.zeros_like(y))

        return add

    def _encode(self, near: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Encodings (b, k r, dim) of neighbours ``int64`` (b, k, r) of chunks that are (b, m, dim) to the decoder."""
        return self.encoder(self.tokens(near.clamp(min=0)), near >= 0, h)

    @torch.no_grad()
    def near(self, x: Tensor, barred: Tensor | None = None) -> Tensor:
        """Neighbours ``int64`` (n, l, k, 2 m) of the l whole chunks of tokens (n, t).

        Args:
            x: tokens.
            barred: chunks of the database that each row may not see, from the first up to before the second, (n, 2).
        """
        m, count = self.config.chunk, x.shape[1] // self.config.chunk
        limits = None if barred is None else barred.repeat_interleave(count, 0)
        chunks = x[:, : count * m].reshape(len(x) * count, m)
        return self.database.neighbours(chunks, self.config.neighbours, limits).unflatten(0, (len(x), count))

    def forward(self, x: Tensor, near: Tensor | None = None) -> Tensor:
        """Logits (n, t, size) of the token after each of ``int64`` (n, t); ``near`` as in :meth:`features`."""
        return self.logits(self.features(x, near=near))

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("retro", self, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Nats per token, where no window sees chunks of its own text or section."""
        x = self.begun(batch.x, rng)
        near = None
        if self.config.cross:
            length = self.spec.length
            # a window begins somewhere in its own place; the last ones may begin in the place before
            barred = self.database.sections((batch.ids - 1).clamp(min=0) * length, (batch.ids + 2) * length)
            near = self.near(x[:, :-1], barred)
        logits = full(self(x[:, :-1], near))
        nats = F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), ignore_index=-1)
        return nats, {"nats_per_token": nats.detach()}

    # what it can do

    @torch.no_grad()
    def start(self, n: int, given: Given, rng: SampleRng, options: WritingOptions) -> Writing:
        return begin(_Recalling(self, n), self.spec, n, given, rng, options)

    def slots(self, n: int, spare: int = 0) -> Slots:
        return ReadingSlots(lambda: _Recalling(self, 1), n, self.device)

    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """Tokens (B, length) and the neighbours of their chunks (B, l, k, 2 m) to logits (B, length, size)."""
        c, length = self.config, self.spec.length
        x = torch.zeros(2, length, dtype=torch.int64, device=self.device)
        if not c.cross:
            return super().export_calls()
        near = torch.zeros(2, length // c.chunk, c.neighbours, 2 * c.chunk, dtype=torch.int64, device=self.device)
        return {"logits": (self, (x, near))}

    def cost(self, options: WritingOptions) -> int:
        c = self.config
        return super().cost(options) + c.dim * c.chunk * (1 + 6 * c.neighbours)


Add = Callable[[str, Tensor], Tensor]
"""What the cross-attention of a layer adds to tokens (n, t, dim)."""


class _Recalling(Cached):
    """Reads on with caches, and looks for neighbours whenever a chunk is whole."""

    model: Retro

    def __init__(self, model: Retro, n: int) -> None:
        super().__init__(model, n)
        c, device = model.config, model.device
        size = 2 * c.chunk * c.neighbours
        there = torch.zeros(n, size, dtype=torch.bool, device=device)
        there[:, 0] = True
        held = torch.zeros(n, c.chunk, c.dim, device=device, dtype=model.tokens.weight.dtype)
        seen = torch.zeros(n, size, c.dim, device=device, dtype=model.tokens.weight.dtype)
        recent = torch.zeros(n, c.chunk, dtype=torch.int64, device=device)
        self.memory = Memory(held, seen, there, recent)

    def through(self, x: Tensor, caches: list[Cache], places: Tensor, rows: Tensor, stop: Tensor) -> Tensor:
        if not self.model.config.cross:
            return super().through(x, caches, places, rows, stop)
        m = self.model.config.chunk
        if x.shape[1] == 1:
            back = stop[:, None] + torch.arange(-m, 0, device=x.device)
            self.memory.recent[rows] = self.texts[rows[:, None], back.clamp(min=0)]
        else:  # how many tokens there are
            self.memory.recent[rows] = (places[:, -1:] + 1).expand(-1, m)
        part = self.memory.of(rows)
        h = self.model.features(x, caches, places, memory=part)
        self.memory.put(rows, part)
        return h


def _row(data: Dataset, most: int) -> np.ndarray:
    """The tokens ``int64`` (N,) of all windows, one behind the other; the first of each is the last of that before."""
    parts: list[np.ndarray] = []
    count = 0
    for start in range(0, len(data), 256):
        x = data.batch(np.arange(start, min(start + 256, len(data)))).x.numpy()
        parts += [x[:1, 0], x[:, 1:][x[:, 1:] >= 0]] if not start else [x[:, 1:][x[:, 1:] >= 0]]
        if (count := count + len(parts[-1])) >= most:
            break
    return np.concatenate(parts)[:most].astype(np.int64)


@lru_cache(maxsize=4)
def _database(
    asset: Asset, chunk: int, end: int, section: int, index: str, runs: tuple[int, ...], keys: int
) -> Database:
    kind = np.uint32 if "uint32" in asset.name else np.uint16
    data = assets.read(asset)
    if len(data) % np.dtype(kind).itemsize:
        raise RunError(f"{asset.name} is not a database: it ends within a token.")
    row = torch.from_numpy(np.frombuffer(data, kind).astype(np.int64))
    if len(row) and int(row.max()) > end:
        raise RunError(f"{asset.name} has tokens that this run does not know.")
    return Database(row, chunk, end, section, by_terms(runs) if index == "terms" else by_vectors(runs, keys))
