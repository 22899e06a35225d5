"""Data sets of molecules, held in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import final

import numpy as np
import torch

from castalia.core.data import Batch, Dataset
from castalia.core.errors import DataError
from castalia.core.rng import Rng
from castalia.core.specs.molecule import MoleculeSpec


@final
class Molecules(Dataset):
    """Molecules as arrays; ``files`` has the canonical SMILES of each.

    Args:
        smiles: canonical SMILES, one for each.
        rows: graphs: kinds of atoms ``uint8`` (N, length). Strings: tokens ``int16`` (N, T), padded with -1.
        bonds: graphs: ``uint8`` (N, length, length); None for strings.
        labels: class numbers ``int64`` (N,), or None.
    """

    def __init__(
        self,
        smiles: Sequence[str],
        rows: np.ndarray,
        bonds: np.ndarray | None,
        spec: MoleculeSpec,
        *,
        name: str,
        labels: np.ndarray | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        if not len(rows):
            raise DataError(f"{name} has no molecule that can be used. {' '.join(notes)}")
        self.spec: MoleculeSpec = spec  # pyright: ignore[reportIncompatibleVariableOverride]
        self.name, self.notes, self.files = name, tuple(notes), tuple(smiles)
        self.rows, self.bonds = rows, bonds
        self.labels = None if labels is None else torch.from_numpy(labels)
        digest = hashlib.blake2b(digest_size=16)
        for part in (rows, bonds, labels):
            digest.update(b"-" if part is None else np.ascontiguousarray(part).tobytes())
        digest.update("\n".join((*spec.atoms, *spec.tokens)).encode())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        rows = self.rows[ids].astype(np.int64)
        numbers = torch.from_numpy(np.asarray(ids, np.int64))
        label = None if self.labels is None else self.labels[numbers]
        if self.bonds is not None:
            bonds = torch.from_numpy(self.bonds[ids].astype(np.int64))
            return Batch(torch.from_numpy(rows), numbers, label, {"bonds": bonds})
        longest = max(1, int((rows >= 0).sum(1).max()))
        return Batch(torch.from_numpy(np.ascontiguousarray(rows[:, :longest])), numbers, label)
