"""Recipes of CLIP.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.multimodal.clip import CLIPConfig, small_clip
from castalia.models.multimodal.towers import ResNetConfig, TextConfig, VisionConfig
from castalia.models.multimodal.words import WordsConfig
from castalia.recipes.preset import Preset

LETTERS = 120
"""Bytes of a caption that are kept."""


def scenes() -> Recipe:
    """Scenes of one or two shapes: the demo."""
    return Recipe(
        model="clip",
        config=small_clip(),
        data=Data("scenes", options=ImageOptions(captions=LETTERS)),
        training=Training(
            steps=1_500,
            batch_size=128,
            lr=1e-3,
            optimizer=Optimizer("adamw", betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1),
            schedule=Schedule("cosine", warmup=100, end=0.02),
            clip=1.0,
            ema_half_life=5_000,
        ),
    )


def tiny() -> Recipe:
    """The same with small networks: for tests."""
    base = scenes()
    return replace(
        base,
        data=replace(base.data, split="test"),
        config=CLIPConfig(
            dims=16,
            vision=VisionConfig(patch=8, width=24, layers=1, heads=2),
            text=TextConfig(width=24, layers=1, heads=2),
            words=WordsConfig(length=16, most=40),
        ),
        training=replace(
            base.training,
            lr=3e-3,
            optimizer=Optimizer("adamw", betas=(0.9, 0.98), eps=1e-4),
            schedule=Schedule(warmup=0),
            ema_half_life=100,
            batch_size=32,
        ),
    )


def emoji() -> Recipe:
    """Emoji with their names, at 32 pixels on their own transparency."""
    base = scenes()
    return replace(
        base,
        config=small_clip(),
        data=Data("noto-emoji", options=ImageOptions(size=32, channels=4, captions=LETTERS)),
        training=replace(base.training, steps=3_000),
    )


def pictures() -> Recipe:
    """Any pictures with captions at 64 pixels: the default for people's own folders."""
    base = scenes()
    return replace(
        base,
        config=CLIPConfig(
            dims=256,
            vision=VisionConfig(patch=8, width=256, layers=6, heads=8),
            text=TextConfig(width=256, layers=4, heads=8),
            words=WordsConfig(length=48, most=10_000),
        ),
        data=Data("pictures", options=ImageOptions(size=64, captions=400)),
        training=replace(base.training, steps=20_000),
    )


def pictures_32() -> Recipe:
    """The same at 32 pixels with the network of the demo: minutes on a processor."""
    base = scenes()
    return replace(
        base,
        config=replace(scenes().config, words=WordsConfig(length=32, most=5_000)),
        data=Data("pictures", options=ImageOptions(size=32, captions=250)),
    )


def paper() -> Recipe:
    """ViT-B/32 as published, at 224 pixels: for a cluster and hundreds of millions of captions."""
    return Recipe(
        model="clip",
        config=CLIPConfig(),
        data=Data("pictures", options=ImageOptions(size=224, channels=3, captions=1_000)),
        training=Training(
            steps=390_625,
            batch_size=32_768,
            lr=5e-4,
            optimizer=Optimizer("adamw", betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2),
            schedule=Schedule("cosine", warmup=2_000, end=0.0),
        ),
    )


def paper_resnet() -> Recipe:
    """RN50 as published."""
    base = paper()
    config = CLIPConfig(dims=1024, network="resnet", resnet=ResNetConfig())
    return replace(base, config=config)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "clip-scenes": scenes,
    "clip-emoji": emoji,
    "clip-pictures": pictures,
    "clip-pictures-32": pictures_32,
    "clip-vit-b-32": paper,
    "clip-rn50": paper_resnet,
    "clip-tiny": tiny,
}

DEFAULTS: dict[str, str] = {"scenes": "clip-scenes", "noto-emoji": "clip-emoji", "*": "clip-pictures"}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (
        Preset("clip-pictures-32", 300, 3_000, "captions of a few hundred words told apart", seen=False),
        Preset("clip-pictures", 10_000, 40_000, "search among one's pictures at 64 pixels"),
    ),
}

DEMO = "clip-scenes"

TINY = "clip-tiny"
