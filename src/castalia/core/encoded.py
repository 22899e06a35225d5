"""A data set that a model makes of another one: computed once, kept in files, and read like any other.

For the second stage of a system with a frozen first one (``Stage.data``): its codes need not be computed anew in every
step. The files have no names, so they are gone when the process ends; a resume computes them again, and gets the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from castalia.core.data import Batch, Dataset
from castalia.core.rng import Rng
from castalia.core.spec import Spec

ROWS = 256
"""Examples encoded at once."""


@final
class Encoded(Dataset):
    """What ``call`` makes of every example of a data set.

    Args:
        data: the examples.
        call: from a batch to what is kept of it; every example's result has the same shape.
        spec: the shape of one result.
        device: where ``call`` wants its batch.
        folder: where the files lie; None takes the system's place for temporary files.
        rows: examples encoded at once.
    """

    def __init__(
        self,
        data: Dataset,
        call: Callable[[Batch], Batch],
        spec: Spec,
        device: torch.device | None = None,
        folder: Path | None = None,
        rows: int = ROWS,
    ) -> None:
        self.spec, self.name, self.fingerprint = spec, f"{data.name}, encoded", data.fingerprint
        self.labels, self.size, self.files = data.labels, len(data), data.files
        self._columns: dict[str, Tensor] = {}
        for start in range(0, self.size, rows):
            ids = np.arange(start, min(start + rows, self.size), dtype=np.int64)
            made = call(data.batch(ids).to(device or torch.device("cpu"))).cpu()
            parts = {"x": made.x, **made.extra, **({} if made.label is None else {"label": made.label})}
            for name, part in parts.items():
                if start == 0:
                    self._columns[name] = self._column(part, folder)
                self._columns[name][start : start + len(ids)] = part

    def _column(self, first: Tensor, folder: Path | None) -> Tensor:
        """Room for a tensor of all examples, in a file without a name."""
        shape = (self.size, *first.shape[1:])
        if not first.numel():
            return torch.empty(shape, dtype=first.dtype)
        with tempfile.TemporaryFile(dir=folder) as file:  # the map keeps it for as long as it is needed
            file.truncate(self.size * first[0].numel() * first.element_size())
            kept = np.memmap(file, dtype=np.uint8, mode="r+")
        return torch.from_numpy(kept).view(first.dtype).view(shape)

    def __len__(self) -> int:
        return self.size

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        index = torch.from_numpy(ids)
        found = {name: column.index_select(0, index) for name, column in self._columns.items()}
        return Batch(found.pop("x"), index, found.pop("label", None), found)
