"""Recipes of GANverse3D.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Expected, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.adversarial.stylegan2 import StyleGAN2Config
from castalia.models.shapes.ganverse3d_config import GANverse3DConfig
from castalia.recipes.preset import Preset
from castalia.recipes.stylegan2 import stylegan2_pictures

ADAM = Optimizer("adam", betas=(0.9, 0.999))


def cars() -> Recipe:
    """Cars of 64 pixels from 24 sides: ten minutes of one core that has nothing else to do."""
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
            divergence=1e-2,
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
        expected=(
            Expected("colour_error", 12.0, "none on these pictures; of the mean colour 25", 10),
            Expected("azimuth_error", 6.0, "none; 80 % within 15 degrees was wished for", 10),
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
        expected=(),
    )


def solids() -> Recipe:
    """Chairs, tables, lamps and cars by one network. The legs of things are nothing that a sphere becomes."""
    base = cars()
    return replace(
        base,
        config=replace(base.config, shape_dims=96, texture_dims=64, hidden=384),
        data=replace(base.data, source="solid-views"),
        training=replace(base.training, steps=8_000),
        expected=(),
    )


def few_cars() -> Recipe:
    """Cars of 32 pixels: the demo."""
    base = cars()
    return replace(
        base,
        config=replace(base.config, divisions=2, width=16, hidden=128, texture=32, texture_width=8),
        data=replace(base.data, options=ImageOptions(size=32, channels=4)),
        training=replace(base.training, steps=500, lr=2e-3, ema_half_life=100),
        expected=(),
    )


def views() -> Recipe:
    """Things of people's own, each photographed from several sides; names of files tell which and from where."""
    base = cars()
    return replace(
        base,
        config=replace(base.config, symmetric=False, shape_dims=96, texture_dims=96, hidden=384),
        data=Data("views", medium="image", options=ImageOptions(size=64, views="{thing}_{degrees}")),
        training=replace(base.training, steps=10_000),
        expected=(),
    )


def stylegan() -> Recipe:
    """Views from a StyleGAN2 of people's own pictures, trained by ``stylegan2-pictures``.

    It needs that run as the parent ``generator``, and viewpoints.
    """
    base, generator = cars(), stylegan2_pictures()
    assert isinstance(generator.config, StyleGAN2Config)
    return replace(
        base,
        config=replace(
            base.config,
            symmetric=False,
            generator=generator.config,
            views=tuple(range(12)),
            view_bins=(-1,) * 12,
            view_dims=96,
            renderer_width=256,
            renderer_lr=1e-4,
            warm_up=0.1,
            fine_tune=0.2,
        ),
        data=generator.data,
        training=replace(base.training, steps=20_000),
        expected=(),
    )


def paper() -> Recipe:
    """The sizes, weights, rates and steps of the paper, for accelerators: cars of 512 pixels from 39 viewpoints.

    Which pictures of the StyleGAN show the viewpoints, and from where, is for a person to say; these numbers stand for
    as many as the paper has.
    """
    return Recipe(
        model="ganverse3d",
        config=GANverse3DConfig(
            generator=StyleGAN2Config(channels=16384), views=tuple(range(39)), view_bins=(-1,) * 39
        ),
        data=Data("pictures", medium="image", options=ImageOptions(size=512, channels=3)),
        training=Training(
            steps=203_200,
            batch_size=16,
            lr=1e-4,
            optimizer=ADAM,
            schedule=Schedule("constant", warmup=0),
            ema_half_life=0.0,
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "ganverse3d-cars-32": few_cars,
    "ganverse3d-cars": cars,
    "ganverse3d-solids": solids,
    "ganverse3d-views": views,
    "ganverse3d-stylegan": stylegan,
    "ganverse3d-paper": paper,
    "ganverse3d-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "car-views": "ganverse3d-cars",
    "solid-views": "ganverse3d-solids",
    "few-car-views": "ganverse3d-cars-32",
    "*": "ganverse3d-views",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (Preset("ganverse3d-views", 1_500, 10_000, "meshes whose silhouettes fit, with soft textures"),),
}

DEMO = "ganverse3d-cars-32"

TINY = "ganverse3d-tiny"
