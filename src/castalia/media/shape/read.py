"""From a path to a data set of shapes: which files, which split, which labels, how large."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from castalia.core.config import Config
from castalia.core.errors import DataError, UsageError
from castalia.core.spec import Spec
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.shape import ShapeSpec
from castalia.media.arranged import Found, arrange, class_numbers, holds, list_files, set_aside
from castalia.media.image.tree import Item, read_bounded, walk
from castalia.media.sets import Progress
from castalia.media.shape.array import VIEW, ShapeArray, Views, packed
from castalia.media.shape.meshes import SUFFIXES, read_mesh, voxelised
from castalia.media.shape.voxels import ARRAYS, BINVOX, Up, fit, read_arrays, read_binvox, upright
from castalia.media.splits import SPLITS, hashed_split

KINDS = SUFFIXES | ARRAYS | {BINVOX}
"""Endings of files that hold shapes."""

PREFERRED = (".npy", ".npz", BINVOX, ".glb", ".ply", ".obj", ".off", ".stl")
"""Of files that differ in their ending alone, the first is read."""

LOOKED_AT = 20
"""Arrays looked at to tell what a folder holds."""


@dataclass(frozen=True)
class ShapeOptions(Config):
    """How shapes are read. Plain values, so that it survives a JSON round trip.

    Attributes:
        size: voxels along each side, 4 to 256.
        margin: voxels that a mesh leaves empty at each face (one, as 30 voxels in a cube of 32).
        up: which axis of the files points up: ``y``, as in GLB and most OBJ files, or ``z``, as in ModelNet and in
            files of CAD programs. Of arrays the axes are called z, y, x in their order.
        turns: in how many directions, evenly spaced about the upright axis, each shape is an example. Arrays can be
            turned by quarters only: 1, 2 or 4.
        labels: ``folders``: the folder of a file is its class; ``none``; or a pattern for file names, as for sound.
        views: also show each shape from one side, as the column ``view``, for models that make a shape of a picture:
            ``picture`` (grey, shaded) or ``depth`` (how near it is).
        view_size: pixels along the side of a view.
        on_bad_file: ``error`` stops at the first file that cannot be read, ``skip`` leaves it out and says so.
    """

    size: int = 32
    margin: int = 1
    up: Up = "y"
    turns: int = 1
    labels: str = "folders"
    views: Views = "none"
    view_size: int = 64
    on_bad_file: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        if not 4 <= self.size <= 256:
            raise UsageError(f"size is 4 to 256 voxels along a side, not {self.size}.")
        if not 0 <= self.margin <= self.size // 4:
            raise UsageError(f"margin is 0 to a quarter of size ({self.size // 4}), not {self.margin}.")
        if not 1 <= self.turns <= 360:
            raise UsageError(f"turns is 1 to 360 directions, not {self.turns}.")
        if not 8 <= self.view_size <= 512:
            raise UsageError(f"view_size is 8 to 512 pixels, not {self.view_size}.")
        if self.labels not in ("folders", "none") and self.labels.count("{label}") != 1:
            raise UsageError(f"labels is folders, none, or a pattern with {{label}} in it, not {self.labels!r}.")


def like_spec(options: ShapeOptions, like: Spec | None) -> ShapeOptions:
    """Options that read shapes as those of a spec were: the same size, with views or without."""
    if like is None:
        return options
    assert isinstance(like, ShapeSpec)
    margin = min(options.margin, like.size // 4)
    view = dict(like.columns).get(VIEW)
    if not isinstance(view, ImageSpec):
        return replace(options, size=like.size, margin=margin, views="none")
    views = "picture" if options.views == "none" else options.views
    return replace(options, size=like.size, margin=margin, views=views, view_size=view.width)


def is_shapes(path: Path) -> bool:
    """Whether a path is a mesh, a binvox file or an array of cubes, or a folder or zip that has one."""
    suffix = path.suffix.lower()
    if suffix in ARRAYS:
        return path.is_file() and _is_cubes(path)
    if path.is_dir():
        arrays = (path / name for name in walk(path) if Path(name).suffix.lower() in ARRAYS)
        if any(_is_cubes(file) for file, _ in zip(arrays, range(LOOKED_AT), strict=False)):
            return True
    return holds(path, SUFFIXES | {BINVOX})


def _is_cubes(path: Path) -> bool:
    """Whether the arrays of a file are cubes, told from their headers."""
    if not path.is_file():  # a pipe would never end
        return False
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)  # safe: objects are refused
        if isinstance(found, np.ndarray):
            return _cubic(found.shape, found.dtype)
        with found, path.open("rb"):
            for name in found.zip.namelist():
                with found.zip.open(name) as member:
                    version = np.lib.format.read_magic(member)  # pyright: ignore[reportArgumentType]
                    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
                    read = read or np.lib.format.read_array_header_2_0
                    shape, _, dtype = read(member)  # pyright: ignore[reportArgumentType]
                    if _cubic(shape, dtype):
                        return True
    except Exception:  # NumPy reads headers as Python text, which fails in many ways
        return False
    return False


def _cubic(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    return len(shape) in (3, 4, 5) and shape[-1] == shape[-2] == shape[-3] > 3 and dtype.kind in "biuf"


def open_shapes(
    path: Path,
    options: ShapeOptions,
    *,
    split: str | None = None,
    like: Spec | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> ShapeArray:
    """Read shapes from a folder, a zip or a single file.

    Folders named ``train``, ``test``, ``validation`` are splits, above folders of classes or, as in ModelNet, below
    them. Where there are none, ``train`` and ``test`` are nine tenths and one tenth, by a hash of each file's name
    (of a single file with many shapes, of each one's position).

    Args:
        path: what to read.
        options: how to read it.
        split: ``train``, ``test``, ``validation``, or None.
        like: a :class:`ShapeSpec`: the same size and classes.
        name: what to call the data; None for the last part of the path.
        progress: called with (done, total) while reading.

    Raises:
        DataError: it cannot be read; the text names the file.
        MissingExtra: a package that reads it is not installed.
    """
    path = Path(path)
    options = like_spec(options, like)
    with ExitStack() as stack:
        items, notes = list_files(path, KINDS, "shape", stack)
        items, doubles = _one_of_each([_split_first(item) for item in items])
        if doubles:
            notes = [*notes, f"Left out {doubles} files that hold the same shapes as others, by their names."]
        found = arrange(items, options.labels, str(path), split)
        alone = len(found.items) == 1
        chosen, more = set_aside(found, split, str(path), "files", alone=alone)
        notes = notes + more
        classes: tuple[str, ...] = found.classes if like is None else getattr(like, "classes", ())
        labels = class_numbers(chosen.labels, classes, str(path))
        read = _Reader(path, options, progress)
        read.all(chosen)
    files, owners = read.files, np.array(read.owners, np.int64)
    bits = np.concatenate(read.rows) if read.rows else np.zeros((0, 1), np.uint8)
    if not len(bits):
        raise DataError(f"{path}: none of its {len(chosen.items)} files can be used. {' '.join(read.bad[:1])}")
    kept = None
    if alone and found.split is None:
        kept, more = hashed_split(split, None, files, str(path), "shapes")
        notes = notes + more
    if kept is not None:
        bits, files, owners = bits[kept], [files[i] for i in kept.tolist()], owners[kept]
    return ShapeArray(
        bits,
        options.size,
        name=name or path.name,
        labels=None if labels is None else labels[owners],
        classes=classes,
        views=options.views,
        view_size=options.view_size,
        files=files,
        notes=[*notes, *found.notes, *read.notes()],
    )


def _split_first(item: Item) -> Item:
    """ModelNet has its splits below the classes: ``chair/train/1.off`` is read as ``train/chair/1.off``."""
    parts = item.name.split("/")
    for i in range(1, len(parts) - 1):
        if parts[i].lower() in SPLITS and not any(p.lower() in SPLITS for p in parts[:i]):
            return replace(item, name="/".join([*parts[: i - 1], parts[i], parts[i - 1], *parts[i + 1 :]]))
    return item


def _one_of_each(items: list[Item]) -> tuple[list[Item], int]:
    """Of files that differ in their ending alone, the one that is best read; and how many are left out."""
    best: dict[str, Item] = {}
    for item in items:
        stem, suffix = posixpath.splitext(item.name)
        other = best.get(stem)
        if other is None or PREFERRED.index(suffix.lower()) < PREFERRED.index(_ending(other.name)):
            best[stem] = item
    return sorted(best.values(), key=lambda item: item.name), len(items) - len(best)


def _ending(name: str) -> str:
    return posixpath.splitext(name)[1].lower()


class _Reader:
    """Reads files one after the other and packs their shapes."""

    def __init__(self, path: Path, options: ShapeOptions, progress: Progress | None) -> None:
        self.path, self.options, self.progress = path, options, progress
        self.rows: list[np.ndarray] = []
        self.files: list[str] = []
        self.owners: list[int] = []
        self.bad: list[str] = []
        self.open = self.empty = 0

    def all(self, found: Found) -> None:
        for i, item in enumerate(found.items):
            where = str(self.path) if self.path.name == item.name else f"{self.path}: {item.name}"
            try:
                with item.open() as file:
                    data = read_bounded(file, where)
                shapes, names = self.one(data, item.name, where)
            except DataError as error:
                if self.options.on_bad_file == "error":
                    raise
                self.bad.append(str(error))
                continue
            there = shapes.max((1, 2, 3)) > 0
            self.empty += int((~there).sum())
            if there.any():
                self.rows.append(packed(shapes[there]))
                self.files += [name for name, any_ in zip(names, there.tolist(), strict=True) if any_]
                self.owners += [i] * int(there.sum())
            if self.progress is not None:
                self.progress(i + 1, len(found.items))

    def one(self, data: bytes, name: str, where: str) -> tuple[np.ndarray, list[str]]:
        """The shapes of a file, ``uint8`` (N, size, size, size), turned; and a name for each."""
        o, suffix = self.options, _ending(name)
        degrees = [360 * k / o.turns for k in range(o.turns)]
        if suffix in SUFFIXES:
            mesh = read_mesh(data, suffix, where, o.up)
            self.open += not mesh.closed
            shapes = np.stack([voxelised(mesh, o.size, o.margin, turn, where=where) for turn in degrees])
            return shapes, [name if o.turns == 1 else f"{name}@{turn:g}" for turn in degrees]
        if o.turns not in (1, 2, 4):
            raise UsageError(f"{where}: voxels are turned by quarters only; set turns to 1, 2 or 4, not {o.turns}.")
        found = read_binvox(data, where)[None] if suffix == BINVOX else read_arrays(data, where)
        found = fit(upright(found, o.up), o.size, o.margin)
        names = [name] if len(found) == 1 else [f"{name}#{i}" for i in range(len(found))]
        turned = np.stack([np.rot90(found, 4 * k // o.turns, (1, 3)) for k in range(o.turns)], 1)
        every = [n if o.turns == 1 else f"{n}@{turn:g}" for n in names for turn in degrees]
        return turned.reshape(-1, *found.shape[1:]), every

    def notes(self) -> Sequence[str]:
        said = []
        if self.open:
            said.append(f"{self.open} meshes are not closed; what their surface does not enclose stays hollow.")
        if self.empty:
            said.append(f"Left out {self.empty} shapes in which no voxel is filled.")
        if self.bad:
            said.append(f"Skipped {len(self.bad)} files that cannot be read: " + " ".join(self.bad[:3]))
        return said


def read_shape(path: Path, spec: ShapeSpec, options: ShapeOptions | None = None) -> np.ndarray:
    """The first shape of a file, ``uint8`` (size, size, size).

    Raises:
        DataError: it holds none.
    """
    options = replace(like_spec(options or ShapeOptions(), spec), turns=1, views="none", labels="none")
    return open_shapes(path, options).voxels(np.array([0]))[0]
