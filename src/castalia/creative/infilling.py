"""Lines that are taken out of texts, and how many of them a language model puts back.

Papers
    Bavarian et al. 2022 (arXiv:2207.14255), section 2: single lines of code; Fried et al. 2022 (arXiv:2204.05999),
    "InCoder": exact match of them, and the model that sees only what stands before as the baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from castalia.core.data import pad
from castalia.core.errors import UsageError
from castalia.core.rng import derive
from castalia.core.sampling import Sampling
from castalia.core.specs.text import TextSpec
from castalia.creative.edit import Work
from castalia.media.text.middle import asked
from castalia.media.text.packed import PackedText
from castalia.media.text.tokens import tokens_of

Form = Literal["prefix first", "suffix first", "left to right"]
FORMS: tuple[Form, ...] = ("prefix first", "suffix first", "left to right")

LEAST = 4
"""Characters of a line that is taken out, without the white space around it."""
TRIES = 50
"""Places that are looked at for each line."""


@dataclass(frozen=True)
class Gap:
    """A line that was taken out.

    Attributes:
        before: what stands before it, with the end of the line before.
        line: itself.
        behind: what follows, from the end of the line on.
    """

    before: str
    line: str
    behind: str

    def right(self, answer: str) -> bool:
        """Whether an answer is the line, but for white space around it."""
        return answer.strip() == self.line.strip()


def gaps_of(data: PackedText, n: int, seed: int) -> list[Gap]:
    """Lines of texts at random places, each with at most ``length`` tokens before and behind it; distinct places.

    Raises:
        UsageError: there are hardly any lines.
    """
    random = np.random.default_rng(derive(seed, "lines"))
    spec, tokens, row = data.spec, tokens_of(data.spec), data.row
    found: dict[tuple[str, str], Gap] = {}
    for _ in range(n * TRIES):
        if len(found) == n:
            break
        at = int(random.integers(len(row)))
        part = row[max(at - spec.length, 0) : at + spec.length].astype(np.int64)
        middle = min(at, spec.length)
        ends = np.flatnonzero(part == spec.end)
        low = int(max((e + 1 for e in ends if e < middle), default=0))
        high = int(min((e for e in ends if e >= middle), default=len(part)))
        before, behind = tokens.decode(part[low:middle]), tokens.decode(part[middle:high])
        first = before.rfind("\n") + 1
        last = behind.find("\n")
        if not first or last < 0:  # a line that is whole, and not the first or the last
            continue
        gap = Gap(before[:first], before[first:] + behind[:last], behind[last:])
        if len(gap.line.strip()) >= LEAST and "\ufffd" not in gap.line and len(gap.behind) > 1:
            found.setdefault((gap.before[-40:], gap.line), gap)
    if len(found) < min(n, 10):
        raise UsageError(f"{data.name} has hardly any lines to take out: {len(found)} were found.")
    return list(found.values())


def prompt_of(spec: TextSpec, gap: Gap, form: Form, length: int) -> Tensor:
    """What a model is given to put a line back, ``int64`` (t,), when it may write ``length`` tokens."""
    room = spec.length - length
    if form == "left to right":
        return torch.from_numpy(tokens_of(spec).encode(gap.before))[-room:]
    return torch.tensor(asked(spec, gap.before, gap.behind, room, form == "suffix first"))


def together(prompts: list[Tensor]) -> Tensor:
    """Prompts of different lengths as one tensor (n, t), padded with -1."""
    return pad([prompt[None] for prompt in prompts], -1)


@torch.no_grad()
def written(work: Work, prompts: Sequence[Tensor], sampling: Sampling, seed: int) -> list[str]:
    """What a model writes behind prompts ``int64`` (t,), answer i from the stream (seed, i)."""
    tokens, found = tokens_of(work.spec), list[str]()
    for start in range(0, len(prompts), work.at_once):
        some = prompts[start : start + work.at_once]
        rng = work.rng(seed, range(start, start + len(some)))
        whole = work.model.sample(len(some), {"prompt": together(list(some))}, rng=rng, options=sampling).x
        found += [tokens.decode(row[len(p) :]) for p, row in zip(some, whole.cpu().numpy(), strict=True)]
    return found
