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
    """The demo with a small network: for tests. Without the hinge, at whose kink sums in another order part ways."""
    base = biggan_digits()
    return replace(
        base,
        config=replace(base.config, channels=8, latent_dims=8, shared_dims=8, game="non-saturating"),
        training=replace(base.training, ema_half_life=100),
    )


def biggan_pictures_32() -> Recipe:
    """Any pictures at 32 pixels: minutes on a processor. The critic sees moved pictures."""
    return Recipe(
        model="biggan",
        config=BigGANConfig(
            channels=16,
            widths=(8, 4, 2, 1),
            critic_widths=(1, 2, 4, 8),
            latent_dims=64,
            shared_dims=32,
            attention=16,
            augment=("translation",),
            critic_steps=1,
            critic_optimizer=replace(BIGGAN_ADAM, lr=8e-4),
        ),
        data=Data("pictures", options=ImageOptions(size=32)),
        training=Training(
            steps=6_000,
            batch_size=32,
            lr=4e-4,
            optimizer=BIGGAN_ADAM,
            schedule=Schedule("linear", warmup=50, end=0.0),
            ema_half_life=10_000,
        ),
    )


def biggan_emoji() -> Recipe:
    """Emoji at 32 pixels, colour and alpha, on a processor."""
    base = biggan_pictures_32()
    return replace(base, data=Data("noto-emoji", options=ImageOptions(size=32, channels=4)))


def biggan_cifar() -> Recipe:
    """CIFAR-10 by class as it is usually trained, for an accelerator: each layer has a table of its own."""
    return Recipe(
        model="biggan",
        config=BigGANConfig(
            channels=64,
            latent_dims=128,
            hierarchical=False,
            shared_dims=0,
            attention=0,
            conditional=True,
            orthogonal=0.0,
            critic_steps=4,
            critic_optimizer=replace(BIGGAN_ADAM, lr=2e-4),
        ),
        data=Data("cifar10-jpeg"),
        training=Training(
            steps=125_000, batch_size=50, lr=2e-4, optimizer=BIGGAN_ADAM, schedule=STEADY, ema_half_life=350_000
        ),
    )


def biggan_128() -> Recipe:
    """The paper's run on ImageNet at 128 pixels, in batches of 2,048: for many accelerators."""
    return Recipe(
        model="biggan",
        config=BigGANConfig(conditional=True, critic_optimizer=replace(BIGGAN_ADAM, lr=2e-4)),
        data=Data("pictures", options=ImageOptions(size=128, channels=3)),
        training=Training(
            steps=140_000,
            batch_size=2_048,
            lr=5e-5,
            optimizer=BIGGAN_ADAM,
            schedule=STEADY,
            ema_half_life=14_000_000,  # a decay of 0.9999 in each step
        ),
    )


def biggan_256() -> Recipe:
    """The same at 256 pixels."""
    base = biggan_128()
    return replace(
        base,
        config=replace(base.config, latent_dims=140),
        data=Data("pictures", options=ImageOptions(size=256, channels=3)),
    )


def biggan_512() -> Recipe:
    """The same at 512 pixels."""
    base = biggan_128()
    return replace(
        base,
        config=replace(base.config, latent_dims=160),
        data=Data("pictures", options=ImageOptions(size=512, channels=3)),
    )


def biggan_deep_128() -> Recipe:
    """BigGAN-deep on ImageNet at 128 pixels."""
    base = biggan_128()
    return replace(base, config=replace(base.config, deep=True, channels=128, latent_dims=128))


def biggan_pictures() -> Recipe:
    """Any pictures at 64 pixels, for an accelerator: small batches, and a critic that sees changed pictures."""
    return Recipe(
        model="biggan",
        config=BigGANConfig(
            channels=64,
            latent_dims=100,
            attention=32,
            augment=("colour", "translation", "cutout"),
            critic_optimizer=replace(BIGGAN_ADAM, lr=4e-4),
        ),
        data=Data("pictures", options=ImageOptions(size=64)),
        training=Training(
            steps=50_000, batch_size=64, lr=1e-4, optimizer=BIGGAN_ADAM, schedule=STEADY, ema_half_life=50_000
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "biggan-digits": biggan_digits,
    "biggan-emoji": biggan_emoji,
    "biggan-cifar": biggan_cifar,
    "biggan-128": biggan_128,
    "biggan-256": biggan_256,
    "biggan-512": biggan_512,
    "biggan-deep-128": biggan_deep_128,
    "biggan-pictures": biggan_pictures,
    "biggan-pictures-32": biggan_pictures_32,
    "biggan-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "biggan-digits",
    "noto-emoji": "biggan-emoji",
    "cifar10-jpeg": "biggan-cifar",
    "*": "biggan-pictures",
}

LABELLED = ("config.conditional=true",)

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (
        Preset("biggan-pictures-32", 3_000, 15_000, "simple things to be told, some of them odd", LABELLED),
        Preset("biggan-pictures", 20_000, 60_000, "sharp samples at 64 pixels, sometimes odd", LABELLED),
    ),
}

DEMO = "biggan-digits"

TINY = "biggan-tiny"
