"""Recipes of DALL-E.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.multimodal.clip import CLIPConfig
from castalia.models.multimodal.dalle import DALLEConfig
from castalia.models.multimodal.dalle_network import PriorConfig
from castalia.models.multimodal.dvae import CodesConfig
from castalia.models.multimodal.towers import TextConfig, VisionConfig
from castalia.models.multimodal.words import WordsConfig
from castalia.recipes.clip import LETTERS
from castalia.recipes.preset import Preset


def scenes() -> Recipe:
    """Scenes of one or two shapes: the demo."""
    return Recipe(
        model="dalle",
        config=DALLEConfig(
            codes=CodesConfig(codes=256, width=32, levels=3, blocks=1, entry=32, narrowest=-2.0),
            prior=PriorConfig(layers=6, heads=6, dim=192, square=5, dropout=0.0),
            words=WordsConfig(length=16),
            code_share=0.5,
        ),
        data=Data("scenes", options=ImageOptions(captions=LETTERS)),
        training=Training(
            steps=6_000,
            batch_size=64,
            lr=2e-3,
            optimizer=Optimizer("adamw", betas=(0.9, 0.96), weight_decay=0.045),
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
        data=Data("scenes", split="test", options=ImageOptions(size=16, captions=LETTERS)),
        config=DALLEConfig(
            codes=CodesConfig(codes=32, width=8, levels=3, blocks=1, entry=16),
            prior=PriorConfig(layers=2, heads=2, dim=16, square=3, dropout=0.0),
            words=WordsConfig(length=12, most=30),
            code_share=0.5,
            judge_share=0.1,
            judge=CLIPConfig(
                dims=8,
                vision=VisionConfig(patch=4, width=16, layers=1, heads=2),
                text=TextConfig(width=16, layers=1, heads=2),
            ),
        ),
        training=replace(
            base.training,
            lr=5e-3,
            batch_size=16,
            optimizer=Optimizer("adamw", betas=(0.9, 0.96), eps=1e-4),
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
        training=replace(base.training, steps=12_000, lr=7e-4),
    )


def pictures_32() -> Recipe:
    """Any pictures with captions at 32 pixels, with the networks of the demo: minutes on a processor."""
    base = scenes()
    config = replace(scenes().config, words=WordsConfig(length=24, most=5_000))
    return replace(base, config=config, data=Data("pictures", options=ImageOptions(size=32, captions=250)))


def pictures() -> Recipe:
    """Any pictures with captions at 64 pixels: the default for people's own folders with time."""
    return replace(
        scenes(),
        config=DALLEConfig(
            codes=CodesConfig(codes=1_024, width=64, levels=4, blocks=2, entry=64),
            prior=PriorConfig(layers=12, heads=8, dim=512, square=5),
            words=WordsConfig(length=48, most=10_000),
        ),
        data=Data("pictures", options=ImageOptions(size=64, captions=400)),
        training=replace(scenes().training, steps=60_000, lr=5e-4),
    )


def paper() -> Recipe:
    """The paper's sizes, 12 billion parameters at 256 pixels: for a cluster."""
    return Recipe(
        model="dalle",
        config=DALLEConfig(
            judge=CLIPConfig(512, "vit", VisionConfig(32, 768, 12, 12), text=TextConfig(512, 12, 8)),
            caption_drop=0.0,
        ),
        data=Data("pictures", options=ImageOptions(size=256, channels=3, captions=1_000)),
        training=Training(
            steps=3_430_000,
            batch_size=1_024,
            lr=4.5e-4,
            optimizer=Optimizer("adamw", betas=(0.9, 0.96), weight_decay=0.045),
            schedule=Schedule("cosine", warmup=5_000),
            clip=4.0,
            ema_half_life=700_000,
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "dalle-scenes": scenes,
    "dalle-emoji": emoji,
    "dalle-pictures": pictures,
    "dalle-pictures-32": pictures_32,
    "dalle-paper": paper,
    "dalle-tiny": tiny,
}

DEFAULTS: dict[str, str] = {"scenes": "dalle-scenes", "noto-emoji": "dalle-emoji", "*": "dalle-pictures"}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (
        Preset("dalle-pictures-32", 900, 6_000, "simple things that are asked for in words"),
        Preset("dalle-pictures", 30_000, 100_000, "pictures of words at 64 pixels"),
    ),
}

DEMO = "dalle-scenes"

TINY = "dalle-tiny"
