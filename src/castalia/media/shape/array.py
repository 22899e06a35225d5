"""A data set of shapes, held as bits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from castalia.core.data import Batch, Dataset
from castalia.core.rng import Rng
from castalia.core.spec import Spec
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.shape import ShapeSpec
from castalia.media.shape.cast import depth_map, shaded

Views = Literal["none", "picture", "depth"]

VIEW = "view"
"""The column that shows a shape from one side."""

SIDES = 12
"""Directions, evenly spaced around a shape, from which it may be seen."""

LIFT = 20.0
"""Degrees by which a view looks down."""


@final
class ShapeArray(Dataset):
    """Shapes in memory, a bit for each voxel.

    With views each shape has a picture of it, or a map of depths, as the column ``view``: ``uint8`` (1, side, side). In
    training (with ``rng``) it is seen from a random one of :data:`SIDES` directions, else from one that depends on its
    number alone.

    Args:
        bits: ``uint8`` (N, bytes), the voxels of each shape as :func:`packed` lays them out.
        size: voxels along a side.
        name: what to call the data.
        labels: ``int64`` (N,) class numbers, or None.
        classes: names of the classes.
        views: what the column shows.
        view_size: pixels along its side.
        texts: a caption for each, or none.
        files: a source name for each, or none.
        notes: what a person should know.
    """

    def __init__(
        self,
        bits: np.ndarray,
        size: int,
        *,
        name: str,
        labels: np.ndarray | None = None,
        classes: Sequence[str] = (),
        views: Views = "none",
        view_size: int = 64,
        texts: Sequence[str] = (),
        files: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> None:
        if bits.ndim != 2 or bits.dtype != np.uint8 or bits.shape[1] != -(-(size**3) // 8):
            raise ValueError(f"{bits.dtype} {bits.shape} are no bits of shapes of {size} voxels a side")
        if labels is not None and len(labels) != len(bits):
            raise ValueError(f"{len(bits)} shapes but {len(labels)} labels")
        self._bits = np.ascontiguousarray(bits)
        self._views: Views = views
        self._seen: dict[tuple[int, int], Tensor] = {}
        columns: tuple[tuple[str, Spec], ...] = ()
        if views != "none":
            columns = ((VIEW, ImageSpec(1, view_size, view_size)),)
        # Narrower than the base class says, and never set again.
        self.spec: ShapeSpec = ShapeSpec(  # pyright: ignore[reportIncompatibleVariableOverride]
            size, tuple(classes) if labels is not None else (), columns=columns
        )
        self.labels: Tensor | None = None if labels is None else torch.from_numpy(np.asarray(labels, np.int64))
        self.name, self.notes, self.texts, self.files = name, tuple(notes), tuple(texts), tuple(files)
        digest = hashlib.blake2b(f"{bits.shape} {size} {views} {view_size}".encode(), digest_size=16)
        digest.update(self._bits.data)
        if self.labels is not None:
            digest.update(self.labels.numpy().data)
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._bits)

    def voxels(self, ids: np.ndarray) -> np.ndarray:
        """The shapes ``ids`` as ``uint8`` (B, size, size, size)."""
        size = self.spec.size
        return np.unpackbits(self._bits[ids], axis=1, count=size**3).reshape(-1, size, size, size)

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        """The shapes ``ids``; ``rng`` chooses the directions of their views."""
        index = torch.from_numpy(np.asarray(ids, np.int64))
        x = torch.from_numpy(self.voxels(index.numpy()))[:, None]
        label = None if self.labels is None else self.labels[index]
        if self._views == "none":
            return Batch(x, index, label)
        sides = (7 * index) % SIDES if rng is None else rng.integers("side", SIDES).cpu()
        return Batch(x, index, label, {VIEW: self._view(x, index.tolist(), sides.tolist())})

    def _view(self, x: Tensor, ids: list[int], sides: list[int]) -> Tensor:
        """Views ``uint8`` (B, 1, side, side); each is made once."""
        new = [i for i, key in enumerate(zip(ids, sides, strict=True)) if key not in self._seen]
        if new:
            turn = torch.tensor([360.0 / SIDES * sides[i] for i in new])
            made = view_of(x[new], turn, self._views, self._side)
            self._seen |= {(ids[i], sides[i]): one for i, one in zip(new, made, strict=True)}
        return torch.stack([self._seen[key] for key in zip(ids, sides, strict=True)])

    @property
    def _side(self) -> int:
        spec = dict(self.spec.columns)[VIEW]
        assert isinstance(spec, ImageSpec)
        return spec.width


def packed(voxels: np.ndarray) -> np.ndarray:
    """Shapes ``uint8`` (N, size, size, size), 0 and 1, as rows of bits ``uint8`` (N, bytes)."""
    return np.packbits(voxels.reshape(len(voxels), -1), axis=1)


def view_of(x: Tensor, turn: Tensor, views: Views, side: int) -> Tensor:
    """Shapes (B, 1, S, S, S) from so many degrees ``turn`` (B,) around: ``uint8`` (B, 1, side, side).

    A picture is grey on white. A map of depths is 255 at the nearest place that there can be, and 0 where nothing is.
    """
    if views == "depth":
        return depth_map(x, turn, LIFT, side)
    return shaded(x, turn, LIFT, side).float().mean(1, keepdim=True).round().to(torch.uint8)
