"""Recipes of very deep VAEs.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.autoencoders.vdvae import VDVAEConfig
from castalia.recipes.preset import Preset

PAPER_ADAM = Optimizer("adamw", betas=(0.9, 0.9), weight_decay=0.01)


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits: the demo."""
    return Recipe(
        model="vdvae",
        config=VDVAEConfig(
            factors=(2, 4),
            encoder=(1, 1, 1),
            decoder=(2, 2, 1),
            width=32,
            bottleneck=0.5,
            latent=4,
            likelihood="bernoulli",
            binarise="threshold",
            warmup=0.3,
        ),
        data=Data("digits"),
        training=Training(steps=1_500, batch_size=64, lr=2e-3, clip=50.0, ema_half_life=5_000),
    )


def tiny() -> Recipe:
    """The demo with a small network: for tests."""
    base = digits()
    return replace(
        base,
        config=replace(base.config, factors=(8,), encoder=(1, 1), decoder=(1, 1), width=16, latent=4, warmup=0.7),
        training=replace(
            base.training, lr=1e-2, optimizer=Optimizer(eps=1e-3), schedule=Schedule(warmup=10), ema_half_life=100
        ),
    )


def mnist() -> Recipe:
    """Dynamically binarised MNIST: four sizes, eleven groups of latents."""
    return Recipe(
        model="vdvae",
        config=VDVAEConfig(
            factors=(2, 2, 7),
            encoder=(1, 2, 2, 1),
            decoder=(2, 4, 4, 1),
            width=64,
            bottleneck=0.5,
            latent=8,
            likelihood="bernoulli",
            warmup=0.05,
        ),
        data=Data("mnist"),
        training=Training(
            steps=8_000,
            batch_size=64,
            lr=1e-3,
            schedule=Schedule("cosine", warmup=200, end=0.02),
            clip=200.0,
            ema_half_life=30_000,
        ),
    )


def emoji() -> Recipe:
    """Emoji at 32 pixels, colour and alpha."""
    base = pictures()
    return replace(base, data=Data("noto-emoji", options=ImageOptions(size=32, channels=4)))


def pictures() -> Recipe:
    """Any pictures at 32 pixels: the default for people's own folders."""
    return Recipe(
        model="vdvae",
        config=VDVAEConfig(
            encoder=(1, 1, 1, 1, 1), decoder=(2, 3, 3, 2, 1), width=64, bottleneck=0.5, latent=8, mixtures=5
        ),
        data=Data("pictures", options=ImageOptions(size=32)),
        training=Training(
            steps=10_000,
            batch_size=32,
            lr=1e-3,
            schedule=Schedule("cosine", warmup=200, end=0.02),
            clip=1_000.0,
            ema_half_life=20_000,
        ),
    )


def cifar_paper() -> Recipe:
    """The network of the paper for CIFAR-10, 39 million parameters, for accelerators."""
    return Recipe(
        model="vdvae",
        config=VDVAEConfig(),
        data=Data("cifar10-jpeg", options=ImageOptions(flip=True)),
        training=Training(
            steps=1_100_000,
            batch_size=32,
            lr=2e-4,
            optimizer=PAPER_ADAM,
            schedule=Schedule("constant", warmup=100),
            clip=200.0,
            ema_half_life=220_000,
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "vdvae-digits": digits,
    "vdvae-mnist": mnist,
    "vdvae-emoji": emoji,
    "vdvae-pictures": pictures,
    "vdvae-cifar-paper": cifar_paper,
    "vdvae-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "vdvae-digits",
    "mnist": "vdvae-mnist",
    "noto-emoji": "vdvae-emoji",
    "cifar10-jpeg": "vdvae-cifar-paper",
    "*": "vdvae-pictures",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (Preset("vdvae-pictures", 1_500, 20_000, "colours and shapes of the right kind, soft"),),
}

DEMO = "vdvae-digits"

TINY = "vdvae-tiny"
