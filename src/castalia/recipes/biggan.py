"""Recipes of BigGAN and BigGAN-deep.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.adversarial.biggan import BigGANConfig
from castalia.recipes.preset import Preset

BIGGAN_ADAM = Optimizer("adam", betas=(0.0, 0.999), eps=1e-6)
"""Brock et al. 2019, appendix C. A bias before a batch normalisation has no gradient but rounding, which a smaller
epsilon would blow up to whole steps."""

STEADY = Schedule("constant", warmup=0)


def biggan_digits() -> Recipe:
    """Scikit-learn's 8x8 digits by class: the demo."""
    return Recipe(
        model="biggan",
        config=BigGANConfig(
            channels=32,
            latent_dims=32,
            shared_dims=32,
            conditional=True,
            critic_steps=1,
            critic_optimizer=replace(BIGGAN_ADAM, lr=2e-3),
        ),
        data=Data("digits"),
        training=Training(
            steps=1_000,
            batch_size=64,
            lr=1e-3,
            optimizer=BIGGAN_ADAM,
            schedule=Schedule("linear", warmup=50, end=0.0),
            ema_half_life=5_000,
        ),
    )


def tiny() -> Recipe:
    """The demo with a small network: for tests."""
    base = biggan_digits()
    return replace(
        base,
        config=replace(base.config, channels=8, latent_dims=8, shared_dims=8),
        training=replace(base.training, ema_half_life=100),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "biggan-digits": biggan_digits,
    "biggan-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "*": "biggan-digits",
}

DEMO = "biggan-digits"

TINY = "biggan-tiny"
