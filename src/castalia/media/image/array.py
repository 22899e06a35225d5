"""A data set of pictures, held in one array."""

from __future__ import annotations

import atexit
import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, final

import numpy as np
import torch
from torch import Tensor

from castalia.core.captions import CAPTION
from castalia.core.data import Batch, Dataset
from castalia.core.errors import DataError
from castalia.core.rng import Rng, derive
from castalia.core.specs.image import ImageSpec
from castalia.media.captions import caption_bytes, caption_columns
from castalia.media.sets import Progress

MEMORY_LIMIT = 2 << 30
# Above this, a fingerprint reads samples spread over the whole array instead of every byte.
_HASH_ALL_BELOW = 512 << 20
_BLOCK = 64

T = TypeVar("T")


@final
class ImageArray(Dataset):
    """Pictures in one ``uint8`` tensor.

    Attributes:
        x: ``uint8`` (N, C, H, W); shares its memory with the array that it was made from.
        labels: ``int64`` (N,) class numbers, or None.
        flip: mirror at random when :meth:`batch` is given a random source.
        captions: bytes of each caption that batches have as the column ``caption``; 0 where they have none.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        *,
        name: str,
        labels: np.ndarray | None = None,
        classes: Sequence[str] = (),
        texts: Sequence[str] = (),
        files: Sequence[str] = (),
        notes: Sequence[str] = (),
        flip: bool = False,
        captions: int = 0,
    ) -> None:
        if pixels.ndim != 4 or pixels.dtype != np.uint8 or pixels.shape[1] not in (1, 3, 4):
            raise ValueError(f"pixels must be uint8 (N, 1|3|4, H, W), not {pixels.dtype} {pixels.shape}")
        for what, column in (("labels", labels), ("texts", texts), ("files", files)):
            if column is not None and len(column) not in ((len(pixels),) if what == "labels" else (0, len(pixels))):
                raise ValueError(f"{len(pixels)} pictures but {len(column)} {what}")
        self._pixels = pixels
        self.x = torch.from_numpy(pixels)
        self.labels: Tensor | None = None if labels is None else torch.from_numpy(labels.astype(np.int64))
        self.captions = captions if len(texts) else 0
        # Narrower than the base class says, and never set again.
        self.spec: ImageSpec = ImageSpec(  # pyright: ignore[reportIncompatibleVariableOverride]
            pixels.shape[1],
            pixels.shape[2],
            pixels.shape[3],
            tuple(classes),
            columns=caption_columns(self.captions),
        )
        self.name = name
        self.texts, self.files, self.notes = tuple(texts), tuple(files), tuple(notes)
        self.flip = flip
        self.fingerprint = _fingerprint(pixels, self.labels, self.texts)

    def __len__(self) -> int:
        return self.x.shape[0]

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        """Return the examples ``ids`` (``int64`` (B,)).

        With ``flip``, example i of the batch is mirrored where ``rng.uniform("flip")[i] < 0.5``.
        """
        index = torch.from_numpy(ids)
        x = self.x.index_select(0, index)  # several times faster than self.x[index]
        if self.flip and rng is not None:
            x = mirror(x, rng)
        label = None if self.labels is None else self.labels.index_select(0, index)
        if not self.captions:
            return Batch(x, index, label)
        return Batch(x, index, label, {CAPTION: caption_bytes(self.texts, ids.tolist(), self.captions)})

    def subset(self, ids: np.ndarray, notes: Sequence[str] = ()) -> ImageArray:
        """Return the examples ``ids`` (``int64`` (M,)), in that order, as a data set of their own.

        A run of neighbours shares memory with this one; anything else is copied. ``notes`` are added.
        """
        ids = np.asarray(ids, np.int64)
        if len(ids) and ids[0] >= 0 and ids[-1] < len(self) and (np.diff(ids) == 1).all():
            pixels = self._pixels[int(ids[0]) : int(ids[-1]) + 1]
        else:
            pixels = allocate((len(ids), *self._pixels.shape[1:]))
            for start in range(0, len(ids), 1024):
                pixels[start : start + 1024] = self._pixels[ids[start : start + 1024]]
        return ImageArray(
            pixels,
            name=self.name,
            labels=None if self.labels is None else self.labels.numpy()[ids],
            classes=self.spec.classes,
            texts=[self.texts[i] for i in ids] if self.texts else (),
            files=[self.files[i] for i in ids] if self.files else (),
            notes=(*self.notes, *notes),
            flip=self.flip,
            captions=self.captions,
        )

    def split(self, fraction: float, seed: int = 0) -> tuple[ImageArray, ImageArray]:
        """Return a random ``fraction`` of the examples and the rest, each in the original order.

        Args:
            fraction: share of the first part, 0 < fraction < 1; both parts get at least one example.
            seed: which of the possible splits.

        Raises:
            DataError: there are fewer than two examples.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"fraction must lie between 0 and 1, not {fraction}")
        if len(self) < 2:
            raise DataError(f"{self.name} has {len(self)} picture; it takes two to split.")
        first = min(max(round(len(self) * fraction), 1), len(self) - 1)
        order = np.random.Generator(np.random.Philox(derive(seed, "split"))).permutation(len(self))
        return self.subset(np.sort(order[:first])), self.subset(np.sort(order[first:]))


