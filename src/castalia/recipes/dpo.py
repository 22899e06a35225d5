"""Recipes of DPO: each fits runs of the recipe of GPT-2 that it is named after, from which it is started.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe
from castalia.core.config import Config
from castalia.core.model import Optimizer
from castalia.media.text.packing import TextOptions
from castalia.models.sequence.dpo import DPOConfig
from castalia.models.sequence.gpt2 import SIZES, GPT2Config
from castalia.recipes import gpt2
from castalia.recipes.lora import EVERYWHERE, training
from castalia.recipes.preset import Preset


def on(base: Config, likelihood: float = 0.0) -> DPOConfig:
    """Adapters of all matrices of a network."""
    assert isinstance(base, GPT2Config)
    c = base
    return DPOConfig(
        c.layers, c.heads, c.dim, 0.0, c.init, rank=8, alpha=16.0, targets=EVERYWHERE, likelihood=likelihood
    )


def tiny() -> Recipe:
    """Counting, seconds, with the likelihood of what was chosen, for there is no run to start from: for tests."""
    config = replace(on(GPT2Config(2, 2, 32, init=0.3), likelihood=20.0), beta=0.05)
    return Recipe(
        model="dpo",
        config=config,
        data=Data("counting-pairs", medium="text", options=TextOptions(tokens="chars", length=32, pairs=True)),
        training=replace(training(400), batch_size=32, lr=1e-2),
    )


def counting() -> Recipe:
    """Counting, on a run of ``gpt2-tiny``: to see it work in seconds."""
    base = gpt2.tiny()
    return Recipe(
        model="dpo",
        config=on(base.config, likelihood=3.0),
        data=Data("counting-pairs", medium="text", options=TextOptions(tokens="chars", length=32, pairs=True)),
        training=replace(training(400), batch_size=32),
    )


def text() -> Recipe:
    """Your pairs on a run of ``gpt2-text``: the default."""
    base = gpt2.text()
    options = replace(base.data.options, pairs=True)
    data = Data("texts", medium="text", options=options)
    return Recipe("dpo", on(base.config), data, replace(training(500), lr=5e-4))


def small() -> Recipe:
    """Your pairs on OpenAI's smallest: the paper's beta of 0.1 and batches of 64."""
    options = TextOptions(tokens="bpe", vocabulary=50_257, length=1_024, pairs=True)
    how = replace(
        training(1_000), batch_size=64, accumulate=8, lr=5e-5, optimizer=Optimizer("adamw", betas=(0.9, 0.999))
    )
    return Recipe("dpo", on(SIZES["small"]), Data("texts", medium="text", options=options), how)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "dpo-text": text,
    "dpo-counting": counting,
    "dpo-small": small,
    "dpo-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "counting-pairs": "dpo-counting",
    "text:*": "dpo-text",
}

PRESETS: dict[str, tuple[Preset, ...]] = {}

DEMO = "dpo-tiny"

TINY = "dpo-tiny"
