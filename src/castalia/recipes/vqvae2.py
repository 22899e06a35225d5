"""Recipes of the two-level vector-quantised autoencoder.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.media.image.decode import ImageOptions
from castalia.models.autoencoders.vqvae2 import VQVAE2Config
from castalia.recipes.preset import Preset


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits by class: the demo."""
    return Recipe(
        model="vqvae2",
        config=VQVAE2Config(
            codes=8,
            dims=8,
            levels=1,
            channels=32,
            blocks=1,
            binarise="threshold",
            conditional=True,
            prior_dim=64,
            prior_layers=2,
            prior_dropout=0.3,
            prior_share=0.7,
        ),
        data=Data("digits"),
        training=Training(steps=4_000, batch_size=64, lr=2e-3, ema_half_life=5_000),
    )


def tiny() -> Recipe:
    """The demo with small networks: for tests."""
    base = digits()
    config = replace(base.config, codes=16, dims=8, channels=12, residual=8, prior_dim=24, prior_layers=1)
    return replace(
        base,
        config=replace(config, prior_dropout=0.0, prior_heads=2),
        training=replace(base.training, lr=1e-2, schedule=Schedule(warmup=10), ema_half_life=100),
    )


def mnist() -> Recipe:
    """Dynamically binarised MNIST, 7 x 7 and 4 x 4 codes of 64, with labels."""
    return Recipe(
        model="vqvae2",
        config=VQVAE2Config(codes=64, dims=32, channels=64, conditional=True),
        data=Data("mnist"),
        training=Training(steps=12_000, batch_size=64, lr=1e-3, schedule=Schedule("cosine", warmup=200, end=0.02)),
    )


def emoji() -> Recipe:
    """Emoji at 64 pixels, colour and alpha, 16 x 16 and 8 x 8 codes of 256."""
    return Recipe(
        model="vqvae2",
        config=VQVAE2Config(
            codes=256, dims=32, channels=64, residual=32, likelihood="logistic", mixtures=3, prior_dropout=0.3
        ),
        data=Data("noto-emoji", options=ImageOptions(size=64, channels=4)),
        training=Training(
            steps=12_000, batch_size=32, lr=1e-3, schedule=Schedule("cosine", warmup=200, end=0.02), clip=20_000.0
        ),
    )


def pictures() -> Recipe:
    """Any pictures at 64 pixels: the default for people's own folders."""
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
    return replace(
        base,
        data=Data("pictures", options=ImageOptions(size=32)),
        training=replace(base.training, clip=5_000.0),
    )


def imagenet_256() -> Recipe:
    """The sizes of the paper for 256 pixels (64 x 64 and 32 x 32 codes), on a folder of your own, for accelerators."""
    return Recipe(
        model="vqvae2",
        config=VQVAE2Config(likelihood="logistic", prior_dim=512, prior_layers=20, prior_heads=8),
        data=Data("pictures", options=ImageOptions(size=256)),
        training=Training(steps=2_000_000, batch_size=128, lr=3e-4, schedule=Schedule("constant", warmup=0)),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "vqvae2-digits": digits,
    "vqvae2-mnist": mnist,
    "vqvae2-emoji": emoji,
    "vqvae2-pictures": pictures,
    "vqvae2-pictures-32": pictures_32,
    "vqvae2-imagenet-256": imagenet_256,
    "vqvae2-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "vqvae2-digits",
    "mnist": "vqvae2-mnist",
    "noto-emoji": "vqvae2-emoji",
    "*": "vqvae2-pictures",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (
        Preset("vqvae2-pictures-32", 2_000, 15_000, "simple things that can be told", ("config.conditional=true",)),
        Preset("vqvae2-pictures", 15_000, 60_000, "simple things at 64 pixels", ("config.conditional=true",)),
    ),
}

DEMO = "vqvae2-digits"

TINY = "vqvae2-tiny"