def mirror(x: Tensor, rng: Rng) -> Tensor:
    """Mirror picture i of ``x`` (B, C, H, W) left and right where ``rng.uniform("flip")[i] < 0.5``."""
    mirrored = rng.uniform("flip").to(x.device) < 0.5
    return torch.where(mirrored[:, None, None, None], x.flip(3), x)


def allocate(shape: tuple[int, ...], memory_limit: int = MEMORY_LIMIT) -> np.ndarray:
    """Return an uninitialised ``uint8`` array, in a temporary file when larger than ``memory_limit`` bytes.

    Raises:
        DataError: the temporary folder has too little room.
    """
    size = int(np.prod(shape, dtype=np.int64))
    if size <= memory_limit or size == 0:
        return np.empty(shape, np.uint8)
    handle, path = tempfile.mkstemp(prefix="castalia-", suffix=".pixels")
    try:
        with os.fdopen(handle, "r+b") as file:
            if hasattr(os, "posix_fallocate"):
                # A full disk must show here as an error: met while writing to the map it would kill the
                # process.
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            array = np.memmap(file, np.uint8, mode="r+", shape=shape)
    except OSError as error:
        os.unlink(path)
        raise DataError(
            f"The pictures take {size / 2**30:.1f} GiB, and the temporary folder {tempfile.gettempdir()} "
            f"cannot hold them ({error.strerror}). Pass a smaller size, or set TMPDIR to a larger disk."
        ) from error
    try:
        os.unlink(path)  # the map keeps the contents; nothing is left behind however the process ends
    except OSError:
        atexit.register(lambda: os.path.exists(path) and os.unlink(path))
    return array


def fill(
    out: np.ndarray,
    make: Callable[[int], np.ndarray],
    progress: Progress | None = None,
    *,
    skip: bool = False,
    threads: int = 4,
) -> dict[int, DataError]:
    """Set ``out[i]`` (C, H, W) to the picture ``make(i)`` (H, W, C) for all i, with a few threads.

    Returns:
        With ``skip``, the pictures that could not be made, by number, with the reason.

    Raises:
        DataError: without ``skip``, that of the first picture that could not be made.
    """

    def one(i: int) -> DataError | None:
        try:
            out[i] = make(i).transpose(2, 0, 1)
        except DataError as error:
            if not skip:
                raise
            return error
        return None

    found = parallel(one, len(out), progress, threads)
    return {i: error for i, error in enumerate(found) if error is not None}


def parallel(work: Callable[[int], T], count: int, progress: Progress | None = None, threads: int = 4) -> list[T]:
    """Return ``[work(0), ..., work(count - 1)]``, computed by a few threads.

    Pillow frees the interpreter lock while it decodes, so threads are enough; on headers and tiny pictures
    they only fight for that lock, and one is fastest.

    Args:
        work: what to do; an exception ends the whole.
        count: how many.
        progress: called in this thread with (done, count) now and then, and at the end.
        threads: how many at most.
    """
    blocks = [range(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK)]
    results: list[T] = []

    def work_on(block: range) -> list[T]:
        return [work(i) for i in block]

    # The warning filters belong to the whole process: set once here, because threads cannot set them safely.
    with (
        warnings.catch_warnings(action="ignore"),
        ThreadPoolExecutor(min(threads, os.cpu_count() or 1)) as pool,
    ):
        try:
            for part in pool.map(work_on, blocks) if threads > 1 else map(work_on, blocks):
                results += part
                if progress is not None:
                    progress(len(results), count)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def _fingerprint(pixels: np.ndarray, labels: Tensor | None, texts: tuple[str, ...]) -> str:
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    step = 1
    if pixels.nbytes > _HASH_ALL_BELOW:
        step = -(-pixels.nbytes // _HASH_ALL_BELOW)
    for start in range(0, len(pixels), 4096 * step):
        digest.update(np.ascontiguousarray(pixels[start : start + 4096 * step : step]).data)
    if labels is not None:
        digest.update(labels.numpy().data)
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()
