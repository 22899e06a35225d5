"""Points as a medium."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.core.files import disk_error
from castalia.core.spec import Spec
from castalia.core.specs.points import PointsSpec
from castalia.media.base import Medium, Rate
from castalia.media.classes import match_classes
from castalia.media.image.medium import energy
from castalia.media.image.write import replace_file
from castalia.media.points.array import PointsArray
from castalia.media.points.draw import points_image
from castalia.media.points.files import is_points, open_points
from castalia.media.points.toys import COUNTS, toy
from castalia.media.sets import NamedData, Progress


@dataclass(frozen=True)
class PointsOptions(Config):
    """How points are read: there is nothing to choose."""


def _named(what: str) -> NamedData:
    return NamedData(what, "none needed: computed", (2,), COUNTS, {})


SETS: Mapping[str, NamedData] = {
    "ring-8": _named("8 Gaussians on a circle of radius 1, standard deviation 0.01 (PacGAN's)"),
    "grid-25": _named("25 Gaussians on a grid of spacing 2, standard deviation 0.05 (PacGAN's)"),
    "swiss-roll": _named("a spiral with noise (the toy of improved Wasserstein GANs)"),
    "two-moons": _named("two half circles that reach into each other, with noise"),
    "checkerboard": _named("the dark squares of a board of 4 by 4, evenly filled"),
}


@final
class PointsMedium(Medium):
    """Points: ``float32`` (D,), written as the rows of one CSV file, drawn as scatter plots."""

    name: ClassVar[str] = "points"
    spec: ClassVar[type[Spec]] = PointsSpec
    options: ClassVar[type[Config]] = PointsOptions
    shown: ClassVar[int] = 2500
    reading: ClassVar[str] = "a .csv, .tsv or .npy file of points"

    def reads(self, path: Path) -> bool:
        return is_points(path)

    def open(
        self,
        path: Path,
        options: PointsOptions,
        split: str | None,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        return match_classes(open_points(path, split=split), like)

    def named(self) -> Mapping[str, NamedData]:
        return SETS

    def open_named(
        self,
        name: str,
        options: PointsOptions,
        split: str,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        return match_classes(toy(name, split), like)

    def tiny(self) -> Dataset:
        moons = toy("two-moons", "test").batch(np.arange(256))
        assert moons.label is not None
        return PointsArray(moons.x.numpy(), name="moons", labels=moons.label.numpy(), classes=("upper", "lower"))

    def read(self, text: str, spec: PointsSpec) -> Tensor:
        try:
            point = torch.tensor([float(part) for part in text.split(",")])
        except ValueError as error:
            raise UsageError(f"{text!r} is not a point: write {spec.dims} numbers with commas.") from error
        if point.shape != spec.shape or not point.isfinite().all():
            raise UsageError(f"{text!r} is not a point of {spec.dims} finite coordinates.")
        return point

    def read_file(self, path: Path, spec: PointsSpec) -> Tensor:
        """The first row of a file of points."""
        x = open_points(path).x[0]
        if x.shape != spec.shape:
            raise UsageError(f"{path} holds points of {len(x)} coordinates, not of {spec.dims}.")
        return x

    def write(
        self, batch: Batch, spec: PointsSpec, folder: Path, start: int = 0, recipe: Mapping[str, Any] | None = None
    ) -> list[Path]:
        """Write ``points.csv``, or ``points-N.csv`` where the first number N is not 0, and return its path.

        The columns are ``number``, ``x0``, ``x1``, ...; a coordinate has the digits that give back its ``float32``.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(folder, error) from error
        rows = batch.x.detach().cpu().numpy()
        if rows.ndim != 2:
            raise ValueError(f"points must have shape (N, D), not {rows.shape}")
        lines = [",".join(["number", *(f"x{i}" for i in range(rows.shape[1]))])]
        lines += [",".join([str(number), *map(str, row)]) for number, row in enumerate(rows, start=start)]
        path = folder / (f"points-{start:04d}.csv" if start else "points.csv")
        replace_file(path, ("\n".join(lines) + "\n").encode())
        if recipe is not None:
            whole = {**recipe, "start": start, "n": len(rows)}
            replace_file(path.with_suffix(".json"), (json.dumps(whole, indent=2) + "\n").encode())
        return [path]

    def picture(self, batch: Batch, spec: PointsSpec, columns: int | None = None) -> Image:
        return points_image(batch.x)

    def rates(self, batch: Batch, spec: PointsSpec) -> Mapping[str, Rate]:
        return {"bits_per_dim": Rate("bits/dim", 2, torch.full((len(batch),), float(spec.dims), dtype=torch.float64))}

    def distance(self, a: Batch, b: Batch, spec: PointsSpec) -> float:
        return energy(a.x, b.x)
