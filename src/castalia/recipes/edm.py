"""Recipes of diffusion in continuous noise levels: those of ``ddpm`` with preconditioning.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Recipe
from castalia.models.diffusion.ddpm import DDPMConfig
from castalia.models.diffusion.edm import EDMConfig
from castalia.nn.unet import small_8, small_28
from castalia.recipes import ddpm
from castalia.recipes.preset import Preset


def digits() -> Recipe:
    """Diffusion's digits with preconditioning and continuous noise levels: the demo."""
    return replace(ddpm.digits(), model="edm", config=EDMConfig(unet=small_8(), conditional=True))


def tiny() -> Recipe:
    """The demo with a small network: for tests."""
    base = digits()
    return replace(base, config=replace(base.config, unet=ddpm.TINY_UNET, flow_steps=8), training=ddpm.tiny_unseen())


def mnist() -> Recipe:
    """The network of ``ddpm-mnist`` with preconditioning and continuous noise levels."""
    return replace(ddpm.mnist(), model="edm", config=EDMConfig(unet=small_28(), conditional=True))


def pictures() -> Recipe:
    """Any pictures at 64 pixels, with preconditioning."""
    base = ddpm.pictures()
    assert isinstance(base.config, DDPMConfig)
    return replace(base, model="edm", config=EDMConfig(unet=base.config.unet))


def pictures_32() -> Recipe:
    """Any pictures at 32 pixels with a small network: minutes on a processor."""
    base = ddpm.pictures_32()
    assert isinstance(base.config, DDPMConfig)
    return replace(base, model="edm", config=EDMConfig(unet=base.config.unet))


def pictures_32_wide() -> Recipe:
    """The same with twice the channels: an hour on a processor."""
    base = ddpm.pictures_32_wide()
    assert isinstance(base.config, DDPMConfig)
    return replace(base, model="edm", config=EDMConfig(unet=base.config.unet))


def points() -> Recipe:
    """25 Gaussians in the plane, with a perceptron; the likelihood is computed with the exact trace."""
    return replace(ddpm.points(), model="edm", config=EDMConfig(probes=0))


RECIPES: dict[str, Callable[[], Recipe]] = {
    "edm-digits": digits,
    "edm-mnist": mnist,
    "edm-pictures": pictures,
    "edm-pictures-32": pictures_32,
    "edm-pictures-32-wide": pictures_32_wide,
    "edm-grid": points,
    "edm-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "edm-digits",
    "mnist": "edm-mnist",
    "points:*": "edm-grid",
    "*": "edm-pictures",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": tuple(replace(p, recipe=p.recipe.replace("ddpm", "edm"), seen=False) for p in ddpm.PRESETS["image"]),
}

DEMO = "edm-digits"

TINY = "edm-tiny"
