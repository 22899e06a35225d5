"""Recipes of the motion VAE.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.motion.read import MotionOptions
from castalia.models.motion.motion_vae import MotionVAEConfig
from castalia.recipes.preset import Preset

ADAM = Optimizer("adamw", betas=(0.9, 0.99))


def walkers() -> Recipe:
    """A figure that walks, hops or waves: the demo."""
    return Recipe(
        model="motion-vae",
        config=MotionVAEConfig(layers=2, dim=64, heads=4, hidden=128, dropout=0.0, beta=0.003),
        data=Data("walkers", medium="motion", options=MotionOptions(length=24, fps=12)),
        training=Training(
            steps=1_500,
            batch_size=32,
            lr=1e-3,
            optimizer=ADAM,
            schedule=Schedule("cosine", warmup=50, end=0.02),
            clip=1.0,
            ema_half_life=5_000,
        ),
    )


def tiny() -> Recipe:
    """A small network: for tests."""
    base = walkers()
    return replace(
        base,
        config=MotionVAEConfig(layers=1, dim=32, heads=2, hidden=64, dropout=0.0, beta=0.003),
        data=Data("walkers", medium="motion", options=MotionOptions(length=8, fps=8)),
        training=replace(base.training, batch_size=16, lr=4e-3, ema_half_life=200),
    )


def motion() -> Recipe:
    """People in two seconds, by kind."""
    base = walkers()
    return replace(
        base,
        config=MotionVAEConfig(layers=3, dim=128, heads=4, hidden=256, dropout=0.1, beta=0.003),
        data=Data("motion", medium="motion", options=MotionOptions(length=40, fps=20, hop=5)),
        training=replace(base.training, steps=3_000, batch_size=64, lr=5e-4, ema_half_life=20_000),
    )


def recordings() -> Recipe:
    """Any BVH: the default for people's own."""
    base = motion()
    options = MotionOptions(length=40, fps=20, hop=5, on_bad_file="skip")
    return replace(base, data=Data("bvh", medium="motion", options=options))


def paper() -> Recipe:
    """The paper's network, batch and rate."""
    base = motion()
    return replace(
        base,
        config=MotionVAEConfig(),
        data=Data("motion", medium="motion", options=MotionOptions(length=60, fps=20, hop=5)),
        training=replace(base.training, steps=100_000, batch_size=20, lr=1e-4, schedule=Schedule("constant", warmup=0)),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "motion-vae-walkers": walkers,
    "motion-vae-motion": motion,
    "motion-vae-recordings": recordings,
    "motion-vae-paper": paper,
    "motion-vae-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "walkers": "motion-vae-walkers",
    "motion": "motion-vae-motion",
    "motion:*": "motion-vae-recordings",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "motion": (
        Preset("motion-vae-recordings", 1_000, 20_000, "smooth motions of the right kind, and walks between them"),
    ),
}

DEMO = "motion-vae-walkers"

TINY = "motion-vae-tiny"
