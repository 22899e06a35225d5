"""Recipes of PixelCNN++.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.pixels.pixelcnn_pp import PixelCNNPPConfig
from castalia.recipes.preset import Preset


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits with their labels, bins for their 17 grey values: the demo."""
    return Recipe(
        model="pixelcnn-pp",
        config=PixelCNNPPConfig(maps=24, resnets=1, levels=2, mixtures=5, dropout=0.2, conditional=True),
        data=Data("digits"),
        training=Training(steps=600, batch_size=64, lr=3e-3, ema_half_life=5_000),
    )


def tiny() -> Recipe:
    """The demo with a small network: for tests."""
    base = digits()
    return replace(
        base,
        config=replace(base.config, maps=10, mixtures=3, dropout=0.0),
        training=replace(base.training, lr=1e-2, schedule=Schedule(warmup=0), ema_half_life=100),
    )


def mnist() -> Recipe:
    """Dynamically binarised MNIST: an hour of one core with bfloat16 products."""
    return Recipe(
        model="pixelcnn-pp",
        config=PixelCNNPPConfig(likelihood="bernoulli", maps=32, resnets=1, levels=3),
        data=Data("mnist"),
        training=Training(
            steps=8_000, batch_size=32, lr=2e-3, schedule=Schedule("cosine", warmup=200, end=0.01), clip=200.0
        ),
    )


def mnist_grey() -> Recipe:
    """MNIST with all its grey values, a mixture of logistics."""
    base = mnist()
    return replace(base, config=PixelCNNPPConfig(maps=32, resnets=1, levels=3, mixtures=5))


def cifar() -> Recipe:
    """CIFAR-10 as in the paper, 160 maps and 5 residual layers of a level: for an accelerator and days."""
    return Recipe(
        model="pixelcnn-pp",
        config=PixelCNNPPConfig(maps=160, resnets=5, levels=3, dropout=0.5, few=False),
        data=Data("cifar10-jpeg", options=ImageOptions(flip=True)),
        training=Training(
            steps=500_000,
            batch_size=128,
            lr=1e-3,
            optimizer=Optimizer("adam", betas=(0.95, 0.9995)),
            # theirs falls by 0.999995 with every step
            schedule=Schedule("cosine", warmup=0, end=0.1),
            ema_half_life=177_000,  # theirs keeps 0.9995 with every step of 128 pictures
        ),
    )


def pictures() -> Recipe:
    """Any pictures at 32 pixels, colour and alpha: the default for people's own folders."""
    return Recipe(
        model="pixelcnn-pp",
        config=PixelCNNPPConfig(maps=48, resnets=1, levels=3, mixtures=5, dropout=0.1),
        data=Data("pictures", options=ImageOptions(size=32)),
        training=Training(
            steps=6_000, batch_size=16, lr=2e-3, schedule=Schedule("cosine", warmup=200, end=0.02), clip=5_000.0
        ),
    )


def emoji() -> Recipe:
    """Emoji at 32 pixels, colour and alpha."""
    base = pictures()
    return replace(base, data=Data("noto-emoji", options=ImageOptions(size=32, channels=4)))


RECIPES: dict[str, Callable[[], Recipe]] = {
    "pixelcnn-pp-digits": digits,
    "pixelcnn-pp-mnist": mnist,
    "pixelcnn-pp-mnist-grey": mnist_grey,
    "pixelcnn-pp-cifar-paper": cifar,
    "pixelcnn-pp-emoji": emoji,
    "pixelcnn-pp-pictures": pictures,
    "pixelcnn-pp-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "pixelcnn-pp-digits",
    "mnist": "pixelcnn-pp-mnist",
    "noto-emoji": "pixelcnn-pp-emoji",
    "*": "pixelcnn-pp-pictures",
}

LABELLED = ("config.conditional=true",)

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (Preset("pixelcnn-pp-pictures", 1_500, 40_000, "strokes and edges, whole shapes later", LABELLED),),
}

DEMO = "pixelcnn-pp-digits"

TINY = "pixelcnn-pp-tiny"
