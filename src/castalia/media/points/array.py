"""A data set of points, held in one array."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor

from castalia.core.data import Batch, Dataset
from castalia.core.rng import Rng
from castalia.core.specs.points import PointsSpec


@final
class PointsArray(Dataset):
    """Points in one ``float32`` tensor.

    Attributes:
        x: ``float32`` (N, D), all finite; shares its memory with the array that it was made from.
        labels: ``int64`` (N,) class numbers, or None. For a mixture, the number of the mode that a point was drawn
            from.
        modes: ``float64`` (M, D), the centres of the mixture that the points were drawn from; None where they come
            from something else, or nobody knows.
        mode_std: standard deviation of each coordinate around a mode; 0 without modes.
    """

    def __init__(
        self,
        points: np.ndarray,
        *,
        name: str,
        labels: np.ndarray | None = None,
        classes: Sequence[str] = (),
        modes: np.ndarray | None = None,
        mode_std: float = 0.0,
        notes: Sequence[str] = (),
    ) -> None:
        if points.ndim != 2 or points.dtype != np.float32 or not points.shape[1]:
            raise ValueError(f"points must be float32 (N, D) with D >= 1, not {points.dtype} {points.shape}")
        if labels is not None and len(labels) != len(points):
            raise ValueError(f"{len(points)} points but {len(labels)} labels")
        if modes is not None and (modes.ndim != 2 or modes.shape[1] != points.shape[1]):
            raise ValueError(f"modes must be (M, {points.shape[1]}), not {modes.shape}")
        self.x = torch.from_numpy(points)
        self.labels: Tensor | None = None if labels is None else torch.from_numpy(labels.astype(np.int64))
        self.modes: Tensor | None = None if modes is None else torch.from_numpy(modes.astype(np.float64))
        self.mode_std = mode_std
        # Narrower than the base class says, and never set again.
        self.spec: PointsSpec = PointsSpec(  # pyright: ignore[reportIncompatibleVariableOverride]
            points.shape[1], tuple(classes)
        )
        self.name = name
        self.notes = tuple(notes)
        digest = hashlib.blake2b(repr(points.shape).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(points).data)
        if self.labels is not None:
            digest.update(self.labels.numpy().data)
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return self.x.shape[0]

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        """Return the examples ``ids`` (``int64`` (B,)); there is no augmentation, so ``rng`` is not used."""
        index = torch.from_numpy(ids)
        x = self.x.index_select(0, index)
        return Batch(x, index, None if self.labels is None else self.labels.index_select(0, index))
