"""Recipes of textual inversion: each starts from a run of latent diffusion with captions, whose sizes it takes over.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.multimodal.latent_diffusion import LatentDiffusionConfig
from castalia.models.multimodal.textual_inversion import TextualInversionConfig
from castalia.recipes import latent_diffusion
from castalia.recipes.preset import Preset


def blue_ring() -> Recipe:
    """A blue ring, a shape that it lacks, on a run of ``latent-diffusion-emblems``: built in."""
    return Recipe(
        model="textual-inversion",
        config=TextualInversionConfig(kind="circle", vectors=2),
        data=Data("blue-ring", options=ImageOptions(captions=40)),
        training=Training(
            steps=250,
            batch_size=8,
            lr=1e-2,
            optimizer=Optimizer("adamw", betas=(0.9, 0.999)),
            schedule=Schedule("constant", warmup=0),
            clip=1.0,
            ema_half_life=0.0,
        ),
    )


def pictures() -> Recipe:
    """A handful of your pictures of one thing on a run of yours, at its size: the default."""
    base = blue_ring()
    data = Data("pictures", options=ImageOptions(size=64, channels=3, captions=100))
    config = TextualInversionConfig(templates=("a {}", "a picture of a {}", "one {}"))
    return replace(base, config=config, data=data, training=replace(base.training, steps=500, lr=5e-3))


def tiny() -> Recipe:
    """On nothing, with small networks: for tests."""
    below = latent_diffusion.tiny()
    c = below.config
    assert isinstance(c, LatentDiffusionConfig)
    config = TextualInversionConfig(
        first=c.first,
        unet=replace(c.unet, channels=(4,), head_channels=4, groups=2, attention=(0,), middle="none"),
        text=c.text,
        words=c.words,
        process=c.process,
        base_share=0.75,
        kind="star",
    )
    return replace(below, model="textual-inversion", config=config)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "textual-inversion-pictures": pictures,
    "textual-inversion-blue-ring": blue_ring,
    "textual-inversion-tiny": tiny,
}

DEFAULTS: dict[str, str] = {"blue-ring": "textual-inversion-blue-ring", "*": "textual-inversion-pictures"}

PRESETS: dict[str, tuple[Preset, ...]] = {}

DEMO = "textual-inversion-tiny"

TINY = "textual-inversion-tiny"
