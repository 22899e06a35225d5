"""Recipes of the progressive GAN.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.adversarial.progan import ProGANConfig
from castalia.recipes.preset import Preset

PROGAN_ADAM = Optimizer("adam", betas=(0.0, 0.99))
"""Karras et al. 2018, appendix A.1."""

STEADY = Schedule("constant", warmup=0)

CPU_GAME = {"game": "non-saturating", "r1": 0.2, "r1_every": 4}
"""Cheaper than the gradient penalty, which takes a second derivative in every step."""


def progan_digits() -> Recipe:
    """Scikit-learn's 8x8 digits by class, 4 pixels first: the demo."""
    return Recipe(
        model="progan",
        config=ProGANConfig(latent_dims=32, channels=128, most=64, conditional=True, last=3.0),
        data=Data("digits"),
        training=Training(
            steps=2_000,
            batch_size=64,
            lr=3e-3,
            optimizer=PROGAN_ADAM,
            schedule=Schedule("linear", warmup=50, end=0.1),
            ema_half_life=5_000,
        ),
    )


def tiny() -> Recipe:
    """The demo with a small network: for tests."""
    base = progan_digits()
    return replace(
        base,
        config=replace(base.config, latent_dims=8, channels=32),
        training=replace(base.training, ema_half_life=100),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "progan-digits": progan_digits,
    "progan-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "*": "progan-digits",
}

DEMO = "progan-digits"

TINY = "progan-tiny"
