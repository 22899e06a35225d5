"""Recipes of the modern GPT.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Expected, Recipe, Schedule
from castalia.core.model import Optimizer
from castalia.media.text.packing import TextOptions
from castalia.models.sequence.gpt_modern import GPTModernConfig
from castalia.recipes import gpt2
from castalia.recipes.preset import Preset

MUON = Optimizer("muon", betas=(0.8, 0.95), eps=1e-10, others=2.5)
"""Matrices at the rate of the recipe, the embedding at 2.5 times that, the head at a tenth of the embedding's."""

FALLING = Schedule("linear", warmup=0, end=0.0)


def tiny() -> Recipe:
    """Counting, seconds: for tests."""
    base = gpt2.tiny()
    return replace(
        base,
        model="gpt-modern",
        config=GPTModernConfig(layers=2, heads=2, dim=32, restarts=0.5),
        training=replace(base.training, optimizer=MUON, schedule=FALLING),
    )


def shakespeare() -> Recipe:
    """Plays by characters, 0.8 million parameters, two minutes of one core."""
    base = gpt2.shakespeare()
    return replace(
        base,
        model="gpt-modern",
        config=GPTModernConfig(layers=4, heads=4, dim=128, restarts=0.02),
        training=replace(base.training, steps=900, lr=0.03, optimizer=MUON, schedule=FALLING, clip=0.0),
        expected=(Expected("nats_per_token", 1.56, "1.88 (nanoGPT's README, this size, context 64)", 3),),
    )


def plays() -> Recipe:
    """The same plays with 2.7 million parameters and twice the context: half an hour of one core."""
    base = shakespeare()
    return replace(
        base,
        config=GPTModernConfig(layers=6, heads=6, dim=192, dropout=0.15, restarts=0.02),
        data=Data("tinyshakespeare", medium="text", options=TextOptions(tokens="chars", length=256)),
        training=replace(base.training, steps=2_200),
        expected=(),
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


def infill() -> Recipe:
    """Python's standard library by bytes, half of the texts with a gap: to fill in what is missing, in ten minutes.

    Mostly in the form SPM: going on behind what stands before a gap is what the model learns anyway, while PSM begins
    a gap from nothing, which takes longer to learn.
    """
    base = library()
    options = TextOptions(tokens="bytes", length=256, middle=0.5, suffix_first=0.8)
    return replace(
        base,
        data=Data("stdlib", medium="text", options=options),
        training=replace(base.training, steps=1_200, batch_size=16),
    )


def text() -> Recipe:
    """Any text by bytes: the default for people's own."""
    base = shakespeare()
    return replace(
        base,
        config=GPTModernConfig(layers=6, heads=6, dim=192, dropout=0.1),
        data=Data("texts", medium="text", options=TextOptions(tokens="bytes", length=256)),
        training=replace(base.training, steps=4_000, precision="auto", threads=0),
        expected=(),
    )


def small() -> Recipe:
    """The size of the records: 12 blocks, 768 wide, 50,257 pieces, 1,024 of them, for machines with accelerators."""
    base = shakespeare()
    return replace(
        base,
        config=GPTModernConfig(),
        data=Data("texts", medium="text", options=TextOptions(tokens="bpe", vocabulary=50_257, length=1_024)),
        training=replace(base.training, steps=5_000, batch_size=512, accumulate=16, precision="auto", threads=0),
        expected=(),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "gpt-modern-shakespeare": shakespeare,
    "gpt-modern-plays": plays,
    "gpt-modern-library": library,
    "gpt-modern-infill": infill,
    "gpt-modern-text": text,
    "gpt-modern-small": small,
    "gpt-modern-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "tinyshakespeare": "gpt-modern-shakespeare",
    "stdlib": "gpt-modern-library",
    "counting": "gpt-modern-tiny",
    "text:*": "gpt-modern-text",
}

PRESETS: dict[str, tuple[Preset, ...]] = {}

DEMO = "gpt-modern-library"

TINY = "gpt-modern-tiny"
