"""Recipes of the deep belief net.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Training
from castalia.media.image.decode import ImageOptions
from castalia.models.energy.dbn import DBNConfig
from castalia.recipes.preset import Preset


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits in black and white, with their labels: the demo."""
    return Recipe(
        model="dbn",
        config=DBNConfig(
            widths=(128, 128, 256), conditional=True, binarise="threshold", method="pcd", rate=0.1, updown=0.02
        ),
        data=Data("digits"),
        training=Training(steps=10_000, batch_size=50, ema_half_life=20_000),
    )


def tiny() -> Recipe:
    """The demo with small layers: for tests."""
    base = digits()
    return replace(
        base,
        config=replace(base.config, widths=(32, 16), chains=20, rate=0.3, updown=0.1, steps=(1, 2), init=0.3),
        training=replace(base.training, ema_half_life=100),
    )


def mnist() -> Recipe:
    """MNIST with its labels, the sizes of the paper: 784-500-500-2000 and 10, 1.7 million weights; hours."""
    return Recipe(
        model="dbn",
        config=DBNConfig(conditional=True),
        data=Data("mnist"),
        training=Training(steps=300_000, batch_size=100, ema_half_life=100_000),
    )


def mnist_short() -> Recipe:
    """The same in about half an hour of one core: a tenth of the steps."""
    base = mnist()
    return replace(base, training=replace(base.training, steps=50_000))


def pictures() -> Recipe:
    """Any pictures at 32 pixels, in black and white by chance: the default for people's own folders."""
    return Recipe(
        model="dbn",
        config=DBNConfig(widths=(500, 500, 1000)),
        data=Data("pictures", options=ImageOptions(size=32)),
        training=Training(steps=40_000, batch_size=100, ema_half_life=100_000),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "dbn-digits": digits,
    "dbn-mnist": mnist_short,
    "dbn-mnist-paper": mnist,
    "dbn-pictures": pictures,
    "dbn-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "dbn-digits",
    "mnist": "dbn-mnist",
    "*": "dbn-pictures",
}

LABELLED = ("config.conditional=true",)

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (Preset("dbn-pictures", 4_000, 60_000, "black and white shapes that can be guessed", LABELLED),),
}

DEMO = "dbn-digits"

TINY = "dbn-tiny"
