"""A score as sound: by FluidSynth with a soundfont where both are installed, else by a small synthesiser of our own."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile
import wave
from functools import lru_cache
from pathlib import Path

import numpy as np

from castalia.media.music.midi import midi_bytes
from castalia.media.music.score import Score

RATE = 22_050
LONGEST = 600.0
"""Seconds of a score that are rendered."""
SOUNDFONTS = ("FluidR3_GM.sf2", "default-GM.sf2", "TimGM6mb.sf2")
FOLDERS = ("/usr/share/sounds/sf2", "/usr/share/soundfonts", "/usr/local/share/soundfonts")
_TAIL = 0.4  # seconds that a note rings on

_TIMBRES: dict[str, tuple[tuple[float, ...], float, float]] = {
    "piano": ((1, 0.5, 0.28, 0.16, 0.1, 0.05), 0.005, 1.6),
    "chimes": ((1, 0.1, 0.4, 0.05, 0.2), 0.003, 1.0),
    "organ": ((1, 0.7, 0.4, 0.5, 0.1, 0.25), 0.02, 0.0),
    "guitar": ((1, 0.6, 0.4, 0.2, 0.12, 0.06), 0.004, 2.2),
    "bass": ((1, 0.6, 0.25, 0.1), 0.008, 1.2),
    "strings": ((1, 0.5, 0.33, 0.2, 0.15, 0.1), 0.06, 0.0),
    "brass": ((1, 0.8, 0.6, 0.45, 0.3, 0.2), 0.04, 0.0),
    "reeds": ((1, 0.1, 0.6, 0.1, 0.35, 0.1, 0.15), 0.03, 0.0),
    "flutes": ((1, 0.25, 0.08), 0.04, 0.0),
    "others": ((1, 0.35, 0.2, 0.1), 0.05, 0.3),
}
"""Strengths of the harmonics; seconds until a note is there; how fast it fades (1 / seconds, 0: not at all)."""


@lru_cache(maxsize=1)
def soundfont() -> tuple[str, str] | None:
    """FluidSynth's program and a soundfont (``$CASTALIA_SOUNDFONT``, or where systems keep them), or None."""
    program = shutil.which("fluidsynth")
    own = os.environ.get("CASTALIA_SOUNDFONT")
    places = [Path(own)] if own else [Path(folder, name) for name in SOUNDFONTS for folder in FOLDERS]
    found = next((str(place) for place in places if place.is_file()), None)
    return (program, found) if program and found else None


def render(score: Score, rate: int = RATE, synthesiser: str = "auto") -> np.ndarray:
    """Sound ``float32`` (1, T) in [-1, 1] of at most ten minutes of a score.

    Args:
        score: what to play.
        rate: samples a second.
        synthesiser: ``own``; ``fluidsynth``; or ``auto``, which is FluidSynth where it works.

    Raises:
        RuntimeError: FluidSynth was asked for and is not there, or fails.
    """
    found = soundfont() if synthesiser != "own" else None
    if found is None and synthesiser == "fluidsynth":
        raise RuntimeError("FluidSynth or a soundfont is missing; set CASTALIA_SOUNDFONT to an .sf2 file.")
    if found is not None:
        try:
            return _fluid(score, rate, *found)
        except (OSError, RuntimeError, subprocess.SubprocessError, wave.Error):
            if synthesiser == "fluidsynth":
                raise
    return additive(score, rate)


def _fluid(score: Score, rate: int, program: str, font: str) -> np.ndarray:
    with tempfile.TemporaryDirectory(prefix="castalia-") as folder:
        source, target = Path(folder, "score.mid"), Path(folder, "sound.wav")
        source.write_bytes(midi_bytes(score))
        command = [program, "-ni", "-q", "-F", str(target), "-r", str(rate), "-O", "s16", font, str(source)]
        done = subprocess.run(command, capture_output=True, timeout=120, check=False)
        if done.returncode or not target.is_file():
            raise RuntimeError(f"fluidsynth failed: {done.stderr.decode(errors='replace')[:200]}")
        with wave.open(io.BytesIO(target.read_bytes())) as file:
            channels = file.getnchannels()
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, channels)
    sound = samples.mean(1).astype(np.float32) / 32768
    return sound[None, : int(LONGEST * rate)]


def additive(score: Score, rate: int = RATE) -> np.ndarray:
    """The same by sums of harmonics; drums are bursts of noise. Loudness follows velocity; the peak is at 0.8."""
    second = 60 / score.tempo / score.resolution
    seconds = min(score.seconds + _TAIL, LONGEST)
    out = np.zeros(max(int(seconds * rate), 1))
    notes = zip(score.onset, score.length, score.pitch, score.velocity, score.family(), strict=True)
    for onset, length, pitch, velocity, family in notes:
        at = int(onset * second * rate)
        if at >= len(out):
            continue
        gain = (velocity / 127) ** 1.5
        if family == "drums":
            sound = _drum(int(pitch), rate)
        else:
            sound = _note(440 * 2 ** ((int(pitch) - 69) / 12), float(length) * second, rate, family)
        part = out[at : at + len(sound)]
        part += gain * sound[: len(part)]
    peak = np.abs(out).max(initial=0)
    return (out * (0.8 / peak if peak else 1))[None].astype(np.float32)


def _note(frequency: float, seconds: float, rate: int, family: str) -> np.ndarray:
    strengths, rise, fade = _TIMBRES[family]
    t = np.arange(int((seconds + _TAIL) * rate)) / rate
    sound = np.zeros(len(t))
    for n, strength in enumerate(strengths, 1):
        if n * frequency < 0.45 * rate:
            sound += strength * np.sin(2 * np.pi * n * frequency * t) * np.exp(-fade * n**0.5 * t)
    end = np.clip(1 - (t - seconds) / (0.2 * _TAIL), 0, 1)
    return sound * np.minimum(t / rise, 1) * end / sum(strengths)


@lru_cache(maxsize=128)
def _drum(pitch: int, rate: int) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(pitch))
    t = np.arange(int(0.25 * rate)) / rate
    if pitch < 38 or (41 <= pitch <= 50 and pitch not in (42, 44, 46, 49)):
        low = 55 if pitch < 38 else 70 + 8 * (pitch - 41)
        return np.sin(2 * np.pi * (low * t + 4 * (1 - np.exp(-t * 30)))) * np.exp(-12 * t)
    speed = 60 if pitch in (42, 44) else 10 if pitch in (46, 49, 51, 52, 55, 57, 59) else 25
    return 0.5 * rng.standard_normal(len(t)) * np.exp(-speed * t)
