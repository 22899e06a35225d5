"""Pictures as a medium."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from PIL.Image import Image
from torch import Tensor

from castalia.core.captions import CAPTION
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.core.files import disk_error
from castalia.core.spec import Spec
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.text import TextSpec
from castalia.media.base import Measure, Medium, Rate
from castalia.media.classes import match_classes
from castalia.media.image import sets
from castalia.media.image.array import ImageArray
from castalia.media.image.decode import ImageOptions, decode_image
from castalia.media.image.obedience import MEASURES
from castalia.media.image.sources import is_images, open_images, size_of_all
from castalia.media.image.tree import file_opener, read_bounded
from castalia.media.image.views import PictureViews
from castalia.media.image.write import grid_image, save_png
from castalia.media.sets import NamedData, Progress


@final
class ImageMedium(Medium):
    """Pictures: ``uint8`` (C, H, W) with C 1 (grey), 3 (RGB) or 4 (RGBA), written as PNG."""

    name: ClassVar[str] = "image"
    spec: ClassVar[type[Spec]] = ImageSpec
    options: ClassVar[type[Config]] = ImageOptions
    shown: ClassVar[int] = 64
    measures: ClassVar[tuple[Measure, ...]] = MEASURES
    reading: ClassVar[str] = "a folder, .zip, .tar, .npy, .npz, .parquet or IDX file of pictures"

    def reads(self, path: Path) -> bool:
        return is_images(path)

    def as_found(self, source: str, options: ImageOptions) -> ImageOptions:
        """Pictures that are all of one size, no larger than wanted, keep it."""
        named = sets.SETS.get(source)
        found = named.shape[1:] if named else size_of_all(Path(source).expanduser(), options)
        limit = options.height_width
        if found is None or limit is None or found[0] > limit[0] or found[1] > limit[1]:
            return options
        return replace(options, size=None)

    def open(
        self,
        path: Path,
        options: ImageOptions,
        split: str | None,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        read = as_read(options, like)
        found = open_images(path, read, split=split, progress=progress)
        if not read.views:
            return match_classes(found, like)
        if not isinstance(found, ImageArray):
            raise UsageError(
                f"{path}: views are told by names of files, which shards have not; unpack it, or leave them."
            )
        return match_classes(PictureViews(found, read.views, like), like)

    def named(self) -> Mapping[str, NamedData]:
        return sets.SETS

    def open_named(
        self,
        name: str,
        options: ImageOptions,
        split: str,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        return match_classes(sets.open_named(name, split, as_read(options, like), progress=progress), like)

    def tiny(self) -> Dataset:
        return sets.open_named("digits", "test", ImageOptions())

    def read(self, text: str, spec: ImageSpec) -> Tensor:
        raise UsageError(f"A picture cannot be typed; name a file: @{text}")

    def read_file(self, path: Path, spec: ImageSpec) -> Tensor:
        """``uint8`` (C, H, W), decoded as training pictures of this shape were."""
        return picture(path, as_read(ImageOptions(), spec))

    def write(
        self, batch: Batch, spec: ImageSpec, folder: Path, start: int = 0, recipe: Mapping[str, Any] | None = None
    ) -> list[Path]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(folder, error) from error
        paths = []
        for number, pixels in enumerate(batch.x.cpu(), start=start):
            path = folder / f"{number:04d}.png"
            # "index" is the address of this picture's randomness, so that it can be made again alone.
            save_png(pixels, path, None if recipe is None else {**recipe, "index": number})
            paths.append(path)
        return paths

    def picture(self, batch: Batch, spec: ImageSpec, columns: int | None = None) -> Image:
        return grid_image(batch.x.cpu(), columns)

    def film(self, batch: Batch, spec: ImageSpec) -> Tensor:
        return batch.x

    def rates(self, batch: Batch, spec: ImageSpec) -> Mapping[str, Rate]:
        return {"bits_per_dim": Rate("bits/dim", 2, torch.full((len(batch),), float(spec.dims), dtype=torch.float64))}

    def distance(self, a: Batch, b: Batch, spec: ImageSpec) -> float:
        return energy(a.x, b.x)


def as_read(options: ImageOptions, like: Spec | None) -> ImageOptions:
    """The options that bring pictures to the size and channels of others, without augmentation."""
    if like is None:
        return options
    if not isinstance(like, ImageSpec):
        raise UsageError("Pictures were asked for in the shape of something that is no picture.")
    kept = dict(like.columns).get(CAPTION)
    captions = kept.length if isinstance(kept, TextSpec) else 0
    return replace(options, size=(like.height, like.width), channels=like.channels, flip=False, captions=captions)


def picture(path: Path, options: ImageOptions) -> Tensor:
    """One picture file, ``uint8`` (channels, H, W).

    Raises:
        DataError: it cannot be read.
    """
    with file_opener(path)() as file:
        raw = read_bounded(file, str(path))
    pixels = decode_image(raw, str(path), options, options.channels)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()


def mask(path: Path, options: ImageOptions, spec: ImageSpec) -> Tensor:
    """A black and white picture file in the shape of ``spec``: bool (1, H, W), true where it is white.

    What is transparent is not white, whatever lies under it.

    Raises:
        DataError: it cannot be read.
    """
    return picture(path, replace(as_read(options, replace(spec, channels=1)), background=0)) > 127


def energy(a: Tensor, b: Tensor) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'|: 0 where two sets are distributed alike (Szekely & Rizzo 2013)."""
    x, y = a.flatten(1).double(), b.flatten(1).double()
    return float(2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean())
