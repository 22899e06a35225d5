"""kNN-LM: a language model that looks up how training texts went on where they were like this, without training.

Paper
    Khandelwal et al. 2020 (arXiv:1911.00172), "Generalization through Memorization: Nearest Neighbor Language Models":
    equations 2 and 3.

    p(y | x) = lambda p_kNN(y | x) + (1 - lambda) p_LM(y | x),
    p_kNN(y | x) ~ sum over the k nearest (key, value) with value = y of exp(-|key - f(x)|^2 / T)

What differs, and why
    f(x) is what the last perceptron of a transformer reads, as in the paper; of an LSTM it is what the head reads.
    The search is exact; any other :class:`~castalia.models.sequence.retrieval.Index` can be given.
    Contexts are the windows of the data, one behind the other; the paper's overlap by half and more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.models.sequence.retrieval import Exact, Index
from castalia.models.sequence.writing import full

WINDOWS = 32
"""Windows that go through the model at once."""


def keyed(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Keys ``float32`` (n, t, d) and log-probabilities ``float64`` (n, t, size) of what follows tokens (n, t).

    Raises:
        UsageError: the model is none whose inside is known.
    """
    found: list[Tensor] = []
    hook = _reader_of(model).register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
    try:
        with torch.no_grad():
            out = model(x)
    finally:
        hook.remove()
    logits = out[0] if isinstance(out, tuple) else out
    return found[-1].float(), torch.log_softmax(full(logits).double(), -1)


def _reader_of(model: Any) -> nn.Module:
    """The part of a language model whose input is the key."""
    blocks = getattr(model, "blocks", None)
    part = getattr(blocks[-1], "up", None) if isinstance(blocks, nn.ModuleList) and len(blocks) else None
    part = part if part is not None else getattr(model, "narrow", None)  # of an LSTM
    if not isinstance(part, nn.Module):
        raise UsageError(f"{type(model).__name__} is no language model whose contexts can be looked up.")
    return part


@dataclass(frozen=True)
class Told:
    """What a model says of the tokens of some windows, and what is looked up for them.

    Attributes:
        keys: ``float32`` (N, d).
        targets: the tokens that came, ``int64`` (N,).
        nats: log-probability of each by the model, ``float64`` (N,).
        windows: of which window each is, and which of its tokens, ``int64`` (N, 2).
    """

    keys: Tensor
    targets: Tensor
    nats: Tensor
    windows: Tensor


@torch.no_grad()
def told(model: Any, data: Dataset, ids: np.ndarray) -> Told:
    """Every predicted token of some windows of the data."""
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for start in range(0, len(ids), WINDOWS):
        some = ids[start : start + WINDOWS]
        batch: Batch = data.batch(some).to(model.device)
        keys, logs = keyed(model, batch.x[:, :-1].clamp(min=0))
        target = batch.x[:, 1:]
        there = target >= 0
        nats = logs.gather(2, target.clamp(min=0)[..., None])[..., 0]
        row, column = there.nonzero(as_tuple=True)
        places = torch.stack([torch.from_numpy(some).to(row.device)[row], column], 1)
        parts.append((keys[there].cpu(), target[there].cpu(), nats[there].cpu(), places.cpu()))
    return Told(*(torch.cat([part[i] for part in parts]) for i in range(4)))


class Datastore:
    """Contexts and what followed them.

    Args:
        stored: of the texts that are remembered.
        index: makes an index of keys ``float32`` (N, d) whose scores are negative squared distances.
    """

    def __init__(self, stored: Told, index: Callable[[Tensor], Index] = lambda keys: Exact(keys, "l2")) -> None:
        self.stored, self.index = stored, index(stored.keys)

    def nearest(self, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Negative squared distances ``float64`` (q, k) of the nearest contexts, and their numbers ``int64``."""
        found = [self.index.search(part, k) for part in keys.split(512)]
        return torch.cat([scores for scores, _ in found]), torch.cat([numbers for _, numbers in found])

    def values(self, numbers: Tensor) -> Tensor:
        """What followed contexts ``int64`` (q, k); -1 where there is none."""
        return torch.where(numbers >= 0, self.stored.targets[numbers.clamp(min=0)], -1)

    def probabilities(self, keys: Tensor, k: int, temperature: float, size: int) -> Tensor:
        """p_kNN ``float64`` (q, size) of all tokens."""
        scores, numbers = self.nearest(keys, k)
        shares = torch.softmax(scores / temperature, -1)
        values = self.values(numbers)
        return torch.zeros(len(keys), size, dtype=torch.float64).scatter_add_(1, values.clamp(min=0), shares)


def chance(scores: Tensor, values: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """p_kNN ``float64`` (q,) of tokens (q,), from distances (q, k) and what followed (q, k)."""
    return (torch.softmax(scores / temperature, -1) * (values == targets[:, None])).sum(-1)


def mixed(nats: Tensor, chance: Tensor, share: float) -> Tensor:
    """log(lambda p_kNN + (1 - lambda) p_LM), from log p_LM and p_kNN of any shape, ``float64``."""
    if share == 0:
        return nats
    looked = torch.log(chance.double()) + np.log(share)
    if share == 1:
        return looked
    return torch.logaddexp(nats.double() + np.log1p(-share), looked)
