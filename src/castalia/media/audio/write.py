"""Sound to files, with the recipe that made it beside them.

WAV is written by the standard library, so that samples can be heard without any optional package.
"""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from castalia.core.errors import UsageError
from castalia.media.audio.clips import to_int16
from castalia.media.audio.decode import soundfile
from castalia.media.image.write import replace_file


def wav_bytes(x: np.ndarray, rate: int) -> bytes:
    """A 16-bit WAV file of samples ``float32`` (channels, T) in [-1, 1]; what lies outside is clipped."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(x.shape[0])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(to_int16(x.T).astype("<i2").tobytes())
    return out.getvalue()


def flac_bytes(x: np.ndarray, rate: int) -> bytes:
    """The same as 16-bit FLAC: half the size, without loss.

    Raises:
        MissingExtra: the package that writes it is not installed.
    """
    out = io.BytesIO()
    soundfile().write(out, to_int16(x.T), rate, format="FLAC", subtype="PCM_16")
    return out.getvalue()


def save_audio(x: np.ndarray, rate: int, path: Path, recipe: Mapping[str, Any] | None = None) -> None:
    """Write sound as ``.wav`` or ``.flac``; with a recipe, also a JSON beside it.

    Args:
        x: ``float32`` (channels, T) in [-1, 1].
        rate: samples a second.
        path: the file.
        recipe: everything needed to make it again (JSON values).

    Raises:
        UsageError: another ending.
        MissingExtra: FLAC without the package that writes it.
        RunError: the disk is full or the folder cannot be written.
    """
    kinds = {".wav": wav_bytes, ".flac": flac_bytes}
    if path.suffix.lower() not in kinds:
        raise UsageError(f"{path.name}: sound is written as .wav or .flac.")
    replace_file(path, kinds[path.suffix.lower()](x, rate))
    if recipe is not None:
        replace_file(path.with_suffix(".json"), (json.dumps(dict(recipe), indent=2) + "\n").encode())
