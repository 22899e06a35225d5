"""Recipes of PixelCNN.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.models.pixels.pixelcnn import PixelCNNConfig


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits with their labels and 17 grey values: the demo."""
    return Recipe(
        model="pixelcnn",
        config=PixelCNNConfig(maps=32, layers=5, first=5, head=64, conditional=True),
        data=Data("digits"),
        training=Training(steps=1500, batch_size=64, lr=1e-2, optimizer=Optimizer("muon"), ema_half_life=5_000),
    )


def tiny() -> Recipe:
    """The demo with a small network: for tests."""
    base = digits()
    return replace(
        base,
        config=replace(base.config, maps=16, layers=3, head=32),
        training=replace(base.training, lr=2e-2, schedule=Schedule(warmup=0), ema_half_life=100),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "pixelcnn-digits": digits,
    "pixelcnn-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "pixelcnn-digits",
    "*": "pixelcnn-digits",
}

DEMO = "pixelcnn-digits"

TINY = "pixelcnn-tiny"
