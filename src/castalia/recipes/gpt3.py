"""Recipes of GPT-3.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page. Those of the
paper's sizes have its numbers (table 2.1, appendix B): Adam with 0.9 and 0.95, decay 0.1, gradients of norm 1 at most,
a cosine to a tenth, 300 thousand million tokens, a batch that grows. The small ones are trained with Muon.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Expected, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.text.packing import TextOptions
from castalia.models.sequence.gpt3 import SIZES, GPT3Config
from castalia.recipes import gpt2
from castalia.recipes.preset import Preset

TOKENS = 300_000_000_000
"""Of the training of every size."""


def tiny() -> Recipe:
    """Counting, seconds: for tests."""
    return replace(gpt2.tiny(), model="gpt3", config=GPT3Config(layers=2, heads=2, dim=32, window=8, restarts=0.5))


def shakespeare() -> Recipe:
    """Plays by characters, 0.8 million parameters, a band of 64 in a context of 256, four minutes of one core."""
    base = gpt2.shakespeare()
    return replace(
        base,
        model="gpt3",
        config=GPT3Config(layers=4, heads=4, dim=128, window=64, restarts=0.02),
        data=replace(base.data, options=TextOptions(tokens="chars", length=256)),
        training=replace(base.training, steps=1_200, batch_size=8),
        expected=(Expected("nats_per_token", 1.64, "1.88 (nanoGPT's README, dense, context 64)", 4),),
    )


def library() -> Recipe:
    """Python's standard library by bytes: the demo."""
    base = shakespeare()
    return replace(
        base,
        config=replace(base.config, restarts=0.0),
        data=Data("stdlib", medium="text", options=TextOptions(tokens="bytes", length=256)),
        training=replace(base.training, steps=500),
        expected=(),
    )


def text() -> Recipe:
    """Any text by bytes: the default for people's own."""
    base = shakespeare()
    return replace(
        base,
        config=GPT3Config(layers=6, heads=6, dim=192, dropout=0.1, window=128),
        data=Data("texts", medium="text", options=TextOptions(tokens="bytes", length=512)),
        training=replace(base.training, steps=4_000, precision="auto", threads=0),
        expected=(),
    )


def paper(size: str, batch: int, lr: float) -> Callable[[], Recipe]:
    """A size of the paper with its context of 2,048 and 50,257 pieces.

    Args:
        size: its name.
        batch: rows of 2,048 tokens in a whole batch.
        lr: peak learning rate.
    """

    def made() -> Recipe:
        tokens = batch * 2_048
        steps = TOKENS // tokens
        grows = 4e9 + 8e9 * (tokens > 2**20)  # tokens over which the batch grows: 4 to 12 thousand million
        begin = batch // 16  # 32 thousand tokens
        begin = 1 << (begin.bit_length() - 1)
        levels = begin.bit_length() - 1
        seen = sum(tokens / (begin >> level) for level in range(levels)) / levels  # tokens of a step while it grows
        return Recipe(
            model="gpt3",
            config=replace(SIZES[size], ramp=round(grows / seen / steps, 4), begin=begin),
            data=Data("texts", medium="text", options=TextOptions(tokens="bpe", vocabulary=50_257, length=2_048)),
            training=Training(
                steps=steps,
                batch_size=batch,
                accumulate=batch // begin,
                lr=lr,
                optimizer=Optimizer("adamw", betas=(0.9, 0.95), weight_decay=0.1),
                schedule=Schedule("cosine", warmup=375_000_000 // tokens, end=0.1),
                clip=1.0,
                ema_half_life=0.0,
            ),
        )

    made.__doc__ = f"The paper's size of {size.upper()}, for machines with accelerators."
    return made


RECIPES: dict[str, Callable[[], Recipe]] = {
    "gpt3-shakespeare": shakespeare,
    "gpt3-library": library,
    "gpt3-text": text,
    "gpt3-125m": paper("125m", 256, 6e-4),
    "gpt3-350m": paper("350m", 256, 3e-4),
    "gpt3-760m": paper("760m", 256, 2.5e-4),
    "gpt3-1.3b": paper("1.3b", 512, 2e-4),
    "gpt3-2.7b": paper("2.7b", 512, 1.6e-4),
    "gpt3-6.7b": paper("6.7b", 1_024, 1.2e-4),
    "gpt3-13b": paper("13b", 1_024, 1e-4),
    "gpt3-175b": paper("175b", 1_536, 0.6e-4),
    "gpt3-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "tinyshakespeare": "gpt3-shakespeare",
    "stdlib": "gpt3-library",
    "counting": "gpt3-tiny",
    "text:*": "gpt3-text",
}

PRESETS: dict[str, tuple[Preset, ...]] = {}

DEMO = "gpt3-library"

TINY = "gpt3-tiny"
