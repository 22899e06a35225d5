"""Recipes of adversarial networks: GAN, DCGAN, PacGAN, Wasserstein GAN, conditional GAN.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.adversarial.gan import GANConfig
from castalia.models.adversarial.wgan import WGANConfig

DCGAN_ADAM = Optimizer("adam", betas=(0.5, 0.999))
"""Radford et al. 2016."""

WGAN_ADAM = Optimizer("adam", betas=(0.5, 0.9))
"""Gulrajani et al. 2017, as in their code."""


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


def wgan_gp_grid() -> Recipe:
    """Grid of 25 with a gradient penalty."""
    return Recipe(
        model="wgan",
        config=WGANConfig(
            network="mlp",
            latent_dims=2,
            widths=(128, 128, 128),
            norm="none",
            critic_activation="relu",
            weights="torch",
            critic_steps=2,
            critic_optimizer=replace(WGAN_ADAM, lr=2e-3),
            penalty=0.1,
        ),
        data=Data("grid-25", medium="points"),
        training=Training(
            steps=20_000,
            batch_size=256,
            lr=1e-3,
            optimizer=WGAN_ADAM,
            schedule=Schedule("cosine", warmup=200, end=0.0),
            ema_half_life=200_000,
            precision="float32",
            log_every=200,
        ),
    )


def wgan_gp_ring() -> Recipe:
    """Ring of 8 with a gradient penalty."""
    base = wgan_gp_grid()
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


def wgan_digits() -> Recipe:
    """Scikit-learn's 8x8 digits by class, with a gradient penalty: the demo."""
    return Recipe(
        model="wgan",
        config=WGANConfig(latent_dims=32, widths=(32, 64), critic_steps=3, weights="he", condition="concatenate"),
        data=Data("digits"),
        training=Training(
            steps=1_500,
            batch_size=64,
            lr=2e-3,
            optimizer=WGAN_ADAM,
            schedule=Schedule("linear", warmup=50, end=0.0),
            ema_half_life=5_000,
        ),
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


def wgan_gp_mnist() -> Recipe:
    """MNIST with a gradient penalty."""
    return Recipe(
        model="wgan",
        config=WGANConfig(latent_dims=64, widths=(64, 128), weights="he"),
        data=Data("mnist"),
        training=Training(
            steps=4_000,
            batch_size=64,
            lr=5e-4,
            optimizer=WGAN_ADAM,
            schedule=Schedule("linear", warmup=100, end=0.0),
            ema_half_life=20_000,
        ),
    )


def wgan_mnist() -> Recipe:
    """MNIST with clipped weights, as Arjovsky et al. 2017 trained."""
    return Recipe(
        model="wgan",
        config=WGANConfig(latent_dims=64, widths=(64, 128), critic_norm="batch", lipschitz="clip"),
        data=Data("mnist"),
        training=Training(
            steps=8_000,
            batch_size=64,
            lr=5e-5,
            optimizer=Optimizer("rmsprop", betas=(0.0, 0.99)),
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


def wgan_gp_stacked() -> Recipe:
    """The same with a gradient penalty."""
    base = wgan_gp_mnist()
    return replace(base, config=replace(base.config, latent_dims=100), data=Data("stacked-mnist"))


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


def dcgan_emoji() -> Recipe:
    """Emoji at 64 pixels, colour and alpha."""
    base = dcgan_pictures()
    return replace(base, data=Data("noto-emoji", options=ImageOptions(size=64, channels=4)))


def wgan_pictures() -> Recipe:
    """Any pictures, colour and alpha, at 64 pixels, with a gradient penalty."""
    return Recipe(
        model="wgan",
        config=WGANConfig(
            latent_dims=128,
            widths=(64, 128, 256, 256),
            critic_widths=(32, 64, 128, 256),
            weights="he",
            critic_steps=3,
        ),
        data=Data("pictures", options=ImageOptions(size=64)),
        training=Training(
            steps=8_000,
            batch_size=32,
            lr=2e-4,
            optimizer=Optimizer("adam", betas=(0.0, 0.9)),
            schedule=Schedule("linear", warmup=100, end=0.0),
            ema_half_life=20_000,
        ),
    )


def wgan_gp_cifar() -> Recipe:
    """The residual networks of Gulrajani et al. 2017 for 32 pixels with their settings, for an accelerator."""
    return Recipe(
        model="wgan",
        config=WGANConfig(
            network="resnet",
            latent_dims=128,
            widths=(128, 128, 128, 128),
            critic_widths=(128, 128),
            flat=2,
            critic_activation="relu",
            weights="he",
        ),
        data=Data("cifar10-jpeg"),
        training=Training(
            steps=100_000,
            batch_size=64,
            lr=2e-4,
            optimizer=Optimizer("adam", betas=(0.0, 0.9)),
            schedule=Schedule("linear", warmup=0, end=0.0),
        ),
    )


# the three examples of Foster 2023, "Generative Deep Learning", 2nd edition, chapter 4

BOOK_WIDTHS = (64, 128, 256, 512)


def book_dcgan() -> Recipe:
    """The book's DCGAN: grey pictures of 64 pixels, 300 epochs of 40,000 bricks. Labels are smoothed on one side."""
    return Recipe(
        model="gan",
        config=GANConfig(
            latent_dims=100,
            widths=BOOK_WIDTHS,
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


def book_wgan_gp() -> Recipe:
    """The book's WGAN-GP: colour faces of 64 pixels. Uniform mixing, 40,000 generator updates instead of 400."""
    return Recipe(
        model="wgan",
        config=WGANConfig(latent_dims=128, widths=BOOK_WIDTHS, activation="leaky", critic_steps=3),
        data=Data("faces", options=ImageOptions(size=64, channels=3)),
        training=Training(
            steps=40_000,
            batch_size=128,
            lr=2e-4,
            optimizer=WGAN_ADAM,
            schedule=Schedule("linear", warmup=100, end=0.0),
        ),
    )


def book_cgan() -> Recipe:
    """The book's conditional WGAN-GP: the class as maps beside the picture and beside 32 latents. Uniform mixing."""
    base = book_wgan_gp()
    return replace(
        base,
        config=replace(
            base.config,
            latent_dims=32,
            widths=(64, 128, 128, 128),
            condition="concatenate",
        ),
        training=replace(base.training, lr=1e-4),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "gan-grid": gan_grid,
    "gan-ring": gan_ring,
    "pacgan-grid": pacgan_grid,
    "pacgan-ring": pacgan_ring,
    "wgan-gp-grid": wgan_gp_grid,
    "wgan-gp-ring": wgan_gp_ring,
    "dcgan-digits": dcgan_digits,
    "wgan-digits": wgan_digits,
    "dcgan-mnist": dcgan_mnist,
    "wgan-mnist": wgan_mnist,
    "wgan-gp-mnist": wgan_gp_mnist,
    "cgan-mnist": cgan_mnist,
    "dcgan-stacked-mnist": dcgan_stacked,
    "pacdcgan-stacked-mnist": pacdcgan_stacked,
    "wgan-gp-stacked-mnist": wgan_gp_stacked,
    "dcgan-emoji": dcgan_emoji,
    "dcgan-pictures": dcgan_pictures,
    "wgan-pictures": wgan_pictures,
    "wgan-gp-cifar": wgan_gp_cifar,
    "book-dcgan": book_dcgan,
    "book-wgan-gp": book_wgan_gp,
    "book-cgan": book_cgan,
}
