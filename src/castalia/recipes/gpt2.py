"""Recipes of GPT-2.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page. The paper says
nothing of its optimizer; the recipes of its sizes have the numbers that are usual for them (table 2.1 of GPT-3,
nanoGPT). The small ones are trained with Muon, which comes much further in the same time (see the page).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Expected, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.text.packing import TextOptions
from castalia.models.sequence.gpt2 import SIZES, GPT2Config
from castalia.recipes.preset import Preset

MUON = Optimizer("muon", betas=(0.9, 0.99), others=0.5)


def tiny() -> Recipe:
    """Counting, seconds: for tests."""
    return Recipe(
        model="gpt2",
        config=GPT2Config(layers=2, heads=2, dim=32, dropout=0.0, restarts=0.5),
        data=Data("counting", medium="text", options=TextOptions(tokens="chars", length=32)),
        training=Training(
            steps=400,
            batch_size=32,
            lr=0.02,
            optimizer=MUON,
            schedule=Schedule("cosine", warmup=20, end=0.0),
            ema_half_life=0.0,
        ),
    )


def shakespeare() -> Recipe:
    """Plays by characters, 0.8 million parameters, two minutes of one core."""
    return Recipe(
        model="gpt2",
        config=GPT2Config(layers=4, heads=4, dim=128, dropout=0.0, restarts=0.02),
        data=Data("tinyshakespeare", medium="text", options=TextOptions(tokens="chars", length=128)),
        training=Training(
            steps=940,
            batch_size=16,
            lr=0.02,
            optimizer=MUON,
            schedule=Schedule("cosine", warmup=20, end=0.0),
            clip=1.0,
            ema_half_life=0.0,
            precision="bfloat16",
            threads=1,
        ),
        expected=(Expected("nats_per_token", 1.62, "1.88 (nanoGPT's README, this size, context 64)", 3),),
    )


def text() -> Recipe:
    """Any text by bytes, which every text is made of: the default for people's own."""
    base = shakespeare()
    return replace(
        base,
        config=GPT2Config(layers=6, heads=6, dim=192, dropout=0.1),
        data=Data("texts", medium="text", options=TextOptions(tokens="bytes", length=256)),
        training=replace(base.training, steps=4_000, precision="auto", threads=0),
        expected=(),
    )


def text_small() -> Recipe:
    """The same with a small network: minutes on a processor."""
    base = text()
    return replace(
        base,
        config=GPT2Config(layers=4, heads=4, dim=128, dropout=0.0, restarts=0.02),
        data=Data("texts", medium="text", options=TextOptions(tokens="bytes", length=128)),
        training=replace(base.training, steps=1_500),
    )


def library() -> Recipe:
    """Python's standard library by bytes: the demo."""
    base = shakespeare()
    return replace(
        base,
        config=replace(base.config, restarts=0.0),
        data=Data("stdlib", medium="text", options=TextOptions(tokens="bytes", length=128)),
        training=replace(base.training, steps=600),
        expected=(),
    )


def pieces() -> Recipe:
    """Any text by pieces that are found in it, four characters each or so: for some megabytes and more."""
    base = text()
    options = TextOptions(tokens="bpe", vocabulary=4096, length=256)
    return replace(
        base,
        config=GPT2Config(layers=8, heads=8, dim=384, dropout=0.1),
        data=Data("texts", medium="text", options=options),
        training=replace(base.training, steps=20_000, batch_size=32),
    )


def paper(size: str, lr: float) -> Callable[[], Recipe]:
    """A size of the paper, with its context of 1,024 and 50,257 pieces, half a million tokens a step."""

    def made() -> Recipe:
        return Recipe(
            model="gpt2",
            config=replace(SIZES[size], dropout=0.0),
            data=Data("texts", medium="text", options=TextOptions(tokens="bpe", vocabulary=50_257, length=1_024)),
            training=Training(
                steps=600_000,
                batch_size=512,
                accumulate=32,
                lr=lr,
                optimizer=Optimizer("adamw", betas=(0.9, 0.95), weight_decay=0.1),
                schedule=Schedule("cosine", warmup=2_000, end=0.1),
                clip=1.0,
                ema_half_life=0.0,
            ),
        )

    made.__doc__ = f"The paper's {size} size, for machines with accelerators."
    return made


RECIPES: dict[str, Callable[[], Recipe]] = {
    "gpt2-shakespeare": shakespeare,
    "gpt2-text": text,
    "gpt2-text-small": text_small,
    "gpt2-library": library,
    "gpt2-pieces": pieces,
    "gpt2-small": paper("small", 6e-4),
    "gpt2-medium": paper("medium", 3e-4),
    "gpt2-large": paper("large", 2.5e-4),
    "gpt2-xl": paper("xl", 2e-4),
    "gpt2-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "tinyshakespeare": "gpt2-shakespeare",
    "stdlib": "gpt2-library",
    "counting": "gpt2-tiny",
    "text:*": "gpt2-text",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "text": (
        Preset("gpt2-text-small", 600, 6_000, "words that are mostly spelled right, sentences without sense"),
        Preset("gpt2-text", 3_000, 20_000, "sentences in the manner of the text, without sense"),
    ),
}

DEMO = "gpt2-library"

TINY = "gpt2-tiny"
