"""Recipes of LoRA: each fits runs of the recipe of GPT-2 that it is named after, from which it is started.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.text.packing import TextOptions
from castalia.models.sequence.gpt2 import SIZES, GPT2Config
from castalia.models.sequence.lora import LoRAConfig
from castalia.recipes import gpt2
from castalia.recipes.preset import Preset

EVERYWHERE = ("qkv", "out", "up", "down")


def on(base: GPT2Config, rank: int = 8, drop: float = 0.0) -> LoRAConfig:
    """Adapters of all matrices of a network."""
    c = base
    return LoRAConfig(
        c.layers, c.heads, c.dim, 0.0, c.init, c.restarts, rank=rank, alpha=2.0 * rank, targets=EVERYWHERE, drop=drop
    )


def training(steps: int) -> Training:
    """AdamW at a rate that is usual for adapters."""
    return Training(
        steps=steps,
        batch_size=16,
        lr=2e-3,
        optimizer=Optimizer("adamw", betas=(0.9, 0.99)),
        schedule=Schedule("linear", warmup=20, end=0.0),
        clip=1.0,
        ema_half_life=0.0,
    )


def tiny() -> Recipe:
    """Counting, seconds: for tests."""
    return Recipe(
        model="lora",
        config=on(GPT2Config(2, 2, 32, init=0.3, restarts=0.5), rank=8),
        data=Data("counting", medium="text", options=TextOptions(tokens="chars", length=32)),
        training=replace(training(400), batch_size=32, lr=1e-2),
    )


def text() -> Recipe:
    """Your texts on a run of ``gpt2-text``: the default."""
    base = gpt2.text()
    assert isinstance(base.config, GPT2Config)
    return Recipe("lora", on(base.config, drop=0.05), base.data, training(1_000))


def text_small() -> Recipe:
    """Your texts on a run of ``gpt2-text-small``, or ``gpt2-library``."""
    base = gpt2.text_small()
    assert isinstance(base.config, GPT2Config)
    return Recipe("lora", on(base.config), base.data, training(500))


def shakespeare() -> Recipe:
    """Plays on a run of ``gpt2-shakespeare``."""
    base = gpt2.shakespeare()
    assert isinstance(base.config, GPT2Config)
    return Recipe("lora", on(base.config), base.data, training(300))


def paper(size: str) -> Callable[[], Recipe]:
    """A size of GPT-2 with the authors' adapters for it: rank 4 beside queries, keys and values."""

    def made() -> Recipe:
        config, c = SIZES[size], LoRAConfig
        data = Data("texts", medium="text", options=TextOptions(tokens="bpe", vocabulary=50_257, length=512))
        adapted = c(config.layers, config.heads, config.dim, 0.0, rank=4, alpha=32.0, targets=("qkv",), drop=0.1)
        optimizer = Optimizer("adamw", betas=(0.9, 0.999), weight_decay=0.01)
        how = replace(training(20_000), batch_size=8, lr=2e-4, optimizer=optimizer)
        return Recipe("lora", adapted, data, how)

    made.__doc__ = f"The paper's adapters of GPT-2 {size}."
    return made


RECIPES: dict[str, Callable[[], Recipe]] = {
    "lora-text": text,
    "lora-text-small": text_small,
    "lora-shakespeare": shakespeare,
    "lora-small": paper("small"),
    "lora-medium": paper("medium"),
    "lora-large": paper("large"),
    "lora-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "tinyshakespeare": "lora-shakespeare",
    "counting": "lora-tiny",
    "text:*": "lora-text",
}

PRESETS: dict[str, tuple[Preset, ...]] = {}

DEMO = "lora-tiny"

TINY = "lora-tiny"
