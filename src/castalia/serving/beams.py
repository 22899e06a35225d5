"""Search by beams: the texts that are likely as a whole, where sampling and greedy choice look at one token at a time.

Several beginnings are kept, at each step the likeliest of all their continuations. Those that end are set aside with
their score, log-probability / length ^ penalty. The rules of who is kept, and of when to stop, are those of Hugging
Face's ``generate``, so that texts are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from castalia.core.errors import UsageError
from castalia.core.model import Generator
from castalia.core.precision import Precision, precision_context
from castalia.core.specs.text import TextSpec
from castalia.models.sequence.slots import Continuing

Early = Literal["no", "yes", "never"]


@dataclass(frozen=True)
class Beam:
    """A text that was found.

    Attributes:
        tokens: behind the prompt, with the end where it ended.
        score: log-probability, nats, divided by length ^ penalty.
    """

    tokens: tuple[int, ...]
    score: float


@torch.no_grad()
def search(
    model: Generator,
    prompt: Sequence[int],
    *,
    beams: int = 4,
    length: int = 64,
    penalty: float = 1.0,
    early: Early = "no",
    precision: Precision = "float32",
) -> list[Beam]:
    """The best texts behind a prompt, the best first; at most ``beams``.

    Args:
        model: a language model in evaluation mode.
        prompt: tokens; none: as texts begin.
        beams: beginnings that are kept.
        length: tokens to write at most; prompt and these must fit into the context.
        penalty: above 0 favours long texts, below 0 short ones.
        early: ``yes``: stop when as many have ended as there are beams; ``no``: when what is kept, at its present
            length, is worse than those; ``never``: when it can become no better at any length.
        precision: of the network.

    Raises:
        UsageError: the model is no language model whose rows can be copied, or the text does not fit.
    """
    if not isinstance(model, Continuing) or not isinstance(spec := model.spec, TextSpec):
        raise UsageError(f"{type(model).__name__} writes no text.")
    if beams < 1 or length < 1:
        raise UsageError("A search keeps at least one beginning, and writes at least one token.")
    tokens = list(prompt) or [spec.end]
    with precision_context(precision, model.device):
        slots = model.slots(beams)
        if not slots.parts:
            raise UsageError(f"{type(model).__name__} cannot go on in several ways from one beginning.")
        if slots.forgotten(len(tokens) + length - 1):
            raise UsageError(f"{len(tokens)} tokens and {length} more do not fit into the context of {spec.length}.")
        logits = slots.feed(0, [tokens], [0])[:, 0]
        slots.arrange(torch.zeros(beams, dtype=torch.int64, device=slots.device))
        running: list[tuple[float, list[int]]] = [(0.0, [])]
        ended: list[Beam] = []
        for step in range(1, length + 1):
            scores = torch.tensor([score for score, _ in running], device=slots.device)
            whole = torch.log_softmax(logits[: len(running)].float(), -1) + scores[:, None]
            best = whole.flatten().topk(min(2 * beams, whole.numel()))
            going: list[tuple[float, list[int], int]] = []
            for rank, (score, at) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
                row, token = divmod(at, spec.size)
                text = [*running[row][1], token]
                if token == spec.end or step == length:
                    if rank < beams:
                        ended.append(Beam(tuple(text), score / step**penalty))
                elif len(going) < beams:
                    going.append((score, text, row))
            ended = sorted(ended, key=lambda beam: -beam.score)[:beams]
            if not going or _finished(ended, going[0][0], step, beams, length, penalty, early):
                break
            slots.arrange(torch.tensor([row for _, _, row in going], device=slots.device))
            running = [(score, text) for score, text, _ in going]
            first = [len(tokens) + step - 1] * len(running)
            logits = slots.feed(0, [text[-1:] for _, text in running], first)[:, 0]
    return ended


def _finished(ended: list[Beam], best: float, step: int, beams: int, length: int, penalty: float, early: Early) -> bool:
    """Whether what is kept, of which the best has the log-probability ``best``, is looked at no longer."""
    if len(ended) < beams:
        return False
    if early == "yes":
        return True
    at = length if early == "never" and penalty > 0 else step
    return best / at**penalty <= ended[-1].score
