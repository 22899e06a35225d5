"""From a path to a data set of episodes: which files, which split, how long, how large."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from castalia.core.config import Config
from castalia.core.errors import DataError, UsageError
from castalia.core.spec import Spec
from castalia.core.specs.episode import START, EpisodeSpec
from castalia.core.specs.image import ImageSpec
from castalia.environments.base import ENVIRONMENTS
from castalia.media.arranged import arrange, list_files, set_aside
from castalia.media.episode.shards import LARGEST, SUFFIX, Episode, is_shard, read_episode, told
from castalia.media.episode.table import Episodes
from castalia.media.image.tree import read_bounded, walk
from castalia.media.sets import Progress

LISTED, LOOKED_AT = 500, 20
"""Names of a folder, and files, looked at to tell what it holds."""


@dataclass(frozen=True)
class EpisodeOptions(Config):
    """How episodes are read, and how those of the named sets are recorded.

    Attributes:
        length: steps of one example.
        hop: an example begins at every so many steps of an episode; 0 is ``length``.
        size: pixels along each side of a frame; 0 leaves frames as they are.
        episodes: named sets: how many are recorded for training; a tenth of that for testing.
        steps: named sets: an episode is cut off after so many; 0 where the environment does.
        seed: named sets: of worlds and actions.
        walk: named sets: deviation of a step of the random actions, in halves of their range; 0 is white noise.
        on_bad_file: ``error`` stops at the first file that cannot be read, ``skip`` leaves it out and says so.
    """

    length: int = 64
    hop: int = 0
    size: int = 64
    episodes: int = 200
    steps: int = 0
    seed: int = 0
    walk: float = 0.15
    on_bad_file: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        if not (2 <= self.length <= 1 << 14 and 0 <= self.hop <= 1 << 14 and 0 <= self.steps <= 100_000):
            raise UsageError("length is 2 to 16,384 steps, hop 0 to as many, steps 0 to 100,000.")
        if self.size and not 8 <= self.size <= 512:
            raise UsageError(f"size is 8 to 512 pixels, or 0 for as it is, not {self.size}.")
        if not 1 <= self.episodes <= 1_000_000:
            raise UsageError(f"episodes is 1 to 1,000,000, not {self.episodes}.")
        if not 0 <= self.walk <= 10:
            raise UsageError(f"walk is 0 to 10, not {self.walk}.")


def is_episodes(path: Path) -> bool:
    """Whether a path is an episode's file, or a folder that has one among its first ``.npz`` files."""
    if path.is_dir():
        few = [name for name, _ in zip(walk(path), range(LISTED), strict=False) if name.lower().endswith(SUFFIX)]
        return any(is_shard(path / name) for name in few[:LOOKED_AT])
    return path.suffix.lower() == SUFFIX and path.is_file() and is_shard(path)


