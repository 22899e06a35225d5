"""Questions put to a language model with some examples in the prompt, and no training.

Paper
    Brown et al. 2020 (arXiv:2005.14165), section 2.4 and appendix G: K examples and the question stand in the context;
    of several answers the one is taken whose mean log-probability per token is largest, or, for some sets of questions,
    P(answer | context) / P(answer | "Answer:"); free answers are written greedily and compared with the right one.

What differs, and why
    Free answers are written without a beam, up to the end of the line.
    Where examples do not all fit into the context, the first ones are left out, and of what is still too long its
    beginning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from castalia.core.capabilities import Density
from castalia.core.data import Batch, pad
from castalia.core.errors import DataError
from castalia.core.files import json_lines
from castalia.core.rng import SampleRng, derive
from castalia.core.specs.text import TextSpec
from castalia.media.text.tokens import tokens_of

Score = Literal["mean", "sum", "ratio"]

LARGEST = 64 << 20
"""Bytes of a file of questions."""


@dataclass(frozen=True)
class Question:
    """A context, and what should follow it.

    Attributes:
        context: the text before the answer, such as ``Question: ...`` and ``Answer:`` in lines.
        choices: answers to choose from; empty where one is to be written.
        answer: the right one: its number among the choices, 0 where there are none.
        target: the right one as a text.
    """

    context: str
    choices: tuple[str, ...]
    answer: int
    target: str


def read_questions(path: Path) -> list[Question]:
    """Questions from JSON lines: ``context`` with ``choices`` and ``answer`` (a number from 0), or with ``target``.

    Raises:
        DataError: a line is none; the text names file and line.
    """
    return [_question(data, where) for where, data in json_lines(path, LARGEST)]


def _question(data: dict[str, Any], where: str) -> Question:
    if not isinstance(data.get("context"), str):
        raise DataError(f"{where}: expected an object with a text 'context'.")
    context: str = data["context"]
    choices, answer, target = (data.get(name) for name in ("choices", "answer", "target"))
    if choices is None:
        if not isinstance(target, str) or not target.strip():
            raise DataError(f"{where}: expected 'choices' and 'answer', or a text 'target'.")
        return Question(context, (), 0, target.strip())
    texts = isinstance(choices, list) and all(isinstance(c, str) and c.strip() for c in choices)
    if not texts or len(choices) < 2:
        raise DataError(f"{where}: 'choices' must be two texts or more.")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise DataError(f"{where}: 'answer' must be a number from 0 to {len(choices) - 1}.")
    return Question(context, tuple(c.strip() for c in choices), answer, choices[answer].strip())


def demonstrations(pool: Sequence[Question], asked: Question, shots: int, seed: int, number: int) -> list[Question]:
    """``shots`` questions of the pool, or as many as there are, for question ``number``; itself is never among them."""
    others = [q for q in pool if q != asked]
    order = np.random.Generator(np.random.Philox(derive(seed, "shots", number))).permutation(len(others))
    return [others[i] for i in order[:shots]]


def prompt_of(
    asked: Question, shown: Sequence[Question], between: str, fits: Callable[[str], bool] = lambda text: True
) -> str:
    """The examples with their answers, and the question behind them; the first ones are left out until it fits."""
    for first in range(len(shown) + 1):
        text = "".join(f"{q.context} {q.target}{between}" for q in shown[first:]) + asked.context
        if fits(text):
            return text
    return asked.context


class Asked:
    """A language model that is asked.

    Args:
        model: knows how likely rows of tokens are.
        spec: of its texts.
        device: where it is.
    """

    def __init__(self, model: Density, spec: TextSpec, device: torch.device | None = None) -> None:
        self.model, self.spec, self.tokens = model, spec, tokens_of(spec)
        self.device = device or torch.device("cpu")

    def fits(self, longest: int) -> Callable[[str], bool]:
        """Whether a text and ``longest`` tokens behind it are no more than the context."""
        return lambda text: len(self.tokens.encode(text)) + longest <= self.spec.length

    def length(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.tokens.encode(text))

    @torch.no_grad()
    def nats(self, context: str, answers: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Log p(answer | context) of each, ``float64`` (k,), and the tokens of each.

        It is the difference of the log-likelihoods of two rows, so that any model that has these can be asked. An
        answer is cut into tokens together with the space before it, apart from the context.
        """
        ends = [torch.from_numpy(self.tokens.encode(f" {answer}")) for answer in answers]
        before = torch.from_numpy(self.tokens.encode(context))
        room = max(self.spec.length - max(map(len, ends)), 1)
        begin = torch.cat([torch.tensor([self.spec.end]), before[-room:]])
        rows = [begin, *(torch.cat([begin, end]) for end in ends)]
        x = pad([row[None] for row in rows], -1).to(self.device)
        found = self.model.log_likelihood(Batch.of(x), rng=SampleRng(0, range(len(x)), x.device)).nats.cpu()
        return found[1:] - found[0], torch.tensor([len(end) for end in ends], dtype=torch.float64)

    def choose(self, context: str, answers: Sequence[str], score: Score, alone: str) -> tuple[int, list[float]]:
        """The number of the answer with the largest score, and all scores.

        Args:
            context: the prompt.
            answers: to choose from.
            score: ``mean`` log-probability per token, ``sum``, or ``ratio``: against that behind ``alone``.
            alone: a context that says nothing of the question.
        """
        nats, sizes = self.nats(context, answers)
        if score == "mean":
            nats = nats / sizes
        elif score == "ratio":
            nats = nats - self.nats(alone, answers)[0]
        return int(nats.argmax()), nats.tolist()


@dataclass(frozen=True)
class Marks:
    """How well questions were answered.

    Attributes:
        right: how many were.
        n: of how many.
        chance: share that guessing would have right.
    """

    right: int
    n: int
    chance: float

    @property
    def share(self) -> float:
        """Share that was right."""
        return self.right / self.n

    @property
    def error(self) -> float:
        """Standard error of the share."""
        return math.sqrt(self.share * (1 - self.share) / self.n)

    @property
    def centred(self) -> float:
        """The share with guessing at 0 and everything right at 1."""
        return (self.share - self.chance) / (1 - self.chance)
