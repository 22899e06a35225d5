"""A table that is held in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import final

import numpy as np
import torch

from castalia.core.config import to_json
from castalia.core.data import Batch, Dataset
from castalia.core.rng import Rng
from castalia.core.specs.table import TableSpec


@final
class TableArray(Dataset):
    """Rows of one table.

    Attributes:
        x: ``float64`` (N, C), all finite, 0 where a value is missing.
        missing: ``uint8`` (N, C).
    """

    def __init__(
        self,
        x: np.ndarray,
        missing: np.ndarray | None,
        spec: TableSpec,
        *,
        name: str,
        notes: Sequence[str] = (),
    ) -> None:
        if x.ndim != 2 or x.shape[1] != len(spec.parts) or x.dtype != np.float64:
            raise ValueError(f"rows must be float64 (N, {len(spec.parts)}), not {x.dtype} {x.shape}")
        absent = np.zeros(x.shape, np.uint8) if missing is None else missing.astype(np.uint8)
        if absent.shape != x.shape:
            raise ValueError(f"missing must be {x.shape}, not {absent.shape}")
        self.x = torch.from_numpy(np.where(absent == 1, 0.0, x))
        if not bool(self.x.isfinite().all()):
            raise ValueError("values must be finite")
        self.missing = torch.from_numpy(absent)
        # Narrower than the base class says, and never set again.
        self.spec: TableSpec = spec  # pyright: ignore[reportIncompatibleVariableOverride]
        self.name, self.notes = name, tuple(notes)
        digest = hashlib.blake2b(json.dumps(to_json(spec), sort_keys=True).encode(), digest_size=16)
        digest.update(self.x.numpy().data)
        digest.update(self.missing.numpy().data)
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return self.x.shape[0]

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        """Return the rows ``ids`` (``int64`` (B,)); there is no augmentation, so ``rng`` is not used."""
        index = torch.from_numpy(ids)
        return Batch(self.x.index_select(0, index), index, None, {"missing": self.missing.index_select(0, index)})
