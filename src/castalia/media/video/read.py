"""From a path to a data set of clips: films, or the frames of recorded episodes, cut into windows of one size."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from PIL import Image, ImageOps, ImageSequence

from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.errors import DataError, MissingExtra, UsageError
from castalia.core.rng import Rng
from castalia.core.specs.video import VideoSpec
from castalia.media.arranged import arrange, class_numbers, holds, list_files, set_aside
from castalia.media.episode.read import is_episodes
from castalia.media.episode.shards import SUFFIX, read_episode
from castalia.media.image.tree import read_bounded
from castalia.media.sets import Progress

PICTURES = frozenset({".gif", ".webp"})
FILMS = frozenset({".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi"})
SUFFIXES = PICTURES | FILMS
EPISODES = frozenset({SUFFIX})
"""Read where there are no films."""

LARGEST = 1 << 31
"""Bytes of a file, at most."""

MOST_FRAMES = 20_000
"""Frames of a file that are read; the rest is left out, and that is said."""

MOST_HELD = 100
"""How many times the shortest one a frame is shown, at most."""

MOST_PIXELS = 1 << 25
"""Of one frame."""


@dataclass(frozen=True)
class VideoOptions(Config):
    """How films are read. Plain values, so that they survive a JSON round trip.

    Attributes:
        size: frames are cut to a square in their middle and scaled to so many pixels.
        frames: of an example.
        every: every so many frames of a film one is taken.
        hop: an example begins at every so many of those.
        channels: 1 for grey, 3 for colour.
        labels: ``folders``: the folder of a file is its class; ``none``; or a pattern for file names.
        on_bad_file: ``error`` stops at the first file that cannot be read, ``skip`` leaves it out and says so.
    """

    size: int = 32
    frames: int = 16
    every: int = 1
    hop: int = 8
    channels: Literal[1, 3] = 3
    labels: str = "folders"
    on_bad_file: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        if not 4 <= self.size <= 1024 or not 2 <= self.frames <= 1024 or min(self.every, self.hop) < 1:
            raise UsageError("size is 4 to 1,024, frames 2 to 1,024, every and hop 1 or more.")
        if self.labels not in ("folders", "none") and self.labels.count("{label}") != 1:
            raise UsageError(f"labels is folders, none, or a pattern with {{label}} in it, not {self.labels!r}.")


def is_video(path: Path) -> bool:
    """Whether a path is a film or an episode, or a folder or zip that has one among its first files."""
    return holds(path, SUFFIXES) or is_episodes(path)


@final
class Clips(Dataset):
    """Clips in memory, ``uint8`` (N, T, C, H, W)."""

    def __init__(
        self,
        x: np.ndarray,
        spec: VideoSpec,
        *,
        name: str,
        files: Sequence[str] = (),
        labels: np.ndarray | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.spec: VideoSpec = spec  # pyright: ignore[reportIncompatibleVariableOverride]
        self.name, self.files, self.notes, self.x = name, tuple(files), tuple(notes), x
        self.labels = None if labels is None else torch.from_numpy(labels)
        digest = hashlib.blake2b(x.tobytes(), digest_size=16)
        digest.update(repr((x.shape, None if labels is None else labels.tolist())).encode())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        numbers = torch.from_numpy(np.asarray(ids, np.int64))
        label = None if self.labels is None else self.labels[numbers]
        return Batch(torch.from_numpy(self.x[ids]), numbers, label)


def open_video(
    path: Path,
    options: VideoOptions,
    *,
    split: str | None = None,
    like: VideoSpec | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> Clips:
    """Open a folder, a zip or one file of video.

    Args:
        path: what to read.
        options: how.
        split: ``train``, ``test``, or None. Without splits of its own a tenth of the films is ``test``.
        like: the shape of a run's data.
        name: what to call it; None for the last part of the path.
        progress: called with (files done, files).

    Raises:
        DataError: a file cannot be read; the text names it.
    """
    path = Path(path)
    with ExitStack() as stack:
        episodes = not holds(path, SUFFIXES) and is_episodes(path)
        items, notes = list_files(path, EPISODES if episodes else SUFFIXES, "video", stack)
        found = arrange(items, options.labels, str(path), split)
        chosen, more = set_aside(found, split, str(path), "films")
        notes = notes + more
        classes = found.classes if like is None else like.classes
        labels = class_numbers(chosen.labels, classes, str(path))
        size = (options.size, options.size) if like is None else (like.height, like.width)
        channels, length = (options.channels, options.frames) if like is None else (like.channels, like.frames)
        parts, files, numbers, bad, held, longest, fps = [], [], [], [], 0, 0, 10.0
        for i, item in enumerate(chosen.items):
            where = str(path) if path.name == item.name else f"{path}: {item.name}"
            try:
                with item.open() as file:
                    whole, fps = read_film(read_bounded(file, where, LARGEST), where, size, channels)
            except DataError as error:
                if options.on_bad_file == "error":
                    raise DataError(f"{error} (--on-bad-file skip leaves such files out.)") from error
                bad.append(item.name)
                continue
            longest = max(longest, len(whole))
            whole = whole[:: options.every]
            if len(whole) < length:
                held += 1
                whole = np.concatenate([whole, np.repeat(whole[-1:], length - len(whole), 0)])
            for start in range(0, len(whole) - length + 1, options.hop):
                parts.append(whole[start : start + length])
                files.append(f"{item.name}#{start * options.every}")
                numbers.append(-1 if labels is None else int(labels[i]))
            if progress is not None:
                progress(i + 1, len(chosen.items))
        if bad:
            notes = [*notes, f"{len(bad)} files could not be read and are left out, {bad[0]} first."]
        if longest == MOST_FRAMES:
            notes = [*notes, f"Of films of {MOST_FRAMES:,} frames and more only so many are read."]
        if held:
            notes = [
                *notes,
                f"{held} of {len(chosen.items)} films are shorter than {length} frames: the last one is held.",
            ]
        if not parts:
            raise DataError(f"{path} has no film that can be read.")
        spec = like or VideoSpec(channels, length, *size, min(1_000.0, max(0.1, fps / options.every)), classes)
        kept = np.array(numbers, np.int64) if classes else None
        title = name or path.name
        return Clips(np.stack(parts), spec, name=title, files=files, labels=kept, notes=[*notes, *found.notes])


def read_film(data: bytes, where: str, size: tuple[int, int], channels: int) -> tuple[np.ndarray, float]:
    """All frames of a film ``uint8`` (T, C, H, W), at most :data:`MOST_FRAMES`, and how many a second.

    Raises:
        DataError: it is no film, or is damaged.
        MissingExtra: it is no GIF or WebP, and PyAV is missing.
    """
    try:
        if data[:2] == b"PK":
            frames, fps = _episode(data, where)
        elif data[:4] in (b"GIF8", b"RIFF") and b"AVI " not in data[8:12]:
            frames, fps = _pictures(data)
        else:
            frames, fps = _film(data)
        shrunk = [_fitted(frame, size, channels) for _, frame in zip(range(MOST_FRAMES), frames, strict=False)]
    except (MissingExtra, DataError):
        raise
    except Exception as error:  # decoders raise whatever they like
        raise DataError(f"{where}: it cannot be read as a film ({str(error)[:200]}).") from error
    if not shrunk:
        raise DataError(f"{where}: there are no frames in it.")
    return np.stack(shrunk), fps


def _episode(data: bytes, where: str) -> tuple[Iterator[Image.Image], float]:
    """Frames of a recorded episode."""
    episode = read_episode(data, where)
    frames = (Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame) for frame in episode.frames)
    fps = episode.about.get("fps")
    return frames, float(fps) if isinstance(fps, int | float) and 0 < fps < 1_000 else 10.0


def _pictures(data: bytes) -> tuple[Iterator[Image.Image], float]:
    """Frames as often as they are shown: writers keep frames that are alike once, for a longer time."""
    picture = Image.open(io.BytesIO(data), formats=("GIF", "WEBP"))
    _checked(picture)
    several = zip(range(MOST_FRAMES), ImageSequence.Iterator(picture), strict=False)
    times = [float(frame.info.get("duration", 0) or 100) for _, frame in several]
    unit = min(times)

    def frames() -> Iterator[Image.Image]:
        for time, frame in zip(times, ImageSequence.Iterator(picture), strict=False):
            shown = frame.convert("RGB")
            for _ in range(max(1, min(round(time / unit), MOST_HELD))):
                yield shown

    return frames(), 1000 / unit


def _film(data: bytes) -> tuple[Iterator[Image.Image], float]:
    try:
        import av
    except ImportError as error:
        raise MissingExtra("Reading films other than GIF and WebP", "video") from error
    container: Any = av.open(io.BytesIO(data))
    stream = container.streams.video[0]
    rate = float(stream.average_rate or 10)

    def frames() -> Iterator[Image.Image]:
        for frame in container.decode(stream):
            yield _checked(frame.to_image())

    return frames(), rate


def _checked(picture: Image.Image) -> Image.Image:
    if picture.width * picture.height > MOST_PIXELS:
        raise DataError(f"a frame has {picture.width}x{picture.height} pixels, more than {MOST_PIXELS:,}")
    return picture


def _fitted(frame: Image.Image, size: tuple[int, int], channels: int) -> np.ndarray:
    """A frame cut in its middle and scaled, ``uint8`` (C, H, W)."""
    height, width = size
    small = ImageOps.fit(frame.convert("L" if channels == 1 else "RGB"), (width, height), Image.Resampling.BICUBIC)
    array = np.asarray(small, np.uint8)
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))
