"""Recipes of the restricted Boltzmann machine.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Expected, Recipe, Training
from castalia.media.image.decode import ImageOptions
from castalia.models.energy.rbm import RBMConfig
from castalia.recipes.preset import Preset


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits in black and white, seconds: the demo."""
    return Recipe(
        model="rbm",
        config=RBMConfig(hidden=128, binarise="threshold", rate=0.1),
        data=Data("digits"),
        training=Training(steps=6_000, batch_size=100, ema_half_life=20_000),
    )


def digits_exact() -> Recipe:
    """The same with 16 hidden units: few enough to sum over all their states."""
    base = digits()
    return replace(base, config=replace(base.config, hidden=16))


def digits_levels() -> Recipe:
    """All 17 grey levels of the digits, categorical units."""
    base = digits()
    return replace(base, config=replace(base.config, units="categorical", levels=17, rate=0.05))


def tiny() -> Recipe:
    """The demo with 16 hidden units: for tests."""
    base = digits_exact()
    return replace(
        base,
        config=replace(base.config, chains=20, rate=0.3, rate_end=0.1, runs=20, temperatures=100),
        training=replace(base.training, ema_half_life=100),
    )


def mnist() -> Recipe:
    """Dynamically binarised MNIST, 500 hidden units, persistent chains, some minutes of one core."""
    return Recipe(
        model="rbm",
        config=RBMConfig(hidden=500, chains=100, rate=0.05, temperatures=5000),
        data=Data("mnist"),
        training=Training(steps=60_000, batch_size=100, ema_half_life=500_000),
        expected=(
            Expected(
                "nll", at_most=86.5, published="86.3 nats by CD-25 (Salakhutdinov & Murray 2008, recalled)", minutes=10
            ),
        ),
    )


def mnist_long() -> Recipe:
    """The same with more than three times as many steps, about twenty minutes of one core."""
    base = mnist()
    return replace(base, training=replace(base.training, steps=200_000), expected=())


def mnist_cd() -> Recipe:
    """500 hidden units by CD-25, as Salakhutdinov & Murray trained theirs (k rises from 1 to 25); hours."""
    base = mnist()
    return replace(
        base,
        config=replace(base.config, method="cd", steps=1, steps_end=25, momentum=0.9, rate=0.01, centred=False),
        training=replace(base.training, steps=300_000),
        expected=(),
    )


def pictures() -> Recipe:
    """Any pictures at 32 pixels, Gaussian units: the default for people's own folders."""
    return Recipe(
        model="rbm",
        config=RBMConfig(hidden=1000, units="gaussian", noise=0.5, rate=0.002, chains=200),
        data=Data("pictures", options=ImageOptions(size=32)),
        training=Training(steps=20_000, batch_size=100, ema_half_life=100_000),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "rbm-digits": digits,
    "rbm-digits-exact": digits_exact,
    "rbm-digits-levels": digits_levels,
    "rbm-mnist": mnist,
    "rbm-mnist-long": mnist_long,
    "rbm-mnist-cd25": mnist_cd,
    "rbm-pictures": pictures,
    "rbm-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "rbm-digits",
    "mnist": "rbm-mnist",
    "*": "rbm-pictures",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (Preset("rbm-pictures", 1_500, 40_000, "textures of the right kind, whole things rarely"),),
}

DEMO = "rbm-digits"

TINY = "rbm-tiny"
