"""Writing token after token: prompts, temperature, top-k, top-p, stopping. Shared by all language models.

The order of what is done to the logits is that of common samplers: repetition, temperature, top-k, top-p, min-p. Then
a token is drawn by inverting the distribution function at one uniform number per row and step, so that what a row
becomes depends on its own stream of randomness and on nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from castalia.core.data import Batch, pad
from castalia.core.errors import UsageError
from castalia.core.rng import SampleRng
from castalia.core.sampling import Given, Preview, Sampling, Watch
from castalia.core.specs.text import TextSpec
from castalia.core.vocabulary import pieces_of


@dataclass(frozen=True)
class WritingOptions(Sampling):
    """How texts are written.

    Attributes:
        temperature: divides the logits; 0 takes the most likely token.
        length: tokens to write after the prompt; 0: as many as the context has.
        top_k: only so many of the most likely tokens; 0: all.
        top_p: only the most likely tokens that together have this probability; 1: all.
        top_p_rule: whether the token that crosses ``top_p`` is kept: ``through`` keeps it (Holtzman et al. 2020, and
            Hugging Face); ``below`` does not, but keeps at least one (OpenAI's GPT-2).
        repetition: divides positive logits of tokens that are there already, and multiplies negative ones (Keskar et
            al. 2019); 1 leaves them.
        min_p: only tokens whose probability is at least this share of the most likely one's (Nguyen et al. 2024); 0:
            all.
        end: whether a text ends where the model says so; else it writes on, into another text.
        stop: a text after which to stop; it is kept. Empty: none.
    """

    length: int = 0
    top_k: int = 0
    top_p: float = 1.0
    top_p_rule: Literal["through", "below"] = "through"
    repetition: float = 1.0
    min_p: float = 0.0
    end: bool = True
    stop: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < 0 or self.top_k < 0:
            raise ValueError("length and top_k must not be negative")
        if not 0 < self.top_p <= 1:
            raise ValueError("top_p is a probability above 0, at most 1")
        if not 0 < self.repetition < float("inf"):
            raise ValueError("repetition must be positive")
        if not 0 <= self.min_p <= 1:
            raise ValueError("min_p is a share of a probability, 0 to 1")


class Tokens(Protocol):
    """What writing has to know of a spec of rows of tokens: the end, how many there are, how long a row is."""

    @property
    def end(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def length(self) -> int: ...


class Reader(Protocol):
    """What has been read so far of n texts, and what may come next."""

    def read(self, tokens: Tensor, counts: Tensor) -> Tensor:
        """Read on.

        Args:
            tokens: ``int64`` (n, t), padded on the right.
            counts: ``int64`` (n,), how many of them are there, from 1.

        Returns:
            Logits (n, size) of the next token.
        """
        ...


@dataclass
class Writing:
    """The state of n texts.

    Attributes:
        reader: has read everything but ``waiting``.
        rng: one stream per text.
        options: how they are written.
        spec: their shape.
        waiting: tokens (n, t) that are still to be read, padded on the right.
        counts: how many of ``waiting`` are there, ``int64`` (n,).
        prompt: what they begin with (n, t), until it has been handed out; None where there is nothing.
        step: tokens written.
        done: which have ended, bool (n,).
        seen: tokens that are there already, bool (n, size); None where that does not matter.
        tails: the last bytes of each text, where there is a text to stop at.
    """

    reader: Reader
    rng: SampleRng
    options: WritingOptions
    spec: Tokens
    waiting: Tensor
    counts: Tensor
    prompt: Tensor | None
    done: Tensor
    step: int = 0
    seen: Tensor | None = None
    tails: list[bytes] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """Tokens to write at most."""
        return self.options.length or self.spec.length


def begin(reader: Reader, spec: Tokens, n: int, given: Given, rng: SampleRng, options: WritingOptions) -> Writing:
    """Texts before their first token. Without a prompt they begin as texts do: behind the end of another one.

    Raises:
        UsageError: a prompt has padding before its end.
    """
    device = rng.device
    waiting = torch.full((n, 1), spec.end, dtype=torch.int64, device=device)
    counts = torch.ones(n, dtype=torch.int64, device=device)
    prompt = given.get("prompt")
    if prompt is not None:
        prompt = prompt.to(device)
        there = prompt >= 0
        sizes = there.sum(1)
        if (there != (torch.arange(prompt.shape[1], device=device) < sizes[:, None])).any():
            raise UsageError("prompt: padding (-1) may only stand behind the tokens.")
        longest = int(sizes.max()) if n else 0
        if longest:
            prompt = prompt[:, :longest]
            waiting = torch.where(there[:, :longest], prompt, spec.end)  # an empty one is read as if there were none
            counts = sizes.clamp(min=1)
        else:
            prompt = None
    seen = None
    if options.repetition != 1:
        seen = torch.zeros(n, spec.size, dtype=torch.bool, device=device)
        if prompt is not None:
            rows = torch.arange(n, device=device)[:, None].expand_as(prompt)[prompt >= 0]
            seen[rows, prompt[prompt >= 0]] = True
    done = torch.zeros(n, dtype=torch.bool, device=device)
    return Writing(reader, rng, options, spec, waiting, counts, prompt, done, seen=seen, tails=[b""] * n)


def advance(state: Writing) -> tuple[Tensor, Writing]:
    """The next piece (n, t) of each text, and the state, which is changed in place.

    The first piece is the prompt, where there is one; every other is one token, -1 where a text has ended.

    Raises:
        StopIteration: all texts have ended.
    """
    if state.prompt is not None:
        piece, state.prompt = state.prompt, None
        return piece, state
    if state.step >= state.steps or bool(state.done.all()):
        raise StopIteration
    o = state.options
    logits = shaped(state.reader.read(state.waiting, state.counts), o, state.seen)
    token = choose(logits, state.rng.at("step", state.step).uniform("token"), greedy=o.temperature == 0)
    piece = torch.where(state.done, -1, token)
    state.waiting, state.counts = token[:, None], torch.ones_like(state.counts)
    state.step += 1
    if state.seen is not None:
        state.seen[torch.arange(len(token), device=token.device), token] = True
    if o.end:
        state.done = state.done | (token == state.spec.end)
    if o.stop:
        _stop(state, piece)
    return piece[:, None], state


def _stop(state: Writing, piece: Tensor) -> None:
    """Note which texts have come to the text at which they stop."""
    assert isinstance(state.spec, TextSpec)
    stop, pieces = state.options.stop.encode("utf-8", "surrogatepass"), pieces_of(state.spec)
    for row, token in enumerate(piece.tolist()):
        if token >= 0:
            text = state.tails[row] + pieces[token] if token != state.spec.end else b""
            state.done[row] |= stop in text
            state.tails[row] = text[-len(stop) :]


def write(state: Writing, watch: Watch | None = None) -> Batch:
    """Write all texts to their ends: ``x`` (n, T) has prompt and what follows, padded with -1."""
    made: list[Tensor] = []
    while True:
        try:
            piece, state = advance(state)
        except StopIteration:
            break
        made.append(piece)
        if watch is not None and state.step:
            so_far = list(made)
            watch(Preview(state.step, state.steps, lambda so_far=so_far: gathered(so_far)))
    if not made:
        return Batch.of(torch.full((len(state.done), 0), -1, dtype=torch.int64, device=state.done.device))
    return gathered(made)


def gathered(pieces: list[Tensor]) -> Batch:
    """Pieces (n, t) one behind the other, with the padding behind them all."""
    whole = torch.cat(pieces, 1)
    return Batch.of(pad([row[row >= 0][None] for row in whole], -1)) if len(whole) else Batch.of(whole)


def shaped(logits: Tensor, options: WritingOptions, seen: Tensor | None = None) -> Tensor:
    """Logits ``float64`` (n, size) of the distribution that is drawn from; -inf for what is left out."""
    x = logits.double()
    if seen is not None:
        x = torch.where(seen, torch.where(x > 0, x / options.repetition, x * options.repetition), x)
    if options.temperature not in (0, 1):
        x = x / options.temperature
    if 0 < options.top_k < x.shape[-1]:
        least = x.topk(options.top_k).values[..., -1:]
        x = x.masked_fill(x < least, float("-inf"))
    if options.top_p < 1:
        ordered, places = x.sort(dim=-1, descending=True, stable=True)
        mass = torch.softmax(ordered, -1)
        total = mass.cumsum(-1)
        out = total - mass >= options.top_p if options.top_p_rule == "through" else total > options.top_p
        out[..., 0] = False
        x = x.masked_fill(torch.zeros_like(out).scatter(-1, places, out), float("-inf"))
    if options.min_p > 0:
        mass = torch.softmax(x, -1)
        x = x.masked_fill(mass < options.min_p * mass.amax(-1, keepdim=True), float("-inf"))
    return x


def full(logits: Tensor) -> Tensor:
    """Logits in at least ``float32``, in which probabilities are computed."""
    return logits if logits.dtype == torch.float64 else logits.float()


def choose(logits: Tensor, uniform: Tensor, greedy: bool = False) -> Tensor:
    """Tokens ``int64`` (n,): where the distribution function of logits (n, size) passes numbers (n,) in [0, 1)."""
    if greedy:
        return logits.argmax(-1)
    mass = torch.softmax(logits.double(), -1)
    total = mass.cumsum(-1)
    at = torch.searchsorted(total, (uniform.double() * total[:, -1])[:, None], right=True)[:, 0]
    last = mass.shape[-1] - 1 - (mass.flip(-1) > 0).int().argmax(-1)  # rounding must not choose what is left out
    return torch.minimum(at, last)


class Anew:
    """Reads by beginning anew each time, one text after the other: slow, and easy to believe.

    Args:
        logits: of the last of tokens ``int64`` (1, t), (1, size).
        forgotten: how many of the first tokens are not looked at any more after c tokens.
        n: how many texts.
    """

    def __init__(self, logits: Logits, forgotten: Forgets, n: int) -> None:
        self.logits, self.forgotten = logits, forgotten
        self.texts: list[list[int]] = [[] for _ in range(n)]

    def read(self, tokens: Tensor, counts: Tensor) -> Tensor:
        rows = []
        for text, row, count in zip(self.texts, tokens.tolist(), counts.tolist(), strict=True):
            text += row[:count]
            kept = text[self.forgotten(len(text)) :]
            rows.append(self.logits(torch.tensor([kept], device=tokens.device)))
        return torch.cat(rows)


class Logits(Protocol):
    """The logits (1, size) of what follows tokens (1, t)."""

    def __call__(self, tokens: Tensor, /) -> Tensor: ...


class Forgets(Protocol):
    """How many of the first of c tokens are forgotten."""

    def __call__(self, count: int, /) -> int: ...
