"""Episodes as a medium."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor

from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.core.files import disk_error
from castalia.core.spec import Spec
from castalia.core.specs.episode import EpisodeSpec
from castalia.media.base import Measure, Medium, Rate
from castalia.media.episode.draw import episodes_image
from castalia.media.episode.measures import MEASURES
from castalia.media.episode.read import EpisodeOptions, is_episodes, open_episodes
from castalia.media.episode.sets import SETS, open_set, paddles
from castalia.media.episode.shards import Episode, write_episode
from castalia.media.image.medium import energy
from castalia.media.image.video import save_walk
from castalia.media.image.write import replace_file
from castalia.media.sets import NamedData, Progress


@final
class EpisodeMedium(Medium):
    """Episodes: frames, actions, rewards and ends, written as ``.npz`` with a GIF beside, drawn as strips."""

    name: ClassVar[str] = "episode"
    spec: ClassVar[type[Spec]] = EpisodeSpec
    options: ClassVar[type[Config]] = EpisodeOptions
    shown: ClassVar[int] = 8
    reading: ClassVar[str] = "a folder or one .npz file of episodes (arrays frames, actions, rewards, dones)"
    measures: ClassVar[tuple[Measure, ...]] = MEASURES

    def reads(self, path: Path) -> bool:
        return is_episodes(path)

    def open(
        self,
        path: Path,
        options: EpisodeOptions,
        split: str | None,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        return open_episodes(path, options, split=split, like=like, progress=progress)

    def named(self) -> Mapping[str, NamedData]:
        return SETS

    def open_named(
        self,
        name: str,
        options: EpisodeOptions,
        split: str,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        assert like is None or isinstance(like, EpisodeSpec)
        return open_set(name, options, split, like, progress)

    def tiny(self) -> Dataset:
        return paddles()

    def read(self, text: str, spec: EpisodeSpec) -> Tensor:
        raise UsageError(f"An episode cannot be typed; name a file: @{text}")

    def read_file(self, path: Path, spec: EpisodeSpec) -> Tensor:
        """The frames of the first stretch of a file."""
        return open_episodes(path, EpisodeOptions(), like=spec).batch(np.arange(1)).x[0]

    def write(
        self, batch: Batch, spec: EpisodeSpec, folder: Path, start: int = 0, recipe: Mapping[str, Any] | None = None
    ) -> list[Path]:
        """Write ``0000.npz``, ..., each with a GIF and its recipe beside it; return the paths of the ``.npz``."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(folder, error) from error
        about = {
            "environment": spec.environment,
            "actions": list(spec.actions),
            "low": list(spec.low),
            "high": list(spec.high),
            "fps": spec.fps,
        }
        batch, paths = batch.cpu(), []
        for i, x in enumerate(batch.x):
            path = folder / f"{start + i:04d}.npz"
            ends = batch.extra["dones"][i].nonzero()
            length = int(ends[0]) + 1 if len(ends) else spec.length
            parts = (x.permute(0, 2, 3, 1), batch.extra["actions"][i], batch.extra["rewards"][i])
            arrays = [part[:length].numpy() for part in parts]
            write_episode(path, Episode(arrays[0], arrays[1], arrays[2], bool(len(ends)), about))
            save_walk(x[:length], path.with_suffix(".gif"), fps=min(spec.fps, 50.0))
            if recipe is not None:
                whole = json.dumps({**recipe, "index": start + i}, indent=2)
                replace_file(path.with_suffix(".json"), (whole + "\n").encode())
            paths.append(path)
        return paths

    def picture(self, batch: Batch, spec: EpisodeSpec, columns: int | None = None) -> Image:
        return episodes_image(batch, spec, columns)

    def film(self, batch: Batch, spec: EpisodeSpec) -> Tensor | None:
        """The frames of all examples, one example after the other."""
        return batch.x.cpu().flatten(0, 1) if batch.x.shape[2:] == spec.frame else None

    def rates(self, batch: Batch, spec: EpisodeSpec) -> Mapping[str, Rate]:
        return {"nats_per_step": Rate("nats/step", math.e, torch.full((len(batch),), float(spec.length)).double())}

    def distance(self, a: Batch, b: Batch, spec: EpisodeSpec) -> float:
        """Energy distance between frames at four times, made coarser to 8 along a side."""
        times = np.linspace(0, spec.length - 1, 4).round().astype(int)
        return energy(*(F.adaptive_avg_pool2d(x.x[:, times].float().flatten(1, 2), 8) / 255 for x in (a, b)))
