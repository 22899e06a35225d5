"""Recipes of GANverse3D.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.shapes.ganverse3d_config import GANverse3DConfig

ADAM = Optimizer("adam", betas=(0.9, 0.999))


def cars() -> Recipe:
    """Cars of 64 pixels from 24 sides: half an hour of one core."""
    return Recipe(
        model="ganverse3d",
        config=GANverse3DConfig(
            symmetric=True,
            shape_dims=48,
            texture_dims=48,
            width=16,
            hidden=256,
            texture=64,
            texture_width=12,
            softness=(1.0, 0.15),
            laplacian=5.0,
            smooth=0.05,
            moving=0.02,
            percept=0.2,
            divergence=2e-3,
        ),
        data=Data("car-views", medium="image", options=ImageOptions(channels=4)),
        training=Training(
            steps=3_000,
            batch_size=8,
            lr=1e-3,
            optimizer=ADAM,
            schedule=Schedule("linear", warmup=50, end=0.05),
            ema_half_life=500,
            log_every=50,
        ),
    )


def tiny() -> Recipe:
    """A small network for a few small cars: for tests."""
    base = cars()
    return replace(
        base,
        config=replace(
            base.config,
            divisions=1,
            shape_dims=8,
            texture_dims=8,
            width=8,
            hidden=32,
            texture=8,
            texture_width=4,
            softness=(0.7, 0.3),
        ),
        data=Data("few-car-views", medium="image", options=ImageOptions(channels=4)),
        training=replace(
            base.training,
            batch_size=8,
            lr=5e-3,
            optimizer=replace(ADAM, eps=1e-4),
            schedule=Schedule("constant", warmup=0),
            ema_half_life=20,
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "ganverse3d-cars": cars,
    "ganverse3d-tiny": tiny,
}

DEFAULTS: dict[str, str] = {"car-views": "ganverse3d-cars", "*": "ganverse3d-cars"}

DEMO = "ganverse3d-tiny"

TINY = "ganverse3d-tiny"
