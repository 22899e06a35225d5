"""Recipes of RealNVP.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.flows.realnvp import RealNVPConfig
from castalia.recipes.preset import Preset


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits."""
    return Recipe(
        model="realnvp",
        config=RealNVPConfig(scale="gaussian", scales=2, width=24, blocks=1),
        data=Data("digits"),
        training=Training(steps=1_500, batch_size=64, lr=2e-3, clip=100.0, ema_half_life=10_000),
    )


def tiny() -> Recipe:
    """Digits with a small network: for tests."""
    base = digits()
    return replace(
        base,
        config=replace(base.config, scales=1, width=16, blocks=2),
        # eps so that a gradient which is only rounding (a shift of all values before batch normalisation) moves nothing
        training=replace(
            base.training, lr=1e-2, optimizer=Optimizer(eps=1e-3), schedule=Schedule(warmup=0), ema_half_life=100
        ),
    )


def points() -> Recipe:
    """Two moons in the plane: the demo."""
    return Recipe(
        model="realnvp",
        config=RealNVPConfig(couplings=8, widths=(64, 64)),
        data=Data("two-moons", medium="points"),
        training=Training(steps=4_000, batch_size=512, lr=1e-3, clip=5.0, ema_half_life=100_000),
    )


def mnist() -> Recipe:
    """MNIST with small networks."""
    return Recipe(
        model="realnvp",
        config=RealNVPConfig(scale="gaussian", scales=2, width=24, blocks=1),
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
    """The network of the paper for CIFAR-10 (8 blocks, 64 maps, one change of scale), for an accelerator and days."""
    return Recipe(
        model="realnvp",
        config=RealNVPConfig(),
        data=Data("cifar10-jpeg", options=ImageOptions(flip=True)),
        training=Training(
            steps=500_000,
            batch_size=64,
            lr=1e-3,
            optimizer=Optimizer("adam", betas=(0.9, 0.999)),
            schedule=Schedule("constant", warmup=1_000),
            clip=5_000.0,
            ema_half_life=500_000,
        ),
    )


def imagenet_32() -> Recipe:
    """The network of the paper for pictures of 32 pixels of many kinds (4 blocks, 32 maps), on a folder of your own."""
    base = cifar()
    return replace(
        base,
        config=replace(base.config, width=32, blocks=4),
        data=Data("pictures", options=ImageOptions(size=32, flip=True)),
    )


def pictures() -> Recipe:
    """Any pictures at 32 pixels: the default for people's own folders."""
    return Recipe(
        model="realnvp",
        config=RealNVPConfig(scales=3, width=32, blocks=2),
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
    "realnvp-digits": digits,
    "realnvp-mnist": mnist,
    "realnvp-cifar": cifar,
    "realnvp-imagenet-32": imagenet_32,
    "realnvp-pictures": pictures,
    "realnvp-moons": points,
    "realnvp-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "realnvp-digits",
    "mnist": "realnvp-mnist",
    "cifar10-jpeg": "realnvp-cifar",
    "points:*": "realnvp-moons",
    "*": "realnvp-pictures",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (Preset("realnvp-pictures", 3_000, 40_000, "shapes that can be told, loosely drawn"),),
}

DEMO = "realnvp-moons"

TINY = "realnvp-tiny"
