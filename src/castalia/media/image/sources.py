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
from typing import Literal
from zipfile import ZipFile

import numpy as np
from PIL import Image

from castalia.core.errors import DataError, UsageError
from castalia.media.image.array import MEMORY_LIMIT, ImageArray, Progress, allocate, fill, parallel
from castalia.media.image.arrays import ArrayListing, read_npy, read_npz
from castalia.media.image.decode import (
    DARK,
    SUFFIXES,
    Head,
    ImageOptions,
    dark_note,
    decode_image,
    fit,
    inspect_image,
)
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
    read_bounded,
    walk,
)
from castalia.media.image.webdataset import TarShards
from castalia.media.splits import SPLITS, hashed_split, pick_split

# Pixels in a picture above which decoding takes longer than the Python around it.
_WORTH_THREADS = 128 * 128

TRIED = 64
"""Pictures that are tried to find one that can be read."""

OTHERS = (".txt", ".md", ".wav", ".flac", ".ogg", ".mp3", ".mid", ".midi")
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
        return _decode(
            path, items_of(shards), Listing([], shards.classes), options, name, shards.notes, memory_limit, progress
        )
    with ExitStack() as stack:
        listing = _list(path, options, split, memory_limit, stack)
        if isinstance(listing, ArrayListing):
            return from_pixels(listing, options, name, split, memory_limit, progress)
        rows, notes = hashed_split(split, listing.split, [item.name for item in listing.items], str(path))
        items = listing.items if rows is None else [listing.items[i] for i in rows]
        return _decode(path, items, listing, options, name, notes, memory_limit, progress)


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


def from_pixels(
    listing: ArrayListing,
    options: ImageOptions,
    name: str,
    split: str | None = None,
    memory_limit: int = MEMORY_LIMIT,
    progress: Progress | None = None,
) -> ImageArray:
    """Make a data set of pictures that are already decoded; they are resized where ``options`` ask for it.

    Args:
        listing: the pictures, ``uint8`` (N, H, W, C).
        options: size, channels and so on.
        name: what to call the data.
        split: as in :func:`open_images`.
        memory_limit: as in :func:`open_images`.
        progress: as in :func:`open_images`.
    """
    pixels, labels, texts = listing.pixels, listing.labels, listing.captions
    rows, notes = hashed_split(split, listing.split, [str(i) for i in range(len(pixels))], name)
    if rows is not None:
        pixels, labels = pixels[rows], None if labels is None else labels[rows]
        texts = tuple(texts[i] for i in rows) if texts else ()
    n, height, width, own = pixels.shape
    channels: int = options.channels or own
    target = options.height_width or (height, width)
    if (channels, *target) == (own, height, width):
        out = _channels_first(pixels, memory_limit)
    else:
        out = allocate((n, channels, *target), memory_limit)
        threads = 4 if height * width > _WORTH_THREADS else 1
        fill(out, lambda i: _refit(pixels[i], options, channels), progress, threads=threads)
    return ImageArray(
        out,
        name=name,
        labels=labels,
        classes=listing.classes,
        texts=texts,
        notes=[*listing.notes, *notes],
        flip=options.flip,
        captions=options.captions,
    )


def _refit(pixels: np.ndarray, options: ImageOptions, channels: int) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    return fit(image, options, channels)  # pyright: ignore[reportArgumentType]


def _channels_first(pixels: np.ndarray, memory_limit: int) -> np.ndarray:
    """(N, H, W, C) to (N, C, H, W), contiguous and writable (PyTorch shares no read-only memory)."""
    out = np.moveaxis(pixels, 3, 1)
    if out.flags.c_contiguous and out.flags.writeable:
        return out
    copy = allocate(out.shape, memory_limit)
    for start in range(0, len(out), 1024):
        copy[start : start + 1024] = out[start : start + 1024]
    return copy


