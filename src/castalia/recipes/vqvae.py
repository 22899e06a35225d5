"""Recipes of the vector-quantised autoencoder.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.media.image.decode import ImageOptions
from castalia.models.autoencoders.vqvae import VQVAEConfig
from castalia.recipes.preset import Preset


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits in black and white, with their labels: the demo."""
    return Recipe(
        model="vqvae",
        config=VQVAEConfig(
            codes=64,
            dims=16,
            levels=2,
            channels=32,
            blocks=1,
            binarise="threshold",
            conditional=True,
            prior_dim=64,
            prior_layers=2,
            prior_dropout=0.3,
            prior_share=0.3,
        ),
        data=Data("digits"),
        training=Training(steps=3_000, batch_size=128, lr=2e-3, ema_half_life=5_000),
    )


def tiny() -> Recipe:
    """The demo with small networks: for tests."""
    base = digits()
    config = replace(base.config, codes=16, dims=8, channels=16, residual=8, prior_dim=32, prior_layers=1)
    return replace(
        base,
        config=replace(config, prior_dropout=0.0, prior_heads=2),
        training=replace(base.training, lr=1e-2, schedule=Schedule(warmup=10), ema_half_life=100),
    )


def mnist() -> Recipe:
    """Dynamically binarised MNIST, 7 x 7 codes of 64, with labels."""
    return Recipe(
        model="vqvae",
        config=VQVAEConfig(codes=64, dims=32, channels=64, blocks=2, residual=32, conditional=True),
        data=Data("mnist"),
        training=Training(steps=10_000, batch_size=64, lr=1e-3, schedule=Schedule("cosine", warmup=200, end=0.02)),
    )


def emoji() -> Recipe:
    """Emoji at 32 pixels, colour and alpha, 8 x 8 codes of 256."""
    return Recipe(
        model="vqvae",
        config=VQVAEConfig(
            codes=256, dims=32, channels=64, residual=32, likelihood="logistic", mixtures=3, prior_dropout=0.3
        ),
        data=Data("noto-emoji", options=ImageOptions(size=32, channels=4)),
        training=Training(
            steps=8_000, batch_size=32, lr=1e-3, schedule=Schedule("cosine", warmup=200, end=0.02), clip=5_000.0
        ),
    )


def pictures() -> Recipe:
    """Any pictures, colour and alpha, at 64 pixels, 16 x 16 codes: the default for people's own folders."""
    base = emoji()
    return replace(
        base,
        config=replace(base.config, codes=512, dims=64, channels=96),
        data=Data("pictures", options=ImageOptions(size=64)),
        training=replace(base.training, steps=20_000),
    )


def pictures_32() -> Recipe:
    """The same at 32 pixels: minutes on a processor."""
    base = emoji()
    return replace(base, data=Data("pictures", options=ImageOptions(size=32)))


def cifar_paper() -> Recipe:
    """The networks of section 4.1 (256 channels, two residual blocks, K = 512), for a machine with time."""
    return Recipe(
        model="vqvae",
        config=VQVAEConfig(channels=256, residual=0, likelihood="logistic", prior_dim=256, prior_layers=8),
        data=Data("cifar10-jpeg"),
        training=Training(steps=500_000, batch_size=128, lr=2e-4, schedule=Schedule("constant", warmup=0)),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "vqvae-digits": digits,
    "vqvae-mnist": mnist,
    "vqvae-emoji": emoji,
    "vqvae-pictures": pictures,
    "vqvae-pictures-32": pictures_32,
    "vqvae-cifar-paper": cifar_paper,
    "vqvae-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "vqvae-digits",
    "mnist": "vqvae-mnist",
    "noto-emoji": "vqvae-emoji",
    "cifar10-jpeg": "vqvae-cifar-paper",
    "*": "vqvae-pictures",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (
        Preset("vqvae-pictures-32", 1_500, 15_000, "simple things that can be told", ("config.conditional=true",)),
        Preset("vqvae-pictures", 15_000, 60_000, "simple things at 64 pixels", ("config.conditional=true",)),
    ),
}

DEMO = "vqvae-digits"

TINY = "vqvae-tiny"
