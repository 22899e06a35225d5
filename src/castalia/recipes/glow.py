"""Recipes of Glow.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.flows.glow import GlowConfig
from castalia.recipes.preset import Preset


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits with their labels: the demo."""
    return Recipe(
        model="glow",
        config=GlowConfig(scale="gaussian", levels=2, steps=8, width=48, coupling="tanh", conditional=True),
        data=Data("digits"),
        training=Training(steps=1_500, batch_size=64, lr=2e-3, clip=100.0, ema_half_life=10_000),
    )


def tiny() -> Recipe:
    """The demo with a small network: for tests."""
    base = digits()
    return replace(
        base,
        config=replace(base.config, steps=2, width=16),
        training=replace(base.training, lr=5e-3, schedule=Schedule(warmup=0), ema_half_life=100),
    )


def mnist() -> Recipe:
    """MNIST: about an hour of one core."""
    return Recipe(
        model="glow",
        config=GlowConfig(scale="gaussian", levels=2, steps=12, width=64, coupling="tanh"),
        data=Data("mnist"),
        training=Training(
            steps=20_000,
            batch_size=64,
            lr=2e-3,
            schedule=Schedule("cosine", warmup=200, end=0.01),
            clip=500.0,
            ema_half_life=50_000,
        ),
    )


def points() -> Recipe:
    """Two moons in the plane."""
    return Recipe(
        model="glow",
        config=GlowConfig(steps=8, widths=(64, 64), coupling="tanh"),
        data=Data("two-moons", medium="points"),
        training=Training(steps=4_000, batch_size=512, lr=1e-3, clip=5.0, ema_half_life=100_000),
    )


def cifar() -> Recipe:
    """The network of the paper for CIFAR-10 (L = 3, K = 32, 512 channels), for accelerators and days.

    Their averaging and batch follow the authors' code: Adamax at 1e-3, 10 epochs of warm-up, batches of 512.
    """
    return Recipe(
        model="glow",
        config=GlowConfig(lu=False, least_scale=0.0),
        data=Data("cifar10-jpeg", options=ImageOptions(flip=True)),
        training=Training(
            steps=180_000,
            batch_size=512,
            lr=1e-3,
            optimizer=Optimizer("adamax", betas=(0.9, 0.999)),
            schedule=Schedule("constant", warmup=1_000),
            ema_half_life=500_000,
        ),
    )


def celeba() -> Recipe:
    """The paper's network for faces (256 pixels, 5 bits, additive, L = 6, K = 32), on a folder of your own."""
    base = cifar()
    return replace(
        base,
        config=GlowConfig(levels=6, steps=32, width=512, coupling="additive", lu=False, bits=5),
        data=Data("pictures", options=ImageOptions(size=256)),
        training=replace(base.training, batch_size=40, steps=1_000_000),
    )


def pictures() -> Recipe:
    """Any pictures, colour and alpha, at 64 pixels, 5 bits: the default for people's own folders."""
    return Recipe(
        model="glow",
        config=GlowConfig(levels=4, steps=8, width=128, coupling="tanh", bits=5),
        data=Data("pictures", options=ImageOptions(size=64)),
        training=Training(
            steps=20_000,
            batch_size=32,
            lr=1e-3,
            schedule=Schedule("cosine", warmup=500, end=0.01),
            clip=20_000.0,
            ema_half_life=50_000,
        ),
    )


def pictures_32() -> Recipe:
    """The same at 32 pixels with a smaller network: minutes on a processor."""
    base = pictures()
    return replace(
        base,
        config=replace(base.config, levels=3, steps=4, width=64),
        data=Data("pictures", options=ImageOptions(size=32)),
        training=replace(base.training, steps=6_000, ema_half_life=10_000),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "glow-digits": digits,
    "glow-mnist": mnist,
    "glow-cifar": cifar,
    "glow-celeba": celeba,
    "glow-pictures": pictures,
    "glow-pictures-32": pictures_32,
    "glow-moons": points,
    "glow-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "glow-digits",
    "mnist": "glow-mnist",
    "cifar10-jpeg": "glow-cifar",
    "points:*": "glow-moons",
    "*": "glow-pictures",
}

LABELLED = ("config.conditional=true",)

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (
        Preset("glow-pictures-32", 2_000, 40_000, "shapes that can be guessed, loosely drawn", LABELLED),
        Preset("glow-pictures", 15_000, 100_000, "shapes that can be told at 64 pixels, loosely drawn", LABELLED),
    ),
}

DEMO = "glow-digits"

TINY = "glow-tiny"
