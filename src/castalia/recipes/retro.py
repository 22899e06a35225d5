"""Recipes of RETRO.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Expected, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.text.packing import TextOptions
from castalia.models.sequence.retro import SIZES, RetroConfig
from castalia.recipes import gpt2
from castalia.recipes.preset import Preset


def tiny() -> Recipe:
    """Counting, seconds: for tests."""
    config = RetroConfig(2, 2, 24, restarts=0.5, cross=(2,), chunk=8, encoder=1, runs=(2, 3), keys=64)
    return replace(gpt2.tiny(), model="retro", config=config)


def shakespeare() -> Recipe:
    """Plays by characters, chunks of 32 with two neighbours: two minutes of one core."""
    base = gpt2.shakespeare()
    return replace(
        base,
        model="retro",
        config=RetroConfig(4, 4, 128, restarts=0.02, cross=(2, 4), chunk=32, encoder=1, runs=(3, 4, 5), keys=512),
        training=replace(base.training, steps=260),
        expected=(
            Expected("nats_per_token", 2.1, "none for these data; 2.079 without neighbours, in a third of it", 3),
        ),
    )


def library() -> Recipe:
    """Python's standard library by bytes, where files have much in common: the demo."""
    base = shakespeare()
    return replace(
        base,
        config=replace(base.config, restarts=0.0, most=1_000_000),
        data=Data("stdlib", medium="text", options=TextOptions(tokens="bytes", length=128)),
        training=replace(base.training, steps=200),
        expected=(),
    )


def text() -> Recipe:
    """Any texts by bytes: the default for people's own."""
    base = shakespeare()
    return replace(
        base,
        config=RetroConfig(6, 6, 192, dropout=0.1, cross=(3, 6), chunk=64, encoder=2, runs=(3, 4, 5), keys=512),
        data=Data("texts", medium="text", options=TextOptions(tokens="bytes", length=256)),
        training=replace(base.training, steps=4_000, precision="auto", threads=0),
        expected=(),
    )


def paper(size: str, lr: float) -> Callable[[], Recipe]:
    """A size of the paper: a context of 2,048 pieces in 32 chunks, half a million tokens a step."""

    def made() -> Recipe:
        return Recipe(
            model="retro",
            config=SIZES[size],
            data=Data("texts", medium="text", options=TextOptions(tokens="bpe", vocabulary=32_000, length=2_048)),
            training=Training(
                steps=800_000,
                batch_size=256,
                accumulate=32,
                lr=lr,
                optimizer=Optimizer("adamw", betas=(0.9, 0.95), weight_decay=0.1),
                schedule=Schedule("cosine", warmup=750, end=0.1),
                clip=1.0,
                ema_half_life=0.0,
            ),
        )

    made.__doc__ = f"The paper's size of {size.upper()}, for machines with accelerators."
    return made


RECIPES: dict[str, Callable[[], Recipe]] = {
    "retro-shakespeare": shakespeare,
    "retro-library": library,
    "retro-text": text,
    "retro-172m": paper("172m", 2e-4),
    "retro-425m": paper("425m", 2e-4),
    "retro-1.5b": paper("1.5b", 1e-4),
    "retro-7.5b": paper("7.5b", 1e-4),
    "retro-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "tinyshakespeare": "retro-shakespeare",
    "stdlib": "retro-library",
    "counting": "retro-tiny",
    "text:*": "retro-text",
}

PRESETS: dict[str, tuple[Preset, ...]] = {}

DEMO = "retro-library"

TINY = "retro-tiny"