def _decode(
    path: Path,
    items: list[Item],
    listing: Listing,
    options: ImageOptions,
    name: str,
    notes: list[str],
    memory_limit: int,
    progress: Progress | None,
) -> ImageArray:
    """Read every header, settle size and channels, then decode into one array."""

    def where(item: Item) -> str:
        return f"{path}: {item.name}" if len(items) > 1 or path.is_dir() else str(path)

    def inspect(i: int) -> Head | DataError:
        try:
            with items[i].open() as file:
                return inspect_image(file, where(items[i]), options)
        except DataError as error:
            if options.on_bad_file == "error":
                raise DataError(f"{error} To leave such files out: --on-bad-file skip") from error
            return error

    bad: list[DataError] = []
    heads: list[Head] = []
    good: list[Item] = []
    for item, found in zip(items, parallel(inspect, len(items), threads=1), strict=True):
        if isinstance(found, DataError):
            bad.append(found)
        else:
            heads.append(found)
            good.append(item)
    _check_any(good, bad, str(path))
    target = options.height_width or _common_size(heads, good, str(path))
    channels: Literal[1, 3, 4] = options.channels or _common_channels(heads)
    out = allocate((len(good), channels, *target), memory_limit)

    def make(i: int) -> np.ndarray:
        with good[i].open() as file:
            data = read_bounded(file, where(good[i]))
        pixels = decode_image(data, where(good[i]), options, channels)
        if pixels.shape[:2] != tuple(target):
            raise DataError(f"{where(good[i])}: its size is not the one in its header.")
        return pixels

    pixels_each = sum(head.height * head.width for head in heads) / len(heads)
    threads = 4 if pixels_each > _WORTH_THREADS else 1
    failed = fill(out, make, progress, skip=options.on_bad_file == "skip", threads=threads)
    if failed:
        bad += failed.values()
        keep = [i for i in range(len(good)) if i not in failed]
        for to, i in enumerate(keep):  # in place: a second array may not fit
            out[to] = out[i]
        good, heads, out = [good[i] for i in keep], [heads[i] for i in keep], out[: len(keep)]
        _check_any(good, bad, str(path))
    if options.channels is None and channels == 4 and bool((out[:, 3] == 255).all()):
        out = out[:, :3] if isinstance(out, np.memmap) else np.ascontiguousarray(out[:, :3])
        channels = 3
        notes = [*notes, "An alpha channel is there but opaque everywhere; it was dropped."]
    if options.channels is None and channels == 3 and _all_grey(out):
        out = out[:, :1] if isinstance(out, np.memmap) else np.ascontiguousarray(out[:, :1])
        notes = [*notes, "The files have colour channels, and every pixel is grey; they are read as grey."]
    elif options.channels is None:
        notes = [*notes, *_few(heads, channels)]
    labels = [item.label for item in good]
    return ImageArray(
        out,
        name=name,
        labels=None if None in labels else np.array(labels, np.int64),
        classes=listing.classes,
        texts=[item.text or "" for item in good] if any(item.text is not None for item in good) else (),
        files=[item.name for item in good],
        notes=[*listing.notes, *notes, *_notes(heads, bad), *_dark(heads, out)],
        flip=options.flip,
        captions=options.captions,
    )


def _check_any(good: list[Item], bad: list[DataError], where: str) -> None:
    if not good:
        raise DataError(f"{where}: none of its {len(bad)} pictures can be read. The first: {bad[0]}")


def _notes(heads: list[Head], bad: list[DataError]) -> list[str]:
    notes = []
    animated = sum(head.animated for head in heads)
    if animated:
        notes.append(f"{animated} files have several frames or pages; the first was taken.")
    if bad:
        notes.append(f"Skipped {len(bad)} files that cannot be read: " + " ".join(str(b) for b in bad[:3]))
    return notes


def _dark(heads: list[Head], out: np.ndarray) -> list[str]:
    """A sentence where files of 16 bits hold numbers of 12: on a scale of 16 these are nearly black."""
    deep = [i for i, head in enumerate(heads) if head.deep]
    if not deep or any((out[i][:3] > DARK).any() for i in deep):
        return []
    return [dark_note(len(deep))]


def _common_size(heads: list[Head], items: list[Item], where: str) -> tuple[int, int]:
    first = (heads[0].height, heads[0].width)
    for head, item in zip(heads, items, strict=True):
        if (head.height, head.width) != first:
            raise DataError(
                f"{where}: the pictures differ in size ({items[0].name} is {first[1]} x {first[0]}, "
                f"{item.name} is {head.width} x {head.height}); give one size for all: --size 64 (in Python: size=64)."
            )
    return first


def _all_grey(out: np.ndarray) -> bool:
    """Whether red, green and blue agree in every pixel; a look at the first picture mostly settles it."""
    return all(bool((part[:, :1] == part[:, 1:]).all()) for part in (out[i : i + 64] for i in range(0, len(out), 64)))


def _few(heads: list[Head], channels: int) -> list[str]:
    """A sentence where a few files gave all pictures their channels."""
    found = [min(head.channels, channels) for head in heads]  # an alpha that was dropped does not count
    count = sum(one == channels for one in found)
    if channels == 1 or 2 * count >= len(heads):
        return []
    others = max({one for one in found if one != channels}, default=1)
    what = {3: "have colour", 4: "may be transparent"}[channels]
    kinds = {1: "grey", 3: "red, green and blue"}[others]
    return [
        f"{count} of {len(heads)} pictures {what}, so all are read with {channels} channels; "
        f"data.options.channels={others} reads all as {kinds}."
    ]


def _common_channels(heads: list[Head]) -> Literal[1, 3, 4]:
    found = {head.channels for head in heads}
    return 4 if 4 in found else 3 if 3 in found else 1
