"""Visible units of a Boltzmann machine: what a vector v holds, given the inputs a that it gets from the hidden ones.

Each kind is an exponential family, p(v | a) = exp(base(v) + v a - A(a)): binary, Gaussian with variance 1, or groups of
which one is on. With it the free energies of both sides have closed forms, whatever the kind.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from castalia.core.rng import Rng


class Units(ABC):
    """One kind of visible units.

    Attributes:
        size: length of the vector.
        countable: whether all of its values can be listed.
    """

    size: int
    countable = False

    @abstractmethod
    def log_base(self, v: Tensor) -> Tensor:
        """base(v), (n,), for ``v`` (n, size)."""

    @abstractmethod
    def log_partition(self, a: Tensor) -> Tensor:
        """A(a) = log sum over v of exp(base(v) + v a), (n,), for inputs (n, size)."""

    @abstractmethod
    def mean(self, a: Tensor) -> Tensor:
        """E[v | a], (n, size)."""

    @abstractmethod
    def sample(self, a: Tensor, rng: Rng, purpose: str, temperature: float = 1.0) -> Tensor:
        """Values drawn given inputs (n, size), as ``float32``; at temperature 0 the likeliest ones."""

    @abstractmethod
    def bias(self, mean: Tensor) -> Tensor:
        """Inputs (size,) for which the units have the given means (size,)."""


class Binary(Units):
    """v in {0, 1}: A(a) = sum log(1 + e^a)."""

    countable = True

    def __init__(self, size: int) -> None:
        self.size = size

    def log_base(self, v: Tensor) -> Tensor:
        return v.new_zeros(len(v))

    def log_partition(self, a: Tensor) -> Tensor:
        return F.softplus(a).sum(-1)

    def mean(self, a: Tensor) -> Tensor:
        return torch.sigmoid(a.float())

    def sample(self, a: Tensor, rng: Rng, purpose: str, temperature: float = 1.0) -> Tensor:
        if temperature == 0:
            return (a > 0).float()
        return drawn(self.mean(a if temperature == 1 else a / temperature), rng, purpose)

    def bias(self, mean: Tensor) -> Tensor:
        return torch.logit(mean.clamp(0.01, 0.99))


class Gaussian(Units):
    """v real, variance 1: base(v) = -v^2 / 2, A(a) = sum a^2 / 2 + log(2 pi) / 2."""

    def __init__(self, size: int) -> None:
        self.size = size

    def log_base(self, v: Tensor) -> Tensor:
        return -0.5 * v.square().sum(-1)

    def log_partition(self, a: Tensor) -> Tensor:
        return 0.5 * a.square().sum(-1) + 0.5 * self.size * math.log(2 * math.pi)

    def mean(self, a: Tensor) -> Tensor:
        return a.float()

    def sample(self, a: Tensor, rng: Rng, purpose: str, temperature: float = 1.0) -> Tensor:
        return a.float() + math.sqrt(temperature) * rng.normal(purpose, self.size)

    def bias(self, mean: Tensor) -> Tensor:
        return mean.clone()


class Categorical(Units):
    """Groups of ``levels`` of which exactly one is 1: A(a) = sum over groups of logsumexp(a)."""

    def __init__(self, groups: int, levels: int) -> None:
        self.groups, self.levels, self.size = groups, levels, groups * levels

    def _grouped(self, a: Tensor) -> Tensor:
        return a.float().unflatten(-1, (self.groups, self.levels))

    def log_base(self, v: Tensor) -> Tensor:
        return v.new_zeros(len(v))

    def log_partition(self, a: Tensor) -> Tensor:
        return torch.logsumexp(a.unflatten(-1, (self.groups, self.levels)), -1).sum(-1)

    def mean(self, a: Tensor) -> Tensor:
        return torch.softmax(self._grouped(a), -1).flatten(-2)

    def sample(self, a: Tensor, rng: Rng, purpose: str, temperature: float = 1.0) -> Tensor:
        if temperature == 0:
            return self.one_hot(self._grouped(a).argmax(-1))
        p = torch.softmax(self._grouped(a) / temperature, -1)
        at = rng.uniform(purpose, self.groups)[..., None]
        return self.one_hot((p.cumsum(-1) <= at).sum(-1).clamp(max=self.levels - 1))

    def one_hot(self, index: Tensor) -> Tensor:
        """Level numbers (n, groups) as units (n, size)."""
        v = torch.zeros(*index.shape, self.levels, device=index.device)
        return v.scatter_(-1, index[..., None], 1.0).flatten(-2)

    def bias(self, mean: Tensor) -> Tensor:
        p = self._grouped(mean) + 0.01 / self.levels
        return (p / p.sum(-1, keepdim=True)).log().flatten(-2)


class Joined(Units):
    """Units of several kinds, one behind the other."""

    def __init__(self, parts: Sequence[Units]) -> None:
        self.parts, self.sizes = tuple(parts), [part.size for part in parts]
        self.size = sum(self.sizes)

    def _each(self, a: Tensor) -> list[tuple[int, Units, Tensor]]:
        return [(i, part, own) for i, (part, own) in enumerate(zip(self.parts, a.split(self.sizes, -1), strict=True))]

    def log_base(self, v: Tensor) -> Tensor:
        return torch.stack([part.log_base(own) for _, part, own in self._each(v)]).sum(0)

    def log_partition(self, a: Tensor) -> Tensor:
        return torch.stack([part.log_partition(own) for _, part, own in self._each(a)]).sum(0)

    def mean(self, a: Tensor) -> Tensor:
        return torch.cat([part.mean(own) for _, part, own in self._each(a)], -1)

    def sample(self, a: Tensor, rng: Rng, purpose: str, temperature: float = 1.0) -> Tensor:
        return torch.cat([p.sample(own, rng, f"{purpose} {i}", temperature) for i, p, own in self._each(a)], -1)

    def bias(self, mean: Tensor) -> Tensor:
        return torch.cat([part.bias(own) for _, part, own in self._each(mean)], -1)


def drawn(p: Tensor, rng: Rng, purpose: str) -> Tensor:
    """Zeros and ones, ``float32``, with probabilities (n, size)."""
    noise = rng.uniform(purpose, p.shape[-1])
    return torch.lt(noise, p, out=noise)  # comparing into bool and turning that to float takes nine times as long
