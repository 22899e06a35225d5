"""Recipes of VideoGPT.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.video.read import VideoOptions
from castalia.models.video.video_gpt import VideoGPTConfig
from castalia.recipes.preset import Preset


def digits() -> Recipe:
    """Digits that move and bounce, by class, going on from the first four frames: the demo."""
    return Recipe(
        model="video-gpt",
        config=VideoGPTConfig(
            width=64,
            blocks=1,
            halve_time=1,
            halve_space=3,
            codes=256,
            dims=64,
            prior_dim=192,
            prior_layers=6,
            prior_heads=6,
            prior_dropout=0.1,
            conditional=True,
            given=4,
        ),
        data=Data("moving-digits", medium="video"),
        training=Training(
            steps=4_000,
            batch_size=32,
            lr=1e-3,
            optimizer=Optimizer("adamw", betas=(0.9, 0.98)),
            schedule=Schedule("cosine", warmup=100, end=0.02),
            clip=1.0,
            ema_half_life=5_000,
        ),
    )


def tiny() -> Recipe:
    """The same with small networks: for tests."""
    base = digits()
    return replace(
        base,
        data=Data("few-moving-digits", medium="video"),
        config=VideoGPTConfig(
            width=8,
            blocks=1,
            halve_time=2,
            halve_space=2,
            codes=16,
            dims=8,
            prior_dim=16,
            prior_layers=2,
            prior_heads=2,
            prior_dropout=0.0,
            conditional=True,
            given=2,
            code_share=0.6,
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


def films() -> Recipe:
    """Any films, 16 frames of 64 pixels: the default for people's own folders."""
    base = digits()
    config = VideoGPTConfig(
        width=128, blocks=2, halve_time=1, halve_space=3, codes=1_024, dims=128, prior_dim=384, prior_heads=6
    )
    data = Data("films", medium="video", options=VideoOptions(size=64))
    return replace(base, config=config, data=data, training=replace(base.training, steps=50_000, batch_size=8, lr=3e-4))


def films_32() -> Recipe:
    """The same at 32 pixels with the networks of the demo: minutes on a processor."""
    base = digits()
    config = replace(digits().config, conditional=False)
    return replace(base, config=config, data=Data("films", medium="video", options=VideoOptions(size=32)))


def paper() -> Recipe:
    """The sizes of the paper for 16 frames of 64 pixels (BAIR): for an accelerator."""
    base = films()
    training = Training(
        steps=300_000,
        batch_size=32,
        lr=3e-4,
        optimizer=Optimizer("adam", betas=(0.9, 0.999)),
        schedule=Schedule("cosine", warmup=500),
        ema_half_life=100_000,
    )
    return replace(base, config=VideoGPTConfig(halve_time=1, halve_space=1, prior_layers=16), training=training)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "video-gpt-digits": digits,
    "video-gpt-films": films,
    "video-gpt-films-32": films_32,
    "video-gpt-paper": paper,
    "video-gpt-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "moving-digits": "video-gpt-digits",
    "few-moving-digits": "video-gpt-tiny",
    "*": "video-gpt-films",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "video": (
        Preset("video-gpt-films-32", 1_200, 6_000, "simple things that move, at 32 pixels"),
        Preset("video-gpt-films", 30_000, 100_000, "16 frames at 64 pixels"),
    ),
}

DEMO = "video-gpt-digits"

TINY = "video-gpt-tiny"
