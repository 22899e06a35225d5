"""The samples of one sound file: bounded, at the wanted rate, as 16-bit numbers.

Two steps: :func:`inspect_audio` reads the header, so that nothing large is decoded before its size is known to be sane;
:func:`decode_audio` decodes block by block. Whatever libsndfile says of a broken file comes out as :class:`DataError`
that names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any, BinaryIO, Literal

import numpy as np

from castalia.core.config import Config
from castalia.core.errors import DataError, MissingExtra, UsageError
from castalia.media.audio.clips import to_int16

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".mp3"})
FORMATS = frozenset({"WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3"})
LOWEST, HIGHEST = 1_000, 192_000
SHORTEST = 16
"""Samples of the shortest crop."""

_BLOCK = 1 << 16
_TRIM_WINDOW = 0.01  # seconds


@dataclass(frozen=True)
class AudioOptions(Config):
    """How sound files are read. Plain values, so that it survives a JSON round trip.

    Attributes:
        rate: samples a second; files of another rate are resampled (soxr). None keeps the files' rate, which must then
            be one for all.
        channels: 1 mixes down to mono, 2 is stereo (mono is doubled); None is mono where all files are, else stereo.
        length: of a training crop: a whole number is samples, a number with a point is seconds.
        cut: clips longer than this many seconds are cut into pieces of this length; 0 leaves them whole.
        trim: silence at both ends is dropped: what is this many dB below the clip's loudest hundredth of a second.
            0 drops nothing.
        labels: ``folders``: the folder of a file is its class; ``none``; or a pattern for file names without suffix, in
            which ``{label}`` is the class and ``*`` is anything: ``{label}_*``.
        speakers: a pattern like that of ``labels`` for who is heard, who become a column ``speaker``; empty: nobody.
        words: at most so many bytes of what is said, as a column ``caption``: the text of ``NAME.txt`` beside a file,
            or the name of its class (of the set ``free-spoken-digits`` its word). 0: none.
        max_seconds: longer files are refused.
        on_bad_file: ``error`` stops at the first file that cannot be read, ``skip`` leaves it out and says so.
    """

    rate: int | None = None
    channels: Literal[1, 2] | None = None
    length: int | float = 1.0
    cut: float = 10.0
    trim: float = 0.0
    labels: str = "folders"
    speakers: str = ""
    words: int = 0
    max_seconds: float = 7200.0
    on_bad_file: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        if self.rate is not None and not LOWEST <= self.rate <= HIGHEST:
            raise UsageError(f"rate is {LOWEST} to {HIGHEST} samples a second, not {self.rate!r}.")
        if self.channels not in (None, 1, 2):
            raise UsageError(f"channels is 1 (mono), 2 (stereo) or nothing, not {self.channels!r}.")
        if isinstance(self.length, bool) or not 0 < self.length < 1 << 31:
            raise UsageError(f"length must be positive, not {self.length!r}.")
        if isinstance(self.length, int) and self.length < SHORTEST:
            raise UsageError(f"length {self.length} is that many samples; write {self.length}.0 for seconds.")
        if not (0 <= self.cut < 1e6 and 0 <= self.trim <= 120 and 0 < self.max_seconds < 1e6):
            raise UsageError("cut and max_seconds are seconds, trim is decibels from 0 to 120.")
        if self.labels not in ("folders", "none") and self.labels.count("{label}") != 1:
            raise UsageError(
                f"labels is folders, none, or a pattern with {{label}} in it like '{{label}}_*', not {self.labels!r}."
            )
        if self.speakers and self.speakers.count("{label}") != 1:
            raise UsageError(f"speakers is a pattern with {{label}} in it like '*_{{label}}_*', not {self.speakers!r}.")
        if not 0 <= self.words <= 1 << 16:
            raise UsageError("words is a number of bytes from 0 up.")
        if self.on_bad_file not in ("error", "skip"):
            raise UsageError(f"on_bad_file is error or skip, not {self.on_bad_file!r}.")

    def samples(self, rate: int) -> int:
        """Length of a crop in samples at a rate."""
        found = self.length if isinstance(self.length, int) else round(self.length * rate)
        if found < SHORTEST:
            raise UsageError(f"length {self.length!r} is {found} samples at {rate} a second; take {SHORTEST} or more.")
        return found


@dataclass(frozen=True)
class Head:
    """What a file's header says.

    Attributes:
        rate: samples a second.
        channels: how many.
        frames: samples of each channel.
    """

    rate: int
    channels: int
    frames: int


def soundfile() -> ModuleType:
    """The package that reads sound files.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import soundfile as package
    except (ImportError, OSError) as error:  # the second where libsndfile itself is missing
        raise MissingExtra("Reading sound files", "audio") from error
    return package


