"""Recipes of motion diffusion.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.motion.read import MotionOptions
from castalia.models.motion.mdm import MDMConfig
from castalia.recipes.preset import Preset

ADAM = Optimizer("adamw", betas=(0.9, 0.99))


def walkers() -> Recipe:
    """A figure that walks, hops or waves: the demo."""
    return Recipe(
        model="mdm",
        config=MDMConfig(layers=3, dim=96, heads=4, hidden=192, dropout=0.0, steps=200),
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
        config=MDMConfig(layers=1, dim=48, heads=2, hidden=64, dropout=0.0, steps=20, feet=0.0),
        data=Data("walkers", medium="motion", options=MotionOptions(length=8, fps=8)),
        training=replace(base.training, batch_size=16, lr=4e-3, ema_half_life=200),
    )


def motion() -> Recipe:
    """People in two seconds, by kind: forty minutes of two cores."""
    base = walkers()
    return replace(
        base,
        config=MDMConfig(layers=4, dim=192, heads=4, hidden=384, dropout=0.1, steps=1000),
        data=Data("motion", medium="motion", options=MotionOptions(length=40, fps=20, hop=5)),
        training=replace(base.training, steps=6_000, batch_size=64, lr=5e-4, ema_half_life=30_000),
    )


def recordings() -> Recipe:
    """Any BVH: the default for people's own."""
    base = motion()
    options = MotionOptions(length=40, fps=20, hop=5, on_bad_file="skip")
    return replace(base, data=Data("bvh", medium="motion", options=options))


def paper() -> Recipe:
    """The paper's network, batch, rate and steps."""
    base = motion()
    return replace(
        base,
        config=MDMConfig(),
        data=Data("motion", medium="motion", options=MotionOptions(length=60, fps=20, hop=5)),
        training=replace(base.training, steps=600_000, batch_size=64, lr=1e-4, schedule=Schedule("constant", warmup=0)),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "mdm-walkers": walkers,
    "mdm-motion": motion,
    "mdm-recordings": recordings,
    "mdm-paper": paper,
    "mdm-tiny": tiny,
}

DEFAULTS: dict[str, str] = {"walkers": "mdm-walkers", "motion": "mdm-motion", "motion:*": "mdm-recordings"}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "motion": (Preset("mdm-recordings", 1_500, 20_000, "motions of the right kind, trembling a little"),),
}

DEMO = "mdm-walkers"

TINY = "mdm-tiny"
