"""From a path to a data set of motions: clips cut into windows of one skeleton."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import numpy as np
import torch
from scipy.spatial.transform import Rotation, Slerp

from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.errors import DataError, UsageError
from castalia.core.rng import Rng
from castalia.core.specs.motion import Joint, MotionSpec
from castalia.media.arranged import arrange, class_numbers, holds, list_files, set_aside
from castalia.media.image.tree import read_bounded
from castalia.media.motion.bvh import LARGEST, Clip, read_bvh
from castalia.media.sets import Progress
from castalia.nn.skeletons import Skeleton, mirrored

SUFFIXES = frozenset({".bvh"})


@dataclass(frozen=True)
class MotionOptions(Config):
    """How motion is read. Plain values, so that it survives a JSON round trip.

    Attributes:
        length: frames of an example.
        fps: frames a second that clips are brought to.
        hop: an example begins at every so many frames.
        aligned: whether every example begins in the middle, looking along z; else it stays where it was recorded.
        labels: ``folders``: the folder of a file is its class; ``none``; or a pattern for file names.
        on_bad_file: ``error`` stops at the first file that cannot be read or has another skeleton, ``skip`` leaves it
            out and says so.
    """

    length: int = 60
    fps: float = 30.0
    hop: int = 10
    aligned: bool = True
    labels: str = "folders"
    on_bad_file: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        if not 2 <= self.length <= 1 << 16 or self.hop < 1 or not 1 <= self.fps <= 240:
            raise UsageError("length is 2 frames or more, hop 1 or more, fps 1 to 240.")
        if self.labels not in ("folders", "none") and self.labels.count("{label}") != 1:
            raise UsageError(f"labels is folders, none, or a pattern with {{label}} in it, not {self.labels!r}.")


def is_motion(path: Path) -> bool:
    """Whether a path is a BVH file, or a folder or zip that has one among its first files."""
    return holds(path, SUFFIXES)


@final
class Motions(Dataset):
    """Windows of clips; ``files`` has the clip and the first frame of each."""

    def __init__(
        self,
        x: np.ndarray,
        spec: MotionSpec,
        *,
        name: str,
        files: Sequence[str],
        labels: np.ndarray | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.spec: MotionSpec = spec  # pyright: ignore[reportIncompatibleVariableOverride]
        self.name, self.files, self.notes, self.x = name, tuple(files), tuple(notes), x
        self.labels = None if labels is None else torch.from_numpy(labels)
        digest = hashlib.blake2b(x.tobytes(), digest_size=16)
        digest.update(repr((spec.joints, spec.fps, None if labels is None else labels.tolist())).encode())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        numbers = torch.from_numpy(np.asarray(ids, np.int64))
        label = None if self.labels is None else self.labels[numbers]
        return Batch(torch.from_numpy(self.x[ids]), numbers, label)


def open_motion(
    path: Path,
    options: MotionOptions,
    *,
    split: str | None = None,
    like: MotionSpec | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> Motions:
    """Open a folder, a zip or one file of BVH.

    Args:
        path: what to read.
        options: how.
        split: ``train``, ``test``, or None. Without splits of its own a tenth of the clips is ``test``.
        like: the shape of a run's data.
        name: what to call it; None for the last part of the path.
        progress: called with (files done, files).

    Raises:
        DataError: a file cannot be read, or has another skeleton than the first; the text names it.
    """
    path = Path(path)
    with ExitStack() as stack:
        items, notes = list_files(path, SUFFIXES, "BVH", stack)
        found = arrange(items, options.labels, str(path), split)
        chosen, more = set_aside(found, split, str(path), "clips")
        notes = notes + more
        classes = found.classes if like is None else like.classes
        labels = class_numbers(chosen.labels, classes, str(path))
        clips: list[tuple[str, Clip, int]] = []
        bad: list[str] = []
        for i, item in enumerate(chosen.items):
            where = str(path) if path.name == item.name else f"{path}: {item.name}"
            try:
                with item.open() as file:
                    clip = read_bvh(read_bounded(file, where, LARGEST), where)
                first = clips[0][1].joints if clips else like.joints if like is not None else clip.joints
                if not same_skeleton(clip.joints, first):
                    raise DataError(f"{where}: its skeleton is not that of the others.")
                clips.append((item.name, clip, -1 if labels is None else int(labels[i])))
            except DataError as error:
                if options.on_bad_file == "error":
                    raise
                bad.append(str(error))
            if progress is not None:
                progress(i + 1, len(chosen.items))
    if bad:
        notes = [*notes, f"Skipped {len(bad)} files: " + " ".join(bad[:3])]
    if not clips:
        raise DataError(f"{path}: none of its clips can be used. {' '.join(bad[:1])}")
    spec = like if like is not None else spec_for(clips[0][1], options, () if labels is None else classes)
    return windows(clips, spec, options, name or path.name, [*notes, *found.notes])


def same_skeleton(a: Sequence[Joint], b: Sequence[Joint]) -> bool:
    """Whether joints hang together in the same way; lengths of bones may differ."""
    return [(j.name, j.parent) for j in a] == [(j.name, j.parent) for j in b]


def spec_for(clip: Clip, options: MotionOptions, classes: tuple[str, ...]) -> MotionSpec:
    """The spec that fits a clip and options."""
    return MotionSpec(options.length, options.fps, clip.joints, clip.ends, classes)


def windows(
    clips: Sequence[tuple[str, Clip, int]], spec: MotionSpec, options: MotionOptions, name: str, notes: Sequence[str]
) -> Motions:
    """Clips cut into examples; of a clip that is too short the last frame is held."""
    parts, files, labels = [], [], []
    said: Counter[str] = Counter()
    for title, clip, label in clips:
        whole = frames_of(resampled(clip, spec.fps))
        if len(whole) < spec.length:
            said[f"are shorter than {spec.length} frames: their last one is held"] += 1
            whole = np.concatenate([whole, np.repeat(whole[-1:], spec.length - len(whole), 0)])
        for start in range(0, len(whole) - spec.length + 1, options.hop):
            part = whole[start : start + spec.length]
            parts.append(aligned(part, spec) if options.aligned else part)
            files.append(f"{title}#{start}")
            labels.append(label)
    notes = [*notes, *(f"{n} of {len(clips)} clips {what}." for what, n in said.items())]
    x = np.stack(parts).astype(np.float32)
    return Motions(
        x, spec, name=name, files=files, labels=np.array(labels, np.int64) if spec.classes else None, notes=notes
    )


def frames_of(clip: Clip) -> np.ndarray:
    """A clip as frames ``float64`` (T, 3 + 6 joints)."""
    columns = np.concatenate([clip.turned[..., 0], clip.turned[..., 1]], -1)
    return np.concatenate([clip.root, columns.reshape(len(columns), -1)], 1)


def clip_of(x: np.ndarray, spec: MotionSpec) -> Clip:
    """Frames (T, 3 + 6 joints) as a clip."""
    from castalia.nn.skeletons import matrices

    turned = matrices(torch.from_numpy(np.asarray(x[:, 3:], np.float64)).unflatten(1, (-1, 6))).numpy()
    return Clip(spec.joints, spec.ends, spec.fps, np.asarray(x[:, :3], np.float64), turned)


def resampled(clip: Clip, fps: float) -> Clip:
    """The same at another number of frames a second: places by lines, rotations along great circles."""
    count = len(clip.root)
    if abs(clip.fps - fps) < 1e-3 * fps or count < 2:
        return clip
    old = np.arange(count) / clip.fps
    new = np.minimum(np.arange(0, old[-1] + 1e-3 / fps, 1 / fps), old[-1])
    root = np.stack([np.interp(new, old, clip.root[:, k]) for k in range(3)], 1)
    turned = [Slerp(old, Rotation.from_matrix(clip.turned[:, j]))(new).as_matrix() for j in range(len(clip.joints))]
    return Clip(clip.joints, clip.ends, fps, root, np.stack(turned, 1))


def aligned(x: np.ndarray, spec: MotionSpec) -> np.ndarray:
    """Frames (T, 3 + 6 joints) turned about y and moved on the ground so that they begin in the middle, along z."""
    angle = heading(x[0], spec)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    out = x.copy()
    place = x[:, :3] - np.array([x[0, 0], 0, x[0, 2]])
    out[:, :3] = place @ turn.T
    out[:, 3:6], out[:, 6:9] = x[:, 3:6] @ turn.T, x[:, 6:9] @ turn.T
    return out


def heading(frame: np.ndarray, spec: MotionSpec) -> float:
    """The angle about y at which a frame (3 + 6 joints,) looks: 0 along z; from left and right joints.

    0 where no joints are left and right of one another.
    """
    pairs = mirrored([joint.name for joint in spec.joints])
    if not pairs:
        return 0.0
    places = Skeleton(spec).double()(torch.from_numpy(np.asarray(frame, np.float64))).numpy()
    across = np.sum([places[left] - places[right] for left, right in pairs], 0)
    # left is where x is: the way ahead is across turned a quarter about y
    ahead = np.array([-across[2], across[0]])  # (x, z) of across x up
    return float(np.arctan2(ahead[0], ahead[1])) if np.hypot(*ahead) > 1e-9 else 0.0
