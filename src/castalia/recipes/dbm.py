"""Recipes of deep Boltzmann machines.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Training
from castalia.media.image.decode import ImageOptions
from castalia.models.energy.dbm import DBMConfig
from castalia.recipes.preset import Preset


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits, cut at one half: the demo."""
    return Recipe(
        model="dbm",
        config=DBMConfig(widths=(100, 60), binarise="threshold", rate=0.05, decay=1e-3),
        data=Data("digits"),
        training=Training(steps=6_000, batch_size=50, ema_half_life=20_000),
    )


def tiny() -> Recipe:
    """The demo with a small network: for tests."""
    base = digits()
    return replace(
        base,
        config=replace(base.config, widths=(32, 16), fields=5, steps=2, chains=20, rate=0.1, temperatures=50, runs=10),
        training=replace(base.training, batch_size=20, ema_half_life=100),
    )


def mnist() -> Recipe:
    """The network of Salakhutdinov & Hinton for MNIST, 784 - 500 - 1000, trained whole with centred gradients."""
    return Recipe(
        model="dbm",
        config=DBMConfig(),
        data=Data("mnist"),
        training=Training(steps=30_000, batch_size=100, ema_half_life=100_000),
    )


def mnist_paper() -> Recipe:
    """The same with the greedy start of the paper, for a machine with time."""
    base = mnist()
    return replace(
        base,
        config=replace(base.config, pretrain=0.5, rate=0.005, temperatures=20_000),
        training=replace(base.training, steps=300_000),
    )


def pictures() -> Recipe:
    """Any pictures as black and white at 28 pixels: the default for people's own folders."""
    base = mnist()
    return replace(
        base,
        config=replace(base.config, widths=(300, 300)),
        data=Data("pictures", options=ImageOptions(size=28, channels=1)),
        training=replace(base.training, steps=10_000),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "dbm-digits": digits,
    "dbm-mnist": mnist,
    "dbm-mnist-paper": mnist_paper,
    "dbm-pictures": pictures,
    "dbm-tiny": tiny,
}

DEFAULTS: dict[str, str] = {"digits": "dbm-digits", "mnist": "dbm-mnist", "*": "dbm-pictures"}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (Preset("dbm-pictures", 2_000, 30_000, "black and white shapes of the right kind"),),
}

DEMO = "dbm-digits"

TINY = "dbm-tiny"
