"""Recipes of TabDDPM.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.models.tables.tabddpm import TabDDPMConfig
from castalia.recipes.preset import Preset

ADAM = Optimizer("adamw", betas=(0.9, 0.999), weight_decay=1e-5)


def people() -> Recipe:
    """People made by a rule: the demo."""
    return Recipe(
        model="tabddpm",
        config=TabDDPMConfig((256, 256), 64),
        data=Data("people", medium="table"),
        training=Training(
            steps=3_000,
            batch_size=256,
            lr=2e-3,
            optimizer=ADAM,
            schedule=Schedule("linear", warmup=20, end=0.0),
            ema_half_life=20_000,
            precision="float32",
        ),
    )


def tiny() -> Recipe:
    """A small network: for tests."""
    base = people()
    return replace(
        base,
        config=TabDDPMConfig((64,), 32, steps=8),
        training=replace(base.training, batch_size=32, lr=1e-2, ema_half_life=200),
    )


def adult() -> Recipe:
    """Census rows, a smaller network: ten minutes of one core."""
    base = people()
    return replace(
        base,
        config=TabDDPMConfig((256, 512, 256), 128),
        data=Data("adult", medium="table"),
        training=replace(base.training, steps=6_000, batch_size=512, ema_half_life=100_000),
    )


def table() -> Recipe:
    """Any table: the default for people's own."""
    base = adult()
    return replace(base, data=Data("table", medium="table"))


def paper() -> Recipe:
    """The authors' network, batch, rate and steps for Adult."""
    base = adult()
    return replace(
        base, config=TabDDPMConfig(), training=replace(base.training, steps=30_000, batch_size=4096, lr=2e-3)
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "tabddpm-people": people,
    "tabddpm-adult": adult,
    "tabddpm-table": table,
    "tabddpm-paper": paper,
    "tabddpm-tiny": tiny,
}

DEFAULTS: dict[str, str] = {"people": "tabddpm-people", "adult": "tabddpm-adult", "table:*": "tabddpm-table"}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "table": (Preset("tabddpm-table", 1_500, 30_000, "rows that are hard to tell from real ones; slower to draw"),),
}

DEMO = "tabddpm-people"

TINY = "tabddpm-tiny"
