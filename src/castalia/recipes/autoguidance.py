"""Recipes of autoguidance: those of ``edm`` with a guide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.diffusion.autoguidance import AutoguidanceConfig, narrow_28
from castalia.models.diffusion.edm import EDMConfig
from castalia.models.diffusion.networks import PerceptronConfig
from castalia.nn.unet import UNetConfig, small_8, small_28
from castalia.recipes import ddpm, edm
from castalia.recipes.classifier_guidance import adm
from castalia.recipes.preset import Preset

NARROW = UNetConfig(channels=(16, 32), blocks=1, attention=(1,), head_channels=16, groups=8)
"""The guide of pictures of 8 pixels: a quarter of the weights."""


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits with their labels: the demo."""
    base = edm.digits()
    config = AutoguidanceConfig(unet=small_8(), guide=NARROW, conditional=True)
    return replace(base, model="autoguidance", config=config)


def tiny() -> Recipe:
    """The demo with small networks: for tests."""
    base = digits()
    small = replace(
        base.config,  # pyright: ignore[reportArgumentType]
        unet=replace(ddpm.TINY_UNET, attention=()),
        guide=replace(ddpm.TINY_UNET, channels=(8,), attention=()),
        flow_steps=8,
        guide_share=0.5,
    )
    return replace(base, config=small, training=ddpm.tiny_unseen())


def mnist() -> Recipe:
    """``edm-mnist`` with a guide of half the width."""
    config = AutoguidanceConfig(unet=small_28(), guide=narrow_28(), conditional=True)
    return replace(edm.mnist(), model="autoguidance", config=config)


def paper() -> Recipe:
    """ImageNet at 64 pixels: EDM's network there (ADM's, 296 million weights), and a guide of two thirds of its width.

    The guide is trained for a sixteenth of the steps, as that of the paper's S model is. Its networks are EDM2's.
    """
    return Recipe(
        model="autoguidance",
        config=AutoguidanceConfig(
            unet=adm(192, 3, dropout=0.1),
            guide=adm(128, 3, dropout=0.1),
            data_std=0.5,
            conditional=True,
        ),
        data=Data("pictures", options=ImageOptions(size=64, channels=3, flip=True)),
        training=Training(
            steps=650_000,
            batch_size=4_096,
            lr=1e-4,
            optimizer=Optimizer("adam", betas=(0.9, 0.999)),
            schedule=Schedule("constant", warmup=2_441),
            ema_half_life=50_000_000,
        ),
    )


def pictures() -> Recipe:
    """Any pictures at 64 pixels: the default for people's own folders with time."""
    return _of(edm.pictures())


def pictures_32() -> Recipe:
    """Any pictures at 32 pixels with small networks: minutes on a processor."""
    return _of(edm.pictures_32())


def pictures_32_wide() -> Recipe:
    """The same with twice the channels: an hour on a processor."""
    return _of(edm.pictures_32_wide())


def points() -> Recipe:
    """25 Gaussians in the plane, with perceptrons; the likelihood is computed with the exact trace."""
    config = AutoguidanceConfig(probes=0, guide_perceptron=PerceptronConfig(width=64, blocks=2), guide_share=0.25)
    return replace(edm.points(), model="autoguidance", config=config)


def _of(base: Recipe) -> Recipe:
    c = base.config
    assert isinstance(c, EDMConfig)
    unet = c.unet
    half = replace(
        unet, channels=tuple(n // 2 for n in unet.channels), head_channels=unet.channels[-1] // 2, groups=unet.groups
    )
    return replace(base, model="autoguidance", config=AutoguidanceConfig(unet=unet, guide=half))


RECIPES: dict[str, Callable[[], Recipe]] = {
    "autoguidance-digits": digits,
    "autoguidance-mnist": mnist,
    "autoguidance-paper": paper,
    "autoguidance-pictures": pictures,
    "autoguidance-pictures-32": pictures_32,
    "autoguidance-pictures-32-wide": pictures_32_wide,
    "autoguidance-grid": points,
    "autoguidance-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "autoguidance-digits",
    "mnist": "autoguidance-mnist",
    "points:*": "autoguidance-grid",
    "*": "autoguidance-pictures",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": tuple(
        replace(p, recipe=p.recipe.replace("ddpm", "autoguidance"), seen=False) for p in ddpm.PRESETS["image"]
    ),
}

DEMO = "autoguidance-digits"

TINY = "autoguidance-tiny"
