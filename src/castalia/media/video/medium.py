"""Video as a medium."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from PIL.Image import Image
from torch import Tensor

from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.core.files import disk_error, read_bounded
from castalia.core.spec import Spec
from castalia.core.specs.video import VideoSpec
from castalia.media.base import Measure, Medium, Rate
from castalia.media.image.medium import energy
from castalia.media.image.video import save_walk
from castalia.media.image.write import grid_image
from castalia.media.sets import NamedData, Progress
from castalia.media.video.measures import MEASURES
from castalia.media.video.read import LARGEST, VideoOptions, is_video, open_video, read_film
from castalia.media.video.sets import FEW, SETS, open_set

SHOWN_FRAMES = 8
"""Frames of a clip in a drawing."""


@final
class VideoMedium(Medium):
    """Video: clips, written as GIF, drawn as strips of frames."""

    name: ClassVar[str] = "video"
    spec: ClassVar[type[Spec]] = VideoSpec
    options: ClassVar[type[Config]] = VideoOptions
    shown: ClassVar[int] = 12
    reading: ClassVar[str] = "a folder, a .zip or one file of GIF, WebP, MP4, MOV, WebM, MKV or AVI, or of episodes"
    measures: ClassVar[tuple[Measure, ...]] = MEASURES

    def reads(self, path: Path) -> bool:
        return is_video(path)

    def open(
        self,
        path: Path,
        options: VideoOptions,
        split: str | None,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        assert like is None or isinstance(like, VideoSpec)
        return open_video(path, options, split=split, like=like, progress=progress)

    def named(self) -> Mapping[str, NamedData]:
        return SETS

    def open_named(
        self,
        name: str,
        options: VideoOptions,
        split: str,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        assert like is None or isinstance(like, VideoSpec)
        return open_set(name, split, like)

    def tiny(self) -> Dataset:
        return open_set(FEW, "test")

    def read(self, text: str, spec: VideoSpec) -> Tensor:
        raise UsageError("A clip cannot be typed; give a film: @FILE.gif.")

    def read_file(self, path: Path, spec: VideoSpec) -> Tensor:
        """The first frames of a film, in the size of the run and about as many a second as its data have.

        Of a film that is too short the last frame is held.
        """
        whole, fps = read_film(read_bounded(path, LARGEST), str(path), (spec.height, spec.width), spec.channels)
        frames = torch.from_numpy(whole[:: max(1, round(fps / spec.fps))][: spec.frames].copy())
        return torch.cat([frames, frames[-1:].expand(spec.frames - len(frames), -1, -1, -1)])

    def write(
        self, batch: Batch, spec: VideoSpec, folder: Path, start: int = 0, recipe: Mapping[str, Any] | None = None
    ) -> list[Path]:
        """Write ``0000.gif``, ..., each with its recipe beside it."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(folder, error) from error
        paths = []
        for number, clip in enumerate(batch.x.cpu(), start=start):
            path = folder / f"{number:04d}.gif"
            save_walk(clip, path, min(spec.fps, 50.0), recipe=None if recipe is None else {**recipe, "index": number})
            paths.append(path)
        return paths

    def picture(self, batch: Batch, spec: VideoSpec, columns: int | None = None) -> Image:
        """A row of frames for each clip."""
        chosen = torch.linspace(0, spec.frames - 1, min(SHOWN_FRAMES, spec.frames)).round().long()
        return grid_image(batch.x.cpu()[:, chosen].flatten(0, 1), len(chosen))

    def film(self, batch: Batch, spec: VideoSpec) -> Tensor:
        """Clips one after the other."""
        return batch.x.cpu().flatten(0, 1)

    def rates(self, batch: Batch, spec: VideoSpec) -> Mapping[str, Rate]:
        return {"bits_per_dim": Rate("bits/dim", 2, torch.full((len(batch),), float(spec.dims), dtype=torch.float64))}

    def distance(self, a: Batch, b: Batch, spec: VideoSpec) -> float:
        return energy(a.x, b.x)
