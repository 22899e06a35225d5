"""Recipes of MolGAN.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.models.molecules.molgan import MolGANConfig
from castalia.recipes.preset import Preset

ADAM = Optimizer("adam", betas=(0.5, 0.9))


def small() -> Recipe:
    """Small molecules made by a rule: the demo."""
    return Recipe(
        model="molgan",
        config=MolGANConfig(critic_steps=2, discrete="straight-through", batch_features=16),
        data=Data("small-molecules", medium="molecule"),
        training=Training(
            steps=3_000,
            batch_size=64,
            lr=1e-3,
            optimizer=ADAM,
            schedule=Schedule("linear", warmup=50, end=0.0),
            ema_half_life=10_000,
            precision="float32",
        ),
    )


def tiny() -> Recipe:
    """A small network: for tests."""
    base = small()
    return replace(
        base,
        config=replace(base.config, widths=(32, 48), convolutions=(16,), aggregated=32, dense=(32,), batch_features=0),
        training=replace(base.training, steps=200, lr=4e-3, ema_half_life=300),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "molgan-small": small,
    "molgan-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "small-molecules": "molgan-small",
    "molecule:*": "molgan-small",
}

PRESETS: dict[str, tuple[Preset, ...]] = {}

DEMO = "molgan-small"

TINY = "molgan-tiny"
