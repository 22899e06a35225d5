"""Recipes of the continuous flow.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.flows.ffjord import FFJORDConfig
from castalia.recipes.preset import Preset

PAPER_ADAM = Optimizer("adam", betas=(0.9, 0.999), weight_decay=1e-6)


def moons() -> Recipe:
    """Two moons in the plane: the demo."""
    return Recipe(
        model="ffjord",
        config=FFJORDConfig(),
        data=Data("two-moons", medium="points"),
        training=Training(steps=1_500, batch_size=256, lr=5e-3, clip=5.0, ema_half_life=20_000, precision="float32"),
    )


def table() -> Recipe:
    """The paper's settings for tables, for points of your own and a machine with time."""
    return Recipe(
        model="ffjord",
        config=FFJORDConfig(widths=(860, 860), rtol=1e-6, atol=1e-8),
        data=Data("two-moons", medium="points"),
        training=Training(
            steps=20_000,
            batch_size=1_000,
            lr=1e-3,
            optimizer=PAPER_ADAM,
            schedule=Schedule("constant", warmup=0),
            ema_half_life=0,
            precision="float32",
        ),
    )


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits."""
    return Recipe(
        model="ffjord",
        config=FFJORDConfig(scale="gaussian", widths=(32, 32), levels=2, rtol=1e-3, atol=1e-3),
        data=Data("digits"),
        training=Training(steps=600, batch_size=64, lr=5e-3, clip=100.0, ema_half_life=5_000, precision="float32"),
    )


def tiny() -> Recipe:
    """Digits with a small network and steps that do not depend on the batch: for tests."""
    base = digits()
    return replace(
        base,
        config=replace(base.config, widths=(16,), steps=1),
        training=replace(
            base.training, lr=5e-2, optimizer=Optimizer(eps=1e-3), schedule=Schedule(warmup=0), ema_half_life=100
        ),
    )


def mnist() -> Recipe:
    """MNIST with the paper's network: two scales of two equations, three layers of 64 channels, for an accelerator."""
    return Recipe(
        model="ffjord",
        config=FFJORDConfig(alpha=1e-6, blocks=2, levels=2),
        data=Data("mnist"),
        training=Training(
            steps=60_000,
            batch_size=200,
            lr=1e-3,
            optimizer=PAPER_ADAM,
            schedule=Schedule("constant", warmup=1_000),
            ema_half_life=100_000,
            precision="float32",
        ),
    )


def pictures() -> Recipe:
    """Any pictures at 16 pixels: the default for people's own folders; slow, whatever they show."""
    base = digits()
    return replace(
        base,
        config=replace(base.config, scale="logit", levels=3),
        data=Data("pictures", options=ImageOptions(size=16)),
        training=replace(base.training, steps=10_000, clip=1_000.0, ema_half_life=20_000),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "ffjord-moons": moons,
    "ffjord-table": table,
    "ffjord-digits": digits,
    "ffjord-mnist": mnist,
    "ffjord-pictures": pictures,
    "ffjord-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "ffjord-digits",
    "mnist": "ffjord-mnist",
    "points:*": "ffjord-moons",
    "*": "ffjord-pictures",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (Preset("ffjord-pictures", 500, 20_000, "colours in the right places, blurred"),),
}

DEMO = "ffjord-moons"

TINY = "ffjord-tiny"
