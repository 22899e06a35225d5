"""Recipes of the Wasserstein GAN: with a gradient penalty, or with clipped weights.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.adversarial.wgan import WGANConfig
from castalia.recipes.preset import Preset

WGAN_ADAM = Optimizer("adam", betas=(0.5, 0.9))
"""Gulrajani et al. 2017, as in their code."""


# points in the plane


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


def tiny() -> Recipe:
    """The demo with a small network: for tests."""
    base = wgan_digits()
    return replace(
        base,
        config=replace(base.config, widths=(16, 16), critic_widths=(16, 16), latent_dims=8),
        training=replace(base.training, ema_half_life=100),
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


def wgan_gp_stacked() -> Recipe:
    """The same with a gradient penalty."""
    base = wgan_gp_mnist()
    return replace(base, config=replace(base.config, latent_dims=100), data=Data("stacked-mnist"))


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


def wgan_pictures_32() -> Recipe:
    """Any pictures at 32 pixels: minutes on a processor."""
    base = wgan_pictures()
    return replace(
        base,
        config=replace(base.config, latent_dims=64, widths=(32, 64, 128), critic_widths=(32, 64, 128), critic_steps=2),
        data=Data("pictures", options=ImageOptions(size=32)),
        training=replace(base.training, steps=4_000, lr=1e-3, ema_half_life=10_000),
    )


def wgan_gp_cifar() -> Recipe:
    """The residual networks of Gulrajani et al. 2017 for 32 pixels, for an accelerator.

    Rates, moments, batch of the critic, its updates and the number of steps are theirs. Otherwise than in their code,
    the generator's batch is as large as the critic's (theirs: twice that, 128), and real pictures get no noise (theirs:
    uniform, of the width of one of 256 values).
    """
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


# two examples of Foster 2023, "Generative Deep Learning", 2nd edition, chapter 4; the first: gan.py


def book_wgan_gp() -> Recipe:
    """The book's WGAN-GP: colour faces of 64 pixels. Uniform mixing, 40,000 generator updates instead of 400."""
    return Recipe(
        model="wgan",
        config=WGANConfig(latent_dims=128, widths=(64, 128, 256, 512), activation="leaky", critic_steps=3),
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
    "wgan-gp-grid": wgan_gp_grid,
    "wgan-gp-ring": wgan_gp_ring,
    "wgan-digits": wgan_digits,
    "wgan-mnist": wgan_mnist,
    "wgan-gp-mnist": wgan_gp_mnist,
    "wgan-gp-stacked-mnist": wgan_gp_stacked,
    "wgan-pictures": wgan_pictures,
    "wgan-pictures-32": wgan_pictures_32,
    "wgan-gp-cifar": wgan_gp_cifar,
    "book-wgan-gp": book_wgan_gp,
    "book-cgan": book_cgan,
    "wgan-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "wgan-digits",
    "mnist": "wgan-gp-mnist",
    "stacked-mnist": "wgan-gp-stacked-mnist",
    "cifar10-jpeg": "wgan-gp-cifar",
    "points:*": "wgan-gp-grid",
    "*": "wgan-pictures",
}

LABELLED = ("config.condition=concatenate",)

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (
        Preset("wgan-pictures-32", 1_500, 10_000, "simple things to be told, sharp and sometimes odd", LABELLED),
        Preset("wgan-pictures", 15_000, 60_000, "sharp samples at 64 pixels, sometimes odd", LABELLED),
    ),
}

DEMO = "wgan-digits"

TINY = "wgan-tiny"
