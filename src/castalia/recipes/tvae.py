"""Recipes of TVAE.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.models.tables.tvae import TVAEConfig
from castalia.recipes.preset import Preset

ADAM = Optimizer("adam", betas=(0.9, 0.999), weight_decay=1e-5)


def people() -> Recipe:
    """People made by a rule: the demo."""
    return Recipe(
        model="tvae",
        config=TVAEConfig(32),
        data=Data("people", medium="table"),
        training=Training(
            steps=2_500,
            batch_size=200,
            lr=2e-3,
            optimizer=ADAM,
            schedule=Schedule("cosine", warmup=20, end=0.02),
            ema_half_life=5_000,
            precision="float32",
        ),
    )


def tiny() -> Recipe:
    """A small network: for tests."""
    base = people()
    return replace(
        base,
        config=TVAEConfig(6, (32,), (32,)),
        training=replace(base.training, batch_size=32, lr=1e-2, ema_half_life=200),
    )


def adult() -> Recipe:
    """Census rows: some minutes of one core, where the paper has 300 epochs (17,400 steps)."""
    base = people()
    return replace(
        base,
        config=TVAEConfig(),
        data=Data("adult", medium="table"),
        training=replace(base.training, steps=10_000, batch_size=500, ema_half_life=50_000),
    )


def table() -> Recipe:
    """Any table: the default for people's own."""
    base = adult()
    return replace(base, data=Data("table", medium="table"))


def paper() -> Recipe:
    """The paper's networks, batch, rate, and 300 epochs of Adult."""
    base = adult()
    training = replace(base.training, steps=17_400, lr=1e-3, schedule=Schedule("constant", warmup=0), ema_half_life=0.0)
    return replace(base, config=TVAEConfig(drawn=False), training=training)


def simulated(name: str) -> Callable[[], Recipe]:
    """One of the simulated tables."""

    def made() -> Recipe:
        base = adult()
        return replace(base, data=Data(name, medium="table"), training=replace(base.training, steps=5_000))

    return made


RECIPES: dict[str, Callable[[], Recipe]] = {
    "tvae-people": people,
    "tvae-adult": adult,
    "tvae-table": table,
    "tvae-paper": paper,
    "tvae-gm-grid": simulated("gm-grid"),
    "tvae-gm-ring": simulated("gm-ring"),
    "tvae-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "people": "tvae-people",
    "adult": "tvae-adult",
    "gm-grid": "tvae-gm-grid",
    "gm-ring": "tvae-gm-ring",
    "table:*": "tvae-table",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "table": (Preset("tvae-table", 1_500, 20_000, "rows with the right columns and most of what goes together"),),
}

DEMO = "tvae-people"

TINY = "tvae-tiny"
