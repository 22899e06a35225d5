"""MuseNet: music as tokens, one after another, by a transformer that is told whose music it is and what plays.

Source
    Payne 2019, "MuseNet" (openai.com/index/musenet): there is no paper. What it says of the network, of the encoding
    and of what is put before a piece is followed here.
    Radford et al. 2019 (GPT-2) for the blocks; Child et al. 2019 (arXiv:1904.10509) for sparse attention.
    Huang et al. 2019, "Music Transformer" (arXiv:1809.04281) is what the encoding ``cells`` on chorales compares with.

Equations
    p(x | head, composer) = prod_t p(x_t | head, composer, x_1 ... x_{t-1}).
    The input at a token is the sum of embeddings of: the token; its place in the row; the moment at which it sounds
    (the same for all that sound together); how many stand before it in the same chord; which of 128 parts of the piece
    it is in; and how much is left, counted down from 127 quarter notes.

What differs, and why
    A composer is a vector at the front of every row, and is left out for a share of them, so that music can be asked
    for without one. Which instruments play is told by one token each. The part of the piece and what is left are
    unknown for a share of rows as well, because nobody who asks for music need know how long it becomes.
    The widths were never published; 24 heads of 64 are ours. Their mixing of rows in the space of embeddings and their
    inner critic are not built.

Expected: see ``recipes/musenet.py`` and the system's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.capabilities import Density, Likelihood, Streaming
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.music import MusicSpec
from castalia.models.sequence.writing import Writing, WritingOptions, advance, begin, full, write
from castalia.nn.causal import Cache, CausalBlock
from castalia.nn.labels import Labels
from castalia.nn.sparse import alternating

MOMENTS, CHORD, PARTS, LEFT = 4096, 32, 128, 128
"""Steps after which moments begin anew; notes of a chord, parts of a piece, quarter notes left that are told apart."""
LOGITS = 1 << 26
"""Numbers held at once while measuring; bounds the memory."""


@dataclass(frozen=True)
class MuseNetConfig(Config):
    """Configuration of MuseNet. The context is the ``length`` of the data, and the head before it.

    Attributes:
        layers: blocks.
        heads: of attention.
        dim: of a token.
        attention: ``dense``, or one of Sparse Transformer's patterns, ``strided`` or ``fixed``, in turns.
        stride: of the pattern: about the root of the context.
        dropout: share that is dropped of embeddings, attention weights and what blocks add.
        timing: whether moments, chords, parts and what is left are told.
        conditional: whether labels (composers) are used, where the data have them.
        unknown: share of training rows whose label is left out, and share whose place in the piece is.
        init: standard deviation of the weights at the start.
    """

    layers: int = 4
    heads: int = 4
    dim: int = 256
    attention: Literal["dense", "strided", "fixed"] = "dense"
    stride: int = 64
    dropout: float = 0.1
    timing: bool = True
    conditional: bool = True
    unknown: float = 0.1
    init: float = 0.02

    def __post_init__(self) -> None:
        if min(self.layers, self.heads, self.dim, self.stride) < 1 or self.dim % self.heads:
            raise ValueError("layers, heads, dim and stride must be positive, and heads must divide dim")
        if not 0 <= self.dropout < 1 or not 0 <= self.unknown <= 1 or self.init < 0:
            raise ValueError("dropout and unknown are shares, init must not be negative")


@dataclass(frozen=True)
class MuseNetSampling(WritingOptions):
    """How music is written.

    Attributes:
        quarters: how long the whole piece shall be, in quarter notes; 0 leaves that open.
    """

    quarters: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.quarters < 1e6:
            raise ValueError("quarters must not be negative")
        if self.stop:
            raise ValueError("music has no text to stop at")


class MuseNet(Generator[MuseNetConfig, MusicSpec], Density, Streaming):
    """p(x_t | head, composer, x_1 ... x_{t-1}) by a transformer that looks back."""

    Config = MuseNetConfig
    label_optional: ClassVar[bool] = True
    SampleOptions: ClassVar[type[Sampling]] = MuseNetSampling
    shard_units = (CausalBlock,)

    def __init__(self, config: MuseNetConfig, spec: MusicSpec) -> None:
        super().__init__()
        if spec.kind != "events":
            raise UsageError("MuseNet works on tokens: set data.options.kind=events.")
        self.config, self.spec = config, spec
        c = config
        self.classes = len(spec.classes) if c.conditional else 0
        self.labels = Labels(self.classes, c.unknown)
        self.context = spec.head + spec.length
        self.tokens = nn.Embedding(spec.size, c.dim)  # also the head
        self.places = nn.Embedding(self.context, c.dim)
        self.front = nn.Embedding(self.classes + 1, c.dim)
        if c.timing:
            self.moments, self.chords = nn.Embedding(MOMENTS, c.dim), nn.Embedding(CHORD, c.dim)
            self.parts, self.left = nn.Embedding(PARTS + 1, c.dim), nn.Embedding(LEFT + 1, c.dim)
        patterns = alternating(c.attention, c.layers, c.stride)
        blocks = [CausalBlock(c.dim, c.heads, 4 * c.dim, c.dropout, pattern=pattern) for pattern in patterns]
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

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Count the labels."""
        self.labels.fit(data)

    def embedded(self, x: Tensor, begun: Tensor, whole: Tensor) -> Tensor:
        """The input at each token of rows, (n, t, dim).

        Args:
            x: ``int64`` (n, t), padded with -1 or less.
            begun: steps of the piece before the row, ``int64`` (n,).
            whole: steps of the whole piece, ``int64`` (n,); -1 where nobody knows.
        """
        h = self.tokens(x.clamp(min=0)) + self.places.weight[: x.shape[1]]
        if not self.config.timing:
            return h
        passed = self.spec.moments(x)
        now, known = begun[:, None] + passed, whole[:, None] >= 0
        new = F.pad(passed[:, 1:] != passed[:, :-1], (1, 0), value=True)
        at = torch.arange(x.shape[1], device=x.device).expand_as(x)
        within = at - torch.where(new, at, 0).cummax(1).values
        part = torch.where(known, (PARTS * now // (whole[:, None] + 1).clamp(min=1)).clamp(0, PARTS - 1), PARTS)
        rest = (whole[:, None] - now) // self.spec.steps
        left = torch.where(known, rest.clamp(0, LEFT - 1), LEFT)
        h = h + self.moments(now % MOMENTS) + self.chords(within.clamp(max=CHORD - 1))
        return h + self.parts(part) + self.left(left)

    def through(self, h: Tensor, caches: list[Cache] | None = None, places: Tensor | None = None) -> Tensor:
        """Logits (n, t, size) of what follows each of the inputs (n, t, dim)."""
        h = F.dropout(h, self.config.dropout, self.training)
        for i, block in enumerate(self.blocks):
            h = block(h, None if caches is None else caches[i], places)
        logits = F.linear(self.norm(h), self.tokens.weight)
        return torch.cat(
            [logits[..., : self.spec.end + 1], torch.full_like(logits[..., self.spec.end + 1 :], -1e9)], -1
        )

    def forward(self, x: Tensor, label: Tensor, begun: Tensor, whole: Tensor) -> Tensor:
        """Logits (n, t + 1, size): of each of the tokens ``int64`` (n, t), and of what follows the last.

        ``label`` is ``int64`` (n,), the number of classes where nobody knows; the rest as in :meth:`embedded`.
        """
        return self.through(torch.cat([self.front(label)[:, None], self.embedded(x, begun, whole)], 1))

    def _label(self, label: Tensor | None, n: int) -> Tensor:
        return torch.full((n,), self.classes, device=self.device) if label is None or not self.classes else label

    def _where(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Steps before each row, and of the whole piece, where the batch says so."""
        zero = torch.zeros(len(batch), dtype=torch.int64, device=batch.x.device)
        return batch.extra.get("begun", zero), batch.extra.get("whole", zero - 1)

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("musenet", self, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Nats per token, averaged over all tokens of the batch behind the heads."""
        begun, whole = self._where(batch)
        whole = torch.where(rng.uniform("unknown") < self.config.unknown, -1, whole)
        label = self._label(self.labels.for_training(batch, rng) if self.classes else None, len(batch))
        logits = self(batch.x[:, :-1], label, begun, whole)[:, self.spec.head :]
        target = batch.x[:, self.spec.head :]
        nats = F.cross_entropy(full(logits).flatten(0, 1), target.flatten(), ignore_index=-1)
        return nats, {"nats_per_token": nats.detach()}

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        """A composer where it is conditional; a prompt: what the piece begins with, its head included."""
        return {**({"label": LabelSpec(self.spec.classes)} if self.classes else {}), "prompt": self.spec}

    def draw(self, n: int, given: Given, rng: SampleRng, options: MuseNetSampling, watch: Watch | None) -> Batch:
        """Rows (n, T): a head, the prompt, and what follows it."""
        return self._with_label(write(self.start(n, given, rng, options), watch), given)

    def _with_label(self, batch: Batch, given: Given) -> Batch:
        return replace(batch, label=given.get("label"))

    def cost(self, options: MuseNetSampling) -> int:
        c = self.config
        return 2 * c.layers * c.dim * self.context + 4 * self.spec.size

    @torch.no_grad()
    def start(self, n: int, given: Given, rng: SampleRng, options: MuseNetSampling) -> Writing:
        reader = _Cached(self, self._asked(n, given), self._length(options))
        return begin(reader, self.spec, n, self._headed(n, given), rng, options)

    @torch.no_grad()
    def advance(self, state: Writing) -> tuple[Tensor, Writing]:
        return advance(state)

    @torch.no_grad()
    def naive(self, n: int, given: Given, rng: SampleRng, options: MuseNetSampling) -> Batch:
        reader = _Anew(self, self._asked(n, given), self._length(options))
        return self._with_label(write(begin(reader, self.spec, n, self._headed(n, given), rng, options)), given)

    def _asked(self, n: int, given: Given) -> Tensor:
        return self._label(given.get("label"), n)

    def _length(self, options: MuseNetSampling) -> int:
        return round(options.quarters * self.spec.steps) if options.quarters else -1

    def _headed(self, n: int, given: Given) -> dict[str, Tensor]:
        """The prompt; without one a head in which nobody says what plays, at the beginning of a piece."""
        prompt = given.get("prompt")
        if prompt is not None and prompt.shape[1]:
            if (prompt[:, : self.spec.head] <= self.spec.end).any() or prompt.shape[1] < self.spec.head:
                raise UsageError("prompt: a row begins with its head; read it from a file or as the medium does.")
            return {"prompt": prompt}
        unknown = [self.spec.end + 5 + 3 * i for i in range(len(self.spec.instruments))]
        return {"prompt": torch.tensor([*unknown, self.spec.end + 1], device=self.device).expand(n, -1)}

    def window(self, tokens: Sequence[int]) -> list[int]:
        """What of a row of any length is looked at when its next token is predicted: its head, and what fits.

        Where it is too long, half a context is dropped at a time (whole steps of a grid); the head says so.
        """
        head, room = self.spec.head, self.spec.length
        body = len(tokens) - head
        if body < room:
            return list(tokens)
        unit = len(self.spec.voices) or 1
        hop = max(room - room // 2, 1)
        hop = -(-hop // unit) * unit
        gone = -(-(body - room + 1) // hop) * hop
        return [*tokens[: head - 1], self.spec.end + 2, *tokens[head + gone :]]

    def steps_gone(self, tokens: Sequence[int], kept: int) -> int:
        """Steps of a row that passed before the last ``kept`` of its tokens."""
        if kept >= len(tokens) - self.spec.head:
            return 0
        return int(self.spec.moments(torch.tensor([list(tokens)]))[0, len(tokens) - kept])

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """Nats of every token behind the head, given those before it in its row; without a label, as of anybody's."""
        nats = torch.zeros(len(batch.x), dtype=torch.float64, device=batch.x.device)
        begun, whole = self._where(batch)
        label, head = self._label(batch.label, len(batch)), self.spec.head
        if batch.x.shape[1] > self.context:
            raise UsageError(f"Rows have {batch.x.shape[1]} tokens, the context {self.context}.")
        for rows in torch.arange(len(batch.x)).split(max(1, LOGITS // (self.context * self.spec.size))):
            logits = full(self(batch.x[rows, :-1], label[rows], begun[rows], whole[rows]))[:, head:].mT
            scores = F.cross_entropy(logits, batch.x[rows, head:], ignore_index=-1, reduction="none")
            nats[rows] -= scores.double().sum(1)
        return Likelihood(nats, "exact", f"all tokens behind the head, in rows of {self.spec.length}", "none")


class _Anew:
    """Reads by beginning anew each time, one row after the other."""

    def __init__(self, model: MuseNet, label: Tensor, whole: int) -> None:
        self.model, self.label, self.whole = model, label, whole
        self.texts: list[list[int]] = [[] for _ in label]

    def read(self, tokens: Tensor, counts: Tensor) -> Tensor:
        rows = []
        for i, (row, count) in enumerate(zip(tokens.tolist(), counts.tolist(), strict=True)):
            self.texts[i] += row[:count]
            rows.append(self._logits(i, self.model.window(self.texts[i])))
        return torch.cat(rows).float()

    def _logits(self, i: int, window: list[int]) -> Tensor:
        """Logits (1, size) of what follows a window of row i."""
        begun = torch.tensor([self.model.steps_gone(self.texts[i], len(window) - self.model.spec.head)])
        x = torch.tensor([window]).to(self.label.device)
        whole = torch.tensor([self.whole])
        return self.model(x, self.label[i : i + 1], begun.to(x.device), whole.to(x.device))[:, -1]


class _Cached:
    """Reads on with a cache of keys and values; rows may have read different numbers of tokens."""

    def __init__(self, model: MuseNet, label: Tensor, whole: int) -> None:
        c, n, device = model.config, len(label), model.device
        self.model, self.label = model, label
        self.whole = torch.full((n,), whole, device=device)
        kind = model.tokens.weight.dtype
        if torch.is_autocast_enabled(device.type):
            kind = torch.get_autocast_dtype(device.type)
        room = model.context + 1
        self.caches = [Cache.empty(n, c.heads, room, c.dim // c.heads, kind, device) for _ in range(c.layers)]
        self.texts: list[list[int]] = [[] for _ in range(n)]
        self.held = [0] * n
        """Inputs of each row that the caches hold."""

    def read(self, tokens: Tensor, counts: Tensor) -> Tensor:
        """Logits (n, size) after reading on; see :class:`castalia.models.sequence.writing.Reader`."""
        groups: dict[tuple[int, int], list[int]] = {}
        windows, begun = [], []
        for i, (row, count) in enumerate(zip(tokens.tolist(), counts.tolist(), strict=True)):
            self.texts[i] += row[:count]
            window = self.model.window(self.texts[i])
            fresh = len(window) + 1 - count != self.held[i]  # what was held is no longer the beginning of the window
            windows.append(window)
            begun.append(self.model.steps_gone(self.texts[i], len(window) - self.model.spec.head))
            groups.setdefault((0 if fresh else self.held[i], len(window)), []).append(i)
            self.held[i] = len(window) + 1
        out = torch.empty(len(counts), self.model.spec.size, device=self.label.device)
        for (first, length), rows in groups.items():
            out[rows] = self._read(rows, first, length, windows, begun).float()
        return out

    def _read(self, rows: list[int], first: int, length: int, windows: list[list[int]], begun: list[int]) -> Tensor:
        model, device = self.model, self.label.device
        index = torch.tensor(rows, device=device)
        x = torch.tensor([windows[i] for i in rows], device=device).view(len(rows), length)
        before = torch.tensor([begun[i] for i in rows], device=device)
        h = torch.cat([model.front(self.label[index])[:, None], model.embedded(x, before, self.whole[index])], 1)
        places = torch.arange(first, length + 1, device=device).expand(len(rows), -1)
        whole = len(rows) == len(self.held)
        caches = self.caches if whole else [Cache(c.keys[index], c.values[index]) for c in self.caches]
        logits = model.through(h[:, first:], caches, places)[:, -1]
        if not whole:
            for mine, part in zip(self.caches, caches, strict=True):
                mine.keys[index], mine.values[index] = part.keys, part.values
        return logits
