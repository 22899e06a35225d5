"""Proteins as a medium."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.errors import DataError, UsageError
from castalia.core.files import disk_error, read_bounded
from castalia.core.spec import Spec
from castalia.core.specs.protein import ProteinSpec
from castalia.media.base import Measure, Medium, Rate
from castalia.media.image.medium import energy
from castalia.media.image.write import replace_file
from castalia.media.protein.draw import proteins_image, sequences_image
from castalia.media.protein.folds import folds
from castalia.media.protein.measures import MEASURES
from castalia.media.protein.read import STRUCTURES, ProteinOptions, is_protein, open_proteins
from castalia.media.protein.sequences import ALIGNED, LARGEST, read_alignment, read_fasta, residues_of
from castalia.media.protein.sets import SETS, open_set
from castalia.media.protein.structures import read_structure
from castalia.media.protein.write import chains_of, fasta_text, pdb_text
from castalia.media.sets import NamedData, Progress

_LAGS = (1, 2, 3, 4, 5, 6, 8, 12)


@final
class ProteinMedium(Medium):
    """Proteins: chains in space, written as PDB with a FASTA beside; sequences; drawn as traces and maps."""

    name: ClassVar[str] = "protein"
    spec: ClassVar[type[Spec]] = ProteinSpec
    options: ClassVar[type[Config]] = ProteinOptions
    shown: ClassVar[int] = 8
    reading: ClassVar[str] = "a folder, a .zip or one file of PDB, mmCIF or FASTA"
    measures: ClassVar[tuple[Measure, ...]] = MEASURES

    def reads(self, path: Path) -> bool:
        return is_protein(path)

    def open(
        self,
        path: Path,
        options: ProteinOptions,
        split: str | None,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        return open_proteins(path, options, split=split, like=like, progress=progress)

    def named(self) -> Mapping[str, NamedData]:
        return SETS

    def open_named(
        self,
        name: str,
        options: ProteinOptions,
        split: str,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        return open_set(name, options, split, like, progress)

    def tiny(self) -> Dataset:
        return folds("test")

    def read(self, text: str, spec: ProteinSpec) -> Tensor:
        """A sequence in one-letter codes, with or without blanks; as an alignment it is one of a single row."""
        if spec.kind == "structure":
            raise UsageError("A structure cannot be typed; give a file: @FILE.pdb.")
        try:
            row = torch.from_numpy(residues_of("".join(text.split()), "the sequence"))
        except DataError as error:
            raise UsageError(f"{error} Write one-letter codes, like MKTAYIAKQR, or give a file: @FILE.") from error
        return row if spec.kind == "sequence" else row[None]

    def read_file(self, path: Path, spec: ProteinSpec) -> Tensor:
        """Of a FASTA file or a structure the one sequence; of an alignment its rows; of a structure its places."""
        data = read_bounded(path, LARGEST)
        structure = path.suffix.lower() in STRUCTURES
        if spec.kind == "structure" and not structure:
            raise UsageError(f"{path} is no structure ({', '.join(sorted(STRUCTURES))}).")
        if structure:
            chains = read_structure(data, str(path))
            if len({chain.letters for chain in chains}) > 1:
                names = ", ".join(chain.name for chain in chains)
                raise UsageError(f"{path} holds several chains ({names}); give a file of one.")
            found = chains[0].x if spec.kind == "structure" else chains[0].residues
        elif spec.kind == "alignment" or path.suffix.lower() in ALIGNED:
            found = read_alignment(data, str(path), spec.sequences)
            found = found[0] % 22 if spec.kind == "sequence" else found
        else:
            entries = read_fasta(data, str(path))
            if len(entries) > 1:
                raise UsageError(f"{path} holds {len(entries)} sequences; give a file of one.")
            found = entries[0][1]
        x = torch.from_numpy(np.ascontiguousarray(found))
        return x[None] if spec.kind == "alignment" and x.ndim == 1 else x

    def write(
        self, batch: Batch, spec: ProteinSpec, folder: Path, start: int = 0, recipe: Mapping[str, Any] | None = None
    ) -> list[Path]:
        """Write ``0000.pdb``, ..., each with its sequence and recipe beside it; of sequences FASTA."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(folder, error) from error
        paths = []
        if spec.kind == "structure":
            for number, chain in enumerate(chains_of(batch, start), start):
                path = folder / f"{number:04d}.pdb"
                replace_file(path, pdb_text(chain).encode())
                replace_file(path.with_suffix(".fasta"), fasta_text(chain.name, chain.residues).encode())
                paths.append(path)
        else:
            for number, row in enumerate(batch.x.cpu().numpy(), start):
                path = folder / f"{number:04d}.{'fasta' if spec.kind == 'sequence' else 'a3m'}"
                rows = row[None] if spec.kind == "sequence" else row
                texts = [fasta_text(f"{number:04d}", r[r >= 0] % 22) for r in rows if (r >= 0).any()]
                replace_file(path, "".join(texts).encode())
                paths.append(path)
        if recipe is not None:
            for number, path in enumerate(paths, start):
                whole = json.dumps({**recipe, "index": number}, indent=2)
                replace_file(path.with_suffix(".json"), (whole + "\n").encode())
        return paths

    def picture(self, batch: Batch, spec: ProteinSpec, columns: int | None = None) -> Image:
        if spec.kind == "structure":
            return proteins_image(chains_of(batch), columns)
        rows = batch.x.reshape(-1, batch.x.shape[-1]).cpu().numpy()
        return sequences_image([row[row >= 0] % 22 for row in rows if (row >= 0).any()])

    def rates(self, batch: Batch, spec: ProteinSpec) -> Mapping[str, Rate]:
        """Bits per residue of sequences; structures have none."""
        if spec.kind != "sequence":
            return {}
        return {"bits_per_residue": Rate("bits/residue", 2, (batch.x >= 0).sum(1).double().cpu())}

    def distance(self, a: Batch, b: Batch, spec: ProteinSpec) -> float:
        """Energy distance between distances of CA atoms, sizes and lengths; of sequences, of counts of residues."""
        if spec.kind != "structure":
            counts = [torch.stack([(x.x == k).flatten(1).float().sum(1) for k in range(21)], 1) / 10 for x in (a, b)]
            return energy(*counts)
        return energy(_features(a), _features(b))


def _features(batch: Batch) -> Tensor:
    """What a structure is like, whichever way it is turned, ``float32`` (B, F), about 1 each."""
    rows = []
    for x, there in zip(batch.x[:, :, 1].float().cpu(), batch.extra["there"][:, :, 1].cpu() > 0, strict=True):
        points = x[there]
        row = [torch.tensor(len(points) / 50)]
        size = (points - points.mean(0)).square().sum(1).mean().sqrt() if len(points) else torch.tensor(0.0)
        row.append(size / 10)
        for lag in _LAGS:
            far = (points[lag:] - points[:-lag]).norm(dim=1) / 10
            row += [far.mean() if len(far) else torch.tensor(0.0), far.std() if len(far) > 1 else torch.tensor(0.0)]
        rows.append(torch.stack(row))
    return torch.stack(rows)
