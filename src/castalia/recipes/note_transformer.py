"""Recipes of the note transformer.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.music.read import MusicOptions
from castalia.models.music.note_transformer import NoteTransformerConfig
from castalia.recipes.preset import Preset


def tunes() -> Recipe:
    """Two bars of tunes made by a rule: the demo."""
    return Recipe(
        model="note-transformer",
        config=NoteTransformerConfig(layers=2, dim=96, hidden=256, dropout=0.0),
        data=Data("tunes", medium="music", options=MusicOptions(length=32)),
        training=Training(
            steps=800,
            batch_size=64,
            lr=3e-3,
            schedule=Schedule("cosine", warmup=30, end=0.02),
            clip=1.0,
            ema_half_life=2_000,
        ),
    )


def tiny() -> Recipe:
    """One bar, a small network: for tests."""
    base = tunes()
    return replace(
        base,
        config=NoteTransformerConfig(layers=1, dim=24, heads=2, hidden=48, dropout=0.0),
        data=Data("tunes", medium="music", options=MusicOptions(length=16, lowest=45, highest=88)),
        training=replace(
            base.training, batch_size=16, lr=1e-2, optimizer=Optimizer("adam", eps=1e-3), ema_half_life=100
        ),
    )


def folk() -> Recipe:
    """Eight bars of folk melodies, moved through the keys: ten minutes of one core."""
    base = tunes()
    return replace(
        base,
        config=NoteTransformerConfig(layers=3, dim=128, hidden=512, dropout=0.1),
        data=Data("nottingham", medium="music", options=MusicOptions(length=128, transpose=5)),
        training=replace(base.training, minutes=10, batch_size=32, lr=2e-3),
    )


def melodies() -> Recipe:
    """The highest voice of any MIDI files, eight bars: the default for people's own folders."""
    base = folk()
    return replace(
        base,
        config=NoteTransformerConfig(),
        data=Data("midi", medium="music", options=MusicOptions(length=128, transpose=5, on_bad_file="skip")),
        training=replace(base.training, minutes=0.0, steps=20_000, lr=1e-3),
    )


def book() -> Recipe:
    """Foster's sizes, dropout and batch, for cello suites in a folder of one's own; Adam, 5,000 epochs there."""
    base = melodies()
    options = MusicOptions(length=128, lowest=36, highest=79, on_bad_file="skip")
    return replace(
        base,
        config=NoteTransformerConfig(
            layers=1, dim=256, heads=5, inner=1280, hidden=256, dropout=0.3, told=False, timing=False
        ),
        data=Data("midi", medium="music", options=options),
        training=replace(
            base.training,
            steps=100_000,
            batch_size=256,
            lr=1e-3,
            optimizer=Optimizer("adam", betas=(0.9, 0.999)),
            schedule=Schedule("constant", warmup=0),
            ema_half_life=0.0,
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "note-transformer-tunes": tunes,
    "note-transformer-folk": folk,
    "note-transformer-melodies": melodies,
    "note-transformer-book": book,
    "note-transformer-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "tunes": "note-transformer-tunes",
    "nottingham": "note-transformer-folk",
    "music:*": "note-transformer-melodies",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "music": (Preset("note-transformer-melodies", 1_000, 20_000, "melodies in a key and in time; no long forms"),),
}

DEMO = "note-transformer-tunes"

TINY = "note-transformer-tiny"
