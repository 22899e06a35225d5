"""Recipes of DALL-E 2.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.diffusion.process import ProcessConfig
from castalia.models.multimodal.clip import CLIPConfig, small_clip
from castalia.models.multimodal.embeddings_prior import EmbeddingPriorConfig
from castalia.models.multimodal.towers import TextConfig, VisionConfig
from castalia.models.multimodal.unclip import UnCLIPConfig
from castalia.models.multimodal.words import WordsConfig
from castalia.nn.unet import UNetConfig
from castalia.recipes.clip import LETTERS
from castalia.recipes.preset import Preset


def scenes() -> Recipe:
    """Scenes of one or two shapes: the demo."""
    return Recipe(
        model="unclip",
        config=UnCLIPConfig(
            clip=small_clip(),
            prior=EmbeddingPriorConfig(width=192, layers=4, heads=6),
            decoder=UNetConfig(channels=(48, 96), blocks=1, attention=(1,), head_channels=32, groups=8),
            upsampler=UNetConfig(channels=(24, 48), blocks=1, attention=(), middle="plain", groups=8),
            shares=(0.22, 0.16, 0.5, 0.12),
        ),
        data=Data("scenes", options=ImageOptions(captions=LETTERS)),
        training=Training(
            steps=6_000,
            batch_size=64,
            lr=1e-3,
            optimizer=Optimizer("adamw", betas=(0.9, 0.98), weight_decay=0.03),
            schedule=Schedule("cosine", warmup=100, end=0.02),
            clip=1.0,
            ema_half_life=10_000,
        ),
    )


def tiny() -> Recipe:
    """The same with small networks: for tests."""
    base = scenes()
    unet = UNetConfig(channels=(8,), blocks=1, attention=(), head_channels=8, groups=4)
    return replace(
        base,
        data=Data("scenes", split="test", options=ImageOptions(size=8, captions=LETTERS)),
        config=UnCLIPConfig(
            clip=CLIPConfig(
                dims=8,
                vision=VisionConfig(patch=4, width=16, layers=1, heads=2),
                text=TextConfig(width=16, layers=1, heads=2),
                words=WordsConfig(length=12, most=30),
            ),
            prior=EmbeddingPriorConfig(width=16, layers=1, heads=2),
            decoder=unet,
            upsampler=replace(unet, middle="plain"),
            candidates=1,
            shares=(0.1, 0.2, 0.5, 0.2),
        ),
        training=replace(
            base.training,
            lr=1e-2,
            batch_size=8,
            optimizer=Optimizer("adamw", betas=(0.9, 0.98), eps=1e-4),
            schedule=Schedule(warmup=0),
            ema_half_life=100,
        ),
    )


def emoji() -> Recipe:
    """Emoji of their names, at 32 pixels, colour and alpha."""
    base = scenes()
    return replace(
        base,
        data=Data("noto-emoji", options=ImageOptions(size=32, channels=4, captions=LETTERS)),
        training=replace(base.training, steps=12_000),
    )


def pictures_32() -> Recipe:
    """Any pictures with captions at 32 pixels, with the networks of the demo: minutes on a processor."""
    base = scenes()
    config = replace(scenes().config, clip=replace(small_clip(), words=WordsConfig(length=32, most=5_000)))
    return replace(base, config=config, data=Data("pictures", options=ImageOptions(size=32, captions=250)))


def pictures() -> Recipe:
    """Any pictures with captions at 64 pixels: the default for people's own folders with time."""
    return replace(
        scenes(),
        config=UnCLIPConfig(
            clip=CLIPConfig(
                dims=256,
                vision=VisionConfig(patch=8, width=256, layers=6, heads=8),
                text=TextConfig(width=256, layers=4, heads=8),
                words=WordsConfig(length=48, most=10_000),
            ),
            prior=EmbeddingPriorConfig(width=512, layers=8, heads=8),
            decoder=UNetConfig(channels=(96, 192, 192), blocks=2, attention=(1, 2), head_channels=32, groups=16),
            upsampler=UNetConfig(channels=(48, 96), blocks=1, attention=(), middle="plain", groups=8),
        ),
        data=Data("pictures", options=ImageOptions(size=64, captions=400)),
        training=replace(scenes().training, steps=60_000, lr=3e-4),
    )


def paper() -> Recipe:
    """The paper's prior, and GLIDE's decoder at 64 pixels with an upsampler to 256: for a cluster."""
    return Recipe(
        model="unclip",
        config=UnCLIPConfig(
            clip=CLIPConfig(
                768, "vit", VisionConfig(14, 1024, 24, 16), text=TextConfig(768, 12, 12), words=WordsConfig(77, 50_000)
            ),
            prior=EmbeddingPriorConfig(),
            decoder=UNetConfig(
                channels=(512, 1024, 1536, 2048),
                blocks=3,
                attention=(1, 2, 3),
                head_channels=64,
                groups=32,
                conditioning="scale_shift",
                down="block",
                up="block",
            ),
            upsampler=UNetConfig(
                channels=(320, 640, 960, 1280),
                blocks=3,
                attention=(),
                middle="plain",
                groups=32,
                conditioning="scale_shift",
                down="block",
                up="block",
            ),
            upsample=4,
            process=ProcessConfig(prediction="eps"),
        ),
        data=Data("pictures", options=ImageOptions(size=256, channels=3, captions=1_000)),
        training=Training(
            steps=3_000_000,
            batch_size=2_048,
            lr=1.2e-4,
            optimizer=Optimizer("adam", betas=(0.9, 0.999)),
            schedule=Schedule("constant"),
            ema_half_life=14_000_000,
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "unclip-scenes": scenes,
    "unclip-emoji": emoji,
    "unclip-pictures": pictures,
    "unclip-pictures-32": pictures_32,
    "unclip-paper": paper,
    "unclip-tiny": tiny,
}

DEFAULTS: dict[str, str] = {"scenes": "unclip-scenes", "noto-emoji": "unclip-emoji", "*": "unclip-pictures"}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (
        Preset("unclip-pictures-32", 900, 6_000, "simple things that are asked for in words, and variations of them"),
        Preset("unclip-pictures", 30_000, 100_000, "pictures of words at 64 pixels"),
    ),
}

DEMO = "unclip-scenes"

TINY = "unclip-tiny"
