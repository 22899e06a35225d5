"""From a name or a path to a data set.

The names stand in :mod:`castalia.media.table`. Files are looked for in ``$CASTALIA_DATA/<name>/``, then in
``$CASTALIA_CACHE/<name>/`` (default ``~/.cache/castalia/data``), then downloaded into the cache. Known contents are
verified by SHA-256 wherever they come from; gzip files by what is inside, because people recompress them.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from castalia.core.data import Dataset, ImageSpec, PointsSpec
from castalia.core.errors import DataError, UsageError, near
from castalia.core.files import sha256
from castalia.media.download import download
from castalia.media.image.array import MEMORY_LIMIT, ImageArray, Progress
from castalia.media.image.arrays import ArrayListing
from castalia.media.image.decode import ImageOptions
from castalia.media.image.sources import from_pixels, open_images
from castalia.media.image.stacked import StackedArray, check_channels
from castalia.media.points.files import is_points, open_points
from castalia.media.points.toys import toy
from castalia.media.table import TABLE, DataFile, NamedData


def data_folder() -> Path | None:
    """``$CASTALIA_DATA``, or None."""
    value = os.environ.get("CASTALIA_DATA")
    return Path(value) if value else None


def cache_folder() -> Path:
    """Where downloads go: ``$CASTALIA_CACHE``, else ``~/.cache/castalia/data``."""
    value = os.environ.get("CASTALIA_CACHE")
    return Path(value) if value else Path.home() / ".cache" / "castalia" / "data"


def open_data(
    name_or_path: str,
    options: ImageOptions | None = None,
    split: str | None = None,
    *,
    memory_limit: int = MEMORY_LIMIT,
    progress: Progress | None = None,
) -> Dataset:
    """Open a named set or a path.

    A name in the table wins over a file of that name; write ``./mnist`` for the file.

    Args:
        name_or_path: ``digits``, ``mnist``, ... or a path to pictures (see
            :func:`castalia.media.image.sources.open_images`) or points (see
            :func:`castalia.media.points.files.open_points`).
        options: how to read pictures, which points ignore; None for the defaults.
        split: ``train`` or ``test`` (a path may have ``validation`` too). None is ``train`` for a named set;
            for a path, ``train`` where it has splits, else everything.
        memory_limit: bytes of pixels above which they are kept in a temporary file.
        progress: called with (done, total) while downloading (bytes) and while decoding (pictures).

    Raises:
        UsageError: neither a known name nor a path, or a split that the named set does not have.
        DataError: the files are missing, wrong or damaged.
    """
    options = options or ImageOptions()
    entry = TABLE.get(name_or_path)
    if entry is None:
        path = Path(name_or_path).expanduser()
        if not path.exists():
            raise UsageError(
                f"{name_or_path!r} is neither a data set that Castalia knows nor a path that exists. "
                + near(name_or_path, TABLE)
            )
        if is_points(path):
            return open_points(path, split=split)
        return open_images(path, options, split=split, memory_limit=memory_limit, progress=progress)
    split = split or "train"
    if split not in entry.counts:
        raise UsageError(f"{name_or_path} has no split {split!r}. It has: {', '.join(entry.counts)}.")
    if entry.medium == "points":
        return toy(name_or_path, split)
    if entry.base:
        check_channels(name_or_path, options.channels)
        grey = replace(options, channels=1)
        base = _pictures(entry.base, split, grey, memory_limit, progress)
        return StackedArray(base, name=name_or_path, split=split)
    return _pictures(name_or_path, split, options, memory_limit, progress)


def _pictures(name: str, split: str, options: ImageOptions, memory_limit: int, progress: Progress | None) -> ImageArray:
    """A named set of pictures that is built in or has files."""
    entry = TABLE[name]
    if not entry.files:
        return from_pixels(_digits(split), options, name)
    own = split in entry.files
    paths = [_find(name, entry, file, progress) for file in entry.files[split if own else "all"]]
    found = open_images(
        paths[0],
        options,
        split=None if own else split,
        name=name,
        memory_limit=memory_limit,
        progress=progress,
    )
    assert isinstance(found, ImageArray), "no named set is made of shards"
    return found


def _digits(split: str) -> ArrayListing:
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    bunch: Any = load_digits()
    rows = slice(None, 1297) if split == "train" else slice(1297, None)
    pixels = np.rint(bunch.images[rows] * (255 / 16)).astype(np.uint8)[..., None]
    return ArrayListing(pixels, bunch.target[rows].astype(np.int64), tuple(map(str, range(10))), split=split)


def _find(name: str, entry: NamedData, file: DataFile, progress: Progress | None) -> Path:
    """The verified path of one file, downloaded if need be."""
    cached = cache_folder() / name / file.name
    places = [cached]
    if (folder := data_folder()) is not None:
        places.insert(0, folder / name / file.name)
    for place in places:
        if place.is_file():
            _verify(place, file)
            return place
    if file.url is None:
        raise DataError(
            f"{name} cannot be downloaded. Put {file.name} at {places[0]} (SHA-256 {file.sha256}), or use "
            f"what it was made from: {entry.source}."
        )
    download(file.url, cached, size=file.size, sha256=file.packed[0], progress=progress)
    return cached


def _verify(path: Path, file: DataFile) -> None:
    """Check the contents; DataError when they are not the known ones."""
    try:
        found = sha256(path)
        if path.suffix == ".gz" and found not in file.packed:
            with gzip.open(path, "rb") as packed:
                # One byte more than there should be is enough to see that it is another file.
                found = hashlib.sha256(packed.read(file.inside + 1)).hexdigest()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}). Remove it to have it fetched again.") from error
    if found not in (file.sha256, *file.packed):
        raise DataError(
            f"{path} does not hold what it should (SHA-256 {found}, not {file.sha256}). Remove it, or open "
            "it by its path if you mean to use it as it is."
        )


def list_data() -> list[dict[str, Any]]:
    """Rows for ``castalia data``: name, what, medium, shape, counts by split, licence, and where the files are."""
    return [
        {
            "name": name,
            "what": entry.what,
            "medium": entry.medium,
            "shape": list(entry.shape),
            "splits": dict(entry.counts),
            "licence": entry.licence,
            "where": _where(name, entry),
        }
        for name, entry in TABLE.items()
    ]


def _where(name: str, entry: NamedData) -> str:
    """Where the files of a set are, or how to get them, in words."""
    if entry.base:
        return f"made from {entry.base}: {_where(entry.base, TABLE[entry.base])}"
    files = [file for part in entry.files.values() for file in part]
    folders = [f / name for f in (data_folder(), cache_folder()) if f is not None]
    found = next((str(f) for f in folders if all((f / file.name).is_file() for file in files)), None)
    if not files:
        return "built in"
    if found is not None:
        return found
    if all(file.url for file in files):
        return f"download ({sum(file.size for file in files) / 1e6:.1f} MB)"
    return f"not here; {entry.source}"


def describe(dataset: Dataset) -> dict[str, Any]:
    """What there is to know about a data set, as JSON values.

    Returns:
        ``name``, ``examples``, ``spec``, ``class_counts`` (by class name; empty without labels),
        ``captions``, ``fingerprint`` and ``notes``.
    """
    counts: dict[str, int] = {}
    if dataset.labels is not None and isinstance(dataset.spec, ImageSpec | PointsSpec):
        classes = dataset.spec.classes
        counts = dict(zip(classes, torch.bincount(dataset.labels, minlength=len(classes)).tolist(), strict=True))
    spec = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(dataset.spec).items()}
    return {
        "name": dataset.name,
        "examples": len(dataset),
        "spec": spec,
        "class_counts": counts,
        "captions": len(dataset.texts),
        "fingerprint": dataset.fingerprint,
        "notes": list(dataset.notes),
    }
