"""Recipes of latent diffusion.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.diffusion.process import ProcessConfig
from castalia.models.diffusion.transformer import size
from castalia.models.multimodal.first_stage import FirstStageConfig
from castalia.models.multimodal.latent_diffusion import LatentDiffusionConfig
from castalia.models.multimodal.towers import TextConfig
from castalia.models.multimodal.words import WordsConfig
from castalia.nn.unet import UNetConfig
from castalia.recipes.clip import LETTERS
from castalia.recipes.preset import Preset


def scenes() -> Recipe:
    """Scenes of one or two shapes by caption: the demo. Latents of 8x8 with 4 channels."""
    return Recipe(
        model="latent-diffusion",
        config=LatentDiffusionConfig(
            first=FirstStageConfig(channels=(32, 48, 64), blocks=1, latent=4, groups=8, critic=32),
            known="caption",
            unet=UNetConfig(channels=(96, 128), blocks=1, attention=(0, 1), head_channels=32, groups=16),
            text=TextConfig(128, 3, 4),
            words=WordsConfig(length=16),
            process=ProcessConfig(schedule="cosine", prediction="v"),
        ),
        data=Data("scenes", options=ImageOptions(captions=LETTERS)),
        training=Training(
            steps=8_000,
            batch_size=64,
            lr=1e-3,
            optimizer=Optimizer("adamw", betas=(0.9, 0.99)),
            schedule=Schedule("cosine", warmup=100, end=0.02),
            clip=1.0,
            ema_half_life=10_000,
        ),
    )


def tiny() -> Recipe:
    """The same with small networks: for tests."""
    base = scenes()
    return replace(
        base,
        data=Data("scenes", split="test", options=ImageOptions(size=8, captions=LETTERS)),
        config=LatentDiffusionConfig(
            first=FirstStageConfig(channels=(4, 8), blocks=1, latent=3, groups=4, critic=4, critic_start=0.5),
            known="caption",
            unet=UNetConfig(channels=(12,), blocks=1, attention=(), head_channels=6, groups=4),
            text=TextConfig(12, 1, 2),
            words=WordsConfig(length=12, most=30),
            process=ProcessConfig(schedule="cosine", prediction="v"),
        ),
        training=replace(
            base.training,
            lr=1e-2,
            batch_size=8,
            optimizer=Optimizer("adamw", betas=(0.9, 0.99), eps=1e-3),
            schedule=Schedule(warmup=0),
            ema_half_life=100,
            sample_every=100_000,  # a grid asks the network thirty times, and a step once
        ),
    )


def emblems() -> Recipe:
    """Emblems by caption, at 16 pixels: minutes on a processor. What subjects are taught to (``dreambooth``)."""
    base = scenes()
    config = LatentDiffusionConfig(
        first=FirstStageConfig(channels=(16, 32, 48), blocks=1, latent=8, groups=8, adversarial=0.0, perceptual=0.0),
        known="caption",
        unet=UNetConfig(channels=(64,), blocks=1, attention=(0,), head_channels=16, groups=16),
        text=TextConfig(64, 2, 2),
        words=WordsConfig(length=10),
        process=ProcessConfig(schedule="cosine", prediction="v"),
        first_share=0.25,
    )
    training = replace(base.training, steps=1_200, batch_size=32, lr=2e-3, ema_half_life=2_000)
    return replace(base, config=config, data=Data("emblems", options=ImageOptions(captions=40)), training=training)


def emoji() -> Recipe:
    """Emoji of their names, at 64 pixels, colour and alpha: latents of 16x16."""
    base = scenes()
    return replace(
        base,
        data=Data("noto-emoji", options=ImageOptions(size=64, channels=4, captions=LETTERS)),
        training=replace(base.training, steps=20_000),
    )


def emoji_32() -> Recipe:
    """Emoji of their names at 32 pixels, without a critic: half an hour of a core. Latents of 8x8 with 8 channels."""
    base = emoji()
    first = FirstStageConfig(channels=(32, 48, 64), blocks=1, latent=8, groups=8, adversarial=0.0, perceptual=0.0)
    config = replace(scenes().config, first=first, first_share=0.3)
    data = Data("noto-emoji", options=ImageOptions(size=32, channels=4, captions=LETTERS))
    return replace(base, config=config, data=data, training=replace(base.training, steps=2_600))


def pictures_32() -> Recipe:
    """Any pictures at 32 pixels with the networks of the demo, nothing known of them: minutes on a processor."""
    base = scenes()
    config = replace(scenes().config, known="nothing")
    return replace(base, config=config, data=Data("pictures", options=ImageOptions(size=32)))


def pictures() -> Recipe:
    """Any pictures at 128 pixels, nothing known of them: the default for people's own folders with time."""
    base = scenes()
    config = LatentDiffusionConfig(
        first=FirstStageConfig(channels=(32, 64, 128, 128), blocks=1, latent=4, groups=16, critic=48),
        unet=UNetConfig(channels=(128, 192, 256), blocks=1, attention=(1, 2), head_channels=32, groups=16),
        process=ProcessConfig(schedule="cosine", prediction="v"),
    )
    training = replace(base.training, steps=60_000, lr=5e-4, batch_size=32)
    return replace(base, config=config, data=Data("pictures", options=ImageOptions(size=128)), training=training)


def paper() -> Recipe:
    """KL-f8 and the text-to-picture network of 320 channels, at 256 pixels: for a cluster."""
    return Recipe(
        model="latent-diffusion",
        config=LatentDiffusionConfig(
            first=FirstStageConfig(),
            known="caption",
            unet=UNetConfig(channels=(320, 640, 1280, 1280), blocks=2, attention=(0, 1, 2), heads=8, groups=32),
            text=TextConfig(1280, 32, 8),
            words=WordsConfig(length=77, most=30_000),
        ),
        data=Data("pictures", options=ImageOptions(size=256, channels=3, captions=1_000)),
        training=Training(
            steps=390_000,
            batch_size=680,
            lr=1e-4,
            optimizer=Optimizer("adamw", betas=(0.9, 0.999), weight_decay=0.01),
            schedule=Schedule("constant"),
            ema_half_life=4_700_000,
        ),
    )


def paper_transformer() -> Recipe:
    """DiT-XL/2 on latents of 32x32, by class, at 256 pixels: as Peebles & Xie trained it."""
    base = paper()
    config = LatentDiffusionConfig(
        known="class",
        network="transformer",
        transformer=size("XL", 2),
        process=ProcessConfig(schedule="linear"),
    )
    data = Data("pictures", options=ImageOptions(size=256, channels=3, flip=True))
    return replace(base, config=config, data=data)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "latent-diffusion-scenes": scenes,
    "latent-diffusion-emblems": emblems,
    "latent-diffusion-emoji": emoji,
    "latent-diffusion-emoji-32": emoji_32,
    "latent-diffusion-pictures": pictures,
    "latent-diffusion-pictures-32": pictures_32,
    "latent-diffusion-paper": paper,
    "latent-diffusion-dit": paper_transformer,
    "latent-diffusion-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "scenes": "latent-diffusion-scenes",
    "emblems": "latent-diffusion-emblems",
    "noto-emoji": "latent-diffusion-emoji",
    "*": "latent-diffusion-pictures",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (
        Preset("latent-diffusion-pictures-32", 900, 6_000, "simple things at 32 pixels"),
        Preset("latent-diffusion-pictures", 30_000, 100_000, "pictures at 128 pixels"),
    ),
}

DEMO = "latent-diffusion-scenes"

TINY = "latent-diffusion-tiny"
