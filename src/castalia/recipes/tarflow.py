"""Recipes of the transformer autoregressive flow.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.flows.tarflow import TarFlowConfig
from castalia.recipes.preset import Preset

PAPER_ADAM = Optimizer("adamw", betas=(0.9, 0.95), weight_decay=1e-4)
"""Zhai et al. 2024, section 3."""


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits by class: the demo."""
    return Recipe(
        model="tarflow",
        config=TarFlowConfig(patch=2, dim=64, head=32, blocks=4, depth=2, noise=0.1, conditional=True),
        data=Data("digits"),
        training=Training(steps=2_000, batch_size=64, lr=2e-3, optimizer=PAPER_ADAM, clip=100.0, ema_half_life=10_000),
    )


def digits_likelihood() -> Recipe:
    """The same for likelihoods: uniform dequantisation in place of noise."""
    base = digits()
    return replace(base, config=replace(base.config, noise=0.0, scale="gaussian"))


def tiny() -> Recipe:
    """The demo with a small network: for tests."""
    base = digits()
    return replace(
        base,
        config=replace(base.config, patch=4, dim=32, head=16, blocks=2, depth=1),
        # eps so that a gradient which is only rounding (the bias of keys) moves nothing
        training=replace(
            base.training, lr=1e-2, optimizer=Optimizer(eps=1e-3), schedule=Schedule(warmup=0), ema_half_life=100
        ),
    )


def mnist() -> Recipe:
    """MNIST by class with the size of the authors' notebook: patches of 4, 128 dimensions, 4 blocks of 4 layers."""
    return Recipe(
        model="tarflow",
        config=TarFlowConfig(patch=4, dim=128, blocks=4, depth=4, noise=0.1, conditional=True),
        data=Data("mnist"),
        training=Training(
            steps=8_000,
            batch_size=128,
            lr=2e-3,
            optimizer=PAPER_ADAM,
            schedule=Schedule("cosine", warmup=200, end=0.01),
            clip=100.0,
            ema_half_life=30_000,
        ),
    )


def imagenet_64() -> Recipe:
    """The paper's 2-768-8-8 for pictures of 64 pixels, on a folder of your own, for accelerators."""
    return Recipe(
        model="tarflow",
        config=TarFlowConfig(),
        data=Data("pictures", options=ImageOptions(size=64, flip=True)),
        training=Training(
            steps=1_000_000,
            batch_size=256,
            lr=1e-4,
            optimizer=PAPER_ADAM,
            schedule=Schedule("cosine", warmup=5_000, end=0.01),
            ema_half_life=2_000_000,
        ),
    )


def pictures() -> Recipe:
    """Any pictures at 32 pixels: the default for people's own folders."""
    return Recipe(
        model="tarflow",
        config=TarFlowConfig(patch=4, dim=192, blocks=4, depth=2, noise=0.1),
        data=Data("pictures", options=ImageOptions(size=32)),
        training=Training(
            steps=20_000,
            batch_size=64,
            lr=1e-3,
            optimizer=PAPER_ADAM,
            schedule=Schedule("cosine", warmup=300, end=0.01),
            clip=1_000.0,
            ema_half_life=50_000,
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "tarflow-digits": digits,
    "tarflow-digits-likelihood": digits_likelihood,
    "tarflow-mnist": mnist,
    "tarflow-imagenet-64": imagenet_64,
    "tarflow-pictures": pictures,
    "tarflow-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "tarflow-digits",
    "mnist": "tarflow-mnist",
    "*": "tarflow-pictures",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (Preset("tarflow-pictures", 2_000, 40_000, "shapes that can be told", ("config.conditional=true",)),),
}

DEMO = "tarflow-digits"

TINY = "tarflow-tiny"
