"""Recipes of Jukebox.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.audio.decode import AudioOptions
from castalia.models.sound.jukebox import JukeboxConfig
from castalia.recipes.preset import Preset


def vowels() -> Recipe:
    """Sung vowels that are made by a formula, two levels: the demo."""
    return Recipe(
        model="jukebox",
        config=JukeboxConfig(
            downs=(3, 5),
            width=24,
            depth=2,
            codes=128,
            dims=16,
            resolutions=((256, 30, 150), (128, 15, 75), (64, 8, 40)),
            context=(64, 16),
            row=(8, 4),
            prior_dim=(64, 64),
            prior_layers=(3, 3),
            prior_heads=4,
            prior_dropout=0.1,
        ),
        data=Data("vowels", medium="audio", options=AudioOptions(length=512)),
        training=Training(
            steps=2_000,
            batch_size=16,
            lr=2e-3,
            schedule=Schedule("cosine", warmup=30, end=0.02),
            clip=1.0,
            ema_half_life=2_000,
        ),
    )


def tiny() -> Recipe:
    """The same with a small network: for tests."""
    base = vowels()
    return replace(
        base,
        config=replace(
            base.config,
            downs=(2, 4),
            width=8,
            depth=1,
            codes=16,
            dims=4,
            resolutions=((64, 16, 64),),
            context=(32, 8),
            row=(4, 2),
            prior_dim=(16, 16),
            prior_layers=(1, 3),
            prior_heads=2,
            prior_dropout=0.0,
            codec_share=0.5,
        ),
        data=Data("vowels", medium="audio", options=AudioOptions(length=128)),
        training=replace(
            base.training, lr=1e-2, optimizer=Optimizer("adam", betas=(0.9, 0.99), eps=1e-3), ema_half_life=100
        ),
    )


def digits() -> Recipe:
    """Spoken digits at three rates, the speaker as the voice and the word as its words: thirty minutes of two cores."""
    return Recipe(
        model="jukebox",
        config=JukeboxConfig(
            downs=(3, 4, 6),
            width=32,
            depth=3,
            codes=256,
            dims=32,
            resolutions=((512, 60, 300), (256, 30, 150), (128, 15, 75)),
            context=(256, 256, 64),
            row=(16, 16, 8),
            prior_dim=(128, 128, 128),
            prior_layers=(3, 3, 3),
            prior_heads=4,
            prior_dropout=0.1,
            letters=5,
        ),
        data=Data(
            "free-spoken-digits",
            medium="audio",
            options=AudioOptions(channels=1, length=4096, labels="none", speakers="*_{label}_*", words=5),
        ),
        training=Training(
            minutes=30,
            batch_size=16,
            lr=2e-3,
            schedule=Schedule("cosine", warmup=50, end=0.02),
            clip=1.0,
            ema_half_life=4_000,
        ),
    )


def audio() -> Recipe:
    """Any recordings, mixed down to mono at 16 kHz, four seconds: the default for people's own folders."""
    base = digits()
    return replace(
        base,
        config=replace(
            base.config,
            downs=(3, 5, 7),
            codes=512,
            dims=64,
            depth=4,
            resolutions=((1024, 120, 600), (512, 60, 300), (256, 30, 150)),
            context=(1024, 1024, 512),
            row=(32, 32, 32),
            prior_dim=(256, 256, 256),
            prior_layers=(6, 6, 6),
            letters=0,
        ),
        data=Data("recordings", medium="audio", options=AudioOptions(rate=16_000, channels=1, length=4.0)),
        training=replace(base.training, minutes=0.0, steps=60_000, batch_size=8, lr=5e-4),
    )


def paper() -> Recipe:
    """The paper's: 44.1 kHz mono, hops of 8, 32 and 128, 2,048 codes; priors of 0.9 and 5 billion parameters.

    The paper trains autoencoders, upsamplers and the top prior apart, on hundreds of accelerators for weeks; batch and
    steps here are ours.
    """
    return Recipe(
        model="jukebox",
        config=JukeboxConfig(multipliers=(2, 1, 1), letters=512, prior_attention=0.25, prior_hidden=1.0),
        data=Data(
            "recordings",
            medium="audio",
            options=AudioOptions(rate=44_100, channels=1, length=8192 * 128, words=512),
        ),
        training=Training(
            steps=1_000_000,
            batch_size=64,
            lr=3e-4,
            optimizer=Optimizer("adam", betas=(0.9, 0.999)),
            schedule=Schedule("linear", warmup=1_000, end=0.0),
            clip=1.0,
            ema_half_life=0.0,
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "jukebox-vowels": vowels,
    "jukebox-digits": digits,
    "jukebox-audio": audio,
    "jukebox-paper": paper,
    "jukebox-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "vowels": "jukebox-vowels",
    "free-spoken-digits": "jukebox-digits",
    "audio:*": "jukebox-audio",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "audio": (Preset("jukebox-audio", 6_000, 200_000, "sound of the right colour; long training for anything sung"),),
}

DEMO = "jukebox-vowels"

TINY = "jukebox-tiny"
