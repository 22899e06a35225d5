"""Data sets of proteins: chains in space with their sequences, and sequences alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from castalia.core.data import Batch, Dataset
from castalia.core.rng import Rng
from castalia.core.specs.protein import LETTERS, ProteinSpec


@dataclass(frozen=True, eq=False)
class Chain:
    """One chain.

    Attributes:
        name: of its file, with that of the chain.
        residues: ``int64`` (L,), numbers of ``LETTERS``, 0 to 20.
        x: ``float32`` (L, 5, 3), Å; 0 where unknown. Empty (0, 5, 3) for a sequence alone.
        there: ``uint8`` (L, 5), 1 where known.
        confidence: ``float32`` (L,), 0 to 100.
        msa: ``int64`` (S, L), an alignment whose first row is the sequence, or None.
    """

    name: str
    residues: np.ndarray
    x: np.ndarray
    there: np.ndarray
    confidence: np.ndarray
    msa: np.ndarray | None = None

    @property
    def letters(self) -> str:
        """Its one-letter codes."""
        return "".join(LETTERS[i] for i in self.residues)

    @classmethod
    def bare(cls, name: str, residues: np.ndarray, msa: np.ndarray | None = None) -> Chain:
        """A sequence without a structure."""
        none = np.zeros((0, 5), np.uint8)
        return cls(name, residues, np.zeros((0, 5, 3), np.float32), none, np.zeros(0, np.float32), msa)


def numbers(letters: str) -> np.ndarray:
    """The numbers of one-letter codes, ``int64``; what is not one of the twenty is unknown."""
    return np.array([_NUMBER.get(letter, 20) for letter in letters.upper()], np.int64)


_NUMBER = {letter: i for i, letter in enumerate(LETTERS[:20])}


def _digest(chains: Sequence[Chain], spec: ProteinSpec) -> str:
    digest = hashlib.blake2b(f"{spec}".encode(), digest_size=16)
    for one in chains:
        for part in (one.residues, one.x, one.there, one.confidence, *(() if one.msa is None else (one.msa,))):
            digest.update(repr(part.shape).encode())
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def _padded(rows: Sequence[np.ndarray], value: float) -> torch.Tensor:
    sizes = tuple(max(row.shape[d] for row in rows) for d in range(rows[0].ndim))
    out = np.full((len(rows), *sizes), value, rows[0].dtype)
    for whole, row in zip(out, rows, strict=True):
        whole[tuple(slice(0, size) for size in row.shape)] = row
    return torch.from_numpy(out)


@final
class Chains(Dataset):
    """Structures; ``Batch.extra`` has ``there``, ``confidence``, ``sequence`` and, with alignments, ``msa``."""

    def __init__(self, chains: Sequence[Chain], spec: ProteinSpec, *, name: str, notes: Sequence[str] = ()) -> None:
        # Narrower than the base class says, and never set again.
        self.spec: ProteinSpec = spec  # pyright: ignore[reportIncompatibleVariableOverride]
        self.chains, self.name, self.notes = tuple(chains), name, tuple(notes)
        self.files = tuple(chain.name for chain in chains)
        self.fingerprint = _digest(chains, spec)

    def __len__(self) -> int:
        return len(self.chains)

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        """The chains ``ids``, padded to the longest of them; there is no augmentation, so ``rng`` is not used."""
        found = [self.chains[i] for i in ids]
        extra = {
            "there": _padded([chain.there for chain in found], 0),
            "confidence": _padded([chain.confidence for chain in found], 0),
            "sequence": _padded([chain.residues for chain in found], -1),
        }
        if "msa" in dict(self.spec.columns):
            alignments = [chain.residues[None] if chain.msa is None else chain.msa for chain in found]
            extra["msa"] = _padded(alignments, -1)
        x = _padded([chain.x for chain in found], 0)
        return Batch(x, torch.from_numpy(np.asarray(ids, np.int64)), None, extra)


@final
class Sequences(Dataset):
    """Sequences alone, ``int64`` (B, L), padded with -1."""

    def __init__(self, chains: Sequence[Chain], spec: ProteinSpec, *, name: str, notes: Sequence[str] = ()) -> None:
        # Narrower than the base class says, and never set again.
        self.spec: ProteinSpec = spec  # pyright: ignore[reportIncompatibleVariableOverride]
        self.chains, self.name, self.notes = tuple(chains), name, tuple(notes)
        self.files = tuple(chain.name for chain in chains)
        self.fingerprint = _digest([Chain.bare(c.name, c.residues) for c in chains], spec)

    def __len__(self) -> int:
        return len(self.chains)

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        """The sequences ``ids``, padded to the longest of them."""
        x = _padded([self.chains[i].residues for i in ids], -1)
        return Batch(x, torch.from_numpy(np.asarray(ids, np.int64)))
