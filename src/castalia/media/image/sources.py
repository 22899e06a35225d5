"""From a path to a data set of pictures.

:func:`open_images` looks at what the path is, lets the reader of that format list what is there, and decodes
everything once into one array; or leaves shards on the disk, see :mod:`castalia.media.image.shards`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from zipfile import ZipFile

import numpy as np

from castalia.core.errors import DataError, UsageError
from castalia.media.image.array import MEMORY_LIMIT, ImageArray, Progress
from castalia.media.image.arrays import ArrayListing, read_npy, read_npz
from castalia.media.image.decode import (
    SUFFIXES,
    ImageOptions,
    inspect_image,
)
from castalia.media.image.decoding import decoded, from_pixels
from castalia.media.image.idx import idx_stem, is_idx_images, labels_beside, read_idx
from castalia.media.image.layout import arrange
from castalia.media.image.parquet_shards import ParquetShards
from castalia.media.image.shards import ImageShards, Source, items_of
from castalia.media.image.tar import COMPRESSED, refuse_compressed
from castalia.media.image.tree import (
    Item,
    Listing,
    file_opener,
    list_folder,
    list_zip,
    walk,
)
from castalia.media.image.views import thing_and_degrees
from castalia.media.image.webdataset import TarShards
from castalia.media.splits import SPLITS, hashed_split, pick_split

TRIED = 64
"""Pictures that are tried to find one that can be read."""

OTHERS = (
    ".txt",
    ".md",
    ".wav",
    ".flac",
    ".ogg",
    ".mp3",
    ".mid",
    ".midi",
    ".glb",
    ".obj",
    ".off",
    ".ply",
    ".stl",
    ".binvox",
)
"""Files of other media."""

LOOKED_AT = 10_000
"""Names that are looked at to see whether a folder holds pictures."""


def open_images(
    path: Path,
    options: ImageOptions,
    *,
    split: str | None = None,
    name: str | None = None,
    memory_limit: int = MEMORY_LIMIT,
    progress: Progress | None = None,
) -> ImageArray | ImageShards:
    """Read pictures from a folder, zip, tar, IDX, Parquet, ``.npy``, ``.npz`` or single picture file.

    Where the source has splits of its own, ``split`` names one and None means ``train``. Where it has none,
    None means everything, and ``train`` and ``test`` are nine tenths and one tenth, told apart by a hash of
    each picture's name (which stays the same when others are added).

    Args:
        path: what to read.
        options: how to read it.
        split: ``train``, ``test`` or ``validation``, or None.
        name: what to call the data; None for the last part of the path.
        memory_limit: bytes of pixels above which they are kept in a temporary file, or those of Parquet stay where
            they are.
        progress: called with (done, total) while decoding.

    Raises:
        DataError: it cannot be read; the text names the file.
        UsageError: ``options.stream`` is ``always`` for what is neither tar nor Parquet.
        MissingExtra: Parquet without pyarrow.
    """
    path, name = Path(path), name or Path(path).name
    shards, streamed = _shards(path, options, split, memory_limit)
    if shards is not None and streamed:
        return ImageShards(shards, options, name=name, where=str(path))
    if shards is not None:
        return decoded(
            path, items_of(shards), Listing([], shards.classes), options, name, shards.notes, memory_limit, progress
        )
    with ExitStack() as stack:
        listing = _list(path, options, split, memory_limit, stack)
        if isinstance(listing, ArrayListing):
            return from_pixels(listing, options, name, split, memory_limit, progress)
        names = [_whole(item.name, options) for item in listing.items]
        rows, notes = hashed_split(split, listing.split, names, str(path))
        items = listing.items if rows is None else [listing.items[i] for i in rows]
        return decoded(path, items, listing, options, name, notes, memory_limit, progress)


def _whole(name: str, options: ImageOptions) -> str:
    """What of a file's name decides on its split: that of the thing in it, where there are several views of one."""
    told = thing_and_degrees(name, options.views) if options.views else None
    return name if told is None else told[0]


def size_of_all(path: Path, options: ImageOptions) -> tuple[int, int] | None:
    """(height, width) where all pictures that are no shards have one, told from their headers; else None.

    Raises:
        DataError: it cannot be read.
    """
    if _shards(path, options, None, MEMORY_LIMIT)[0] is not None:
        return None
    with ExitStack() as stack:
        listing = _list(path, options, None, MEMORY_LIMIT, stack)
        if isinstance(listing, ArrayListing):
            return listing.pixels.shape[1], listing.pixels.shape[2]
        sizes: set[tuple[int, int]] = set()
        for item in listing.items:
            try:
                with item.open() as file:
                    head = inspect_image(file, item.name, options)
            except (DataError, OSError):  # the reader says so
                continue
            sizes.add((head.height, head.width))
            if len(sizes) > 1:
                return None
        return next(iter(sizes), None)


def is_images(path: Path) -> bool:
    """Whether a file or folder looks like pictures, told from names and first bytes."""
    if path.is_dir():
        pictures = others = 0
        for name in islice(walk(path), LOOKED_AT):
            if _is_source(name) or is_idx_images(path / name):
                return True
            pictures += _is_picture(name)
            others += name.lower().endswith(OTHERS)
        return pictures > 0 and pictures >= others  # samples of another medium lie beside one picture of them all
    if not path.is_file():
        return False
    suffix = path.suffix.lower()
    if suffix == ".zip":
        try:
            with ZipFile(path) as archive:
                return any(_is_picture(name) for name in archive.namelist()[:LOOKED_AT])
        except Exception:  # whatever is wrong with it, its reader says so
            return True
    if suffix == ".npy":
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)  # safe: objects are refused
        except Exception:  # as above
            return True
        return not (found.ndim == 2 and found.dtype.kind == "f")
    return _is_picture(path.name) or _is_source(path.name) or suffix == ".npz" or is_idx_images(path)


