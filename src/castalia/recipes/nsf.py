"""Recipes of neural spline flows.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.flows.nsf import NSFConfig
from castalia.recipes.preset import Preset

PAPER_ADAM = Optimizer("adam", betas=(0.9, 0.999))


def checkerboard() -> Recipe:
    """A checkerboard in the plane, whose edges only splines get sharp: the demo."""
    return Recipe(
        model="nsf",
        config=NSFConfig(steps=4, width=64, blocks=2),
        data=Data("checkerboard", medium="points"),
        training=Training(steps=3_000, batch_size=512, lr=2e-3, clip=5.0, ema_half_life=100_000, precision="float32"),
    )


def autoregressive() -> Recipe:
    """The same with autoregressive splines."""
    base = checkerboard()
    return replace(base, config=replace(base.config, kind="autoregressive"))


def table() -> Recipe:
    """The paper's network for tables (ten steps, 8 bins, two blocks of 256), for points of your own."""
    return Recipe(
        model="nsf",
        config=NSFConfig(dropout=0.1),
        data=Data("checkerboard", medium="points"),
        training=Training(
            steps=200_000,
            batch_size=512,
            lr=5e-4,
            optimizer=PAPER_ADAM,
            schedule=Schedule("cosine", warmup=0, end=0.0),
            clip=5.0,
            ema_half_life=0,
            precision="float32",
        ),
    )


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits by class."""
    return Recipe(
        model="nsf",
        config=NSFConfig(scale="gaussian", levels=2, steps=4, width=32, blocks=1, bins=4, conditional=True),
        data=Data("digits"),
        training=Training(steps=1_500, batch_size=64, lr=2e-3, clip=100.0, ema_half_life=10_000),
    )


def tiny() -> Recipe:
    """Digits with a small network: for tests."""
    base = digits()
    return replace(
        base,
        config=replace(base.config, levels=1, steps=2, width=16, bins=3),
        training=replace(base.training, lr=1e-2, schedule=Schedule(warmup=0), ema_half_life=100),
    )


def mnist() -> Recipe:
    """MNIST with small networks."""
    return Recipe(
        model="nsf",
        config=NSFConfig(scale="gaussian", levels=2, steps=4, width=48, blocks=1, bins=4),
        data=Data("mnist"),
        training=Training(
            steps=10_000,
            batch_size=64,
            lr=1e-3,
            schedule=Schedule("cosine", warmup=200, end=0.01),
            clip=500.0,
            ema_half_life=30_000,
        ),
    )


def cifar() -> Recipe:
    """The network of the paper for CIFAR-10 (three levels of seven steps, 96 channels, 4 bins), for an accelerator."""
    return Recipe(
        model="nsf",
        config=NSFConfig(steps=7, width=96, blocks=3, bins=4, dropout=0.2),
        data=Data("cifar10-jpeg"),
        training=Training(
            steps=200_000,
            batch_size=512,
            lr=5e-4,
            optimizer=PAPER_ADAM,
            schedule=Schedule("cosine", warmup=0, end=0.0),
            ema_half_life=0,
        ),
    )


def pictures() -> Recipe:
    """Any pictures at 32 pixels: the default for people's own folders."""
    return Recipe(
        model="nsf",
        config=NSFConfig(steps=4, width=48, blocks=1, bins=4),
        data=Data("pictures", options=ImageOptions(size=32)),
        training=Training(
            steps=20_000,
            batch_size=32,
            lr=1e-3,
            schedule=Schedule("cosine", warmup=500, end=0.01),
            clip=5_000.0,
            ema_half_life=50_000,
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "nsf-checkerboard": checkerboard,
    "nsf-checkerboard-ar": autoregressive,
    "nsf-table": table,
    "nsf-digits": digits,
    "nsf-mnist": mnist,
    "nsf-cifar": cifar,
    "nsf-pictures": pictures,
    "nsf-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "nsf-digits",
    "mnist": "nsf-mnist",
    "cifar10-jpeg": "nsf-cifar",
    "points:*": "nsf-checkerboard",
    "*": "nsf-pictures",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (
        Preset("nsf-pictures", 3_000, 40_000, "shapes that can be told, loosely drawn", ("config.conditional=true",)),
    ),
}

DEMO = "nsf-checkerboard"

TINY = "nsf-tiny"
