"""Recipes of energy-based models.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.media.image.decode import ImageOptions
from castalia.models.energy.ebm import EBMConfig
from castalia.recipes.preset import Preset


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits with their labels: the demo."""
    return Recipe(
        model="ebm",
        config=EBMConfig(widths=(16, 32), hidden=64, conditional=True, steps=20, draw_steps=150, replay=2048),
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
        model="ebm",
        config=EBMConfig(),
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
    """Any pictures at 32 pixels, a residual network: the default for people's own folders."""
    return Recipe(
        model="ebm",
        config=EBMConfig(network="residual", widths=(32, 64, 64), spectral=True, clip=0.01),
        data=Data("pictures", options=ImageOptions(size=32)),
        training=Training(steps=10_000, batch_size=64, lr=3e-4, clip=0.1, ema_half_life=20_000),
    )


def cifar_paper() -> Recipe:
    """The network of Du & Mordatch for small photographs, for a machine with an accelerator and time."""
    return Recipe(
        model="ebm",
        config=EBMConfig(
            network="residual", widths=(128, 256, 256), spectral=True, clip=0.01, replay=10_000, alpha=1.0
        ),
        data=Data("cifar10-jpeg"),
        training=Training(steps=100_000, batch_size=128, lr=3e-4, schedule=Schedule("constant", warmup=0)),
    )


def grid() -> Recipe:
    """25 Gaussians in the plane; here the noise is that of the exact temperature."""
    return Recipe(
        model="ebm",
        config=EBMConfig(widths=(128, 128, 128), steps=40, step=0.005, noise=0.1, clip=0.0, alpha=0.01, draw_steps=400),
        data=Data("grid-25", medium="points"),
        training=Training(steps=3_000, batch_size=256, lr=1e-3, clip=1.0),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "ebm-digits": digits,
    "ebm-mnist": mnist,
    "ebm-pictures": pictures,
    "ebm-cifar-paper": cifar_paper,
    "ebm-grid": grid,
    "ebm-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "ebm-digits",
    "mnist": "ebm-mnist",
    "cifar10-jpeg": "ebm-pictures",
    "points:*": "ebm-grid",
    "*": "ebm-pictures",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (
        Preset("ebm-pictures", 1_500, 40_000, "colours and strokes of the right kind", ("config.conditional=true",)),
    ),
}

DEMO = "ebm-digits"

TINY = "ebm-tiny"
