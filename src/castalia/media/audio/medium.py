"""Sound as a medium."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.files import disk_error
from castalia.core.spec import Spec
from castalia.core.specs.audio import AudioSpec
from castalia.media.audio.clips import lengths_of
from castalia.media.audio.decode import AudioOptions
from castalia.media.audio.draw import audio_image, spectrogram
from castalia.media.audio.measures import MEASURES
from castalia.media.audio.read import is_audio, open_audio, read_clip, typed
from castalia.media.audio.sets import SETS, open_set, vowels
from castalia.media.audio.write import save_audio
from castalia.media.base import Measure, Medium, Rate
from castalia.media.sets import NamedData, Progress


@final
class AudioMedium(Medium):
    """Sound: ``float32`` (channels, T) in [-1, 1], written as 16-bit WAV, drawn as waveform over mel spectrogram."""

    name: ClassVar[str] = "audio"
    spec: ClassVar[type[Spec]] = AudioSpec
    options: ClassVar[type[Config]] = AudioOptions
    shown: ClassVar[int] = 12
    reading: ClassVar[str] = "a folder, a .zip or one file of sound (WAV, FLAC, OGG, MP3)"
    measures: ClassVar[tuple[Measure, ...]] = MEASURES

    def reads(self, path: Path) -> bool:
        return is_audio(path)

    def open(
        self,
        path: Path,
        options: AudioOptions,
        split: str | None,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        return open_audio(path, options, split=split, like=like, progress=progress)

    def named(self) -> Mapping[str, NamedData]:
        return SETS

    def open_named(
        self,
        name: str,
        options: AudioOptions,
        split: str,
        like: Spec | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        return open_set(name, options, split, like, progress)

    def tiny(self) -> Dataset:
        return vowels(clips=48)

    def read(self, text: str, spec: AudioSpec) -> Tensor:
        return typed(text)

    def read_file(self, path: Path, spec: AudioSpec) -> Tensor:
        return read_clip(path, spec)

    def write(
        self, batch: Batch, spec: AudioSpec, folder: Path, start: int = 0, recipe: Mapping[str, Any] | None = None
    ) -> list[Path]:
        """Write ``0000.wav``, ..., 16 bits, each with its recipe as JSON beside it; return their paths."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(folder, error) from error
        paths = []
        for number, clip in enumerate(_clips(batch), start=start):
            path = folder / f"{number:04d}.wav"
            # "index" is the address of this clip's randomness, so that it can be made again alone.
            save_audio(clip, spec.rate, path, None if recipe is None else {**recipe, "index": number})
            paths.append(path)
        return paths

    def picture(self, batch: Batch, spec: AudioSpec, columns: int | None = None) -> Image:
        titles = [] if batch.label is None or not spec.classes else [spec.classes[i] for i in batch.label.tolist()]
        return audio_image([clip.mean(axis=0) for clip in _clips(batch)], spec.rate, titles, columns)

    def rates(self, batch: Batch, spec: AudioSpec) -> Mapping[str, Rate]:
        """Bits per sample; each channel's sample counts."""
        return {"bits_per_sample": Rate("bits/sample", 2, lengths_of(batch).double().cpu() * spec.channels)}

    def distance(self, a: Batch, b: Batch, spec: AudioSpec) -> float:
        """Energy distance between mean and deviation of the clips' log-mel spectra."""
        one, two = (torch.stack([_features(clip, spec.rate) for clip in _clips(x)]) for x in (a, b))
        return float(2 * torch.cdist(one, two).mean() - torch.cdist(one, one).mean() - torch.cdist(two, two).mean())


def _clips(batch: Batch) -> list[np.ndarray]:
    """Each example without its padding, ``float32`` (channels, T)."""
    x = batch.x.detach().cpu().float().numpy()
    return [row[:, :length] for row, length in zip(x, lengths_of(batch).tolist(), strict=True)]


def _features(clip: np.ndarray, rate: int, bands: int = 32) -> Tensor:
    level = np.log10(spectrogram(clip.mean(axis=0), rate, max(2, round(clip.shape[1] / rate / 0.01)), bands) + 1e-8)
    return torch.from_numpy(np.concatenate([level.mean(1), level.std(1)]))
