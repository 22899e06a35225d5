"""Motion as a medium."""

from __future__ import annotations

import json
import math
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
from castalia.core.specs.motion import MotionSpec
from castalia.media.base import Measure, Medium, Rate
from castalia.media.image.medium import energy
from castalia.media.image.write import replace_file
from castalia.media.motion.bvh import LARGEST, bvh_text, read_bvh
from castalia.media.motion.draw import film, motions_image, places_of
from castalia.media.motion.glb import glb_bytes
from castalia.media.motion.measures import MEASURES
from castalia.media.motion.read import MotionOptions, clip_of, is_motion, open_motion, same_skeleton, windows
from castalia.media.motion.sets import SETS, open_set, walkers
from castalia.media.sets import NamedData, Progress


@final
class MotionMedium(Medium):
    """Motion: skeletons, written as BVH with GLB and a GIF beside, drawn as stick figures."""

    name: ClassVar[str] = "motion"
    spec: ClassVar[type[Spec]] = MotionSpec
    options: ClassVar[type[Config]] = MotionOptions
    shown: ClassVar[int] = 12
    reading: ClassVar[str] = "a folder, a .zip or one file of BVH"
    measures: ClassVar[tuple[Measure, ...]] = MEASURES

    def reads(self, path: Path) -> bool:
        return is_motion(path)

    def open(
        self,
        path: Path,
        options: MotionOptions,
        split: str | None,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        assert like is None or isinstance(like, MotionSpec)
        return open_motion(path, options, split=split, like=like, progress=progress)

    def named(self) -> Mapping[str, NamedData]:
        return SETS

    def open_named(
        self,
        name: str,
        options: MotionOptions,
        split: str,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        assert like is None or isinstance(like, MotionSpec)
        return open_set(name, options, split, like, progress)

    def tiny(self) -> Dataset:
        return walkers("test")

    def read(self, text: str, spec: MotionSpec) -> Tensor:
        raise UsageError("A motion cannot be typed; give a BVH file: @FILE.bvh.")

    def read_file(self, path: Path, spec: MotionSpec) -> Tensor:
        """The first frames of a BVH file."""
        clip = read_bvh(read_bounded(path, LARGEST), str(path))
        if not same_skeleton(clip.joints, spec.joints):
            raise DataError(f"{path}: its skeleton is not that of the run.")
        return torch.from_numpy(windows([(path.name, clip, 0)], spec, MotionOptions(), path.name, []).x[0])

    def write(
        self, batch: Batch, spec: MotionSpec, folder: Path, start: int = 0, recipe: Mapping[str, Any] | None = None
    ) -> list[Path]:
        """Write ``0000.bvh``, ..., each with a GLB, a GIF and its recipe beside it; return the paths of the BVH."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(folder, error) from error
        paths = []
        for number, x in enumerate(batch.x.float().cpu(), start=start):
            path, clip = folder / f"{number:04d}.bvh", clip_of(x.numpy(), spec)
            replace_file(path, bvh_text(clip).encode())
            replace_file(path.with_suffix(".glb"), glb_bytes(clip))
            replace_file(path.with_suffix(".gif"), film(x, spec))
            if recipe is not None:
                whole = json.dumps({**recipe, "index": number}, indent=2)
                replace_file(path.with_suffix(".json"), (whole + "\n").encode())
            paths.append(path)
        return paths

    def picture(self, batch: Batch, spec: MotionSpec, columns: int | None = None) -> Image:
        titles = [] if batch.label is None or not spec.classes else [spec.classes[i] for i in batch.label.tolist()]
        return motions_image(batch.x, spec, titles, columns)

    def rates(self, batch: Batch, spec: MotionSpec) -> Mapping[str, Rate]:
        counts = torch.full((len(batch),), float(spec.length * spec.numbers), dtype=torch.float64)
        return {"nats_per_number": Rate("nats/number", math.e, counts)}

    def distance(self, a: Batch, b: Batch, spec: MotionSpec) -> float:
        """Energy distance between the places of joints, in heights of the body, at eight times."""
        return energy(*(_placed(batch.x, spec) for batch in (a, b)))


def _placed(x: Tensor, spec: MotionSpec) -> Tensor:
    places = places_of(x[:, np.linspace(0, spec.length - 1, min(8, spec.length)).round().astype(int)], spec)
    return torch.from_numpy(places.reshape(len(places), -1) / 100).float()
