"""Recipes of joint energy-based models.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.media.image.decode import ImageOptions
from castalia.models.energy.jem import JEMConfig
from castalia.recipes.preset import Preset


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits: the demo."""
    return Recipe(
        model="jem",
        config=JEMConfig(widths=(16, 32), hidden=64, steps=20, draw_steps=150, replay=2048),
        data=Data("digits"),
        training=Training(
            steps=3_000,
            batch_size=32,
            lr=1e-3,
            schedule=Schedule("cosine", warmup=50, end=0.1),
            ema_half_life=5_000,
        ),
    )


def tiny() -> Recipe:
    """The demo with a small network and few steps: for tests."""
    base = digits()
    return replace(
        base,
        config=replace(base.config, widths=(16, 32), hidden=32, steps=10, draw_steps=60, replay=128),
        training=replace(base.training, lr=3e-3, schedule=Schedule(warmup=10), ema_half_life=100),
    )


def mnist() -> Recipe:
    """MNIST, the small network of textbooks, 60 steps of Langevin dynamics."""
    return Recipe(
        model="jem",
        config=JEMConfig(steps=60),
        data=Data("mnist"),
        training=Training(
            steps=4_000,
            batch_size=64,
            lr=3e-4,
            schedule=Schedule("cosine", warmup=100, end=0.1),
            clip=0.1,
            ema_half_life=10_000,
        ),
    )


def pictures() -> Recipe:
    """Any labelled pictures at 32 pixels, a residual network: the default for people's own folders."""
    return Recipe(
        model="jem",
        config=JEMConfig(network="residual", widths=(32, 64, 64), spectral=True, steps=40),
        data=Data("pictures", options=ImageOptions(size=32)),
        training=Training(steps=10_000, batch_size=64, lr=3e-4, clip=0.1, ema_half_life=20_000),
    )


def cifar_paper() -> Recipe:
    """The network of the paper, 28 layers ten times as wide, and its 20 steps, for an accelerator and days."""
    # the authors' pictures lie on [-1, 1], where their steps are 1 and their noise 0.01: here a quarter and a half
    walk = JEMConfig(network="wide", step=0.25, noise=0.005, clip=0.0, alpha=0.0, noise_in=0.015, by_class=False)
    return Recipe(
        model="jem",
        config=replace(walk, replay=10_000, betas=(0.9, 0.999)),
        data=Data("cifar10-jpeg", options=ImageOptions(flip=True)),
        training=Training(steps=140_000, batch_size=64, lr=1e-4, schedule=Schedule("constant", warmup=1_000)),
    )


def moons() -> Recipe:
    """Two moons in the plane, told apart and drawn."""
    return Recipe(
        model="jem",
        config=JEMConfig(widths=(128, 128, 128), steps=40, step=0.005, noise=0.1, clip=0.0, alpha=0.01, draw_steps=400),
        data=Data("two-moons", medium="points"),
        training=Training(steps=3_000, batch_size=256, lr=1e-3, clip=1.0),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "jem-digits": digits,
    "jem-mnist": mnist,
    "jem-pictures": pictures,
    "jem-cifar-paper": cifar_paper,
    "jem-moons": moons,
    "jem-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "jem-digits",
    "mnist": "jem-mnist",
    "cifar10-jpeg": "jem-pictures",
    "points:*": "jem-moons",
    "*": "jem-pictures",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (Preset("jem-pictures", 1_500, 40_000, "colours and strokes of the right kind, by class"),),
}

DEMO = "jem-digits"

TINY = "jem-tiny"
