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


def progan_digits() -> Recipe:
    """Scikit-learn's 8x8 digits by class, 4 pixels first: the demo."""
    return Recipe(
        model="progan",
        config=ProGANConfig(
            latent_dims=16,
            channels=128,
            most=64,
            conditional=True,
            game="non-saturating",  # the penalty of the paper takes second derivatives in every step
            r1=0.3,
            r1_every=4,
            label_weight=0.3,
            fade=0.25,
            last=3.0,
        ),
        data=Data("digits"),
        training=Training(
            steps=1_000,
            batch_size=64,
            lr=5e-3,
            optimizer=PROGAN_ADAM,
            schedule=Schedule("linear", warmup=50, end=0.0),
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


def progan_pictures_32() -> Recipe:
    """Any pictures at 32 pixels: minutes on a processor. The critic sees moved pictures, and its slope is held down."""
    return Recipe(
        model="progan",
        config=ProGANConfig(
            latent_dims=64,
            channels=256,
            most=128,
            game="non-saturating",
            r1=0.5,
            r1_every=4,
            augment=("translation",),
            fade=0.3,
            last=4.0,
        ),
        data=Data("pictures", options=ImageOptions(size=32)),
        training=Training(
            steps=6_000,
            batch_size=32,
            lr=3e-3,
            optimizer=PROGAN_ADAM,
            schedule=Schedule("linear", warmup=20, end=0.1),
            ema_half_life=10_000,
        ),
    )


def progan_emoji() -> Recipe:
    """Emoji at 32 pixels, colour and alpha, on a processor."""
    base = progan_pictures_32()
    return replace(base, data=Data("noto-emoji", options=ImageOptions(size=32, channels=4)))


def progan_pictures() -> Recipe:
    """Any pictures at 128 pixels with the networks of the paper, for an accelerator."""
    return Recipe(
        model="progan",
        config=ProGANConfig(channels=4096, last=2.0, batch_sizes=(128, 128, 128, 64, 32, 16)),
        data=Data("pictures", options=ImageOptions(size=128)),
        training=Training(
            steps=200_000, batch_size=16, lr=1e-3, optimizer=PROGAN_ADAM, schedule=STEADY, ema_half_life=10_000
        ),
    )


def progan_1024() -> Recipe:
    """The paper's run on CelebA-HQ: 1024 pixels, 12 million images, batches of its table for one accelerator."""
    sizes = (128, 128, 128, 64, 32, 16, 8, 4, 4)
    images = (600_000, *(1_200_000,) * 7, 3_000_000)
    return Recipe(
        model="progan",
        config=ProGANConfig(last=2.5, batch_sizes=sizes),
        data=Data("pictures", options=ImageOptions(size=1024, channels=3)),
        training=Training(
            steps=round(sum(n / size for n, size in zip(images, sizes, strict=True))),
            batch_size=16,
            lr=1e-3,
            optimizer=PROGAN_ADAM,
            schedule=STEADY,
            ema_half_life=10_000,
        ),
    )


def progan_cifar() -> Recipe:
    """CIFAR-10 as in the paper: narrow networks, a slope of 750, 15 million images."""
    return Recipe(
        model="progan",
        config=ProGANConfig(latent_dims=128, channels=4096, most=128, slope=750.0, last=10.0),
        data=Data("cifar10-jpeg"),
        training=Training(
            steps=937_500, batch_size=16, lr=1e-3, optimizer=PROGAN_ADAM, schedule=STEADY, ema_half_life=10_000
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "progan-digits": progan_digits,
    "progan-emoji": progan_emoji,
    "progan-cifar": progan_cifar,
    "progan-1024": progan_1024,
    "progan-pictures": progan_pictures,
    "progan-pictures-32": progan_pictures_32,
    "progan-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "progan-digits",
    "noto-emoji": "progan-emoji",
    "cifar10-jpeg": "progan-cifar",
    "*": "progan-pictures",
}

LABELLED = ("config.conditional=true",)

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (
        Preset("progan-pictures-32", 500, 3_000, "simple things to be told, some of them odd", LABELLED),
        Preset("progan-pictures", 4_000, 10_000, "sharp samples at 128 pixels", LABELLED),
    ),
}

DEMO = "progan-digits"

TINY = "progan-tiny"
