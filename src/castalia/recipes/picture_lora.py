"""Recipes of LoRA of pictures: each is started from a run of latent diffusion with captions, whose sizes it takes over.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.multimodal.latent_diffusion import LatentDiffusionConfig
from castalia.models.multimodal.picture_lora import PictureLoRAConfig
from castalia.recipes import latent_diffusion
from castalia.recipes.preset import Preset


def blue_ring() -> Recipe:
    """A blue ring, a shape that it lacks, on a run of ``latent-diffusion-emblems``: built in."""
    return Recipe(
        model="picture-lora",
        config=PictureLoRAConfig(kind="circle"),
        data=Data("blue-ring", options=ImageOptions(captions=40)),
        training=Training(
            steps=250,
            batch_size=8,
            lr=3e-3,
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
    config = PictureLoRAConfig(templates=("a {}", "a picture of a {}", "one {}"))
    return replace(base, config=config, data=data, training=replace(base.training, lr=1e-3))


def tiny() -> Recipe:
    """On nothing, with small networks: for tests."""
    below = latent_diffusion.tiny()
    c = below.config
    assert isinstance(c, LatentDiffusionConfig)
    config = PictureLoRAConfig(
        first=c.first,
        unet=replace(c.unet, channels=(4,), head_channels=4, groups=2, attention=(0,), middle="none"),
        text=c.text,
        words=c.words,
        process=c.process,
        base_share=0.75,
        kind="star",
    )
    return replace(below, model="picture-lora", config=config)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "picture-lora-pictures": pictures,
    "picture-lora-blue-ring": blue_ring,
    "picture-lora-tiny": tiny,
}

DEFAULTS: dict[str, str] = {"blue-ring": "picture-lora-blue-ring", "*": "picture-lora-pictures"}

PRESETS: dict[str, tuple[Preset, ...]] = {}

DEMO = "picture-lora-tiny"

TINY = "picture-lora-tiny"
