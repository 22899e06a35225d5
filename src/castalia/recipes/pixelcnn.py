"""Recipes of PixelCNN.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Expected, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.pixels.pixelcnn import PixelCNNConfig
from castalia.recipes.preset import Preset


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits with their labels and 17 grey values: the demo."""
    return Recipe(
        model="pixelcnn",
        config=PixelCNNConfig(maps=32, layers=5, first=5, head=64, conditional=True),
        data=Data("digits"),
        training=Training(steps=400, batch_size=64, lr=1e-2, optimizer=Optimizer("muon"), ema_half_life=5_000),
    )


def tiny() -> Recipe:
    """The demo with a small network: for tests."""
    base = digits()
    return replace(
        base,
        config=replace(base.config, maps=16, layers=3, head=32),
        training=replace(base.training, lr=2e-2, schedule=Schedule(warmup=0), ema_half_life=100),
    )


def mnist() -> Recipe:
    """Dynamically binarised MNIST, gated: twenty minutes of one core with bfloat16 products.

    The first kernel of 21 costs a tenth of a step more than one of 7, and sees ten rows and columns instead of three.
    """
    return Recipe(
        model="pixelcnn",
        config=PixelCNNConfig(likelihood="bernoulli", maps=32, layers=8, first=21, head=64),
        data=Data("mnist"),
        training=Training(
            steps=4_000,
            batch_size=32,
            lr=1e-2,
            optimizer=Optimizer("muon"),
            schedule=Schedule("cosine", warmup=200, end=0.01),
            ema_half_life=20_000,
        ),
        expected=(Expected("nll", 82.0, "81.30 nats, PixelCNN (second-hand: Kingma et al. 2016, table)", 20),),
    )


def mnist_plain() -> Recipe:
    """The same with masked convolutions, which have a blind spot."""
    base = mnist()
    return replace(base, config=replace(base.config, network="plain", layers=10))


def paper_mnist() -> Recipe:
    """The plain PixelCNN that others have reproduced on binarised MNIST: 15 blocks of 16 maps; a machine with time."""
    base = mnist()
    return replace(
        base,
        config=PixelCNNConfig(likelihood="bernoulli", network="plain", maps=16, layers=15, head=32, places=False),
        training=replace(base.training, steps=100_000, batch_size=256, lr=1e-3, optimizer=Optimizer("adam")),
    )


def paper_cifar() -> Recipe:
    """The plain network of the paper on CIFAR-10, 15 blocks with h = 128, for an accelerator and days."""
    return Recipe(
        model="pixelcnn",
        config=PixelCNNConfig(network="plain", few=False, maps=128, layers=15, head=1024, places=False),
        data=Data("cifar10-jpeg"),
        training=Training(steps=500_000, batch_size=16, lr=1e-3, optimizer=Optimizer("rmsprop"), clip=1.0),
    )


def pictures() -> Recipe:
    """Any pictures at 32 pixels: the default for people's own folders."""
    return Recipe(
        model="pixelcnn",
        config=PixelCNNConfig(maps=48, layers=8, first=15, head=96),
        data=Data("pictures", options=ImageOptions(size=32)),
        training=Training(
            steps=6_000,
            batch_size=16,
            lr=1e-2,
            optimizer=Optimizer("muon"),
            schedule=Schedule("cosine", warmup=200, end=0.01),
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "pixelcnn-digits": digits,
    "pixelcnn-mnist": mnist,
    "pixelcnn-mnist-plain": mnist_plain,
    "pixelcnn-mnist-paper": paper_mnist,
    "pixelcnn-cifar-paper": paper_cifar,
    "pixelcnn-pictures": pictures,
    "pixelcnn-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "pixelcnn-digits",
    "mnist": "pixelcnn-mnist",
    "*": "pixelcnn-pictures",
}

LABELLED = ("config.conditional=true",)

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (Preset("pixelcnn-pictures", 1_500, 40_000, "strokes and edges, whole shapes later", LABELLED),),
}

DEMO = "pixelcnn-digits"

TINY = "pixelcnn-tiny"
