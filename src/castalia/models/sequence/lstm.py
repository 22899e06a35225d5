"""LSTM language model.

Papers
    Hochreiter & Schmidhuber 1997, "Long Short-Term Memory": the cell. Gers et al. 2000: its forget gate.
    Zaremba, Sutskever & Vinyals 2014 (arXiv:1409.2329): several layers, and dropout between them but not through time.
    Press & Wolf 2017 (arXiv:1608.05859): the head is the embedding (``tied``).

    i, f, o = sigmoid(W x_t + U h_{t-1} + b) each,   g = tanh(...),   c_t = f c_{t-1} + i g,   h_t = o tanh(c_t)
    logits of x_{t+1} = h_t V + b

What differs, and why
    Windows of training begin with an empty state, at any token; nothing is carried from one to the next, so that they
    can be shuffled. In sampling the state is carried on without end: there is no context that could be full.
    The forget gate's bias starts at 1 (Gers et al.; Jozefowicz et al. 2015), so that nothing is forgotten at first.
    torch's cell has two biases where one would do: 4 x hidden more numbers per layer than the equations have.
    ``restarts`` as in GPT-2.

Expected: see ``recipes/lstm.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from castalia.core.capabilities import Density, Likelihood, Streaming
from castalia.core.config import Config
from castalia.core.data import Batch
from castalia.core.model import Generator, Logs, Objective, Progress, Stage
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch
from castalia.core.spec import Spec
from castalia.core.specs.text import TextSpec
from castalia.models.sequence.slots import Continuing, Slots
from castalia.models.sequence.writing import Anew, Writing, WritingOptions, advance, begin, full, write

State = tuple[Tensor, Tensor]
"""h and c, each (layers, n, hidden)."""

AT_ONCE, LOGITS = 512, 1 << 26
"""Tokens per row, and numbers of all rows, that are held at a time while measuring."""


@dataclass(frozen=True)
class LSTMConfig(Config):
    """Configuration of an LSTM language model.

    Attributes:
        embedding: dimensions of a token.
        hidden: units of a layer.
        layers: how many, one on the other.
        dropout: share that is dropped of embeddings, and of what each layer gives.
        tied: the head is the embedding; where ``hidden`` is another number, a matrix lies between them.
        restarts: share of training windows that are read as beginnings of texts.
    """

    embedding: int = 100
    hidden: int = 128
    layers: int = 1
    dropout: float = 0.0
    tied: bool = False
    restarts: float = 0.0

    def __post_init__(self) -> None:
        if min(self.embedding, self.hidden, self.layers) < 1:
            raise ValueError("embedding, hidden and layers must be positive")
        if not 0 <= self.dropout < 1 or not 0 <= self.restarts <= 1:
            raise ValueError("dropout and restarts are shares")


class LSTM(Generator[LSTMConfig, TextSpec], Density, Streaming, Continuing):
    """p(x_t | x_1 ... x_{t-1}) by a recurrent network with gates."""

    Config = LSTMConfig
    SampleOptions: ClassVar[type[Sampling]] = WritingOptions

    def __init__(self, config: LSTMConfig, spec: TextSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        c = config
        self.tokens = nn.Embedding(spec.size, c.embedding)
        self.cells = nn.LSTM(
            c.embedding, c.hidden, c.layers, batch_first=True, dropout=c.dropout if c.layers > 1 else 0
        )
        narrow = c.tied and c.embedding != c.hidden
        self.narrow = nn.Linear(c.hidden, c.embedding, bias=False) if narrow else nn.Identity()
        self.head = nn.Linear(c.embedding if c.tied else c.hidden, spec.size)
        nn.init.normal_(self.tokens.weight, 0, c.embedding**-0.5 if c.tied else 1.0)
        nn.init.zeros_(self.head.bias)
        if c.tied:
            self.head.weight = self.tokens.weight
        for layer in range(c.layers):
            bias = self.cells.get_parameter(f"bias_ih_l{layer}")
            with torch.no_grad():
                bias.zero_()[c.hidden : 2 * c.hidden] = 1  # torch's order of the gates is i, f, g, o
                self.cells.get_parameter(f"bias_hh_l{layer}").zero_()

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits (n, t, size) of the token after each of ``int64`` (n, t), and the state behind the last."""
        drop, training = self.config.dropout, self.training
        h, after = self.cells(F.dropout(self.tokens(x.clamp(min=0)), drop, training), state)
        return self.head(self.narrow(F.dropout(h, drop, training))), after

    # the objective

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", (Objective("lstm", self, self.loss),)),)

    def loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Nats per token, averaged over all tokens of the batch but the first of each window."""
        x, target = batch.x[:, :-1], batch.x[:, 1:]
        if self.config.restarts:
            anew = rng.uniform("restart") < self.config.restarts
            x = torch.cat([torch.where(anew, self.spec.end, x[:, 0])[:, None], x[:, 1:]], 1)
        logits, _ = self(x)
        nats = F.cross_entropy(full(logits).flatten(0, 1), target.flatten(), ignore_index=-1)
        return nats, {"nats_per_token": nats.detach()}

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        return {"prompt": self.spec}

    def draw(self, n: int, given: Given, rng: SampleRng, options: WritingOptions, watch: Watch | None) -> Batch:
        """Texts (n, T): the prompt, and what follows it."""
        return write(self.start(n, given, rng, options), watch)

    def cost(self, options: WritingOptions) -> int:
        return 2 * self.config.layers * self.config.hidden + 4 * self.spec.size + self.spec.length

    @torch.no_grad()
    def start(self, n: int, given: Given, rng: SampleRng, options: WritingOptions) -> Writing:
        return begin(_Carried(self), self.spec, n, given, rng, options)

    @torch.no_grad()
    def advance(self, state: Writing) -> tuple[Tensor, Writing]:
        return advance(state)

    @torch.no_grad()
    def naive(self, n: int, given: Given, rng: SampleRng, options: WritingOptions) -> Batch:
        reader = Anew(lambda x: self(x)[0][:, -1], lambda count: 0, n)
        return write(begin(reader, self.spec, n, given, rng, options))

    def slots(self, n: int, spare: int = 0) -> Slots:
        return _CarriedSlots(self, n)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """Nats of every token but the first, given all before it in its window."""
        nats = torch.zeros(len(batch.x), dtype=torch.float64, device=batch.x.device)
        for rows in torch.arange(len(batch.x)).split(max(1, LOGITS // (AT_ONCE * self.spec.size))):
            state: State | None = None
            for at in range(0, batch.x.shape[1] - 1, AT_ONCE):
                window = batch.x[rows, at : at + AT_ONCE + 1]
                logits, state = self(window[:, :-1], state)
                scores = F.cross_entropy(full(logits).mT, window[:, 1:], ignore_index=-1, reduction="none")
                nats[rows] -= scores.double().sum(1)
        return Likelihood(nats, "exact", "all tokens but the first, each window from an empty state", "none")


class _Carried:
    """Reads on with the state that it has."""

    def __init__(self, model: LSTM) -> None:
        self.model = model
        self.state: State | None = None

    def read(self, tokens: Tensor, counts: Tensor) -> Tensor:
        """Logits (n, size) after reading on; see :class:`castalia.models.sequence.writing.Reader`."""
        model = self.model
        x = model.tokens(tokens.clamp(min=0))
        if tokens.shape[1] > 1:  # rows of different lengths: each state is that behind the row's own last token
            packed: PackedSequence = pack_padded_sequence(x, counts.cpu(), batch_first=True, enforce_sorted=False)
            _, self.state = model.cells(packed, self.state)
        else:
            _, self.state = model.cells(x, self.state)
        assert self.state is not None
        return full(model.head(model.narrow(self.state[0][-1])))


class _CarriedSlots(Slots):
    """The same for rows that come and go."""

    def __init__(self, model: LSTM, n: int) -> None:
        c = model.config
        self.model, self.device = model, model.device
        self.state: State = tuple(torch.zeros(c.layers, n, c.hidden, device=model.device) for _ in range(2))  # pyright: ignore[reportAttributeAccessIssue]

    def read(self, start: int, tokens: Tensor, first: Tensor, counts: Tensor, every: bool = False) -> Tensor:
        assert not every  # there is one state, and it cannot be taken back
        model, rows = self.model, slice(start, start + len(tokens))
        h, c = (z[:, rows] * (first > 0)[:, None] for z in self.state)
        x = model.tokens(tokens)
        if tokens.shape[1] > 1:
            x = pack_padded_sequence(x, counts.cpu(), batch_first=True, enforce_sorted=False)
        _, (h, c) = model.cells(x, (h, c))
        self.state[0][:, rows], self.state[1][:, rows] = h, c
        return full(model.head(model.narrow(h[-1])))[:, None]

    def swap(self, a: int, b: int) -> None:
        for z in self.state:
            z[:, [a, b]] = z[:, [b, a]]

    def arrange(self, source: Tensor) -> None:
        for z in self.state:
            z[:, : len(source)] = z[:, source]