def _open(file: BinaryIO, name: str) -> Any:
    package = soundfile()
    try:
        found = package.SoundFile(file)
    except Exception as error:  # LibsndfileError, and what its callbacks raise on odd files
        raise DataError(f"{name}: not a sound file that can be read ({_reason(error)}).") from error
    if found.format not in FORMATS:
        found.close()
        raise DataError(f"{name}: a {found.format} file; WAV, FLAC, OGG and MP3 are read.")
    return found


def inspect_audio(file: BinaryIO, name: str, options: AudioOptions) -> Head:
    """Read the header of a sound file.

    Args:
        file: at its start; it can seek.
        name: what to call it in errors.
        options: for ``max_seconds``, ``channels``.

    Raises:
        DataError: it is no sound file, is empty, too long, or has an odd rate or too many channels.
        MissingExtra: the package that reads it is not installed.
    """
    with _open(file, name) as found:
        head = Head(found.samplerate, found.channels, max(found.frames, 0))
    if not LOWEST <= head.rate <= HIGHEST:
        raise DataError(f"{name}: {head.rate} samples a second; from {LOWEST} to {HIGHEST} are read.")
    if not head.frames:
        raise DataError(f"{name}: holds no sound.")
    if head.frames > options.max_seconds * head.rate:
        raise DataError(
            f"{name}: {head.frames / head.rate:.0f} seconds long; more than max_seconds = {options.max_seconds:g} is "
            "refused. Raise it if that is meant."
        )
    if head.channels > 2 and options.channels != 1:
        raise DataError(f"{name}: {head.channels} channels; channels = 1 mixes them down.")
    return head


def decode_audio(file: BinaryIO, name: str, rate: int, channels: int, max_seconds: float) -> np.ndarray:
    """Decode a sound file.

    Args:
        file: at its start; it can seek.
        name: what to call it in errors.
        rate: wanted samples a second.
        channels: wanted: 1 is the mean of what is there, 2 doubles mono.
        max_seconds: more is refused, whatever the header said.

    Returns:
        ``int16`` (T, channels), T >= 1. Values beyond full scale are clipped.

    Raises:
        DataError: it is damaged, or holds values that are not finite.
        MissingExtra: a package that reads or resamples it is not installed.
    """
    parts: list[np.ndarray] = []
    frames = 0
    with _open(file, name) as found:
        change = None if found.samplerate == rate else _resampler(found.samplerate, rate, channels)
        declared, limit = found.frames, max_seconds * found.samplerate
        while True:
            try:
                block = found.read(_BLOCK, dtype="float32", always_2d=True)
            except Exception as error:
                raise DataError(f"{name}: damaged after {frames} samples ({_reason(error)}).") from error
            frames += len(block)
            if frames > limit:
                raise DataError(f"{name}: longer than its header says, and than max_seconds = {max_seconds:g}.")
            if not np.isfinite(block).all():
                raise DataError(f"{name}: holds values that are not finite numbers.")
            last = len(block) < _BLOCK
            block = block.mean(axis=1, keepdims=True) if channels == 1 else block
            block = block.repeat(2, axis=1) if channels == 2 and block.shape[1] == 1 else block
            if change is not None:
                block = change.resample_chunk(np.ascontiguousarray(block), last=last)
            parts.append(to_int16(block.reshape(-1, channels)))
            if last:
                break
        if found.format in ("WAV", "WAVEX", "FLAC") and frames < declared:
            raise DataError(f"{name}: damaged: it ends after {frames} of {declared} samples.")
    samples = np.concatenate(parts)
    if not len(samples):
        raise DataError(f"{name}: holds no sound.")
    return samples


def _resampler(own: int, rate: int, channels: int) -> Any:
    try:
        import soxr
    except ImportError as error:
        raise MissingExtra(f"Resampling sound from {own} to {rate} samples a second", "audio") from error
    return soxr.ResampleStream(own, rate, channels, dtype="float32")


def trim_ends(samples: np.ndarray, rate: int, below: float) -> np.ndarray:
    """What is left of ``int16`` (T, channels) without silent ends; nothing of a clip that is silent all through.

    A window of a hundredth of a second is silent where its root mean square is ``below`` dB under that of the loudest.
    """
    window = max(1, round(_TRIM_WINDOW * rate))
    power = np.square(samples.astype(np.float64)).mean(axis=1)
    blocks = np.add.reduceat(power, np.arange(0, len(power), window))
    loud = np.flatnonzero(blocks > blocks.max() * 10 ** (-below / 10))
    if not blocks.max() or not len(loud):
        return samples[:0]
    return samples[loud[0] * window : (loud[-1] + 1) * window]


def _reason(error: Exception) -> str:
    """What libsndfile said, without the address of the Python object that it read from."""
    text = getattr(error, "error_string", None) or str(error) or type(error).__name__
    return str(text).strip().rstrip(".")[:200]
