"""Recipes of the GAN: plain, DCGAN, PacGAN, conditional GAN.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.adversarial.gan import GANConfig
from castalia.recipes.preset import Preset

DCGAN_ADAM = Optimizer("adam", betas=(0.5, 0.999))
"""Radford et al. 2016."""


# points in the plane


def pacgan_grid() -> Recipe:
    """Grid of 25 as Lin et al. 2018 had it, packs of two; for a machine with time."""
    return Recipe(
        model="gan",
        config=GANConfig(
            network="mlp",
            latent_dims=2,
            widths=(400, 400, 400, 400),
            critic_widths=(200, 200, 200),
            critic_activation="maxout",
            pieces=5,
            pack=2,
        ),
        data=Data("grid-25", medium="points"),
        training=Training(
            steps=400_000,
            batch_size=200,  # 100 packs
            lr=1e-4,
            optimizer=Optimizer("adam", betas=(0.8, 0.999)),
            schedule=Schedule("constant", warmup=0),
            ema_half_life=0,
            precision="float32",
            log_every=200,
        ),
    )


def gan_grid() -> Recipe:
    """The same without packs: the baseline of Lin et al. 2018."""
    base = pacgan_grid()
    return replace(base, config=replace(base.config, pack=1), training=replace(base.training, batch_size=100))


def gan_ring() -> Recipe:
    """Ring of 8 with the networks of :func:`gan_grid`."""
    base = gan_grid()
    return replace(base, data=Data("ring-8", medium="points"))


def pacgan_ring() -> Recipe:
    """Ring of 8 with the networks of :func:`pacgan_grid`."""
    base = pacgan_grid()
    return replace(base, data=Data("ring-8", medium="points"))


# pictures


def dcgan_digits() -> Recipe:
    """Scikit-learn's 8x8 digits by class: the demo."""
    return Recipe(
        model="gan",
        config=GANConfig(
            latent_dims=32,
            widths=(64, 128),
            critic_widths=(32, 64),
            r1=0.1,
            condition="projection",
            conditional_norm=True,
        ),
        data=Data("digits"),
        training=Training(
            steps=2_500,
            batch_size=64,
            lr=1e-3,
            optimizer=Optimizer("adam", betas=(0.5, 0.99)),
            schedule=Schedule("linear", warmup=50, end=0.0),
            ema_half_life=5_000,
        ),
    )


def tiny() -> Recipe:
    """The demo with a small network: for tests."""
    base = dcgan_digits()
    return replace(
        base,
        config=replace(base.config, widths=(16, 16), critic_widths=(16, 16), latent_dims=8, weights="he"),
        training=replace(base.training, ema_half_life=100),
    )


def dcgan_mnist() -> Recipe:
    """MNIST with the convolutional networks of Radford et al. 2016."""
    return Recipe(
        model="gan",
        config=GANConfig(latent_dims=64, widths=(64, 128), critic_norm="batch"),
        data=Data("mnist"),
        training=Training(
            steps=7_200,
            batch_size=128,
            lr=2e-4,
            optimizer=DCGAN_ADAM,
            schedule=Schedule("constant", warmup=0),
            ema_half_life=20_000,
        ),
    )


def cgan_mnist() -> Recipe:
    """MNIST by class: a projection critic, class-conditional normalisation in the generator."""
    base = dcgan_mnist()
    return replace(
        base,
        config=replace(base.config, condition="projection", conditional_norm=True),
        training=replace(base.training, steps=6_000),
    )


def dcgan_stacked() -> Recipe:
    """Three digits as red, green and blue; 1,000 modes."""
    base = dcgan_mnist()
    return replace(
        base,
        config=replace(base.config, latent_dims=100, widths=(64, 128, 256), kernel=5),
        data=Data("stacked-mnist"),
        training=replace(base.training, steps=10_000, batch_size=64),
    )


def pacdcgan_stacked() -> Recipe:
    """The same with packs of two."""
    base = dcgan_stacked()
    return replace(base, config=replace(base.config, pack=2), training=replace(base.training, batch_size=128))


