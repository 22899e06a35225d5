"""Recipes of the LSTM language model.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Expected, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.text.packing import TextOptions
from castalia.models.sequence.lstm import LSTMConfig
from castalia.recipes.preset import Preset


def tiny() -> Recipe:
    """Counting, seconds: for tests."""
    return Recipe(
        model="lstm",
        config=LSTMConfig(embedding=16, hidden=64, restarts=0.5),
        data=Data("counting", medium="text", options=TextOptions(tokens="chars", length=32)),
        training=Training(
            steps=400,
            batch_size=32,
            lr=0.01,
            schedule=Schedule("cosine", warmup=20, end=0.0),
            clip=1.0,
            ema_half_life=0.0,
        ),
    )


def shakespeare() -> Recipe:
    """Plays by characters, 0.4 million parameters, two minutes of one core."""
    return Recipe(
        model="lstm",
        config=LSTMConfig(embedding=64, hidden=256, restarts=0.02),
        data=Data("tinyshakespeare", medium="text", options=TextOptions(tokens="chars", length=128)),
        training=Training(
            steps=1_500,
            batch_size=32,
            lr=8e-3,
            schedule=Schedule("cosine", warmup=50, end=0.0),
            clip=1.0,
            ema_half_life=0.0,
            precision="bfloat16",
            threads=1,
        ),
        expected=(Expected("nats_per_token", 1.63, "none for this size", 3),),
    )


def text() -> Recipe:
    """Any text by bytes: the default for people's own."""
    base = shakespeare()
    return replace(
        base,
        config=LSTMConfig(embedding=64, hidden=512, layers=2, dropout=0.1),
        data=Data("texts", medium="text", options=TextOptions(tokens="bytes", length=128)),
        training=replace(base.training, steps=6_000, lr=3e-3, precision="auto", threads=0),
        expected=(),
    )


def book() -> Recipe:
    """Foster's recipe generator: 10,000 tokens, embedding 100, 128 units, windows of 200, batches of 32, Adam.

    His tokens are the words of lower-cased texts with punctuation set apart; here they are pieces that are found in the
    texts. 25 of his epochs over 20,111 recipes are 15,700 batches of recipes; a window here is 200 tokens of the row.
    """
    return Recipe(
        model="lstm",
        config=LSTMConfig(embedding=100, hidden=128),
        data=Data("texts", medium="text", options=TextOptions(tokens="bpe", vocabulary=10_000, length=200)),
        training=Training(
            steps=15_700,
            batch_size=32,
            lr=1e-3,
            optimizer=Optimizer("adam", betas=(0.9, 0.999), eps=1e-7),
            schedule=Schedule("constant", warmup=0),
            ema_half_life=0.0,
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "lstm-shakespeare": shakespeare,
    "lstm-text": text,
    "book-recipes": book,
    "lstm-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "tinyshakespeare": "lstm-shakespeare",
    "counting": "lstm-tiny",
    "text:*": "lstm-text",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "text": (Preset("lstm-text", 600, 20_000, "words that are mostly spelled right, sentences without sense"),),
}

DEMO = "lstm-tiny"

TINY = "lstm-tiny"
