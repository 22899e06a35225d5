"""Recipes of the voxel VAE.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.media.shape.read import ShapeOptions
from castalia.models.shapes.voxel_vae import VoxelVAEConfig
from castalia.recipes.preset import Preset


def solids_8() -> Recipe:
    """Chairs, tables, lamps and cars of 8 voxels a side: the demo."""
    return Recipe(
        model="voxel-vae",
        config=VoxelVAEConfig(latent_dims=16, widths=(16, 32, 64, 64), hidden=64, start=64, warmup=0.1),
        data=Data("solids", medium="shape", options=ShapeOptions(size=8)),
        training=Training(
            steps=1_500,
            batch_size=64,
            lr=2e-3,
            schedule=Schedule("cosine", warmup=50, end=0.02),
            clip=100.0,
            ema_half_life=4_000,
        ),
    )


def tiny() -> Recipe:
    """A small network for a few solids: for tests."""
    base = solids_8()
    return replace(
        base,
        config=VoxelVAEConfig(latent_dims=4, widths=(4, 8, 16, 16), hidden=16, start=16),
        data=Data("few-solids", medium="shape", options=ShapeOptions(size=8)),
        training=replace(base.training, batch_size=16, lr=1e-2, ema_half_life=100),
    )


def solids() -> Recipe:
    """Four kinds of things of 16 voxels a side: minutes of one core."""
    base = solids_8()
    return replace(
        base,
        config=VoxelVAEConfig(latent_dims=32, widths=(16, 32, 64, 64), hidden=128, start=16, warmup=0.1),
        data=Data("solids", medium="shape", options=ShapeOptions(size=16)),
        training=replace(base.training, steps=2_500, batch_size=32, lr=1e-3),
    )


def solids_32() -> Recipe:
    """The same of 32 voxels a side: ten minutes of one core."""
    base = solids()
    return replace(
        base,
        config=VoxelVAEConfig(latent_dims=64, widths=(8, 16, 32, 64), hidden=64, start=4, warmup=0.1),
        data=Data("solids", medium="shape", options=ShapeOptions(size=32)),
        training=replace(base.training, minutes=10, batch_size=16),
    )


def meshes() -> Recipe:
    """Any meshes or voxels at 32 voxels a side: the default for people's own."""
    base = solids_32()
    return replace(
        base,
        config=replace(base.config, latent_dims=100, hidden=128),
        data=Data("shapes", medium="shape", options=ShapeOptions(size=32, on_bad_file="skip")),
        training=replace(base.training, minutes=0.0, steps=20_000),
    )


def paper() -> Recipe:
    """The paper's networks and loss at 32 voxels; batch, rate and steps are ours."""
    base = meshes()
    return replace(
        base,
        config=VoxelVAEConfig(loss="sparse"),
        data=Data("shapes", medium="shape", options=ShapeOptions(size=32, up="z", turns=12, on_bad_file="skip")),
        training=replace(base.training, steps=100_000, ema_half_life=0.0),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "voxel-vae-solids-8": solids_8,
    "voxel-vae-solids": solids,
    "voxel-vae-solids-32": solids_32,
    "voxel-vae-meshes": meshes,
    "voxel-vae-paper": paper,
    "voxel-vae-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "solids": "voxel-vae-solids",
    "few-solids": "voxel-vae-solids-8",
    "shape:*": "voxel-vae-meshes",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "shape": (Preset("voxel-vae-meshes", 1_000, 20_000, "whole shapes of the right kinds, without fine parts"),),
}

DEMO = "voxel-vae-solids-8"

TINY = "voxel-vae-tiny"
