"""Recipes of PixelRNN.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.pixels.pixelrnn import PixelRNNConfig
from castalia.recipes.preset import Preset


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits with their labels and 17 grey values, diagonal: the demo."""
    return Recipe(
        model="pixelrnn",
        config=PixelRNNConfig(network="diagonal", maps=32, layers=3, first=5, head=64, conditional=True),
        data=Data("digits"),
        training=Training(steps=500, batch_size=64, lr=1e-2, optimizer=Optimizer("muon"), ema_half_life=5_000),
    )


def tiny() -> Recipe:
    """The demo with a small network: for tests."""
    base = digits()
    return replace(
        base,
        config=replace(base.config, maps=12, layers=1, head=32),
        training=replace(base.training, lr=2e-2, schedule=Schedule(warmup=0), ema_half_life=100),
    )


def mnist() -> Recipe:
    """Dynamically binarised MNIST, Row LSTM: a quarter of an hour of one core with bfloat16 products."""
    return Recipe(
        model="pixelrnn",
        config=PixelRNNConfig(likelihood="bernoulli", maps=24, layers=3, head=48),
        data=Data("mnist"),
        training=Training(
            steps=6_000,
            batch_size=32,
            lr=1e-2,
            optimizer=Optimizer("muon"),
            schedule=Schedule("cosine", warmup=200, end=0.01),
            ema_half_life=10_000,
        ),
    )


def paper_mnist() -> Recipe:
    """The paper's best network on MNIST, 7 layers of Diagonal BiLSTM with h = 16, for a machine with time."""
    base = mnist()
    return replace(
        base,
        config=PixelRNNConfig(network="diagonal", likelihood="bernoulli", maps=16, layers=7, head=32),
        training=replace(base.training, steps=200_000, batch_size=16),
    )


def paper_cifar() -> Recipe:
    """The paper's network on CIFAR-10, 12 layers of Diagonal BiLSTM with h = 128, for an accelerator and days."""
    return Recipe(
        model="pixelrnn",
        config=PixelRNNConfig(network="diagonal", few=False, maps=128, layers=12, head=1024),
        data=Data("cifar10-jpeg"),
        training=Training(steps=500_000, batch_size=16, lr=1e-3, optimizer=Optimizer("rmsprop"), clip=1.0),
    )


def pictures() -> Recipe:
    """Any pictures at 32 pixels, Row LSTM: the default for people's own folders."""
    return Recipe(
        model="pixelrnn",
        config=PixelRNNConfig(maps=48, layers=4, head=96),
        data=Data("pictures", options=ImageOptions(size=32)),
        training=Training(
            steps=5_000, batch_size=16, lr=5e-3, optimizer=Optimizer("muon"), schedule=Schedule("cosine", warmup=200)
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "pixelrnn-digits": digits,
    "pixelrnn-mnist": mnist,
    "pixelrnn-mnist-paper": paper_mnist,
    "pixelrnn-cifar-paper": paper_cifar,
    "pixelrnn-pictures": pictures,
    "pixelrnn-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "pixelrnn-digits",
    "mnist": "pixelrnn-mnist",
    "*": "pixelrnn-pictures",
}

LABELLED = ("config.conditional=true",)

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (Preset("pixelrnn-pictures", 1_500, 40_000, "strokes and edges, whole shapes later", LABELLED),),
}

DEMO = "pixelrnn-digits"

TINY = "pixelrnn-tiny"
