"""Notes and how long they last: a transformer with a head for each, after Foster's model of cello suites.

Source
    Foster 2023, "Generative Deep Learning", 2nd edition, chapter 11: a melody as two rows of tokens, notes and
    durations, whose embeddings stand side by side; one block of attention that looks back; two softmaxes.
    Vaswani et al. 2017 (arXiv:1706.03762): attention, and waves for places.

Equations
    A grid of T steps is events (v_i, d_i): what begins (a note, a silence) and for how many steps. Given those before,
    p(v_i, d_i | past) = p(v_i | past) p(d_i | past [, v_i]),
    and the last event of a row costs the probability of lasting at least to its end. Every grid is one row of events:
    the probabilities of all grids sum to one, and nats are those of other models of grids.

What differs, and why
    The book's durations do not know their note; here they do unless ``told = false``.
    Where in the bar an event begins is told (``timing``); the book leaves it to be counted.
    The book normalises behind attention and perceptron; the block here is that of GPT-2.
    Behind the first event there is always a note or a silence: "nothing new" would only make the last event longer.
    No tokens for keys and time signatures: the grid has one bar, and data are moved through the keys.
    Rows end where the grid does, not with a token.

Expected: see ``recipes/note_transformer.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.capabilities import Density, Likelihood
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Preview, Sampling, Watch
from castalia.core.spec import LabelSpec, Spec
from castalia.core.specs.music import DRUMS, NOTHING, MusicSpec
from castalia.models.autoencoders.codes import pick
from castalia.nn.causal import CausalBlock
from castalia.nn.embeddings import places
from castalia.nn.labels import Labels


@dataclass(frozen=True)
class NoteTransformerConfig(Config):
    """Configuration of a note transformer.

    Attributes:
        layers: blocks.
        dim: of an event: half of it the note's embedding, half the duration's.
        heads: of attention.
        inner: dimensions of all heads together; 0: as ``dim``.
        hidden: width of the perceptrons.
        dropout: share that is dropped in training.
        told: whether a duration is told its note.
        timing: whether an event is told where in the bar it begins.
        conditional: whether labels are used, where the data have them.
        unknown: share of examples that are learnt without label.
    """

    layers: int = 4
    dim: int = 256
    heads: int = 4
    inner: int = 0
    hidden: int = 1024
    dropout: float = 0.1
    told: bool = True
    timing: bool = True
    conditional: bool = True
    unknown: float = 0.1

    def __post_init__(self) -> None:
        if min(self.layers, self.dim, self.heads, self.hidden) < 1 or self.dim % 2 or self.inner < 0:
            raise ValueError("layers, dim (even), heads and hidden must be positive, inner not negative")
        if (self.inner or self.dim) % self.heads:
            raise ValueError("heads divide dim, or inner where it is given")
        if not 0 <= self.dropout < 1 or not 0 <= self.unknown < 1:
            raise ValueError("dropout and unknown are shares")


@dataclass(frozen=True)
class NoteSampling(Sampling):
    """How to write.

    Attributes:
        length: steps to write; 0: as many as examples have. Longer ones look back as far as training did.
        keep: steps of a prompt that are kept and gone on with; 0: all.
        top_k: only so many of the likeliest choices of each head; 0: all.
        top_p: only the likeliest that make up this share.
    """

    length: int = 0
    keep: int = 0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.length <= 1 << 16 or min(self.keep, self.top_k) < 0 or not 0 < self.top_p <= 1:
            raise ValueError("length is at most 65,536 steps, keep and top_k not negative, top_p a share above 0")


@dataclass(frozen=True)
class Events:
    """Events of rows, padded behind.

    Attributes:
        values: what begins, ``int64`` (n, m).
        durations: for how many steps, at least 1, ``int64`` (n, m).
        starts: the step at which it begins, ``int64`` (n, m).
        there: whether it is one, or padding, bool (n, m).
    """

    values: Tensor
    durations: Tensor
    starts: Tensor
    there: Tensor


class NoteTransformer(Generator[NoteTransformerConfig, MusicSpec], Density):
    """p(grid) as a product over notes and their durations."""

    Config = NoteTransformerConfig
    SampleOptions: ClassVar[type[Sampling]] = NoteSampling
    label_optional: ClassVar[bool] = True
    shard_units = (CausalBlock,)

    def __init__(self, config: NoteTransformerConfig, spec: MusicSpec) -> None:
        super().__init__()
        if spec.kind != "voices" or len(spec.voices) != 1 or spec.voices[0] == DRUMS:
            raise UsageError(
                "The note transformer writes one voice that sings: set data.options.kind=voices and "
                "data.options.voices=melody."
            )
        self.config, self.spec = config, spec
        c, self.values = config, spec.sizes[0]
        self.classes = len(spec.classes) if c.conditional else 0
        self.labels = Labels(self.classes, c.unknown)
        self.notes = nn.Embedding(self.values, c.dim // 2)
        self.lasting = nn.Embedding(spec.length, c.dim - c.dim // 2)
        self.front = nn.Embedding(self.classes + 1, c.dim)
        self.bars = nn.Embedding(spec.bar, c.dim) if c.timing else None
        self.blocks = nn.ModuleList(
            CausalBlock(c.dim, c.heads, c.hidden, c.dropout, inner=c.inner or None) for _ in range(c.layers)
        )
        self.norm = nn.LayerNorm(c.dim)
        self.note, self.duration = nn.Linear(c.dim, self.values), nn.Linear(c.dim, spec.length)
        self.about = nn.Embedding(self.values, c.dim) if c.told else None
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, 0, 0.02)

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Count the labels."""
        self.labels.fit(data)

    # grids and events

    def events(self, x: Tensor) -> Events:
        """The events of grids ``int64`` (n, T, 1)."""
        grid = x[..., 0]
        n, size = grid.shape
        new = grid != NOTHING
        new[:, 0] = True
        order = new.cumsum(1) - 1
        most = int(order[:, -1].max()) + 1
        rows = torch.arange(n, device=x.device)[:, None].expand_as(grid)
        steps = torch.arange(size, device=x.device).expand_as(grid)
        values = torch.zeros(n, most, dtype=torch.int64, device=x.device)
        starts = torch.full((n, most + 1), size, device=x.device)
        values[rows[new], order[new]] = grid[new]
        starts[rows[new], order[new]] = steps[new]
        there = torch.arange(most, device=x.device) <= order[:, -1:]
        return Events(values, (starts[:, 1:] - starts[:, :-1]).clamp(min=1), starts[:, :-1], there)

    def grid(self, values: Tensor, starts: Tensor, size: int) -> Tensor:
        """The grid ``int64`` (n, size, 1) of events (n, m); those that begin at its end or later are left out."""
        out = torch.full((len(values), size + 1), NOTHING, device=values.device)
        return out.scatter_(1, starts.clamp(max=size), values)[:, :size, None]

    # the network

    def seen(self, events: Events, label: Tensor) -> Tensor:
        """What is known before each event, and behind the last, (n, m + 1, dim): its past, its place, the class."""
        told = torch.cat([self.notes(events.values), self.lasting(self._index(events.durations))], -1)
        h = torch.cat([self.front(label)[:, None], told], 1)
        if self.bars is not None:
            begins = F.pad(events.starts + events.durations, (1, 0))
            h = h + self.bars(begins % self.spec.bar)
        h = F.dropout(h + places(h.shape[1], self.config.dim).to(h.device), self.config.dropout, self.training)
        for block in self.blocks:
            h = block(h)
        return self.norm(h)

    def _index(self, durations: Tensor) -> Tensor:
        return (durations - 1).clamp(0, self.spec.length - 1)

    def note_logits(self, h: Tensor, number: Tensor) -> Tensor:
        """Log-probabilities ``float32`` (n, m, values) of what begins, as event ``number`` of its row (broadcast)."""
        held = torch.arange(self.values, device=h.device) == NOTHING
        return self.note(h).float().masked_fill(held & (number > 0)[..., None], -torch.inf).log_softmax(-1)

    def duration_logits(self, h: Tensor, values: Tensor) -> Tensor:
        """Log-probabilities of durations from 1, ``float32`` (n, m, length), given what begins if that is told."""
        return self.duration(h if self.about is None else h + self.about(values)).float().log_softmax(-1)

    def log_prob(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Nats of the notes and of the durations of grids (n, T, 1), ``float32`` (n,) each."""
        events = self.events(x)
        h = self.seen(events, label)[:, :-1]
        number = torch.arange(h.shape[1], device=h.device)
        notes = self.note_logits(h, number).gather(2, events.values[..., None])[..., 0]
        lasting = self.duration_logits(h, events.values)
        at = self._index(events.durations)[..., None]
        exact = lasting.gather(2, at)[..., 0]
        at_least = lasting.flip(2).logcumsumexp(2).flip(2).gather(2, at)[..., 0]
        last = events.there & ~F.pad(events.there[:, 1:], (0, 1))
        durations = torch.where(last, at_least, exact)
        return torch.where(events.there, notes, 0.0).sum(1), torch.where(events.there, durations, 0.0).sum(1)

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("notes", self, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Nats per step of the grid."""
        label = self.labels.for_training(batch, rng) if self.classes else None
        parts = self.log_prob(batch.x, self._label(label, len(batch)))
        notes, durations = (-part.mean() / self.spec.length for part in parts)
        return notes + durations, {"notes": notes.detach(), "durations": durations.detach()}

    def _label(self, label: Tensor | None, n: int) -> Tensor:
        return torch.full((n,), self.classes, device=self.device) if label is None or not self.classes else label

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        """A label, and a prompt: a grid that is gone on with."""
        label: dict[str, Spec] = {"label": LabelSpec(self.spec.classes)} if self.classes else {}
        return {**label, "prompt": self.spec}

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """Of whole grids, given the label of a conditional model; without one, as of anybody's."""
        notes, durations = self.log_prob(batch.x, self._label(batch.label, len(batch)))
        return Likelihood((notes.double() + durations.double()), "exact", "notes and durations, all of the row", "none")

    def draw(self, n: int, given: Given, rng: SampleRng, options: Sampling, watch: Watch | None) -> Batch:
        """Grids, event by event; a prompt stands at their beginning. Temperature 0 takes the likeliest."""
        assert isinstance(options, NoteSampling)
        label = given["label"] if "label" in given else self.labels.drawn(rng)
        prompt = given.get("prompt", torch.zeros(n, 0, 1, dtype=torch.int64, device=self.device))
        prompt = prompt[:, : options.keep] if options.keep else prompt
        size = prompt.shape[1] + (options.length or self.spec.length)
        uniform = rng.uniform("choices", 2, size)
        written = Written.of(self.events(prompt), size) if prompt.shape[1] else Written.empty(n, size, self.device)
        told, step = self._label(label, n), 0
        while int(written.now.min()) < size:
            self._write(written, told, uniform[:, :, min(step, size - 1)], options)
            step += 1
            if watch is not None and step % 8 == 0:
                done = int(written.now.min().clamp(max=size))
                grid = self.grid(written.values, written.starts, size)
                watch(Preview(done, size, lambda grid=grid: Batch.of(grid, label)))
        return Batch.of(self.grid(written.values, written.starts, size), label)

    def _write(self, written: Written, label: Tensor, uniform: Tensor, options: NoteSampling) -> None:
        """Write the next event of each row, whose two choices take a uniform number each (n, 2)."""
        w, rows = written, torch.arange(len(label), device=label.device)
        first = (w.count - self.spec.length).clamp(min=0)  # no further back than training looked
        most = int((w.count - first).max())
        at = first[:, None] + torch.arange(most, device=label.device)
        values, durations, starts = (part.gather(1, at) for part in (w.values, w.durations, w.starts))
        h = self.seen(Events(values, durations, starts, torch.ones_like(values, dtype=torch.bool)), label)
        h = h[rows, w.count - first][:, None]
        how = (options.temperature, options.top_k, options.top_p)
        logits = self.note_logits(h, w.count[:, None])[:, 0]
        value = torch.where(w.held >= 0, w.held, pick(logits, uniform[:, 0], *how))
        lasting = self.duration_logits(h, value[:, None])[:, 0]
        enough = torch.arange(1, self.spec.length + 1, device=label.device) >= w.least[:, None]
        lasts = 1 + pick(lasting.masked_fill(~enough & enough.any(1, keepdim=True), -1e9), uniform[:, 1], *how)
        w.put(value, torch.maximum(lasts, w.least))


@dataclass
class Written:
    """Events of rows that are being written, each as far as it is.

    Attributes:
        values: what begins, ``int64`` (n, room).
        durations: for how long.
        starts: when; past the end where nothing is written yet.
        count: events of each row (n,).
        now: the step at which the next begins (n,).
        held: what the next event is, where a prompt left it sounding; else -1 (n,).
        least: how long the next event lasts at least (n,).
    """

    values: Tensor
    durations: Tensor
    starts: Tensor
    count: Tensor
    now: Tensor
    held: Tensor
    least: Tensor

    @classmethod
    def empty(cls, n: int, size: int, device: torch.device) -> Written:
        """Nothing; room for ``size`` events."""
        grid = torch.zeros(n, size + 1, dtype=torch.int64, device=device)
        zero = torch.zeros(n, dtype=torch.int64, device=device)
        return cls(grid, grid + 1, grid + size, zero, zero.clone(), zero - 1, zero + 1)

    @classmethod
    def of(cls, events: Events, size: int) -> Written:
        """A prompt: all of its events but the last, which may go on."""
        n, m = events.values.shape
        made = cls.empty(n, size, events.values.device)
        for mine, theirs in ((made.values, events.values), (made.durations, events.durations)):
            mine[:, :m] = theirs
        made.starts[:, :m] = torch.where(events.there, events.starts, size)
        made.count = events.there.sum(1) - 1
        last = made.count[:, None]
        made.held, made.least = events.values.gather(1, last)[:, 0], events.durations.gather(1, last)[:, 0]
        made.now = events.starts.gather(1, last)[:, 0]
        return made

    def put(self, value: Tensor, lasts: Tensor) -> None:
        """Write an event in each row that has not reached its end."""
        rows = torch.arange(len(value), device=value.device)
        open_ = self.now < self.starts.shape[1] - 1
        at = torch.where(open_, self.count, self.starts.shape[1] - 1)  # the last place is never looked at
        self.values[rows, at], self.durations[rows, at] = value, lasts
        self.starts[rows, at] = torch.where(open_, self.now, self.starts.shape[1] - 1)
        self.count = self.count + open_
        self.now = torch.where(open_, self.now + lasts, self.now)
        self.held, self.least = torch.full_like(self.held, -1), torch.ones_like(self.least)
