"""A data set of clips of sound, packed one behind the other as 16-bit samples."""

from __future__ import annotations

import hashlib
import io
import mmap
import tempfile
from collections.abc import Sequence
from typing import IO, final

import numpy as np
import torch
from torch import Tensor

from castalia.core.captions import CAPTION
from castalia.core.data import Batch, Dataset
from castalia.core.errors import DataError
from castalia.core.rng import Rng
from castalia.core.specs.audio import AudioSpec
from castalia.core.specs.text import TextSpec
from castalia.media.captions import caption_bytes

MEMORY_LIMIT = 1 << 30
"""Bytes of samples above which they are kept in a temporary file."""

FULL_SCALE = 32768
"""The 16-bit value that 1.0 stands for."""


class Pack:
    """Samples laid one behind the other as they come, in memory or, where they are many, in a temporary file."""

    def __init__(self, memory_limit: int = MEMORY_LIMIT) -> None:
        self._file: IO[bytes] = io.BytesIO()
        self._limit, self._bytes = memory_limit, 0

    def append(self, samples: np.ndarray) -> None:
        """Add ``int16`` samples.

        Raises:
            DataError: the temporary folder has too little room.
        """
        try:
            if isinstance(self._file, io.BytesIO) and self._bytes + samples.nbytes > self._limit:
                begun, self._file = self._file, tempfile.TemporaryFile(prefix="castalia-")  # noqa: SIM115
                self._file.write(begun.getbuffer())
            self._file.write(np.ascontiguousarray(samples).data)
        except OSError as error:
            raise DataError(
                f"The sound takes {(self._bytes + samples.nbytes) / 2**30:.1f} GiB and more, and the temporary folder "
                f"{tempfile.gettempdir()} cannot hold it ({error.strerror}). Choose a lower rate, or set TMPDIR to a "
                "larger disk."
            ) from error
        self._bytes += samples.nbytes

    def array(self) -> np.ndarray:
        """Everything, ``int16`` (N,), not to be written to. Nothing can be added afterwards."""
        if not self._bytes:
            return np.empty(0, np.int16)
        if isinstance(self._file, io.BytesIO):
            return np.frombuffer(self._file.getbuffer(), np.int16)
        with self._file as file:  # the map keeps the contents
            file.flush()
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.int16)


@final
class AudioClips(Dataset):
    """Clips of sound.

    With a random source a clip gives one crop of ``spec.length`` samples, or the whole clip where it is shorter, padded
    with silence. Crops begin at offsets that are drawn as if there were silence before and after the clip, and are then
    pushed inside: so beginnings and ends are met as often as the middle. Without a random source a clip is whole.

    ``Batch.extra`` has ``length``, how many samples of each row are not padding, and ``start``, where in its clip a row
    begins, both ``int64`` (B,).

    Attributes:
        samples: ``int16`` (M, channels), all clips one behind the other.
        ends: ``int64`` (N,), where each clip ends.
        labels: ``int64`` (N,) class numbers, or None.
        speakers: ``int64`` (N,), who is heard, or None.
        texts: what is said in each clip, or empty.
    """

    def __init__(
        self,
        samples: np.ndarray,
        ends: np.ndarray,
        spec: AudioSpec,
        *,
        name: str,
        labels: np.ndarray | None = None,
        files: Sequence[str] = (),
        notes: Sequence[str] = (),
        speakers: np.ndarray | None = None,
        texts: Sequence[str] = (),
    ) -> None:
        if samples.dtype != np.int16 or samples.ndim != 2 or samples.shape[1] != spec.channels:
            raise ValueError(f"samples must be int16 (M, {spec.channels}), not {samples.dtype} {samples.shape}")
        starts = np.concatenate([[0], ends[:-1]])
        if not len(ends) or ends[-1] != len(samples) or (ends <= starts).any():
            raise ValueError("the ends of the clips must rise to the number of samples")
        for what, column in (
            ("labels", labels),
            ("files", files or None),
            ("speakers", speakers),
            ("texts", texts or None),
        ):
            if column is not None and len(column) != len(ends):
                raise ValueError(f"{len(ends)} clips but {len(column)} {what}")
        self.samples, self.ends, self._starts = samples, ends.astype(np.int64), starts.astype(np.int64)
        self.speakers: Tensor | None = None if speakers is None else torch.from_numpy(speakers.astype(np.int64))
        self.texts = tuple(texts)
        self.labels: Tensor | None = None if labels is None else torch.from_numpy(labels.astype(np.int64))
        # Narrower than the base class says, and never set again.
        self.spec: AudioSpec = spec  # pyright: ignore[reportIncompatibleVariableOverride]
        self.name, self.files, self.notes = name, tuple(files), tuple(notes)
        digest = hashlib.blake2b(f"{spec.rate} {samples.shape} {ends.tolist()}".encode(), digest_size=16)
        digest.update(np.ascontiguousarray(samples).data)
        if self.labels is not None:
            digest.update(self.labels.numpy().data)
        for column in (self.speakers, self.texts):
            if column is not None and len(column):
                digest.update(repr(column if isinstance(column, tuple) else column.tolist()).encode())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def lengths(self) -> np.ndarray:
        """Samples of each clip, ``int64`` (N,)."""
        return self.ends - self._starts

    def clip(self, i: int) -> np.ndarray:
        """The samples of one clip, ``int16`` (T, channels)."""
        return self.samples[self._starts[i] : self.ends[i]]

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        """Return the clips ``ids`` (``int64`` (B,)), ``float32`` (B, channels, T); crops where there is ``rng``."""
        whole = self.lengths[ids]
        if rng is None:
            size, starts = int(whole.max(initial=0)), np.zeros(len(ids), np.int64)
        else:
            size = self.spec.length
            drawn = rng.uniform("crop").cpu().double().numpy() * (whole + size)
            starts = np.clip(drawn.astype(np.int64) - size, 0, np.maximum(whole - size, 0))
        x = torch.zeros(len(ids), self.spec.channels, size)
        lengths = np.minimum(whole - starts, size)
        for row, i, start, length in zip(x, ids, starts, lengths, strict=True):
            piece = self.clip(int(i))[start : start + length]
            row[:, :length] = torch.from_numpy(piece.T.astype(np.float32) / FULL_SCALE)
        index = torch.from_numpy(ids)
        label = None if self.labels is None else self.labels.index_select(0, index)
        extra = {"length": torch.from_numpy(lengths), "start": torch.from_numpy(starts)}
        columns = dict(self.spec.columns)
        if "speaker" in columns and self.speakers is not None:
            extra["speaker"] = self.speakers.index_select(0, index)
        if isinstance(said := columns.get(CAPTION), TextSpec):
            extra[CAPTION] = caption_bytes(self.texts, ids.tolist(), said.length)
        return Batch(x, index, label, extra)


def lengths_of(batch: Batch) -> Tensor:
    """How many samples of each row are not padding, ``int64`` (B,)."""
    return batch.extra.get("length", torch.full((len(batch),), batch.x.shape[-1], device=batch.x.device))


def to_int16(x: np.ndarray) -> np.ndarray:
    """``float`` samples in [-1, 1] as ``int16``, rounded; what lies outside is clipped."""
    return np.clip(np.rint(x * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