def _is_source(name: str) -> bool:
    return name.lower().endswith((".tar", ".parquet", *COMPRESSED))


def _shards(path: Path, options: ImageOptions, split: str | None, memory_limit: int) -> tuple[Source | None, bool]:
    """The index of a tar or of Parquet, and whether it is to be streamed; None for anything else."""
    kind = ""
    if path.is_file():
        kind = path.suffix.lower()
        if path.name.lower().endswith(COMPRESSED):
            raise refuse_compressed(path)
    elif path.is_dir():
        kind = _shard_kind(path)
    if kind == ".tar":
        return TarShards(path, split), options.stream != "never"
    if kind == ".parquet":
        found = ParquetShards(path, split)
        if options.stream != "auto":
            return found, options.stream == "always"
        return found, _pixel_bytes(found, options, path) > memory_limit
    if options.stream == "always":
        raise UsageError(f"{path}: only tar and Parquet shards can be streamed. Leave data.options.stream out.")
    return None, False


def _shard_kind(path: Path) -> str:
    """``.tar`` or ``.parquet`` for a folder of shards; empty once a picture is met, so that few names are looked at."""
    found: set[str] = set()
    for name in walk(path):
        if _is_picture(name) or is_idx_images(path / name):
            return ""
        lower = name.lower()
        found |= {".tar"} if lower.endswith((".tar", *COMPRESSED)) else set()
        found |= {".parquet"} if lower.endswith(".parquet") else set()
    if len(found) > 1:
        raise DataError(f"{path} holds both tar and Parquet shards; keep them in folders of their own.")
    return next(iter(found), "")


def _pixel_bytes(found: ParquetShards, options: ImageOptions, path: Path) -> int:
    """What all pictures would take in memory; by the first one's size where none is given."""
    height, width = options.height_width or (0, 0)
    if not height:
        for i in range(min(len(found), TRIED)):
            try:
                head = inspect_image(io.BytesIO(found.read(i)), f"{path}: {found.name(i)}", options)
            except DataError:
                if options.on_bad_file == "error":
                    raise
            else:
                height, width = head.height, head.width
                break
    return len(found) * (options.channels or 3) * height * width


def _list(
    path: Path, options: ImageOptions, split: str | None, memory_limit: int, stack: ExitStack
) -> Listing | ArrayListing:
    suffix = path.suffix.lower()
    if path.is_dir():
        visible = sorted(p for p in path.iterdir() if p.is_file())
        idx = [p for p in visible if is_idx_images(p)]
        if idx:
            return _list_idx(idx, split, str(path))
        files, notes = list_folder(path)
        listing = arrange(files, str(path), split, options.folders, notes)
        return Listing(listing.items, listing.classes, notes + listing.notes, listing.split)
    if not path.is_file():
        raise DataError(f"{path} does not exist." if not path.exists() else f"{path} is neither a file nor a folder.")
    if is_idx_images(path):
        return _list_idx([path], None, str(path))
    if suffix == ".zip":
        return arrange(list_zip(path, stack), str(path), split, options.folders)
    if suffix == ".npy":
        return read_npy(path, memory_limit)
    if suffix == ".npz":
        return read_npz(path, split, memory_limit)
    if suffix in SUFFIXES:
        return Listing([Item(path.name, file_opener(path))])
    raise DataError(
        f"{path} is not a source of pictures: a folder, .zip, .tar, .parquet, .npy, .npz, "
        f"*-images-idx3-ubyte[.gz] or one of {', '.join(sorted(SUFFIXES))}."
    )


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def _list_idx(paths: Sequence[Path], split: str | None, where: str) -> ArrayListing:
    """IDX picture files, each a split by its name when there are several, with their labels beside."""
    chosen, path, notes = None, paths[0], []
    if len(paths) > 1:
        available: dict[str, Path] = {}
        for one in paths:
            stem = idx_stem(one)
            words = [w for w in stem.lower().replace("_", "-").split("-") if w in SPLITS]
            available.setdefault(SPLITS[words[-1]] if words else stem, one)
        if len(available) < len(paths):
            names = ", ".join(p.name for p in paths)
            raise DataError(f"{where} holds several sets ({names}); name one of the files.")
        chosen, path, notes = pick_split(available, split, where)
    pixels = read_idx(path, 3)[..., None]
    beside = labels_beside(path)
    if beside is None:
        return ArrayListing(pixels, notes=notes, split=chosen)
    labels = read_idx(beside, 1)
    if len(labels) != len(pixels):
        raise DataError(f"{beside} has {len(labels)} labels for the {len(pixels)} pictures of {path.name}.")
    # The other splits are asked too, so that all of them have the same classes: those that occur.
    others = [read_idx(b, 1) for p in paths if p != path and (b := labels_beside(p)) is not None]
    values = np.unique(np.concatenate([labels, *others]))
    return ArrayListing(pixels, np.searchsorted(values, labels), tuple(map(str, values.tolist())), notes, chosen)
