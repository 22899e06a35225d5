"""Recipes of NICE.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.flows.nice import NICEConfig
from castalia.recipes.preset import Preset


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits: the demo."""
    return Recipe(
        model="nice",
        config=NICEConfig(scale="gaussian", couplings=6, widths=(256, 256)),
        data=Data("digits"),
        training=Training(steps=2_000, batch_size=128, lr=1e-3, clip=100.0, ema_half_life=20_000),
    )


def tiny() -> Recipe:
    """The demo with a small network: for tests."""
    base = digits()
    return replace(
        base,
        config=replace(base.config, couplings=4, widths=(48, 48)),
        training=replace(base.training, lr=5e-3, schedule=Schedule(warmup=0), ema_half_life=100),
    )


def mnist() -> Recipe:
    """The MNIST model of the paper: 19.2 million parameters, logistic prior, 1,500 epochs, for a machine with time."""
    return Recipe(
        model="nice",
        config=NICEConfig(),
        data=Data("mnist"),
        training=Training(
            steps=450_000,
            batch_size=200,
            lr=1e-3,
            optimizer=Optimizer("adam", betas=(0.9, 0.99), eps=1e-4),
            schedule=Schedule("constant", warmup=100),
            ema_half_life=0,
        ),
    )


def mnist_small() -> Recipe:
    """The same on values made Gaussian by their margins, smaller and shorter: an hour of one core."""
    return Recipe(
        model="nice",
        config=NICEConfig(scale="gaussian", couplings=6, widths=(512, 512)),
        data=Data("mnist"),
        training=Training(steps=20_000, batch_size=128, lr=1e-3, clip=500.0, ema_half_life=50_000),
    )


def pictures() -> Recipe:
    """Any pictures at 32 pixels: the default for people's own folders."""
    return Recipe(
        model="nice",
        config=NICEConfig(couplings=6, widths=(1000, 1000)),
        data=Data("pictures", options=ImageOptions(size=32)),
        training=Training(steps=20_000, batch_size=64, lr=5e-4, clip=2_000.0, ema_half_life=50_000),
    )


def points() -> Recipe:
    """Two moons in the plane. Volume is the same everywhere, so no density is as high as it should be."""
    return Recipe(
        model="nice",
        config=NICEConfig(couplings=8, widths=(128, 128)),
        data=Data("two-moons", medium="points"),
        training=Training(steps=4_000, batch_size=512, lr=1e-3, clip=5.0, ema_half_life=100_000),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "nice-digits": digits,
    "nice-mnist": mnist,
    "nice-mnist-small": mnist_small,
    "nice-pictures": pictures,
    "nice-moons": points,
    "nice-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "nice-digits",
    "mnist": "nice-mnist-small",
    "points:*": "nice-moons",
    "*": "nice-pictures",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (Preset("nice-pictures", 1_000, 20_000, "coarse pictures of the right colours"),),
}

DEMO = "nice-digits"

TINY = "nice-tiny"
