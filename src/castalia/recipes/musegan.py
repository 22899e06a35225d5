"""Recipes of MuseGAN.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.music.read import MusicOptions
from castalia.models.music.musegan import PAPER, MuseGANConfig
from castalia.recipes.preset import Preset


def tunes() -> Recipe:
    """Two bars of melody, bass and drums made by a rule: the demo."""
    options = MusicOptions(kind="rolls", voices="trio", length=32, lowest=36, highest=88)
    return Recipe(
        model="musegan",
        config=MuseGANConfig(latents=16, width=64, temporal=64, critic_steps=3),
        data=Data("tunes", medium="music", options=options),
        training=Training(
            steps=700,
            batch_size=32,
            lr=1e-3,
            optimizer=PAPER,
            schedule=Schedule("constant", warmup=0),
            ema_half_life=2_000,
        ),
    )


def tiny() -> Recipe:
    """A melody of one bar, a small network: for tests."""
    base = tunes()
    options = MusicOptions(kind="rolls", voices="melody", length=16, lowest=48, highest=71)
    return replace(
        base,
        config=MuseGANConfig(latents=4, width=16, temporal=8, critic_steps=1),
        data=Data("tunes", medium="music", options=options),
        training=replace(
            base.training,
            batch_size=16,
            lr=4e-3,
            optimizer=Optimizer("adam", betas=(0.5, 0.9), eps=1e-5),
            ema_half_life=100,
        ),
    )


def chorales() -> Recipe:
    """Two bars of four voices, as in the book on generative deep learning: ten minutes of two cores."""
    options = MusicOptions(kind="rolls", voices="tracks", length=32, lowest=24, highest=83)
    return Recipe(
        model="musegan",
        config=MuseGANConfig(width=128, temporal=128, one_note=True),
        data=Data("jsb-chorales", medium="music", options=options),
        training=Training(
            minutes=10,
            batch_size=32,
            lr=1e-3,
            optimizer=PAPER,
            schedule=Schedule("constant", warmup=0),
            ema_half_life=5_000,
        ),
    )


def band() -> Recipe:
    """Four bars of drums, piano, guitar, bass and strings: the default for people's own folders."""
    base = chorales()
    options = MusicOptions(kind="rolls", voices="band", length=64, lowest=24, highest=107, on_bad_file="skip")
    return replace(
        base,
        config=MuseGANConfig(width=256, temporal=256),
        data=Data("midi", medium="music", options=options),
        training=replace(base.training, minutes=0.0, steps=20_000, batch_size=64),
    )


def paper() -> Recipe:
    """Four bars of 48 steps and 84 notes of five tracks, hybrid, 1,024 channels, as the authors trained it.

    Their rate falls to 0 over the last tenth of 50,000 steps; here it is constant.
    """
    base = band()
    options = MusicOptions(
        kind="rolls", voices="band", length=192, steps=12, bar=48, lowest=24, highest=107, on_bad_file="skip"
    )
    return replace(
        base,
        config=MuseGANConfig(width=1024, temporal=1024),
        data=Data("midi", medium="music", options=options),
        training=replace(base.training, steps=50_000, ema_half_life=0.0),
    )


def book() -> Recipe:
    """Foster's: two bars of chorales, four latents of 32, 1,024 channels, batches of 64."""
    base = chorales()
    options = MusicOptions(kind="rolls", voices="tracks", length=32, lowest=0, highest=83)
    return replace(
        base,
        config=MuseGANConfig(width=1024, temporal=1024, one_note=True),
        data=Data("jsb-chorales", medium="music", options=options),
        training=replace(base.training, minutes=0.0, steps=24_000, batch_size=64, ema_half_life=0.0),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "musegan-tunes": tunes,
    "musegan-chorales": chorales,
    "musegan-band": band,
    "musegan-paper": paper,
    "musegan-book": book,
    "musegan-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "tunes": "musegan-tunes",
    "jsb-chorales": "musegan-chorales",
    "music:*": "musegan-band",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "music": (Preset("musegan-band", 2_000, 50_000, "chords and beats that fit together for a few bars"),),
}

DEMO = "musegan-tunes"

TINY = "musegan-tiny"