def dcgan_pictures() -> Recipe:
    """Any pictures, colour and alpha, at 64 pixels."""
    return Recipe(
        model="gan",
        config=GANConfig(
            latent_dims=100,
            widths=(64, 128, 256, 512),
            critic_widths=(32, 64, 128, 256),
            augment=("colour", "translation", "cutout"),
            r1=1.0,
            r1_every=8,
        ),
        data=Data("pictures", options=ImageOptions(size=64)),
        training=Training(
            steps=15_000,
            batch_size=32,
            lr=2e-4,
            optimizer=DCGAN_ADAM,
            schedule=Schedule("constant", warmup=0),
            ema_half_life=20_000,
        ),
    )


def dcgan_pictures_32() -> Recipe:
    """Any pictures at 32 pixels: minutes on a processor. The critic sees moved pictures, and its slope is held down."""
    return Recipe(
        model="gan",
        config=GANConfig(
            latent_dims=64,
            widths=(32, 64, 128),
            augment=("translation",),
            r1=0.2,
            r1_every=4,
        ),
        data=Data("pictures", options=ImageOptions(size=32)),
        training=Training(
            steps=6_000,
            batch_size=32,
            lr=1e-3,
            optimizer=Optimizer("adam", betas=(0.5, 0.99)),
            schedule=Schedule("linear", warmup=50, end=0.0),
            ema_half_life=10_000,
        ),
    )


def dcgan_emoji() -> Recipe:
    """Emoji at 64 pixels, colour and alpha."""
    base = dcgan_pictures()
    return replace(base, data=Data("noto-emoji", options=ImageOptions(size=64, channels=4)))


# the example of Foster 2023, "Generative Deep Learning", 2nd edition, chapter 4; two more: wgan.py


def book_dcgan() -> Recipe:
    """The book's DCGAN: grey pictures of 64 pixels, 300 epochs of 40,000 bricks. Labels are smoothed on one side."""
    return Recipe(
        model="gan",
        config=GANConfig(
            latent_dims=100,
            widths=(64, 128, 256, 512),
            activation="leaky",
            critic_norm="batch",
            biases=False,
            dropout=0.3,
            smooth=0.1,
        ),
        data=Data("bricks", options=ImageOptions(size=64, channels=1)),
        training=Training(
            steps=93_750,
            batch_size=128,
            lr=2e-4,
            optimizer=DCGAN_ADAM,
            schedule=Schedule("constant", warmup=0),
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "gan-grid": gan_grid,
    "gan-ring": gan_ring,
    "pacgan-grid": pacgan_grid,
    "pacgan-ring": pacgan_ring,
    "dcgan-digits": dcgan_digits,
    "dcgan-mnist": dcgan_mnist,
    "cgan-mnist": cgan_mnist,
    "dcgan-stacked-mnist": dcgan_stacked,
    "pacdcgan-stacked-mnist": pacdcgan_stacked,
    "dcgan-emoji": dcgan_emoji,
    "dcgan-pictures": dcgan_pictures,
    "dcgan-pictures-32": dcgan_pictures_32,
    "book-dcgan": book_dcgan,
    "gan-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "dcgan-digits",
    "mnist": "dcgan-mnist",
    "stacked-mnist": "pacdcgan-stacked-mnist",
    "noto-emoji": "dcgan-emoji",
    "points:*": "pacgan-grid",
    "*": "dcgan-pictures",
}

LABELLED = ("config.condition=projection", "config.conditional_norm=true")

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (
        Preset(
            "dcgan-pictures-32", 4_000, 15_000, "simple things to be told, sharp and sometimes odd", LABELLED, seen=True
        ),
        Preset("dcgan-pictures", 20_000, 60_000, "sharp samples at 64 pixels, sometimes odd", LABELLED),
    ),
}

DEMO = "dcgan-digits"

TINY = "gan-tiny"
