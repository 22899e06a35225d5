"""Recipes of DiffWave.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.audio.decode import AudioOptions
from castalia.models.sound.diffwave import DiffWaveConfig
from castalia.recipes.preset import Preset


def vowels() -> Recipe:
    """Sung vowels that are made by a formula: the demo."""
    return Recipe(
        model="diffwave",
        config=DiffWaveConfig(layers=12, cycle=6, channels=24, steps=50, last_beta=0.05),
        data=Data("vowels", medium="audio", options=AudioOptions(length=512)),
        training=Training(
            steps=2_500,
            batch_size=16,
            lr=2e-3,
            schedule=Schedule("cosine", warmup=50, end=0.02),
            clip=1.0,
            ema_half_life=4_000,
        ),
    )


def tiny() -> Recipe:
    """The same with a small network: for tests."""
    base = vowels()
    return replace(
        base,
        config=replace(base.config, layers=6, cycle=3, channels=8, step_width=64, steps=20, last_beta=0.2),
        data=Data("vowels", medium="audio", options=AudioOptions(length=128)),
        training=replace(base.training, lr=1e-2, ema_half_life=100),
    )


def digits() -> Recipe:
    """Spoken digits by word, 8 kHz: twenty minutes of two cores."""
    return Recipe(
        model="diffwave",
        config=DiffWaveConfig(
            layers=14, cycle=7, channels=96, step_width=256, fold=8, level=0.25, steps=50, last_beta=0.05
        ),
        data=Data("free-spoken-digits", medium="audio", options=AudioOptions(channels=1, length=4096)),
        training=Training(
            minutes=20,
            batch_size=8,
            lr=2e-3,
            schedule=Schedule("cosine", warmup=50, end=0.02),
            clip=1.0,
            ema_half_life=4_000,
        ),
    )


def digits_vocoder() -> Recipe:
    """A vocoder of spoken digits: from mel frames to sound."""
    base = digits()
    return replace(
        base,
        config=replace(base.config, mel=64, hop=(8, 8), conditional=False),
        data=Data("free-spoken-digits", medium="audio", options=AudioOptions(channels=1, length=2048)),
    )


def audio() -> Recipe:
    """Any recordings, mixed down to mono at 16 kHz, one second: the default for people's own folders."""
    base = digits()
    return replace(
        base,
        config=DiffWaveConfig(
            layers=14, cycle=7, channels=96, step_width=256, fold=8, level=0.25, steps=50, last_beta=0.05
        ),
        data=Data("recordings", medium="audio", options=AudioOptions(rate=16_000, channels=1, length=16_000)),
        training=replace(base.training, minutes=0.0, steps=100_000, lr=5e-4, samples=4),
    )


def paper() -> Recipe:
    """The paper's base vocoder: 22.05 kHz, 80 bands, hop 256, 64 channels, T = 50, a million steps of Adam at 2e-4."""
    return Recipe(
        model="diffwave",
        config=DiffWaveConfig(steps=50, last_beta=0.05, mel=80, conditional=False),
        data=Data("recordings", medium="audio", options=AudioOptions(rate=22_050, channels=1, length=62 * 256)),
        training=Training(
            steps=1_000_000,
            batch_size=16,
            lr=2e-4,
            optimizer=Optimizer("adam", betas=(0.9, 0.999)),
            schedule=Schedule("constant", warmup=0),
            ema_half_life=0.0,
        ),
    )


def paper_words() -> Recipe:
    """The paper's network for spoken digits (SC09): 16 kHz, one second, 36 layers, 256 channels, T = 200, by class."""
    base = paper()
    return replace(
        base,
        config=DiffWaveConfig(layers=36, cycle=12, channels=256, steps=200, last_beta=0.02),
        data=Data("recordings", medium="audio", options=AudioOptions(rate=16_000, channels=1, length=16_000)),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "diffwave-vowels": vowels,
    "diffwave-digits": digits,
    "diffwave-digits-vocoder": digits_vocoder,
    "diffwave-audio": audio,
    "diffwave-paper": paper,
    "diffwave-paper-words": paper_words,
    "diffwave-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "vowels": "diffwave-vowels",
    "free-spoken-digits": "diffwave-digits",
    "audio:*": "diffwave-audio",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "audio": (Preset("diffwave-audio", 5_000, 200_000, "sound of the right colour, words only after long training"),),
}

DEMO = "diffwave-vowels"

TINY = "diffwave-tiny"
