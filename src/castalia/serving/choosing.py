"""Choosing the next token of rows that want different things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from castalia.core.rng import SampleRng
from castalia.models.sequence.writing import WritingOptions, choose, shaped
from castalia.serving.request import Request, Score


class Constraint(Protocol):
    """What a text has to be, and how far it has come.

    Attributes:
        stuck: whether the text ends although it is not what it has to be.
    """

    stuck: bool

    def add(self, token: int) -> None:
        """Take note of a token."""
        ...

    def allowed(self) -> Tensor:
        """Which tokens may come next, bool (size,); at least one."""
        ...


@dataclass
class Choosing:
    """What decides over the next token of one text.

    Attributes:
        request: what is wanted.
        device: where logits are.
        step: tokens written.
        seen: tokens that are there already, bool (size,), where repetition is dear.
        constraint: what the text has to be: a pattern or a grammar.
    """

    request: Request
    device: torch.device
    step: int = 0
    seen: Tensor | None = None
    constraint: Constraint | None = None
    _bias: tuple[Tensor, Tensor] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if bias := self.request.bias:
            ids = torch.tensor(list(bias), dtype=torch.int64, device=self.device)
            self._bias = ids, torch.tensor(list(bias.values()), dtype=torch.float64, device=self.device)

    def begun(self, size: int) -> None:
        """Take note of the prompt."""
        if self.request.options.repetition != 1:
            self.seen = torch.zeros(size, dtype=torch.bool, device=self.device)
            self.seen[list(self.request.prompt)] = True

    def wrote(self, token: int) -> None:
        """Take note of a token."""
        self.step += 1
        if self.seen is not None:
            self.seen[token] = True
        if self.constraint is not None:
            self.constraint.add(token)

    def uniform(self, ahead: int = 0) -> Tensor:
        """The number in [0, 1), (1,), that decides over the next token, or over one ``ahead`` of it.

        It depends on seed, number and step only, and is the one that the model's own sampler uses.
        """
        request = self.request
        return SampleRng(request.seed, [request.number], self.device).at("step", self.step + ahead).uniform("token")


def decide(rows: Sequence[Choosing], logits: Tensor, ahead: int = 0) -> list[int]:
    """One token for each row of logits (r, size).

    Args:
        rows: what decides.
        logits: as the model gives them.
        ahead: for tokens that are only guessed: so many others are guessed before them.
    """
    x = logits.double()
    changed = [i for i, row in enumerate(rows) if row._bias is not None or row.constraint is not None]
    if changed:
        x = x.clone()
    for i in changed:
        if (bias := rows[i]._bias) is not None:
            x[i, bias[0]] += bias[1]
        if (constraint := rows[i].constraint) is not None:
            x[i, ~constraint.allowed()] = float("-inf")
    alike: dict[WritingOptions, list[int]] = {}
    for i, row in enumerate(rows):
        alike.setdefault(row.request.options, []).append(i)
    found = [0] * len(rows)
    for options, members in alike.items():
        seen = [mask for i in members if (mask := rows[i].seen) is not None]
        mine = shaped(x if len(alike) == 1 else x[members], options, torch.stack(seen) if seen else None)
        if greedy := options.temperature == 0:
            uniform = x.new_zeros(len(members))
        else:
            uniform = torch.cat([rows[i].uniform(ahead) for i in members])
        for i, token in zip(members, choose(mine, uniform, greedy).tolist(), strict=True):
            found[i] = token
    return found


def scores(rows: Sequence[Choosing], logits: Tensor, tokens: Sequence[int]) -> list[Score | None]:
    """Log-probabilities of the tokens that were chosen, for the rows that ask for them."""
    found: list[Score | None] = [None] * len(rows)
    for i, row in enumerate(rows):
        if (top := row.request.top) is None:
            continue
        logs = torch.log_softmax(logits[i].double(), -1)
        best = logs.topk(min(top, len(logs)))
        likeliest = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        found[i] = Score(tokens[i], logs[tokens[i]].item(), likeliest)
    return found
