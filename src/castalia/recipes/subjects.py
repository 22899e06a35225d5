"""What the recipes of DreamBooth, textual inversion and LoRA of pictures have in common."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.multimodal.latent_diffusion import LatentDiffusionConfig
from castalia.models.multimodal.personal import PersonalConfig
from castalia.recipes import latent_diffusion

SENTENCES = ("a {}", "a picture of a {}", "one {}")
"""What is said of somebody's own pictures."""


def of_ring(model: str, config: PersonalConfig, *, steps: int, lr: float) -> Recipe:
    """A blue ring, a shape that it lacks, on a run of ``latent-diffusion-emblems``."""
    return Recipe(
        model=model,
        config=config,
        data=Data("blue-ring", options=ImageOptions(captions=40)),
        training=Training(
            steps=steps,
            batch_size=8,
            lr=lr,
            optimizer=Optimizer("adamw", betas=(0.9, 0.999)),
            schedule=Schedule("constant", warmup=0),
            clip=1.0,
            ema_half_life=0.0,
        ),
    )


def of_pictures(ring: Recipe, config: PersonalConfig, **training: Any) -> Recipe:
    """A handful of somebody's pictures of one thing, on a run of theirs."""
    data = Data("pictures", options=ImageOptions(size=64, channels=3, captions=100))
    return replace(ring, config=config, data=data, training=replace(ring.training, **training))


def of_nothing(model: str, config: type[PersonalConfig], **more: Any) -> Recipe:
    """Small networks that are trained first, for tests."""
    below = latent_diffusion.tiny()
    c = below.config
    assert isinstance(c, LatentDiffusionConfig)
    own = config(
        first=replace(c.first, channels=(4,), adversarial=0.0, perceptual=0.0),
        unet=replace(c.unet, channels=(4,), head_channels=4, groups=2, attention=(0,), middle="none"),
        text=c.text,
        words=c.words,
        process=c.process,
        base_share=0.75,
        kind="star",
        **more,
    )
    return replace(below, model=model, config=own)
