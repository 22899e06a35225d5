"""What a model is fed: examples in natural units, addressed by number.

A :class:`Dataset` is a table that answers ``batch(ids)``. Which ids belong to which step is a pure function of
(seed, step), held by :class:`Order`, so a resumed run needs no loader state and two processes can each take
their share of the same global batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from castalia.core.rng import Rng, derive
from castalia.core.spec import Spec

SEEN_BLOCKS = 32
"""Blocks that are looked at where a few examples stand for all."""


@dataclass(frozen=True)
class Batch:
    """Some examples.

    Attributes:
        x: the examples in natural units, first dimension B (for pictures ``uint8`` (B, C, H, W)).
        ids: ``int64`` (B,), the position of each example in its data set.
        label: ``int64`` (B,) class numbers, or None.
        extra: the examples' other parts, and what stands beside them (captions, numbers), by the names that the spec
            gives them; each with first dimension B.
    """

    x: Tensor
    ids: Tensor
    label: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, x: Tensor, label: Tensor | None = None, extra: Mapping[str, Tensor] | None = None) -> Batch:
        """Examples that are in no data set: numbered from 0."""
        return cls(x, torch.arange(len(x), device=x.device), label, extra or {})

    def __len__(self) -> int:
        return self.x.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> Batch:
        """Some of the examples."""
        label = None if self.label is None else self.label[rows]
        return Batch(self.x[rows], self.ids[rows], label, {k: v[rows] for k, v in self.extra.items()})

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same with ``change`` applied to every tensor."""
        label = None if self.label is None else change(self.label)
        return Batch(change(self.x), change(self.ids), label, {k: change(v) for k, v in self.extra.items()})

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on ``device``."""
        return self if self.x.device == device else self.map(lambda t: t.to(device, non_blocking=True))

    def cpu(self) -> Batch:
        """Return the same batch on the CPU; waits for it."""
        return self.map(Tensor.cpu)

    def part(self, name: str) -> Tensor | None:
        """The tensor of that name: ``x``, ``label`` or one of ``extra``."""
        return {"x": self.x, "label": self.label, **self.extra}.get(name)


def as_batch(examples: Batch | Tensor) -> Batch:
    """Examples as a batch, where they may be given as their ``x`` alone."""
    return examples if isinstance(examples, Batch) else Batch.of(examples)


def join(batches: Sequence[Batch], spec: Spec) -> Batch:
    """One batch of several; open dimensions become as long as the longest, padded as ``spec`` says.

    What not all of them have is left out.
    """
    if len(batches) == 1:
        return batches[0]
    columns = {name: side.fields()["x"] for name, side in spec.sides().items()}
    known = {**columns, **spec.fields()}
    labelled = all(b.label is not None for b in batches)
    names = [k for k in batches[0].extra if all(k in b.extra for b in batches)]
    return Batch(
        pad([b.x for b in batches], known["x"].padding),
        torch.cat([b.ids for b in batches]),
        torch.cat([b.label for b in batches if b.label is not None]) if labelled else None,
        {k: pad([b.extra[k] for b in batches], known[k].padding if k in known else 0) for k in names},
    )


def pad(tensors: Sequence[Tensor], value: float) -> Tensor:
    """Tensors (B_i, ...) one below the other; dimensions that differ are filled up on the right with ``value``."""
    sizes = [max(t.shape[d] for t in tensors) for d in range(1, tensors[0].ndim)]
    if all(list(t.shape[1:]) == sizes for t in tensors):
        return torch.cat(list(tensors))
    whole = tensors[0].new_full((sum(map(len, tensors)), *sizes), value)
    row = 0
    for t in tensors:
        whole[(slice(row, row + len(t)), *(slice(0, n) for n in t.shape[1:]))] = t
        row += len(t)
    return whole


@dataclass(frozen=True, eq=False)
class Blocks:
    """How a table is laid out that is slow to read at random: blocks of neighbouring examples.

    Attributes:
        sizes: examples in each block, ``int64`` (K,); their sum is the size of the table.
        window: how many blocks are mixed at a time. Readers keep that much at hand.
    """

    sizes: np.ndarray
    window: int

    def of(self, ids: np.ndarray) -> Blocks:
        """The layout of a table that has only the examples ``ids`` (``int64`` (M,), rising) of this one."""
        ends = np.searchsorted(ids, np.concatenate([[0], np.cumsum(self.sizes)]))
        return Blocks(np.diff(ends).astype(np.int64), self.window)


class Texts(Protocol):
    """A column of texts: a tuple, or one that is read when it is looked at."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> str: ...
    def __iter__(self) -> Iterator[str]: ...


class Dataset(ABC):
    """A finite table of examples.

    Attributes:
        spec: the shape of one example.
        name: what to call the data in reports.
        fingerprint: a short hash of the contents; a run refuses to resume on other data.
        notes: sentences on what the reader did that a person should know (files skipped, first frame taken).
        texts: one caption per example, or empty.
        files: one source name per example, or empty.
        blocks: how the table is laid out; None where any order is as fast as any other.
        labels: class numbers of all examples (N,), where they are known without reading the examples.
    """

    spec: Spec
    name: str
    fingerprint: str
    notes: tuple[str, ...] = ()
    texts: Texts = ()
    files: Texts = ()
    blocks: Blocks | None = None
    labels: Tensor | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        """Return the examples ``ids`` (``int64`` (B,)); ``rng`` drives augmentation, None means none."""

    def expect(self, ids: np.ndarray, threads: int) -> None:  # noqa: B027 - most tables have nothing to begin
        """Be told what the next batch will probably be of; where that is slow to read, ``threads`` may begin to."""


