"""Recipes of MusicVAE.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.music.read import MusicOptions
from castalia.models.music.musicvae import SIZES, MusicVAEConfig
from castalia.recipes.preset import Preset


def tunes() -> Recipe:
    """Two bars of tunes made by a rule: the demo."""
    return Recipe(
        model="musicvae",
        config=MusicVAEConfig("flat", 32, (96,), (96,), beta=0.1, beta_rate=0.998),
        data=Data("tunes", medium="music", options=MusicOptions(length=32)),
        training=Training(
            steps=800,
            batch_size=64,
            lr=4e-3,
            optimizer=Optimizer("adam", betas=(0.9, 0.999)),
            schedule=Schedule("cosine", warmup=20, end=0.02),
            clip=1.0,
            ema_half_life=2_000,
        ),
    )


def tiny() -> Recipe:
    """One bar, a small network: for tests."""
    base = tunes()
    return replace(
        base,
        config=MusicVAEConfig("hierarchical", 12, (20,), (24,), (24,), beta=0.01, beta_rate=0.0),
        data=Data("tunes", medium="music", options=MusicOptions(length=16, lowest=45, highest=88)),
        training=replace(
            base.training,
            lr=1e-2,
            optimizer=Optimizer("adam", betas=(0.9, 0.999), eps=1e-3),
            ema_half_life=100,
        ),
    )


def two_bars() -> Recipe:
    """Two bars of folk melodies, eight minutes of one core: a narrow network, for steps are worth more than width."""
    return Recipe(
        model="musicvae",
        config=MusicVAEConfig("flat", 64, (128,), (192,), beta=0.2, beta_rate=0.9995),
        data=Data("nottingham", medium="music", options=MusicOptions(length=32, transpose=5)),
        training=Training(
            minutes=8,
            batch_size=64,
            lr=4e-3,
            optimizer=Optimizer("adam", betas=(0.9, 0.999)),
            schedule=Schedule("cosine", warmup=50, end=0.01),
            clip=1.0,
            ema_half_life=10_000,
        ),
    )


def sixteen_bars() -> Recipe:
    """Sixteen bars of folk melodies, below a conductor."""
    base = two_bars()
    return replace(
        base,
        config=MusicVAEConfig("hierarchical", 128, (128,), (128,), (128,), beta=0.2, beta_rate=0.9995, free_bits=64),
        data=Data("nottingham", medium="music", options=MusicOptions(length=256, transpose=5)),
        training=replace(base.training, minutes=12, batch_size=32),
    )


def sixteen_bars_flat() -> Recipe:
    """The same without one: what the paper compares with."""
    base = sixteen_bars()
    return replace(base, config=replace(base.config, decoder="flat"))


def melodies() -> Recipe:
    """Two bars of any MIDI files: the default for people's own folders."""
    base = two_bars()
    return replace(
        base,
        data=Data("midi", medium="music", options=MusicOptions(length=32, bar=0, transpose=5, on_bad_file="skip")),
        training=replace(base.training, minutes=0.0, steps=20_000),
    )


def trios() -> Recipe:
    """Sixteen bars of melody, bass and drums."""
    base = sixteen_bars()
    options = MusicOptions(length=256, voices="trio", transpose=5, on_bad_file="skip")
    return replace(base, data=Data("midi", medium="music", options=options), training=melodies().training)


def paper() -> Recipe:
    """The authors' network for sixteen bars, with their batch and (about) their schedule.

    Theirs falls from 1e-3 to 1e-5 by 0.9999 a step; cosine over as many steps is near it.
    """
    return Recipe(
        model="musicvae",
        config=SIZES["16bar_hierarchical"],
        data=Data("midi", medium="music", options=MusicOptions(length=256, transpose=5, on_bad_file="skip")),
        training=Training(
            steps=100_000,
            batch_size=512,
            lr=1e-3,
            optimizer=Optimizer("adam", betas=(0.9, 0.999)),
            schedule=Schedule("cosine", warmup=0, end=0.01),
            clip=1.0,
            ema_half_life=0.0,
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "musicvae-tunes": tunes,
    "musicvae-2bar": two_bars,
    "musicvae-16bar": sixteen_bars,
    "musicvae-16bar-flat": sixteen_bars_flat,
    "musicvae-melodies": melodies,
    "musicvae-trios": trios,
    "musicvae-paper": paper,
    "musicvae-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "tunes": "musicvae-tunes",
    "nottingham": "musicvae-2bar",
    "music:*": "musicvae-melodies",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "music": (Preset("musicvae-melodies", 1_000, 20_000, "short melodies of the right kind, and walks between them"),),
}

DEMO = "musicvae-tunes"

TINY = "musicvae-tiny"
