"""Recipes of MuseNet.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.music.read import MusicOptions
from castalia.models.music.musenet import MuseNetConfig
from castalia.recipes.preset import Preset


def tunes() -> Recipe:
    """Tunes made by a rule, as waits and notes: the demo."""
    options = MusicOptions(kind="events", length=96, lowest=45, highest=88, loudness=1)
    return Recipe(
        model="musenet",
        config=MuseNetConfig(layers=2, heads=4, dim=96, dropout=0.0),
        data=Data("tunes", medium="music", options=options),
        training=Training(
            steps=500,
            batch_size=32,
            lr=3e-3,
            schedule=Schedule("cosine", warmup=30, end=0.02),
            clip=1.0,
            ema_half_life=1_000,
        ),
    )


def tiny() -> Recipe:
    """The same with a small network: for tests."""
    base = tunes()
    options = MusicOptions(kind="events", length=32, steps=2, lowest=45, highest=88, loudness=1)
    return replace(
        base,
        config=MuseNetConfig(layers=2, heads=2, dim=16, attention="strided", stride=8, dropout=0.0, timing=False),
        data=Data("tunes", medium="music", options=options),
        training=replace(base.training, batch_size=16, lr=1e-2, ema_half_life=100),
    )


def chorales() -> Recipe:
    """Chorales cell by cell on a grid of sixteenths, moved through the keys: twelve minutes of two cores.

    Nats per token are nats per note of the grid, as Huang et al. measure (ends of pieces are tokens as well).
    """
    options = MusicOptions(kind="events", encoding="cells", length=512, lowest=30, highest=87, transpose=6)
    return Recipe(
        model="musenet",
        config=MuseNetConfig(layers=4, heads=4, dim=192, dropout=0.2),
        data=Data("jsb-chorales", medium="music", options=options),
        training=Training(
            minutes=12,
            batch_size=8,
            lr=2e-3,
            optimizer=Optimizer("adamw", betas=(0.9, 0.98), weight_decay=0.05),
            schedule=Schedule("cosine", warmup=100, end=0.02),
            clip=1.0,
            ema_half_life=1_000,
        ),
    )


def composers() -> Recipe:
    """Piano scores by sixteen composers: twelve minutes of two cores."""
    base = chorales()
    options = MusicOptions(kind="events", length=512, steps=12, loudness=4, transpose=6)
    return replace(
        base,
        config=MuseNetConfig(layers=4, heads=4, dim=192, dropout=0.1, unknown=0.15),
        data=Data("asap-scores", medium="music", options=options),
    )


def midi() -> Recipe:
    """Any MIDI files, with their instruments: the default for people's own folders."""
    base = composers()
    options = MusicOptions(kind="events", length=512, steps=12, transpose=5, on_bad_file="skip")
    return replace(
        base,
        data=Data("midi", medium="music", options=options),
        training=replace(base.training, minutes=0.0, steps=20_000),
    )


def paper() -> Recipe:
    """The network that its page describes: 72 layers, 24 heads, 4,096 tokens, sparse attention.

    Width, batch, rate and steps were not published; these are ours, in the manner of Sparse Transformer.
    """
    options = MusicOptions(kind="events", length=4096, steps=12, loudness=8, transpose=6, on_bad_file="skip")
    return Recipe(
        model="musenet",
        config=MuseNetConfig(layers=72, heads=24, dim=1536, attention="strided", stride=128, dropout=0.0),
        data=Data("midi", medium="music", options=options),
        training=Training(
            steps=500_000,
            batch_size=128,
            lr=3e-4,
            optimizer=Optimizer("adam", betas=(0.9, 0.999)),
            schedule=Schedule("cosine", warmup=5_000, end=0.0),
            clip=1.0,
            ema_half_life=100_000,
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "musenet-tunes": tunes,
    "musenet-chorales": chorales,
    "musenet-composers": composers,
    "musenet-midi": midi,
    "musenet-paper": paper,
    "musenet-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "tunes": "musenet-tunes",
    "jsb-chorales": "musenet-chorales",
    "asap-scores": "musenet-composers",
    "music:*": "musenet-midi",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "music": (Preset("musenet-midi", 1_000, 50_000, "keys, figures and beats of the kind; no long forms"),),
}

DEMO = "musenet-tunes"

TINY = "musenet-tiny"
