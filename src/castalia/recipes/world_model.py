"""Recipes of the world model.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Budget, Data, Expected, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.episode.read import EpisodeOptions
from castalia.models.worlds.settings import WorldModelConfig
from castalia.recipes.preset import Preset

ADAM = Optimizer("adam", betas=(0.9, 0.999))

SMALL = WorldModelConfig(
    latents=16,
    widths=(32, 64, 128),
    kernels=(5, 6, 6),
    error_weight=10.0,
    hidden=96,
    rewards=True,
    ends=True,
    practice="environment",
    population=16,
    rollouts=8,
    sigma=0.3,
    covariance="diagonal",
)
"""For frames of 32 pixels."""


def paddle() -> Recipe:
    """A ball that falls and a paddle: two minutes of one core."""
    return Recipe(
        model="world-model",
        config=SMALL,
        data=Data("paddle", medium="episode", options=EpisodeOptions(length=32, size=32, episodes=2_000, walk=0.3)),
        training=Training(
            stages={
                "vision": Budget(steps=600, batch_size=16),
                "memory": Budget(steps=1_000, batch_size=32),
                "controller": Budget(steps=40, batch_size=1),
            },
            lr=1e-3,
            optimizer=ADAM,
            schedule=Schedule("cosine", warmup=20, end=0.05),
            clip=10.0,
            ema_half_life=1_000,
        ),
        expected=(
            Expected("frame_mse", 0.0016, "nothing: the environment is ours", 2),
            Expected("dream_mse_8", 0.0115, "nothing: the environment is ours", 2),
        ),
    )


def tiny() -> Recipe:
    """Frames of 16 pixels, a small network: for tests."""
    base = paddle()
    return replace(
        base,
        config=WorldModelConfig(
            latents=8,
            widths=(8, 16),
            kernels=(6, 6),
            error_weight=10.0,
            hidden=24,
            mixtures=3,
            rewards=True,
            ends=True,
            population=4,
            rollouts=2,
            starts=16,
        ),
        data=Data("paddle", medium="episode", options=EpisodeOptions(length=8, size=16, episodes=24, walk=0.3)),
        training=Training(
            batch_size=8,
            lr=1e-2,
            optimizer=replace(ADAM, eps=1e-3),
            schedule=Schedule("constant", warmup=0),
            ema_half_life=100,
        ),
        expected=(),
    )


def small() -> Recipe:
    """A shorter training on fewer episodes: the demo."""
    base = paddle()
    return replace(
        base,
        config=replace(SMALL, rollouts=4),
        data=replace(base.data, options=replace(base.data.options, episodes=400)),
        training=replace(
            base.training,
            stages={
                "vision": Budget(steps=300, batch_size=16),
                "memory": Budget(steps=500, batch_size=32),
                "controller": Budget(steps=20, batch_size=1),
            },
        ),
        expected=(),
    )


def dream() -> Recipe:
    """The paddle, whose controller never sees it: it practises in dreams."""
    base = paddle()
    stages = {**base.training.stages, "controller": Budget(steps=200, batch_size=1)}
    return replace(
        base,
        config=replace(SMALL, practice="dream", rollouts=32, steps=32),
        training=replace(base.training, stages=stages),
        expected=(),
    )


def cars() -> Recipe:
    """CarRacing in about half an hour of one core: the paper's networks, few episodes, a small population."""
    return Recipe(
        model="world-model",
        config=WorldModelConfig(population=16, rollouts=2, steps=500, covariance="diagonal"),
        data=Data("carracing", medium="episode", options=EpisodeOptions(length=64, size=64, episodes=250, steps=500)),
        training=Training(
            stages={
                "vision": Budget(steps=500, batch_size=16),
                "memory": Budget(steps=800, batch_size=16),
                "controller": Budget(steps=60, batch_size=1),
            },
            lr=1e-3,
            optimizer=ADAM,
            schedule=Schedule("cosine", warmup=20, end=0.05),
            clip=10.0,
            ema_half_life=2_000,
        ),
    )


def paper() -> Recipe:
    """The paper's sizes and budgets for CarRacing: 10,000 episodes, 1,800 generations of 64 times 16 episodes.

    Vision sees 100 frames in a step and 10 million in all; memory is trained on whole episodes.
    """
    return Recipe(
        model="world-model",
        config=WorldModelConfig(),
        data=Data("carracing", medium="episode", options=EpisodeOptions(length=999, size=64, episodes=10_000)),
        training=Training(
            stages={
                "vision": Budget(steps=100_000, batch_size=25, lr=1e-4),
                "memory": Budget(steps=4_000, batch_size=100, lr=1e-3),
                "controller": Budget(steps=1_800, batch_size=1),
            },
            lr=1e-3,
            optimizer=ADAM,
            schedule=Schedule("constant", warmup=0),
            ema_half_life=0.0,
        ),
    )


def own() -> Recipe:
    """People's own recordings, frames of 64 pixels; the controller practises in dreams, for nothing else is there."""
    base = cars()
    return replace(
        base,
        config=WorldModelConfig(
            rewards=True, ends=True, practice="dream", population=32, rollouts=16, covariance="diagonal", sigma=0.3
        ),
        data=Data("episodes", medium="episode", options=EpisodeOptions(length=64, size=64, on_bad_file="skip")),
        training=replace(
            base.training,
            stages={
                "vision": Budget(share=0.5, batch_size=25),
                "memory": Budget(share=0.4, batch_size=32),
                "controller": Budget(share=0.1, batch_size=1),
            },
            steps=4_000,
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "world-model-paddle": paddle,
    "world-model-dream": dream,
    "world-model-small": small,
    "world-model-cars": cars,
    "world-model-episodes": own,
    "world-model-carracing": paper,
    "world-model-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "paddle": "world-model-paddle",
    "carracing": "world-model-cars",
    "episode:*": "world-model-episodes",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "episode": (
        Preset(
            "world-model-episodes",
            1_000,
            20_000,
            "frames that hold for some steps, and a controller that has only dreamt",
        ),
    ),
}

DEMO = "world-model-small"

TINY = "world-model-tiny"
