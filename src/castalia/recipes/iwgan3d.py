"""Recipes of 3D-IWGAN, and of 3D-VAE-IWGAN, which makes the shape that a view shows.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Expected, Recipe, Schedule, Training
from castalia.media.shape.read import ShapeOptions
from castalia.models.shapes.iwgan3d import PAPER, IWGAN3DConfig
from castalia.recipes.preset import Preset


def solids_8() -> Recipe:
    """Chairs, tables, lamps and cars of 8 voxels a side: the demo."""
    return Recipe(
        model="iwgan3d",
        config=IWGAN3DConfig(latent_dims=32, width=64, critic_width=32, critic_steps=3, conditional=True),
        data=Data("solids", medium="shape", options=ShapeOptions(size=8)),
        training=Training(
            steps=600,
            batch_size=64,
            lr=1e-3,
            optimizer=PAPER,
            schedule=Schedule("linear", warmup=0, end=0.05),
            ema_half_life=4_000,
        ),
    )


def tiny() -> Recipe:
    """A small network for a few solids: for tests."""
    base = solids_8()
    return replace(
        base,
        config=IWGAN3DConfig(latent_dims=8, width=16, critic_width=16, critic_steps=1, empty=-1.0, conditional=True),
        data=Data("few-solids", medium="shape", options=ShapeOptions(size=8)),
        training=replace(
            base.training,
            batch_size=16,
            lr=4e-3,
            optimizer=replace(PAPER, eps=1e-4),
            schedule=Schedule("constant", warmup=0),
            ema_half_life=100,
        ),
    )


def solids() -> Recipe:
    """Four kinds of things of 16 voxels a side: minutes of one core that has nothing else to do."""
    base = solids_8()
    return replace(
        base,
        config=IWGAN3DConfig(latent_dims=64, width=64, critic_width=16, critic_steps=3, conditional=True),
        data=Data("solids", medium="shape", options=ShapeOptions(size=16)),
        training=replace(base.training, steps=3_000, batch_size=32, ema_half_life=10_000, log_every=50),
        expected=(
            Expected("set_nna_iou", 0.72, "none on these solids; the paper shows pictures", 15),
            Expected("set_mmd_iou", 0.19, "none on these solids", 15),
        ),
    )


def views() -> Recipe:
    """The shape that a picture of 32 pixels shows, at 16 voxels a side: minutes of one core."""
    base = solids()
    return replace(
        base,
        config=replace(base.config, conditional=False, view=True, view_width=8, encoder_steps=3),
        data=Data("solids", medium="shape", options=ShapeOptions(size=16, views="picture", view_size=32)),
        training=replace(base.training, steps=1_000),
        expected=(),
    )


def depths() -> Recipe:
    """The same from a map of depths."""
    base = views()
    return replace(base, data=replace(base.data, options=ShapeOptions(size=16, views="depth", view_size=32)))


def meshes() -> Recipe:
    """Any meshes or voxels at 32 voxels a side: the default for people's own."""
    base = solids()
    return replace(
        base,
        config=replace(base.config, latent_dims=128, width=128, critic_width=16, conditional=False),
        data=Data("shapes", medium="shape", options=ShapeOptions(size=32, on_bad_file="skip")),
        training=replace(base.training, steps=20_000),
        expected=(),
    )


def paper() -> Recipe:
    """The authors' networks, batch and rates at 32 voxels, in twelve orientations, for an accelerator.

    On ModelNet10 (3,991 training meshes, 12 orientations) 280,500 batches of the critic are the code's 1,500 epochs.
    """
    return Recipe(
        model="iwgan3d",
        config=IWGAN3DConfig(),
        data=Data("shapes", medium="shape", options=ShapeOptions(size=32, up="z", turns=12, on_bad_file="skip")),
        training=Training(
            steps=56_100,
            batch_size=256,
            lr=1e-4,
            optimizer=PAPER,
            schedule=Schedule("constant", warmup=0),
            ema_half_life=0.0,
        ),
    )


def paper_views() -> Recipe:
    """The same from pictures of 256 pixels."""
    base = paper()
    options = replace(base.data.options, views="picture", view_size=256, turns=1)
    return replace(base, config=IWGAN3DConfig(view=True), data=replace(base.data, options=options))


RECIPES: dict[str, Callable[[], Recipe]] = {
    "iwgan3d-solids-8": solids_8,
    "iwgan3d-solids": solids,
    "iwgan3d-views": views,
    "iwgan3d-depths": depths,
    "iwgan3d-meshes": meshes,
    "iwgan3d-paper": paper,
    "iwgan3d-paper-views": paper_views,
    "iwgan3d-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "solids": "iwgan3d-solids",
    "few-solids": "iwgan3d-solids-8",
    "shape:*": "iwgan3d-meshes",
}

LABELLED = ("config.conditional=true",)

PRESETS: dict[str, tuple[Preset, ...]] = {
    "shape": (Preset("iwgan3d-meshes", 1_500, 20_000, "whole shapes of the right kinds, a little rough", LABELLED),),
}

DEMO = "iwgan3d-solids-8"

TINY = "iwgan3d-tiny"
