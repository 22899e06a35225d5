"""Randomness as an argument.

No model keeps a random state. Numbers are addressed by (seed, path, purpose): asking twice for the same
address gives the same numbers, so a resumed run equals an uninterrupted one and nothing need be saved.

Two sources share one signature:

* :class:`BatchRng` for training: one stream for the whole global batch, of which a process takes its rows.
  The rows of two processes are exactly the rows that one process would have drawn.
* :class:`SampleRng` for sampling and measuring: one stream per example, so that picture 7 does not depend on
  how many others are drawn beside it, nor on the batch size.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


def derive(seed: int, *path: str | int) -> int:
    """Return a 63-bit seed that depends on every part of the address (BLAKE2b of its text)."""
    text = "/".join((str(seed), *map(str, path)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


class Rng(ABC):
    """A source of random tensors whose first dimension is the batch.

    Attributes:
        rows: how many examples a draw covers.
        device: where the tensors are wanted.
        start: where the rows lie in the global batch of a training; 0 elsewhere.
        share: of the global batch that the rows are; 1 elsewhere.
    """

    rows: int
    device: torch.device
    start: int = 0
    share: float = 1.0

    @abstractmethod
    def at(self, *path: str | int) -> Rng:
        """Return the source below this one, for example ``rng.at("step", i)``."""

    @abstractmethod
    def shared(self, rows: int) -> BatchRng:
        """Return a source of ``rows`` rows that are nobody's: chains beside the batch, the same in all processes.

        Nor do they depend on which examples are drawn or measured at the same time.
        """

    @abstractmethod
    def normal(self, purpose: str, *shape: int) -> Tensor:
        """Standard normal ``float32`` of shape (rows, *shape)."""

    @abstractmethod
    def uniform(self, purpose: str, *shape: int) -> Tensor:
        """Uniform on [0, 1), ``float32`` of shape (rows, *shape)."""

    @abstractmethod
    def integers(self, purpose: str, high: int, *shape: int) -> Tensor:
        """Uniform integers 0 <= i < high, ``int64`` of shape (rows, *shape)."""


class BatchRng(Rng):
    """One stream for a global batch of ``total`` rows, of which rows ``start : start + rows`` are returned."""

    def __init__(
        self,
        seed: int,
        *,
        total: int,
        start: int = 0,
        rows: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.seed, self.total, self.start = seed, total, start
        self.rows = total - start if rows is None else rows
        self.share = self.rows / total
        self.device = device or torch.device("cpu")

    def at(self, *path: str | int) -> BatchRng:
        return BatchRng(
            derive(self.seed, *path), total=self.total, start=self.start, rows=self.rows, device=self.device
        )

    def shared(self, rows: int) -> BatchRng:
        return BatchRng(derive(self.seed, "shared"), total=rows, device=self.device)

    def _generator(self, purpose: str) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(derive(self.seed, purpose))

    def _mine(self, whole: Tensor) -> Tensor:
        return whole if self.rows == self.total else whole[self.start : self.start + self.rows]

    def normal(self, purpose: str, *shape: int) -> Tensor:
        g = self._generator(purpose)
        return self._mine(torch.randn(self.total, *shape, generator=g, device=self.device))

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        g = self._generator(purpose)
        return self._mine(torch.rand(self.total, *shape, generator=g, device=self.device))

    def integers(self, purpose: str, high: int, *shape: int) -> Tensor:
        g = self._generator(purpose)
        return self._mine(torch.randint(high, (self.total, *shape), generator=g, device=self.device))


class SampleRng(Rng):
    """One stream per example id; numbers are made on the CPU so that devices agree."""

    def __init__(self, seed: int, ids: Sequence[int], device: torch.device | None = None) -> None:
        self.seed, self.ids = seed, list(ids)
        self.rows = len(self.ids)
        self.device = device or torch.device("cpu")

    def at(self, *path: str | int) -> SampleRng:
        return SampleRng(derive(self.seed, *path), self.ids, self.device)

    def shared(self, rows: int) -> BatchRng:
        return BatchRng(derive(self.seed, "shared"), total=rows, device=self.device)

    def select(self, rows: slice) -> SampleRng:
        """Return the source restricted to some of its examples."""
        return SampleRng(self.seed, self.ids[rows], self.device)

    def _generators(self, purpose: str) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(derive(self.seed, purpose, i)) for i in self.ids]

    def normal(self, purpose: str, *shape: int) -> Tensor:
        out = torch.empty(self.rows, *shape)
        for row, g in zip(out, self._generators(purpose), strict=True):
            row.normal_(generator=g)
        return out.to(self.device)

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        out = torch.empty(self.rows, *shape)
        for row, g in zip(out, self._generators(purpose), strict=True):
            row.uniform_(generator=g)
        return out.to(self.device)

    def integers(self, purpose: str, high: int, *shape: int) -> Tensor:
        out = torch.empty(self.rows, *shape, dtype=torch.int64)
        for row, g in zip(out, self._generators(purpose), strict=True):
            row.random_(high, generator=g)
        return out.to(self.device)
