"""Shapes as a medium."""

from __future__ import annotations

import io
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
from castalia.core.errors import MissingExtra, UsageError
from castalia.core.files import disk_error
from castalia.core.spec import Spec
from castalia.core.specs.shape import ShapeSpec
from castalia.media.base import Measure, Medium, Rate
from castalia.media.image.medium import energy
from castalia.media.image.write import replace_file
from castalia.media.sets import NamedData, Progress
from castalia.media.shape.cast import shapes_image, turntable
from castalia.media.shape.measures import MEASURES
from castalia.media.shape.meshes import mesh_files
from castalia.media.shape.read import ShapeOptions, is_shapes, open_shapes, read_shape
from castalia.media.shape.sets import FEW, SETS, open_set


@final
class ShapeMedium(Medium):
    """Shapes: voxels ``uint8`` (1, D, H, W), written as arrays with meshes beside them, drawn in light and shade."""

    name: ClassVar[str] = "shape"
    spec: ClassVar[type[Spec]] = ShapeSpec
    options: ClassVar[type[Config]] = ShapeOptions
    shown: ClassVar[int] = 24
    reading: ClassVar[str] = (
        "a folder, a .zip or one file of meshes (OBJ, OFF, PLY, STL, GLB) or voxels (npy, npz, binvox)"
    )
    measures: ClassVar[tuple[Measure, ...]] = MEASURES

    def reads(self, path: Path) -> bool:
        return is_shapes(path)

    def open(
        self,
        path: Path,
        options: ShapeOptions,
        split: str | None,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        return open_shapes(path, options, split=split, like=like, progress=progress)

    def named(self) -> Mapping[str, NamedData]:
        return SETS

    def open_named(
        self,
        name: str,
        options: ShapeOptions,
        split: str,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        return open_set(name, options, split, like, progress)

    def tiny(self) -> Dataset:
        return open_set(FEW, ShapeOptions(size=8), "train")

    def read(self, text: str, spec: ShapeSpec) -> Tensor:
        raise UsageError(f"A shape cannot be typed; name a file: @{text}")

    def read_file(self, path: Path, spec: ShapeSpec) -> Tensor:
        """``uint8`` (1, size, size, size): the first shape of a file, in the size of the spec."""
        return torch.from_numpy(read_shape(path, spec))[None]

    def write(
        self, batch: Batch, spec: ShapeSpec, folder: Path, start: int = 0, recipe: Mapping[str, Any] | None = None
    ) -> list[Path]:
        """Write ``0000.npy``, ... (``uint8`` (size, size, size): depth, height, width), and return their paths.

        Beside each stand its surface as ``.glb`` and ``.obj`` where ``castalia[shapes]`` is installed and it is not
        empty, and the recipe as ``.json``.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(folder, error) from error
        paths = []
        for number, shape in enumerate(batch.x.cpu().numpy(), start=start):
            path = folder / f"{number:04d}.npy"
            array = io.BytesIO()
            np.save(array, shape[0])
            replace_file(path, array.getvalue())
            try:
                meshes = mesh_files(shape[0])
            except MissingExtra:
                meshes = {}
            for suffix, data in meshes.items():
                replace_file(path.with_suffix(suffix), data)
            if recipe is not None:
                whole = json.dumps({**recipe, "index": number}, indent=2)
                replace_file(path.with_suffix(".json"), (whole + "\n").encode())
            paths.append(path)
        return paths

    def picture(self, batch: Batch, spec: ShapeSpec, columns: int | None = None) -> Image:
        titles = [] if batch.label is None or not spec.classes else [spec.classes[i] for i in batch.label.tolist()]
        return shapes_image(batch.x.cpu(), titles, columns)

    def film(self, batch: Batch, spec: ShapeSpec) -> Tensor | None:
        """The shapes one after the other while who looks goes once around them; None for several side by side."""
        return turntable(batch.x.cpu()) if batch.x.shape[1:] == spec.shape else None

    def rates(self, batch: Batch, spec: ShapeSpec) -> Mapping[str, Rate]:
        return {"bits_per_voxel": Rate("bits/voxel", 2, torch.full((len(batch),), float(spec.size**3)).double())}

    def distance(self, a: Batch, b: Batch, spec: ShapeSpec) -> float:
        """Energy distance between the voxels, made coarser to 8 along a side."""
        return energy(*(_coarse(x.x) for x in (a, b)))


def _coarse(x: Tensor) -> Tensor:
    return torch.nn.functional.adaptive_avg_pool3d(x.float(), min(8, x.shape[-1]))
