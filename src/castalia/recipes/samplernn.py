"""Recipes of SampleRNN.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.audio.decode import AudioOptions
from castalia.models.sound.samplernn import SampleRNNConfig
from castalia.recipes.preset import Preset


def vowels() -> Recipe:
    """Sung vowels that are made by a formula: the demo."""
    return Recipe(
        model="samplernn",
        config=SampleRNNConfig(frames=(16, 4), dim=64, embedding=32, truncation=512),
        data=Data("vowels", medium="audio", options=AudioOptions(length=512)),
        training=Training(
            steps=1_200,
            batch_size=16,
            lr=5e-3,
            schedule=Schedule("cosine", warmup=30, end=0.02),
            clip=1.0,
            ema_half_life=1_000,
        ),
    )


def tiny() -> Recipe:
    """The same with a small network: for tests."""
    base = vowels()
    return replace(
        base,
        config=SampleRNNConfig(frames=(8,), dim=44, embedding=8, truncation=128, weight_norm=False),
        data=Data("vowels", medium="audio", options=AudioOptions(length=128)),
        training=replace(base.training, lr=2e-2, ema_half_life=100),
    )


def digits() -> Recipe:
    """Spoken digits by word, 8 kHz, three tiers: twenty minutes of two cores."""
    return Recipe(
        model="samplernn",
        config=SampleRNNConfig(frames=(16, 4), dim=192, embedding=64, truncation=1024),
        data=Data("free-spoken-digits", medium="audio", options=AudioOptions(channels=1, length=4096)),
        training=Training(
            minutes=20,
            batch_size=4,
            lr=3e-3,
            schedule=Schedule("cosine", warmup=50, end=0.02),
            clip=1.0,
            ema_half_life=1_000,
        ),
    )


def digits_two_tiers() -> Recipe:
    """The same with two tiers."""
    base = digits()
    return replace(base, config=replace(base.config, frames=(16,)))


def audio() -> Recipe:
    """Any recordings, mixed down to mono at 16 kHz: the default for people's own folders."""
    base = digits()
    return replace(
        base,
        config=SampleRNNConfig(frames=(16, 4), dim=256, layers=2, embedding=128, truncation=1024),
        data=Data("recordings", medium="audio", options=AudioOptions(rate=16_000, channels=1, length=8192)),
        training=replace(base.training, minutes=0.0, steps=50_000, batch_size=8, lr=1e-3),
    )


def paper() -> Recipe:
    """The paper's best of two tiers: frames of 16, three GRUs of 1,024, stretches of 1,024, batches of 128.

    Eight seconds of 16 kHz are one example, cut to whole stretches; every weight's gradient was cut at +-1, where here
    the norm of all is.
    """
    return Recipe(
        model="samplernn",
        config=SampleRNNConfig(
            frames=(16,), dim=1024, layers=3, embedding=256, levels="linear", truncation=1024, conditional=False
        ),
        data=Data("recordings", medium="audio", options=AudioOptions(rate=16_000, channels=1, length=125 * 1024)),
        training=Training(
            steps=100_000,
            batch_size=128,
            lr=1e-3,
            optimizer=Optimizer("adam", betas=(0.9, 0.999)),
            schedule=Schedule("constant", warmup=0),
            clip=1.0,
            ema_half_life=0.0,
        ),
    )


def paper_three_tiers() -> Recipe:
    """The paper's best of three tiers: frames of 8 and 2, one GRU of 1,024 each, stretches of 512."""
    base = paper()
    config = SampleRNNConfig(
        frames=(8, 2), dim=1024, layers=1, embedding=256, levels="linear", truncation=512, conditional=False
    )
    return replace(base, config=config)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "samplernn-vowels": vowels,
    "samplernn-digits": digits,
    "samplernn-digits-2tier": digits_two_tiers,
    "samplernn-audio": audio,
    "samplernn-paper": paper,
    "samplernn-paper-3tier": paper_three_tiers,
    "samplernn-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "vowels": "samplernn-vowels",
    "free-spoken-digits": "samplernn-digits",
    "audio:*": "samplernn-audio",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "audio": (Preset("samplernn-audio", 2_000, 100_000, "sound of the right colour, words not yet to be told"),),
}

DEMO = "samplernn-vowels"

TINY = "samplernn-tiny"
