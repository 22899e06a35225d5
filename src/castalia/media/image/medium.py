"""Pictures as a medium."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

from PIL.Image import Image
from torch import Tensor

from castalia.core.data import ImageSpec, Spec
from castalia.core.files import disk_error
from castalia.media.base import Medium
from castalia.media.image.write import grid_image, save_png


@final
class ImageMedium(Medium):
    """Pictures: ``uint8`` (N, C, H, W) with C 1 (grey), 3 (RGB) or 4 (RGBA), written as PNG."""

    name: ClassVar[str] = "image"
    spec: ClassVar[type[Spec]] = ImageSpec
    shown: ClassVar[int] = 64

    def write(
        self, samples: Tensor, folder: Path, stem_start: int = 0, recipe: Mapping[str, Any] | None = None
    ) -> list[Path]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(folder, error) from error
        paths = []
        for number, picture in enumerate(samples.cpu(), start=stem_start):
            path = folder / f"{number:04d}.png"
            # "index" is the address of this picture's randomness, so that it can be made again alone.
            save_png(picture, path, None if recipe is None else {**recipe, "index": number})
            paths.append(path)
        return paths

    def picture(self, samples: Tensor, columns: int | None = None) -> Image:
        return grid_image(samples.cpu(), columns)