def spread(size: int, most: int) -> np.ndarray:
    """At most ``most`` of the ids 0 to ``size`` - 1, evenly spaced and rising, ``int64``; both at least 1."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).astype(np.int64))


def some_of(data: Dataset, most: int) -> np.ndarray:
    """At most ``most`` examples that stand for all of ``data``: ids ``int64``, rising, evenly spaced.

    Of a table in blocks they are taken from a few blocks, or else the whole of it would have to be read.
    """
    if data.blocks is None or len(data.blocks.sizes) <= SEEN_BLOCKS:
        return spread(len(data), most)
    sizes = data.blocks.sizes
    first, there = np.cumsum(sizes) - sizes, np.flatnonzero(sizes)
    chosen = there[spread(len(there), SEEN_BLOCKS)]
    ids = np.concatenate([int(first[b]) + np.arange(int(sizes[b])) for b in chosen.tolist()])
    return ids[spread(len(ids), most)]


def labels_of(data: Dataset, ids: np.ndarray) -> Tensor | None:
    """The class numbers ``int64`` (M,) of the examples ``ids`` (M,), or None; read with them only where need be."""
    if data.labels is not None:
        return data.labels.index_select(0, torch.from_numpy(ids)).long()
    parts = [data.batch(ids[i : i + 1024]).label for i in range(0, len(ids), 1024)]
    found = [part.cpu() for part in parts if part is not None]
    return torch.cat(found) if found else None


class Order:
    """Which examples belong to draw number d: shuffled epochs, laid end to end, cut into batches.

    Every example is used once per epoch; a batch may span two epochs. The answer depends on (seed, draw) only.

    With ``blocks`` an epoch is not one permutation of everything. The blocks are shuffled and cut into windows of at
    most ``blocks.window`` of them, and the examples of each window are shuffled among themselves. So what is read at a
    time lies in a few blocks, and no more than two windows are held as numbers.
    """

    def __init__(self, size: int, batch_size: int, seed: int, blocks: Blocks | None = None) -> None:
        if size < 1:
            raise ValueError("Order needs at least one example")
        if blocks is not None and (blocks.window < 1 or int(blocks.sizes.sum()) != size):
            raise ValueError(f"blocks of {int(blocks.sizes.sum())} examples, windows of {blocks.window}, for {size}")
        self.size, self.batch_size, self.seed, self.blocks = size, batch_size, seed, blocks
        self._epochs: dict[int, np.ndarray] = {}
        self._ends: dict[int, np.ndarray] = {}
        self._windows: dict[tuple[int, int], np.ndarray] = {}
        if blocks is not None:
            self._first = np.cumsum(blocks.sizes) - blocks.sizes
            count = -(-len(blocks.sizes) // blocks.window)
            # windows of nearly equal length: a last one of a single block would hardly be mixed
            self._cuts = np.arange(count + 1) * len(blocks.sizes) // count

    def _epoch(self, epoch: int) -> np.ndarray:
        """A permutation of the examples, or of the blocks."""
        if epoch not in self._epochs:
            generator = np.random.Generator(np.random.Philox(derive(self.seed, "order", epoch)))
            if len(self._epochs) > 1:
                self._epochs.pop(min(self._epochs))
            self._epochs[epoch] = generator.permutation(self.size if self.blocks is None else len(self.blocks.sizes))
        return self._epochs[epoch]

    def _window(self, epoch: int, offset: int) -> np.ndarray:
        """The examples of an epoch from position ``offset`` to the end of its window."""
        assert self.blocks is not None
        shuffled = self._epoch(epoch)
        if epoch not in self._ends:
            if len(self._ends) > 1:
                self._ends.pop(min(self._ends))
            self._ends[epoch] = np.cumsum(self.blocks.sizes[shuffled])[self._cuts[1:] - 1]
        ends = self._ends[epoch]
        number = int(np.searchsorted(ends, offset, side="right"))
        key = epoch, number
        if key not in self._windows:
            mine = shuffled[self._cuts[number] : self._cuts[number + 1]]
            starts, sizes = self._first[mine], self.blocks.sizes[mine]
            ids = np.arange(sizes.sum()) + np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
            generator = np.random.Generator(np.random.Philox(derive(self.seed, "order", epoch, "window", number)))
            if len(self._windows) > 1:
                self._windows.pop(min(self._windows))
            self._windows[key] = ids[generator.permutation(len(ids))]
        window = self._windows[key]
        return window[offset - (int(ends[number]) - len(window)) :]

    def ids(self, draw: int) -> np.ndarray:
        """Return the ``int64`` ids of global batch number ``draw``."""
        start, end = draw * self.batch_size, (draw + 1) * self.batch_size
        parts = []
        while start < end:
            epoch, offset = divmod(start, self.size)
            rest = self._epoch(epoch)[offset:] if self.blocks is None else self._window(epoch, offset)
            parts.append(rest[: end - start])
            start += len(parts[-1])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
