"""One episode in one ``.npz`` file, of plain numbers only."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from castalia.core.errors import DataError
from castalia.media.image.tree import brief
from castalia.media.image.write import replace_file

SUFFIX = ".npz"
PARTS = ("frames", "actions", "rewards", "dones")
LARGEST = 1 << 30
"""Bytes of a file, and of its arrays unpacked."""
LONGEST = 100_000
"""Steps of an episode."""
MAX_ABOUT = 1 << 16


@dataclass(frozen=True)
class Episode:
    """What happened from a beginning to an end.

    Attributes:
        frames: ``uint8`` (T, H, W, C), before each step.
        actions: ``float32`` (T, A).
        rewards: ``float32`` (T,).
        done: whether the episode was over after the last step (and not cut off).
        about: what else the file says: environment, names and ranges of actions, steps a second.
        name: of its file.
    """

    frames: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    done: bool
    about: dict[str, object]
    name: str = ""

    def __len__(self) -> int:
        return len(self.frames)


def episode_bytes(episode: Episode) -> bytes:
    """The contents of a file: ``frames``, ``actions``, ``rewards``, ``dones``, and ``about``, JSON as bytes."""
    dones = np.zeros(len(episode), np.uint8)
    dones[-1] = episode.done
    about = np.frombuffer(json.dumps(episode.about).encode(), np.uint8)
    out = io.BytesIO()
    np.savez_compressed(
        out, frames=episode.frames, actions=episode.actions, rewards=episode.rewards, dones=dones, about=about
    )
    return out.getvalue()


def write_episode(path: Path, episode: Episode) -> None:
    """Write a file, wholly or not at all.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    replace_file(path, episode_bytes(episode))


def is_shard(path: Path) -> bool:
    """Whether a file is an ``.npz`` with the arrays of an episode; told from its list of contents."""
    if not path.is_file():  # a pipe would never end
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (OSError, zipfile.BadZipFile, ValueError, RuntimeError):
        return False
    return {"frames.npy", "actions.npy", "rewards.npy"} <= names


def read_episode(data: bytes, where: str) -> Episode:
    """An episode from the contents of a file.

    ``frames`` are ``uint8`` (T, H, W, C), (T, C, H, W) or (T, H, W); ``actions`` numbers (T, A) or (T,); ``rewards``
    (T,); ``dones`` (T,) may be missing: then it is taken as cut off. What lies behind the first done is left out.

    Args:
        data: the file.
        where: what to call it in errors.

    Raises:
        DataError: it is damaged, too large, or holds something else; the text says what.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = {
                name: _array(archive, name, where) for name in (*PARTS, "about") if f"{name}.npy" in archive.NameToInfo
            }
    except DataError:
        raise
    except Exception as error:  # zip, zlib and NumPy errors share no base class
        raise DataError(
            f"{where}: not an .npz archive that can be read ({' '.join(str(error).split())[:200]})."
        ) from error
    if missing := [name for name in PARTS[:3] if name not in found]:
        raise DataError(
            f"{where}: an episode has the arrays frames, actions and rewards; {', '.join(missing)} is missing."
        )
    frames = _frames(found["frames"], where)
    steps = len(frames)
    actions = _numbers(found["actions"], "actions", steps, where)
    rewards = _numbers(found["rewards"], "rewards", steps, where)
    dones = _numbers(found.get("dones", np.zeros(steps, np.uint8)), "dones", steps, where)
    actions = actions.reshape(steps, -1)
    if not 1 <= actions.shape[1] <= 256 or rewards.ndim != 1 or dones.ndim != 1:
        raise DataError(f"{where}: an action has 1 to 256 numbers, a step one reward and one done.")
    ends = np.flatnonzero(dones > 0.5)
    length = int(ends[0]) + 1 if len(ends) else steps
    about = _about(found.get("about"), where)
    return Episode(frames[:length], actions[:length], rewards[:length], bool(len(ends)), about)


def _array(archive: zipfile.ZipFile, name: str, where: str) -> np.ndarray:
    """An array, of which no more is read than its header declares."""
    info = archive.getinfo(f"{name}.npy")
    if info.file_size > LARGEST:
        raise DataError(f"{where}: {brief(name)} declares {info.file_size:,} bytes; too large.")
    with archive.open(info) as file:
        version = npy.read_magic(file)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran, dtype = read(file)
        if dtype.hasobject or dtype.kind not in "biuf":
            raise DataError(f"{where}: {name} holds {dtype}, not numbers.")
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if size > LARGEST or size != info.file_size - file.tell() or min(shape, default=1) < 1:
            raise DataError(
                f"{where}: {name} declares {dtype} {shape}, which is empty, too large, or not what it holds."
            )
        raw = file.read(size)
    if len(raw) != size:
        raise DataError(f"{where}: {name} is cut off.")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


def _frames(array: np.ndarray, where: str) -> np.ndarray:
    """``uint8`` (T, H, W, C)."""
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim == 4 and array.shape[3] not in (1, 3) and array.shape[1] in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] not in (1, 3) or max(array.shape[1:3]) > 1024:
        raise DataError(
            f"{where}: frames are uint8 (T, H, W, C) with C 1 or 3 and sides of at most 1,024, not "
            f"{array.dtype} {array.shape}."
        )
    if len(array) > LONGEST:
        raise DataError(f"{where}: {len(array):,} steps; an episode has at most {LONGEST:,}.")
    return array


def _numbers(array: np.ndarray, name: str, steps: int, where: str) -> np.ndarray:
    """Finite ``float32`` (T, ...)."""
    if array.ndim < 1 or len(array) != steps:
        raise DataError(f"{where}: there are {steps} frames, so {name} must have as many rows, not {array.shape}.")
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(numbers.reshape(steps, -1)).all(1))
    if len(bad):
        raise DataError(f"{where}: {name} of step {int(bad[0])} are not finite numbers.")
    return numbers


def _about(array: np.ndarray | None, where: str) -> dict[str, object]:
    """What a file says of its environment; nothing where it says nothing that can be read."""
    if array is None:
        return {}
    try:
        found = json.loads(array.astype(np.uint8).tobytes()[:MAX_ABOUT].decode())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: 'about' is not JSON.") from error
    return found if isinstance(found, dict) else {}


def told(about: dict[str, object], name: str, kind: type) -> Sequence[object] | None:
    """A list of values of one type that a file tells, or None."""
    value = about.get(name)
    if not isinstance(value, list) or not value:
        return None
    numbers = (int, float) if kind is float else (kind,)
    return value if all(isinstance(v, numbers) and not isinstance(v, bool) for v in value) else None
