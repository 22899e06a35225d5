"""Recipes of video diffusion.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.video.read import VideoOptions
from castalia.models.video.video_diffusion import VideoDiffusionConfig
from castalia.nn.unet import UNetConfig
from castalia.recipes.preset import Preset


def digits() -> Recipe:
    """Digits that move and bounce, by class, going on from the first four frames: the demo."""
    return Recipe(
        model="video-diffusion",
        config=VideoDiffusionConfig(
            unet=UNetConfig(channels=(16, 32, 48), blocks=1, attention=(2,), head_channels=16, groups=8),
            conditional=True,
            given=4,
        ),
        data=Data("moving-digits", medium="video"),
        training=Training(
            steps=4_000,
            batch_size=8,
            lr=2e-3,
            schedule=Schedule("cosine", warmup=100, end=0.02),
            clip=1.0,
            ema_half_life=5_000,
        ),
    )


def tiny() -> Recipe:
    """The same with a small network: for tests."""
    base = digits()
    return replace(
        base,
        data=Data("few-moving-digits", medium="video"),
        config=VideoDiffusionConfig(
            unet=UNetConfig(channels=(8, 8), blocks=1, attention=(), groups=4),
            heads=1,
            conditional=True,
            given=2,
        ),
        training=replace(
            base.training,
            lr=1e-2,
            optimizer=Optimizer(eps=1e-4),
            schedule=Schedule(warmup=0),
            ema_half_life=50,
            sample_every=100_000,  # a film takes longer than a dozen steps
        ),
    )


def films_32() -> Recipe:
    """Any films, 16 frames of 32 pixels: an hour on a processor."""
    base = digits()
    config = replace(digits().config, conditional=False)
    return replace(base, config=config, data=Data("films", medium="video", options=VideoOptions(size=32)))


def films() -> Recipe:
    """Any films, 16 frames of 64 pixels: the default for people's own folders."""
    base = digits()
    config = VideoDiffusionConfig(
        unet=UNetConfig(channels=(64, 128, 192, 256), blocks=2, attention=(2, 3), head_channels=32, groups=16), heads=8
    )
    data = Data("films", medium="video", options=VideoOptions(size=64))
    return replace(base, config=config, data=data, training=replace(base.training, steps=100_000, lr=3e-4))


RECIPES: dict[str, Callable[[], Recipe]] = {
    "video-diffusion-digits": digits,
    "video-diffusion-films": films,
    "video-diffusion-films-32": films_32,
    "video-diffusion-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "moving-digits": "video-diffusion-digits",
    "few-moving-digits": "video-diffusion-tiny",
    "*": "video-diffusion-films",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "video": (
        Preset("video-diffusion-films-32", 3_600, 20_000, "simple things that move, at 32 pixels"),
        Preset("video-diffusion-films", 100_000, 400_000, "16 frames at 64 pixels"),
    ),
}

DEMO = "video-diffusion-digits"

TINY = "video-diffusion-tiny"
