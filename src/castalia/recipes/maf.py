"""Recipes of the masked autoregressive flow.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.flows.maf import MAFConfig
from castalia.recipes.preset import Preset

PAPER_ADAM = Optimizer("adam", betas=(0.9, 0.999), weight_decay=1e-6)
"""Papamakarios et al. 2017, section 4.1."""


def moons() -> Recipe:
    """Two moons in the plane: the demo."""
    return Recipe(
        model="maf",
        config=MAFConfig(layers=5, widths=(64, 64)),
        data=Data("two-moons", medium="points"),
        training=Training(steps=4_000, batch_size=512, lr=2e-3, clip=5.0, ema_half_life=100_000, precision="float32"),
    )


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits by class, pixel by pixel."""
    return Recipe(
        model="maf",
        config=MAFConfig(scale="gaussian", layers=2, widths=(256,), components=5, normalise=False, conditional=True),
        data=Data("digits"),
        training=Training(
            steps=2_000,
            batch_size=64,
            lr=1e-3,
            optimizer=Optimizer(weight_decay=0.1),
            clip=100.0,
            ema_half_life=10_000,
            precision="float32",
        ),
    )


def tiny() -> Recipe:
    """Digits with a small network: for tests."""
    base = digits()
    return replace(
        base,
        config=replace(base.config, layers=1, widths=(32,), components=0),
        training=replace(base.training, lr=1e-2, schedule=Schedule(warmup=0), ema_half_life=100),
    )


def mnist() -> Recipe:
    """MNIST by class with the paper's network: five layers of one hidden layer of 1,024."""
    return Recipe(
        model="maf",
        config=MAFConfig(alpha=1e-6, layers=5, widths=(1024,), conditional=True),
        data=Data("mnist"),
        training=Training(
            steps=40_000,
            batch_size=100,
            lr=1e-4,
            optimizer=PAPER_ADAM,
            schedule=Schedule("constant", warmup=0),
            ema_half_life=50_000,
            precision="float32",
        ),
    )


def cifar() -> Recipe:
    """CIFAR-10 with the paper's largest network: ten layers of two hidden layers of 2,048, for an accelerator."""
    base = mnist()
    return replace(
        base,
        config=replace(base.config, alpha=0.05, layers=10, widths=(2048, 2048)),
        data=Data("cifar10-jpeg", options=ImageOptions(flip=True)),
        training=replace(base.training, steps=150_000),
    )


def pictures() -> Recipe:
    """Any pictures at 16 pixels: the default for people's own folders; for pictures there are better systems."""
    return Recipe(
        model="maf",
        config=MAFConfig(layers=4, widths=(512,), components=0),
        data=Data("pictures", options=ImageOptions(size=16)),
        training=Training(
            steps=20_000, batch_size=64, lr=1e-3, clip=1_000.0, ema_half_life=50_000, precision="float32"
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "maf-moons": moons,
    "maf-digits": digits,
    "maf-mnist": mnist,
    "maf-cifar": cifar,
    "maf-pictures": pictures,
    "maf-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "maf-digits",
    "mnist": "maf-mnist",
    "cifar10-jpeg": "maf-cifar",
    "points:*": "maf-moons",
    "*": "maf-pictures",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (
        Preset("maf-pictures", 2_000, 40_000, "colours in the right places, grainy", ("config.conditional=true",)),
    ),
}

DEMO = "maf-moons"

TINY = "maf-tiny"