def open_episodes(
    path: Path,
    options: EpisodeOptions,
    *,
    split: str | None = None,
    like: Spec | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> Episodes:
    """Read episodes from a folder of ``.npz`` files or a single one.

    Folders named ``train``, ``test``, ``validation`` are splits. Where there are none, ``train`` and ``test`` are nine
    tenths and one tenth, by a hash of each file's name.

    Args:
        path: what to read.
        options: how to read it.
        split: ``train``, ``test``, ``validation``, or None.
        like: an :class:`EpisodeSpec` whose length and size are taken.
        name: what to call the data; None for the last part of the path.
        progress: called with (done, total) while reading.

    Raises:
        DataError: it cannot be read; the text names the file.
    """
    path = Path(path)
    assert like is None or isinstance(like, EpisodeSpec)
    if like is not None:
        options = replace(options, length=like.length, size=like.height if like.height == like.width else 0)
    with ExitStack() as stack:
        items, notes = list_files(path, frozenset((SUFFIX,)), "episode", stack)
        found = arrange(items, "none", str(path), split)
        chosen, more = set_aside(found, split, str(path), "episodes")
        notes = notes + more
        episodes, bad = [], []
        for i, item in enumerate(chosen.items):
            where = str(path) if path.name == item.name else f"{path}: {item.name}"
            try:
                with item.open() as file:
                    episode = read_episode(read_bounded(file, where, LARGEST), where)
                if episodes:
                    _alike(episode, episodes[0], where)
                episodes.append(replace(resized(episode, options.size), name=item.name))
            except DataError as error:
                if options.on_bad_file == "error":
                    raise
                bad.append(str(error))
            if progress is not None:
                progress(i + 1, len(chosen.items))
    if bad:
        notes = [*notes, f"Skipped {len(bad)} files that cannot be read: " + " ".join(bad[:3])]
    if not episodes:
        raise DataError(f"{path}: none of its {len(chosen.items)} files can be used. {' '.join(bad[:1])}")
    spec = spec_for(episodes, options) if like is None else like
    _fits(episodes[0], spec, str(path))
    return table(episodes, spec, options, name or path.name, [*notes, *found.notes])


def table(
    episodes: Sequence[Episode], spec: EpisodeSpec, options: EpisodeOptions, name: str, notes: Sequence[str] = ()
) -> Episodes:
    """The data set of episodes that are of one shape."""
    return Episodes(episodes, spec, options.hop or spec.length, name=name, notes=notes)


def spec_for(episodes: Sequence[Episode], options: EpisodeOptions) -> EpisodeSpec:
    """The shape of stretches of episodes, from what their files tell, else from what they hold."""
    first = episodes[0]
    size, count = first.frames.shape[1:], first.actions.shape[1]
    environment = first.about.get("environment")
    known = ENVIRONMENTS.get(environment) if isinstance(environment, str) else None
    names = told(first.about, "actions", str)
    low, high = _ranges(episodes)
    fps = first.about.get("fps")
    fits = known is not None and len(known.actions) == count and known.channels == size[2]
    return EpisodeSpec(
        options.length,
        size[2],
        size[0],
        size[1],
        tuple(map(str, names))
        if names is not None and len(names) == count
        else tuple(f"action {i + 1}" for i in range(count)),
        low,
        high,
        str(environment) if fits else "",
        float(fps) if isinstance(fps, (int, float)) and 0 < fps <= 1000 else 15.0,
        columns=((START, ImageSpec(size[2], size[0], size[1])),),
    )


def _ranges(episodes: Sequence[Episode]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Lowest and highest values of each number of an action: what files tell, where what they hold lies within."""
    whole = np.concatenate([e.actions for e in episodes])
    found = [told(episodes[0].about, name, float) for name in ("low", "high")]
    if all(values is not None and len(values) == whole.shape[1] for values in found):
        low, high = (np.array(values, np.float64) for values in found)
        if (low < high).all() and (low <= whole.min(0)).all() and (whole.max(0) <= high).all():
            return tuple(low.tolist()), tuple(high.tolist())
    low, high = whole.min(0).astype(np.float64), whole.max(0).astype(np.float64)
    return tuple(low.tolist()), tuple(np.where(high > low, high, low + 1).tolist())


def resized(episode: Episode, size: int) -> Episode:
    """An episode whose frames are ``size`` pixels wide and high (0: as they are)."""
    if not size or episode.frames.shape[1:3] == (size, size):
        return episode
    parts = []
    for start in range(0, len(episode), 256):
        x = torch.from_numpy(episode.frames[start : start + 256].transpose(0, 3, 1, 2).copy()).float()
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)
        parts.append(x.round().clamp(0, 255).to(torch.uint8).numpy().transpose(0, 2, 3, 1))
    return replace(episode, frames=np.concatenate(parts))


def _alike(episode: Episode, first: Episode, where: str) -> None:
    one, other = ((e.actions.shape[1], e.frames.shape[3]) for e in (episode, first))
    if one != other:
        raise DataError(
            f"{where}: {one[0]} numbers of an action and {one[1]} channels; the first file has {other[0]} and "
            f"{other[1]}."
        )


def _fits(episode: Episode, spec: EpisodeSpec, where: str) -> None:
    shape = episode.frames.shape[3], *episode.frames.shape[1:3]
    if shape != spec.frame or episode.actions.shape[1] != len(spec.actions):
        raise DataError(
            f"{where}: frames {shape} and {episode.actions.shape[1]} numbers of an action, where {spec.frame} and "
            f"{len(spec.actions)} are wanted."
        )
