"""Sets of sound that have a name, and the tiny one that is built in."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from castalia.core.rng import derive
from castalia.core.spec import Spec
from castalia.core.specs.audio import AudioSpec
from castalia.media.audio.clips import AudioClips, to_int16
from castalia.media.audio.decode import AudioOptions
from castalia.media.audio.read import open_audio
from castalia.media.sets import DataFile, NamedData, Progress, find

DIGITS = "free-spoken-digits"
TINY = "vowels"
BY_WORD, BY_SPEAKER = "{label}_*", "*_{label}_*"
"""Patterns for the names of the spoken digits, ``digit_speaker_take``."""

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

VOWELS: Mapping[str, tuple[tuple[float, float], ...]] = {
    "a": ((750, 90), (1250, 110), (2500, 160)),
    "i": ((290, 60), (2250, 120), (2950, 170)),
    "u": ((320, 60), (800, 90), (2300, 150)),
}
"""Formants (centre, width) in Hz."""

SETS: Mapping[str, NamedData] = {
    DIGITS: NamedData(
        f"spoken digits 0 to 9 by six speakers, 8 kHz; labelled by word, or by speaker with labels = {BY_SPEAKER!r}",
        "CC BY-SA 4.0",
        (),
        {"train": 2693, "test": 307},
        {"all": (DataFile("flac.zip", "b382a55d8439975c980d9354b48daef40c6939c8258f044960471ad0144a5a3e"),)},
        "the folder recordings of https://github.com/Jakobovski/free-spoken-digit-dataset can be opened by its path",
    ),
    TINY: NamedData(
        "sung vowels a, i, u of about a twentieth of a second at many pitches, 8 kHz",
        "none needed: computed",
        (),
        {"train": 480, "test": 48},
        {},
    ),
}


def open_set(name: str, options: AudioOptions, split: str, like: Spec | None, progress: Progress | None) -> AudioClips:
    """Open a named set; its files' names tell the classes unless the options say otherwise."""
    assert like is None or isinstance(like, AudioSpec)
    if name == TINY:
        return vowels(split, options.samples(8000) if like is None else like.length)
    entry = SETS[name]
    path = find(name, entry, entry.files["all"][0], progress)
    if options.labels == "folders":
        options = replace(options, labels=BY_WORD)
    found = open_audio(path, options, split=split, like=like, name=name, progress=progress)
    if found.texts:  # its files are named by figures
        found.texts = tuple(WORDS[int(posixpath.basename(name)[0])] for name in found.files)
    return found


def vowels(split: str = "train", length: int = 512, clips: int | None = None) -> AudioClips:
    """Sung vowels of about a twentieth of a second at 8 kHz, made by a formula: a, i and u at many pitches.

    Args:
        split: ``train`` or ``test``.
        length: samples of a training crop.
        clips: only so many of them.
    """
    rate, rng = 8000, np.random.Generator(np.random.Philox(derive(7, split)))
    pieces, labels = [], []
    for i in range(clips or SETS[TINY].counts[split]):
        label = i % len(VOWELS)
        samples, pitch = int(rng.integers(360, 560)), float(rng.uniform(95, 230))
        pieces.append(vowel(list(VOWELS.values())[label], pitch, samples, rate, rng))
        labels.append(label)
    ends = np.cumsum([len(piece) for piece in pieces])
    spec = AudioSpec(rate, 1, length, tuple(VOWELS))
    return AudioClips(np.concatenate(pieces)[:, None], ends, spec, name=TINY, labels=np.array(labels))


def vowel(
    formants: tuple[tuple[float, float], ...], pitch: float, length: int, rate: int, rng: np.random.Generator
) -> np.ndarray:
    """A sung vowel, ``int16`` (length,): harmonics weighted by resonances, soft at both ends, a little breath."""
    t = np.arange(length) / rate
    glide = pitch * (1 + 0.03 * np.sin(2 * np.pi * 5 * t + rng.uniform(0, 6)))
    phase = 2 * np.pi * np.cumsum(glide) / rate
    sound = np.zeros(length)
    for harmonic in range(1, int(0.45 * rate / pitch) + 1):
        frequency = harmonic * pitch
        gain = sum(1 / (1 + ((frequency - centre) / width) ** 2) for centre, width in formants)
        sound += gain / harmonic**0.5 * np.sin(harmonic * phase)
    edge = np.minimum(1, np.minimum(np.arange(length), np.arange(length)[::-1]) / (0.02 * rate))
    sound = sound / np.abs(sound).max() * edge + 0.004 * rng.standard_normal(length)
    return to_int16(0.6 * sound / np.abs(sound).max())
