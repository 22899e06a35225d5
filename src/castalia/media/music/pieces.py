"""Data sets of music: windows of grids, and windows of rows of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from castalia.core.data import Batch, Dataset
from castalia.core.errors import DataError
from castalia.core.rng import Rng
from castalia.core.specs.music import DRUMS, FIRST, NOTHING, OFF, MusicSpec
from castalia.media.music.encodings import encoding_of, head
from castalia.media.music.grid import struck_at


@dataclass(frozen=True)
class Written:
    """One piece in the form of a spec: a grid (T, V), or tokens (T,).

    Attributes:
        name: of its file.
        values: ``int64``.
        playing: the families of instruments that play in it.
        label: class number, or -1.
    """

    name: str
    values: np.ndarray
    playing: frozenset[str]
    label: int = -1


@final
class Grids(Dataset):
    """Windows of ``length`` steps of pieces on a grid, beginning at every ``hop``-th bar.

    A note that sounds on into a window is struck at its beginning. The last window of a piece ends in silence. Windows
    in which nothing is struck are left out.

    ``Batch.extra`` has ``bar``, the number of the bar in its piece with which a window begins, ``int64`` (B,).
    """

    def __init__(
        self,
        pieces: Sequence[Written],
        spec: MusicSpec,
        *,
        name: str,
        hop: int = 1,
        transpose: int = 0,
        notes: Sequence[str] = (),
    ) -> None:
        # Narrower than the base class says, and never set again.
        self.spec: MusicSpec = spec  # pyright: ignore[reportIncompatibleVariableOverride]
        self.name, self.transpose = name, transpose
        windows, files, labels, bars = [], [], [], []
        for piece in pieces:
            for bar in range(0, max(1, -(-len(piece.values) // spec.bar)), hop):
                start = bar * spec.bar
                window = np.full((spec.length, len(spec.voices)), NOTHING, np.int16)
                part = piece.values[start : start + spec.length]
                if not len(part):
                    continue
                window[: len(part)] = part
                window[0] = struck_at(piece.values, start, spec)
                if len(part) < spec.length:
                    sung = [v for v, kind in enumerate(spec.voices) if kind != DRUMS]
                    window[len(part), sung] = OFF
                if any((window[:, v] >= (1 if kind == DRUMS else FIRST)).any() for v, kind in enumerate(spec.voices)):
                    windows.append(window)
                    files.append(f"{piece.name}#{bar}")
                    labels.append(piece.label)
                    bars.append(bar)
        if not windows:
            raise DataError(f"{name}: no piece has a bar with a note in it.")
        self.x = torch.from_numpy(np.stack(windows))
        self.files, self.notes = tuple(files), tuple(notes)
        self.bars = torch.tensor(bars)
        self.labels: Tensor | None = torch.tensor(labels) if spec.classes else None
        sung = [v for v, kind in enumerate(spec.voices) if kind != DRUMS]
        struck = self.x[:, :, sung].clamp(min=FIRST - 1) - FIRST
        self._top = struck.amax((1, 2)).long() if sung else torch.full((len(self.x),), -1)
        self._low = torch.where(struck >= 0, struck, 1 << 10).amin((1, 2)).long() if sung else self._top
        self._sung = torch.tensor([kind != DRUMS for kind in spec.voices])
        digest = hashlib.blake2b(f"{spec} {transpose}".encode(), digest_size=16)
        digest.update(self.x.numpy().data)
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        """The windows ``ids``; with ``rng`` moved at random by up to ``transpose`` half-tones, inside the range."""
        index = torch.from_numpy(np.asarray(ids, np.int64))
        x = self.x[index].long()
        if rng is not None and self.transpose:
            low = torch.maximum(-self._low[index], torch.tensor(-self.transpose)).clamp(max=0)
            high = torch.minimum(self.spec.notes - 1 - self._top[index], torch.tensor(self.transpose)).clamp(min=0)
            drawn = rng.uniform("transpose").cpu().double()
            by = low + (drawn * (high - low + 1)).floor().long()
            x = torch.where((x >= FIRST) & self._sung, x + by[:, None, None], x)
        label = None if self.labels is None else self.labels[index]
        return Batch(x, index, label, {"bar": self.bars[index]})


@final
class Rolls(Dataset):
    """Windows of ``length`` steps of piano rolls, beginning at every ``hop``-th bar; empty ones are left out.

    ``values`` of a piece are ``uint8`` (T, V, notes). The last window of a piece ends in silence.
    """

    def __init__(
        self,
        pieces: Sequence[Written],
        spec: MusicSpec,
        *,
        name: str,
        hop: int = 1,
        transpose: int = 0,
        notes: Sequence[str] = (),
    ) -> None:
        # Narrower than the base class says, and never set again.
        self.spec: MusicSpec = spec  # pyright: ignore[reportIncompatibleVariableOverride]
        self.name, self.transpose, self.notes = name, transpose, tuple(notes)
        self._pieces = [piece.values for piece in pieces]
        windows = [
            (p, start)
            for p, piece in enumerate(pieces)
            for start in range(0, len(piece.values), hop * spec.bar)
            if piece.values[start : start + spec.length].any()
        ]
        if not windows:
            raise DataError(f"{name}: no piece has a bar with a note in it.")
        self._windows = np.array(windows, np.int64)
        self.files = tuple(f"{pieces[p].name}#{start // spec.bar}" for p, start in windows)
        self.labels: Tensor | None = torch.tensor([pieces[p].label for p, _ in windows]) if spec.classes else None
        self._sung = np.array([kind != DRUMS for kind in spec.voices])
        digest = hashlib.blake2b(f"{spec} {transpose} {hop}".encode(), digest_size=16)
        for values in self._pieces:
            digest.update(np.packbits(values).data)
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._windows)

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        """The windows ``ids``; with ``rng`` moved at random by up to ``transpose`` half-tones, inside the range."""
        ids = np.asarray(ids, np.int64)
        x = np.zeros((len(ids), self.spec.length, len(self.spec.voices), self.spec.notes), np.uint8)
        by = [0.0] * len(ids)
        if rng is not None and self.transpose:
            by = rng.uniform("transpose").cpu().double().tolist()
        for row, (p, start), uniform in zip(x, self._windows[ids].tolist(), by, strict=True):
            part = self._pieces[p][start : start + self.spec.length]
            row[: len(part)] = part
            if rng is not None and self.transpose:
                row[:, self._sung] = self._moved(row[:, self._sung], uniform)
        index = torch.from_numpy(ids)
        label = None if self.labels is None else self.labels[index]
        return Batch(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 2, 1, 3))), index, label)

    def _moved(self, sung: np.ndarray, uniform: float) -> np.ndarray:
        there = np.flatnonzero(sung.any((0, 1)))
        if not len(there):
            return sung
        low = max(-self.transpose, -int(there[0]))
        high = min(self.transpose, self.spec.notes - 1 - int(there[-1]))
        return np.roll(sung, low + int(uniform * (high - low + 1)), axis=2)


@final
class Events(Dataset):
    """Windows of rows of tokens, each behind a head that says what plays and whether the piece begins.

    With ``rng`` a window begins anywhere in its piece (at bars, where the encoding is a grid), and may be transposed.

    ``Batch.extra`` has ``begun``, the steps of the piece before a window, and ``whole``, those of the whole piece, both
    ``int64`` (B,).
    """

    def __init__(
        self, pieces: Sequence[Written], spec: MusicSpec, *, name: str, transpose: int = 0, notes: Sequence[str] = ()
    ) -> None:
        # Narrower than the base class says, and never set again.
        self.spec: MusicSpec = spec  # pyright: ignore[reportIncompatibleVariableOverride]
        self.name, self.notes, self.transpose = name, tuple(notes), transpose
        encoding, end = encoding_of(spec), spec.end
        self._unit = encoding.unit
        self._hop = max(spec.length // self._unit, 1) * self._unit
        rows = [np.append(piece.values, end).astype(np.int32) for piece in pieces if len(piece.values)]
        pieces = [piece for piece in pieces if len(piece.values)]
        if not rows:
            raise DataError(f"{name}: no piece has a note in it.")
        self._encoding = encoding
        self._rows, self._times = rows, [encoding.times(row.astype(np.int64)).astype(np.int32) for row in rows]
        self._heads = [
            [head(spec, begins, {i: i in piece.playing for i in spec.instruments}) for begins in (False, True)]
            for piece in pieces
        ]
        self._windows = np.array(
            [(p, at) for p, row in enumerate(rows) for at in range(0, len(row), self._hop)], np.int64
        ).reshape(-1, 2)
        self.files = tuple(f"{pieces[p].name}#{at}" for p, at in self._windows.tolist())
        self.labels: Tensor | None = None
        if spec.classes:
            self.labels = torch.tensor([pieces[p].label for p in self._windows[:, 0].tolist()])
        digest = hashlib.blake2b(str(spec).encode(), digest_size=16)
        for row in rows:
            digest.update(row.data)
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._windows)

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        """The windows ``ids``, ``int64`` (B, head + length), padded with -1."""
        ids = np.asarray(ids, np.int64)
        shift, by = np.zeros(len(ids), np.int64), np.zeros(len(ids))
        if rng is not None:
            steps = max(self._hop // self._unit, 1)
            shift = rng.integers("shift", steps).cpu().numpy() * self._unit
            by = rng.uniform("transpose").cpu().double().numpy() if self.transpose else by
        rows, begun, whole = [], [], []
        for (p, at), later, up in zip(self._windows[ids].tolist(), shift.tolist(), by.tolist(), strict=True):
            row, times = self._rows[p], self._times[p]
            last = max(len(row) - self.spec.length, 0) // self._unit * self._unit
            start = min(at + later, max(last, 0)) if rng is not None else at
            tokens = row[start : start + self.spec.length]
            if rng is not None and self.transpose:
                tokens = self._moved(tokens, up)
            rows.append(np.concatenate([self._heads[p][start == 0], tokens]))
            begun.append(int(times[start]))
            whole.append(int(times[-1]))
        longest = max(map(len, rows), default=0)
        x = np.full((len(ids), longest), -1, np.int64)
        for out, row in zip(x, rows, strict=True):
            out[: len(row)] = row
        index = torch.from_numpy(ids)
        label = None if self.labels is None else self.labels[index]
        extra = {"begun": torch.tensor(begun, dtype=torch.int64), "whole": torch.tensor(whole, dtype=torch.int64)}
        return Batch(torch.from_numpy(x), index, label, extra)

    def _moved(self, tokens: np.ndarray, uniform: float) -> np.ndarray:
        """The same, some half-tones up or down, as far as all its notes stay inside the range."""
        notes = self._encoding.notes(tokens)
        there = notes[notes >= 0]
        if not len(there):
            return tokens
        low = max(-self.transpose, -int(there.min()))
        high = min(self.transpose, self.spec.notes - 1 - int(there.max()))
        return np.where(notes >= 0, tokens + low + int(uniform * (high - low + 1)), tokens)
