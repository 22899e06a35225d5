"""Recipes of CTGAN.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.models.tables.ctgan import CTGANConfig
from castalia.recipes.preset import Preset

ADAM = Optimizer("adam", betas=(0.5, 0.9), weight_decay=1e-6)


def people() -> Recipe:
    """People made by a rule: the demo."""
    return Recipe(
        model="ctgan",
        config=CTGANConfig(64, (128, 128), (128, 128), pack=5),
        data=Data("people", medium="table"),
        training=Training(
            steps=2_500,
            batch_size=200,
            lr=5e-4,
            optimizer=ADAM,
            schedule=Schedule("linear", warmup=0, end=0.1),
            ema_half_life=20_000,
            precision="float32",
        ),
    )


def tiny() -> Recipe:
    """A small network: for tests."""
    base = people()
    return replace(
        base,
        config=CTGANConfig(16, (48,), (48,), dropout=0.0, pack=2, penalty=1.0),
        training=replace(
            base.training,
            batch_size=32,
            lr=1e-2,
            optimizer=Optimizer("adam", betas=(0.5, 0.9), eps=1e-3),
            ema_half_life=200,
        ),
    )


def adult() -> Recipe:
    """Census rows: ten minutes of one core, where the paper has 300 epochs (17,400 steps)."""
    base = people()
    return replace(
        base,
        config=CTGANConfig(),
        data=Data("adult", medium="table"),
        training=replace(base.training, steps=6_000, batch_size=500, lr=4e-4, ema_half_life=50_000),
    )


def table() -> Recipe:
    """Any table: the default for people's own."""
    base = adult()
    return replace(base, data=Data("table", medium="table"))


def paper() -> Recipe:
    """The paper's networks, batch, rate, and 300 epochs of Adult."""
    base = adult()
    return replace(
        base,
        training=replace(
            base.training, steps=17_400, lr=2e-4, schedule=Schedule("constant", warmup=0), ema_half_life=0.0
        ),
    )


def simulated(name: str) -> Callable[[], Recipe]:
    """One of the simulated tables."""

    def made() -> Recipe:
        base = adult()
        return replace(
            base, data=Data(name, medium="table"), training=replace(base.training, steps=4_000, batch_size=500)
        )

    return made


RECIPES: dict[str, Callable[[], Recipe]] = {
    "ctgan-people": people,
    "ctgan-adult": adult,
    "ctgan-table": table,
    "ctgan-paper": paper,
    "ctgan-gm-grid": simulated("gm-grid"),
    "ctgan-gm-ring": simulated("gm-ring"),
    "ctgan-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "people": "ctgan-people",
    "adult": "ctgan-adult",
    "gm-grid": "ctgan-gm-grid",
    "gm-ring": "ctgan-gm-ring",
    "table:*": "ctgan-table",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "table": (Preset("ctgan-table", 1_500, 20_000, "rows with the right columns and most of what goes together"),),
}

DEMO = "ctgan-people"

TINY = "ctgan-tiny"
