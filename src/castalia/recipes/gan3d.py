"""Recipes of 3D-GAN.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.media.shape.read import ShapeOptions
from castalia.models.shapes.gan3d import PAPER, GAN3DConfig
from castalia.recipes.preset import Preset


def solids_8() -> Recipe:
    """Chairs, tables, lamps and cars of 8 voxels a side: the demo."""
    return Recipe(
        model="gan3d",
        config=GAN3DConfig(latent_dims=32, width=32, conditional=True, critic_optimizer=replace(PAPER, lr=2e-4)),
        data=Data("solids", medium="shape", options=ShapeOptions(size=8)),
        training=Training(
            steps=800,
            batch_size=64,
            lr=2e-3,
            optimizer=PAPER,
            schedule=Schedule("constant", warmup=0),
            ema_half_life=2_000,
        ),
    )


def tiny() -> Recipe:
    """A small network for a few solids: for tests."""
    base = solids_8()
    return replace(
        base,
        config=GAN3DConfig(latent_dims=8, width=16, critic_optimizer=replace(PAPER, lr=1e-3, eps=1e-4)),
        data=Data("few-solids", medium="shape", options=ShapeOptions(size=8)),
        training=replace(
            base.training,
            batch_size=16,
            lr=4e-3,
            optimizer=replace(PAPER, eps=1e-4),
            ema_half_life=100,
        ),
    )


def solids() -> Recipe:
    """Four kinds of things of 16 voxels a side: minutes of one core that has nothing else to do."""
    base = solids_8()
    return replace(
        base,
        config=GAN3DConfig(latent_dims=64, width=32, conditional=True, critic_optimizer=replace(PAPER, lr=2e-4)),
        data=Data("solids", medium="shape", options=ShapeOptions(size=16)),
        training=replace(base.training, steps=2_500, batch_size=32, lr=1e-3, ema_half_life=5_000, log_every=100),
    )


def meshes() -> Recipe:
    """Any meshes or voxels at 32 voxels a side: the default for people's own."""
    base = solids()
    return replace(
        base,
        config=GAN3DConfig(latent_dims=128, width=32, critic_optimizer=replace(PAPER, lr=1e-4)),
        data=Data("shapes", medium="shape", options=ShapeOptions(size=32, on_bad_file="skip")),
        training=replace(base.training, steps=20_000),
    )


def paper() -> Recipe:
    """The networks of the paper at 64 voxels, with its rates and batch, on meshes of one class, for an accelerator."""
    return Recipe(
        model="gan3d",
        config=GAN3DConfig(),
        data=Data("shapes", medium="shape", options=ShapeOptions(size=64, up="z", labels="none", on_bad_file="skip")),
        training=Training(
            steps=100_000,
            batch_size=100,
            lr=2.5e-3,
            optimizer=PAPER,
            schedule=Schedule("constant", warmup=0),
            ema_half_life=0.0,
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "gan3d-solids-8": solids_8,
    "gan3d-solids": solids,
    "gan3d-meshes": meshes,
    "gan3d-paper": paper,
    "gan3d-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "solids": "gan3d-solids",
    "few-solids": "gan3d-solids-8",
    "shape:*": "gan3d-meshes",
}

LABELLED = ("config.conditional=true",)

PRESETS: dict[str, tuple[Preset, ...]] = {
    "shape": (Preset("gan3d-meshes", 2_000, 20_000, "a rough shape of the right kind, and often no other", LABELLED),),
}

DEMO = "gan3d-solids-8"

TINY = "gan3d-tiny"
