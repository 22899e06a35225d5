"""What a model is fed: examples in natural units, addressed by number.

A :class:`Dataset` is a table that answers ``batch(ids)``. Which ids belong to which step is a pure function of
(seed, step), held by :class:`Order`, so a resumed run needs no loader state and two processes can each take
their share of the same global batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from castalia.core.rng import Rng, derive


@dataclass(frozen=True)
class Spec:
    """The shape of one example of a medium, known before any example is read.

    Media subclass it with their own fields; it is stored in a run's ``config.json`` so that a model can be
    rebuilt without its data.
    """


@dataclass(frozen=True)
class ImageSpec(Spec):
    """Pictures: ``uint8`` tensors of shape (channels, height, width) with values 0 to 255.

    Attributes:
        channels: 1 grey, 3 RGB, 4 RGBA (straight, not premultiplied, alpha).
        height: rows.
        width: columns.
        classes: names of the labels, in label order; empty where there are none.
    """

    channels: int
    height: int
    width: int
    classes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width

    @property
    def dims(self) -> int:
        """Number of values in one picture, the D of bits per dimension."""
        return self.channels * self.height * self.width


@dataclass(frozen=True)
class PointsSpec(Spec):
    """Points: ``float32`` vectors of ``dims`` coordinates in the data's own units.

    Attributes:
        dims: coordinates of one point, the D of bits per dimension.
        classes: names of the labels, in label order; empty where there are none.
    """

    dims: int
    classes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int]:
        """(dims,)."""
        return (self.dims,)


@dataclass(frozen=True)
class Batch:
    """Some examples.

    Attributes:
        x: the examples in natural units, first dimension B (for pictures ``uint8`` (B, C, H, W)).
        ids: ``int64`` (B,), the position of each example in its data set.
        label: ``int64`` (B,) class numbers, or None.
        extra: further aligned tensors (caption tokens, lengths, ...), each with first dimension B.
    """

    x: Tensor
    ids: Tensor
    label: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.x.shape[0]

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on ``device``."""
        if self.x.device == device:
            return self
        return Batch(
            self.x.to(device, non_blocking=True),
            self.ids.to(device, non_blocking=True),
            None if self.label is None else self.label.to(device, non_blocking=True),
            {k: v.to(device, non_blocking=True) for k, v in self.extra.items()},
        )


class Dataset(ABC):
    """A finite table of examples.

    Attributes:
        spec: the shape of one example.
        name: what to call the data in reports.
        fingerprint: a short hash of the contents; a run refuses to resume on other data.
        notes: sentences on what the reader did that a person should know (files skipped, first frame taken).
        texts: one caption per example, or empty.
        files: one source name per example, or empty.
    """

    spec: Spec
    name: str
    fingerprint: str
    notes: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        """Return the examples ``ids`` (``int64`` (B,)); ``rng`` drives augmentation, None means none."""


def spread(size: int, most: int) -> np.ndarray:
    """At most ``most`` of the ids 0 to ``size`` - 1, evenly spaced and rising, ``int64``; both at least 1."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).astype(np.int64))


class Order:
    """Which examples belong to draw number d: shuffled epochs, laid end to end, cut into batches.

    Every example is used once per epoch; a batch may span two epochs. The answer depends on (seed, draw) only.
    """

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        if size < 1:
            raise ValueError("Order needs at least one example")
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self._epochs: dict[int, np.ndarray] = {}

    def _epoch(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            generator = np.random.Generator(np.random.Philox(derive(self.seed, "order", epoch)))
            if len(self._epochs) > 1:
                self._epochs.pop(min(self._epochs))
            self._epochs[epoch] = generator.permutation(self.size)
        return self._epochs[epoch]

    def ids(self, draw: int) -> np.ndarray:
        """Return the ``int64`` ids of global batch number ``draw``."""
        start, end = draw * self.batch_size, (draw + 1) * self.batch_size
        parts = []
        while start < end:
            epoch, offset = divmod(start, self.size)
            take = min(end - start, self.size - offset)
            parts.append(self._epoch(epoch)[offset : offset + take])
            start += take
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
