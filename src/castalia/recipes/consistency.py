"""Recipes of consistency models: the networks of ``edm``.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.diffusion.consistency import ConsistencyConfig
from castalia.models.diffusion.ddpm import DDPMConfig
from castalia.nn.unet import UNetConfig, small_8, small_28
from castalia.recipes import ddpm
from castalia.recipes.preset import Preset

FEW = 80
"""Levels at the end of short trainings, where the papers have hundreds of thousands of steps for 1,280."""


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits with their labels: the demo."""
    base = ddpm.digits()
    return replace(base, model="consistency", config=ConsistencyConfig(unet=small_8(), conditional=True, last=FEW))


def tiny() -> Recipe:
    """The demo with a small network: for tests."""
    base = digits()
    return replace(base, config=replace(base.config, unet=ddpm.TINY_UNET), training=ddpm.tiny().training)


def mnist() -> Recipe:
    """The network of ``edm-mnist``, without a teacher."""
    base = ddpm.mnist()
    config = ConsistencyConfig(unet=small_28(), conditional=True, last=160)
    return replace(base, model="consistency", config=config, training=replace(base.training, lr=5e-4))


def mnist_distilled() -> Recipe:
    """The same with a teacher: give ``--parent teacher=RUN``, a finished run of ``edm-mnist``."""
    base = mnist()
    config = ConsistencyConfig(
        unet=small_28(), conditional=True, teacher=True, curriculum="fixed", first=40, last=40, average=0.95
    )
    return replace(base, config=config, training=replace(base.training, steps=4_000))


def cifar() -> Recipe:
    """Song & Dhariwal 2024 on CIFAR-10: 54 million weights, for an accelerator and days."""
    unet = UNetConfig(
        channels=(256, 256, 256), blocks=4, attention=(1,), dropout=0.3, groups=32, skip_rescale=True, embedding=512
    )
    return Recipe(
        model="consistency",
        config=ConsistencyConfig(unet=unet, data_std=0.5),
        data=Data("cifar10-jpeg", options=ImageOptions(flip=True)),
        training=Training(
            steps=400_000,
            batch_size=1_024,
            lr=1e-4,
            optimizer=Optimizer("adam", betas=(0.9, 0.999)),
            schedule=Schedule("constant", warmup=0),
            ema_half_life=20_000_000,
        ),
    )


def pictures() -> Recipe:
    """Any pictures at 64 pixels: the default for people's own folders with time."""
    return _of(ddpm.pictures())


def pictures_32() -> Recipe:
    """Any pictures at 32 pixels with a small network: minutes on a processor."""
    return _of(ddpm.pictures_32())


def pictures_32_wide() -> Recipe:
    """The same with twice the channels: an hour on a processor."""
    return _of(ddpm.pictures_32_wide())


def points() -> Recipe:
    """25 Gaussians in the plane, with a perceptron."""
    return replace(ddpm.points(), model="consistency", config=ConsistencyConfig(last=FEW))


def _of(base: Recipe) -> Recipe:
    assert isinstance(base.config, DDPMConfig)
    config = ConsistencyConfig(unet=base.config.unet, last=160)
    return replace(base, model="consistency", config=config, training=replace(base.training, lr=5e-4))


RECIPES: dict[str, Callable[[], Recipe]] = {
    "consistency-digits": digits,
    "consistency-mnist": mnist,
    "consistency-mnist-distilled": mnist_distilled,
    "consistency-cifar": cifar,
    "consistency-pictures": pictures,
    "consistency-pictures-32": pictures_32,
    "consistency-pictures-32-wide": pictures_32_wide,
    "consistency-grid": points,
    "consistency-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "consistency-digits",
    "mnist": "consistency-mnist",
    "cifar10-jpeg": "consistency-cifar",
    "points:*": "consistency-grid",
    "*": "consistency-pictures",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": tuple(
        replace(p, recipe=p.recipe.replace("ddpm", "consistency"), seen=False) for p in ddpm.PRESETS["image"]
    ),
}

DEMO = "consistency-digits"

TINY = "consistency-tiny"
