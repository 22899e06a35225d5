"""Points as a medium."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

from PIL.Image import Image
from torch import Tensor

from castalia.core.data import PointsSpec, Spec
from castalia.core.files import disk_error
from castalia.media.base import Medium
from castalia.media.image.write import replace_file
from castalia.media.points.draw import points_image


@final
class PointsMedium(Medium):
    """Points: ``float32`` (N, D), written as the rows of one CSV file, drawn as scatter plots."""

    name: ClassVar[str] = "points"
    spec: ClassVar[type[Spec]] = PointsSpec
    shown: ClassVar[int] = 2500

    def write(
        self, samples: Tensor, folder: Path, stem_start: int = 0, recipe: Mapping[str, Any] | None = None
    ) -> list[Path]:
        """Write ``points.csv``, or ``points-N.csv`` where the first number N is not 0, and return its path.

        The columns are ``number``, ``x0``, ``x1``, ...; a coordinate has the digits that give back its ``float32``.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(folder, error) from error
        rows = samples.detach().cpu().numpy()
        if rows.ndim != 2:
            raise ValueError(f"points must have shape (N, D), not {rows.shape}")
        lines = [",".join(["number", *(f"x{i}" for i in range(rows.shape[1]))])]
        lines += [",".join([str(number), *map(str, row)]) for number, row in enumerate(rows, start=stem_start)]
        path = folder / (f"points-{stem_start:04d}.csv" if stem_start else "points.csv")
        replace_file(path, ("\n".join(lines) + "\n").encode())
        if recipe is not None:
            whole = {**recipe, "start": stem_start, "n": len(rows)}
            replace_file(path.with_suffix(".json"), (json.dumps(whole, indent=2) + "\n").encode())
        return [path]

    def picture(self, samples: Tensor, columns: int | None = None) -> Image:
        return points_image(samples)
