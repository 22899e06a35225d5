"""Molecules as a medium."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from castalia.chemistry.molecules import canonical, chem, molecules_of, read_smiles, texts_of, tokens_in
from castalia.chemistry.properties import accessibility, logp, qed, weight
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.errors import DataError, UsageError
from castalia.core.files import disk_error
from castalia.core.spec import Spec
from castalia.core.specs.molecule import MoleculeSpec
from castalia.media.base import Measure, Medium, Rate
from castalia.media.image.medium import energy
from castalia.media.image.write import replace_file
from castalia.media.molecule.draw import molecules_image
from castalia.media.molecule.measures import MEASURES
from castalia.media.molecule.read import MoleculeOptions, open_molecules, values_of
from castalia.media.molecule.sets import SETS, open_set, small
from castalia.media.molecule.source import is_molecules, molecule_in, read_lines
from castalia.media.sets import NamedData, Progress


@final
class MoleculeMedium(Medium):
    """Molecules: graphs, or strings; written as one file of SMILES and one of SDF, drawn with their properties."""

    name: ClassVar[str] = "molecule"
    spec: ClassVar[type[Spec]] = MoleculeSpec
    options: ClassVar[type[Config]] = MoleculeOptions
    shown: ClassVar[int] = 16
    reading: ClassVar[str] = "SMILES (.smi), SDF, a table with a column of SMILES; a folder or .zip of them"
    measures: ClassVar[tuple[Measure, ...]] = MEASURES

    def reads(self, path: Path) -> bool:
        return is_molecules(path)

    def open(
        self,
        path: Path,
        options: MoleculeOptions,
        split: str | None,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        assert like is None or isinstance(like, MoleculeSpec)
        return open_molecules(path, options, split=split, like=like, progress=progress)

    def named(self) -> Mapping[str, NamedData]:
        return SETS

    def open_named(
        self,
        name: str,
        options: MoleculeOptions,
        split: str,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        assert like is None or isinstance(like, MoleculeSpec)
        return open_set(name, options, split, like, progress)

    def tiny(self) -> Dataset:
        return small("test")

    def read(self, text: str, spec: MoleculeSpec) -> Tensor:
        """SMILES; of strings also a beginning, which is told by three dots behind it: ``c1ccc(...``."""
        if text.strip().endswith("...") and spec.kind != "graph":
            begun = text.strip().removesuffix("...")
            tokens = tokens_in(begun, spec)
            if not tokens or len(tokens) >= spec.length:
                raise UsageError(f"{begun[:80]!r} is not the beginning of a molecule in the run's tokens.")
            return torch.tensor(tokens)
        mol = read_smiles(text.strip())
        if mol is None:
            raise UsageError(f"{text[:80]!r} is not a molecule in SMILES, such as CC(=O)Oc1ccccc1C(=O)O.")
        values = values_of(mol, spec)
        if values is None:
            raise UsageError(f"{text[:80]!r} is larger than the run's molecules, or has other atoms or tokens.")
        return torch.from_numpy(values["x"])

    def read_file(self, path: Path, spec: MoleculeSpec) -> Tensor:
        """The first molecule of a file."""
        lines = read_lines(path, "", "none", None).lines
        mol = molecule_in(lines[0]) if lines else None
        if mol is None:
            raise DataError(f"{path}: its first entry is no molecule.")
        values = values_of(mol, spec)
        if values is None:
            raise UsageError(f"{path}: its first molecule is larger than the run's, or has other atoms or tokens.")
        return torch.from_numpy(values["x"])

    def write(
        self, batch: Batch, spec: MoleculeSpec, folder: Path, start: int = 0, recipe: Mapping[str, Any] | None = None
    ) -> list[Path]:
        """Write ``molecules.csv`` (``molecules-N.csv`` where the first number N is not 0) and an SDF; return the CSV.

        The CSV has a row for each: ``number``, ``smiles`` (canonical, or as it was made where chemistry does not allow
        it), ``valid``, ``qed``, ``logp``, ``accessibility``, ``weight``. The SDF has the valid ones, drawn flat.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(folder, error) from error
        batch = batch.cpu()
        mols = molecules_of(batch, spec)
        raw = texts_of(batch, spec) if any(mol is None for mol in mols) else [""] * len(mols)
        path = folder / (f"molecules-{start:04d}.csv" if start else "molecules.csv")
        lines = ["number,smiles,valid,qed,logp,accessibility,weight"]
        for number, (mol, text) in enumerate(zip(mols, raw, strict=True), start=start):
            if mol is None:
                quoted = '"' + text.replace('"', '""') + '"'
                lines.append(f"{number},{quoted},no,,,,")
            else:
                told = (qed(mol), logp(mol), accessibility(mol), weight(mol))
                lines.append(",".join([str(number), canonical(mol, stereo=True), "yes", *(f"{v:.4g}" for v in told)]))
        replace_file(path, ("\n".join(lines) + "\n").encode())
        replace_file(path.with_suffix(".sdf"), _sdf(mols, start).encode())
        if recipe is not None:
            whole = {**recipe, "start": start, "n": len(mols)}
            replace_file(path.with_suffix(".json"), (json.dumps(whole, indent=2) + "\n").encode())
        return [path]

    def picture(self, batch: Batch, spec: MoleculeSpec, columns: int | None = None) -> Image:
        return molecules_image(molecules_of(batch.cpu(), spec), columns)

    def rates(self, batch: Batch, spec: MoleculeSpec) -> Mapping[str, Rate]:
        """Nats per token of strings, the end counted; nats per molecule of graphs."""
        if spec.kind == "graph":
            return {"nats_per_molecule": Rate("nats/molecule", math.e, torch.ones(len(batch), dtype=torch.float64))}
        return {"nats_per_token": Rate("nats/token", math.e, (batch.x >= 0).sum(1).double().cpu())}

    def distance(self, a: Batch, b: Batch, spec: MoleculeSpec) -> float:
        """Energy distance of counts: of atoms and bonds, or of tokens and pairs of them."""
        return energy(_counted(a, spec), _counted(b, spec))


def _sdf(mols: list[Any], start: int) -> str:
    """The valid molecules as SDF, with their numbers as names."""
    from rdkit.Chem import rdDepictor

    blocks = []
    for number, mol in enumerate(mols, start=start):
        if mol is not None:
            mol = chem().Mol(mol)
            rdDepictor.Compute2DCoords(mol)
            mol.SetProp("_Name", str(number))
            blocks.append(chem().MolToMolBlock(mol) + "$$$$\n")
    return "".join(blocks)


def _counted(batch: Batch, spec: MoleculeSpec) -> Tensor:
    if spec.kind == "graph":
        atoms = torch.nn.functional.one_hot(batch.x, spec.size).sum(1).float()
        bonds = torch.nn.functional.one_hot(batch.extra["bonds"], 4).sum((1, 2)).float()
        return torch.cat([atoms, bonds / 4], 1)
    out = np.zeros((len(batch), spec.size + 256), np.float32)
    for row, tokens in zip(out, batch.x.tolist(), strict=True):
        tokens = [t for t in tokens if t >= 0]
        for token in tokens:
            row[token] += 1
        for one, other in pairwise(tokens):
            row[spec.size + (31 * one + other) % 256] += 1
    return torch.from_numpy(out)
