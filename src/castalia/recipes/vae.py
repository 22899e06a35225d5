"""Recipes of the variational autoencoder.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Expected, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.autoencoders.vae import VAEConfig
from castalia.recipes.preset import Preset


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits, seconds: the demo."""
    return Recipe(
        model="vae",
        config=VAEConfig(latent_dims=16, widths=(32, 64), hidden=128, binarise="threshold"),
        data=Data("digits"),
        training=Training(steps=1500, batch_size=128, lr=2e-3, ema_half_life=5_000),
    )


def tiny() -> Recipe:
    """The demo with a small network: for tests."""
    base = digits()
    return replace(
        base,
        config=replace(base.config, widths=(8, 16), hidden=64, latent_dims=4),
        training=replace(base.training, lr=1e-2, ema_half_life=100),  # so small a network learns slowly
    )


def digits_plane() -> Recipe:
    """The same with two latent dimensions, for a map of the whole latent space."""
    base = digits()
    return replace(base, config=replace(base.config, latent_dims=2))


def mnist() -> Recipe:
    """Dynamically binarised MNIST, residual convolutions, the plain bound."""
    return Recipe(
        model="vae",
        config=VAEConfig(latent_dims=40, widths=(32, 64)),
        data=Data("mnist"),
        training=Training(
            steps=8_000,
            batch_size=128,
            lr=1.5e-3,
            schedule=Schedule("cosine", warmup=500, end=0.02),
            clip=200.0,
        ),
        expected=(
            Expected("nll", at_most=86.0, published="86.76 nats, one layer (Burda et al. 2016, recalled)", minutes=30),
        ),
    )


def mnist_importance() -> Recipe:
    """The same network on the importance-weighted bound with ten samples, after a long start on the plain one."""
    base = mnist()
    return replace(
        base,
        config=replace(base.config, bound="importance", samples=10, plain_first=0.6),
        training=replace(base.training, steps=30_000, batch_size=64),
        expected=(
            Expected("nll", at_most=83.0, published="84.78 nats, one layer (Burda et al. 2016, recalled)", minutes=30),
        ),
    )


def mnist_dense() -> Recipe:
    """A multilayer perceptron: the fastest way to digits."""
    return Recipe(
        model="vae",
        config=VAEConfig(network="dense", latent_dims=40, widths=(512, 512)),
        data=Data("mnist"),
        training=Training(steps=20_000, batch_size=256, lr=1e-3),
    )


def mnist_burda() -> Recipe:
    """The one-layer model of Burda et al. 2016 with their schedule, for a machine with time (3,280 epochs)."""
    return Recipe(
        model="vae",
        config=VAEConfig(
            network="dense",
            latent_dims=50,
            widths=(200, 200),
            activation="tanh",
            bound="importance",
            samples=50,
        ),
        data=Data("mnist"),
        training=Training(
            steps=3280 * 3000,
            batch_size=20,
            lr=1e-3,
            optimizer=Optimizer("adam", betas=(0.9, 0.999), eps=1e-4),
            # rates fall by 10^(-1/7) after 3^i epochs, i = 0..7, counted one after another
            schedule=Schedule(
                "step",
                warmup=0,
                end=10 ** (-1 / 7),
                milestones=tuple(sum(3**j for j in range(i + 1)) / 3280 for i in range(7)),
            ),
            ema_half_life=0,
        ),
    )


def pictures() -> Recipe:
    """Any pictures, colour and alpha, at 64 pixels: the default for people's own folders."""
    return Recipe(
        model="vae",
        config=VAEConfig(
            latent_dims=128,
            widths=(32, 64, 96, 128),
            hidden=512,
            top=16,
            likelihood="logistic",
            mixtures=3,
        ),
        data=Data("pictures", options=ImageOptions(size=64)),
        training=Training(
            steps=10_000,
            batch_size=32,
            lr=1e-3,
            schedule=Schedule("cosine", warmup=500, end=0.02),
            clip=5_000.0,
        ),
    )


def pictures_32() -> Recipe:
    """Any pictures at 32 pixels: minutes on a processor."""
    base = pictures()
    return replace(
        base,
        config=replace(base.config, widths=(32, 64, 128), latent_dims=32),
        data=Data("pictures", options=ImageOptions(size=32)),
        training=replace(
            base.training, steps=4_000, batch_size=64, lr=2e-3, schedule=Schedule("cosine", warmup=200, end=0.02)
        ),
    )


def emoji() -> Recipe:
    """Emoji at 32 pixels, colour and alpha."""
    base = pictures()
    return replace(
        base,
        config=replace(base.config, widths=(32, 64, 128), latent_dims=64, top=16),
        data=Data("noto-emoji", options=ImageOptions(size=32, channels=4)),
        training=replace(base.training, steps=7_000),
    )


def emoji_64() -> Recipe:
    """Emoji at 64 pixels, colour and alpha."""
    base = pictures()
    return replace(base, data=Data("noto-emoji", options=ImageOptions(size=64, channels=4)))


def cifar() -> Recipe:
    """Small colour photographs at 32 pixels."""
    base = emoji()
    return replace(base, data=Data("cifar10-jpeg", options=ImageOptions(flip=True)))


RECIPES: dict[str, Callable[[], Recipe]] = {
    "vae-digits": digits,
    "vae-digits-plane": digits_plane,
    "vae-mnist": mnist,
    "vae-mnist-importance": mnist_importance,
    "vae-mnist-dense": mnist_dense,
    "vae-mnist-burda": mnist_burda,
    "vae-cifar": cifar,
    "vae-emoji": emoji,
    "vae-emoji-64": emoji_64,
    "vae-pictures": pictures,
    "vae-pictures-32": pictures_32,
    "vae-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "vae-digits",
    "mnist": "vae-mnist",
    "cifar10-jpeg": "vae-cifar",
    "noto-emoji": "vae-emoji",
    "*": "vae-pictures",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (
        Preset("vae-pictures-32", 1_500, 10_000, "simple things to be told", seen=True),
        Preset("vae-pictures", 20_000, 60_000, "simple things at 64 pixels, photographs blurred"),
    ),
}

DEMO = "vae-digits"

TINY = "vae-tiny"
