"""From listed files, or from pixels, to one array: size and channels are settled from all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from castalia.core.errors import DataError
from castalia.media.image.array import MEMORY_LIMIT, ImageArray, Progress, allocate, fill, parallel
from castalia.media.image.arrays import ArrayListing
from castalia.media.image.decode import (
    DARK,
    Head,
    ImageOptions,
    dark_note,
    decode_image,
    fit,
    inspect_image,
)
from castalia.media.image.tree import (
    Item,
    Listing,
    read_bounded,
)
from castalia.media.splits import hashed_split

# Pixels in a picture above which decoding takes longer than the Python around it.
_WORTH_THREADS = 128 * 128


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


def decoded(
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
