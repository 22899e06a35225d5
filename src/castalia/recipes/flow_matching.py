"""Recipes of flow matching: those of ``ddpm`` with straight paths.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.diffusion.ddpm import DDPMConfig
from castalia.models.diffusion.flow_matching import FlowMatchingConfig
from castalia.nn.unet import UNetConfig, small_8, small_28
from castalia.recipes import ddpm
from castalia.recipes.preset import Preset


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits with their labels: the demo."""
    return replace(ddpm.digits(), model="flow-matching", config=FlowMatchingConfig(unet=small_8(), conditional=True))


def tiny() -> Recipe:
    """The demo with a small network: for tests."""
    base = digits()
    return replace(base, config=replace(base.config, unet=ddpm.TINY_UNET, flow_steps=12), training=ddpm.tiny_unseen())


def mnist() -> Recipe:
    """The network of ``ddpm-mnist`` on straight paths."""
    return replace(
        ddpm.mnist(),
        model="flow-matching",
        config=FlowMatchingConfig(unet=small_28(), conditional=True, time="logit_normal"),
    )


def mnist_straight() -> Recipe:
    """The same in less time, then a round of reflow and a stage that distils the first step."""
    base = mnist()
    assert isinstance(base.config, FlowMatchingConfig)
    config = replace(base.config, rounds=1, pairs=20_000, pair_steps=10, distil=True)
    return replace(base, config=config, training=replace(base.training, steps=7_500))


def cifar() -> Recipe:
    """What Tong et al. 2024 trained on CIFAR-10: DDPM's sizes, 35.8 million weights."""
    unet = UNetConfig(
        channels=(128, 256, 256, 256),
        blocks=2,
        attention=(1,),
        heads=4,
        head_channels=64,
        dropout=0.1,
        groups=32,
    )
    return Recipe(
        model="flow-matching",
        config=FlowMatchingConfig(unet=unet),
        data=Data("cifar10-jpeg", options=ImageOptions(flip=True)),
        training=Training(
            steps=400_000,
            batch_size=128,
            lr=2e-4,
            optimizer=Optimizer("adam", betas=(0.9, 0.999)),
            schedule=Schedule("constant", warmup=5_000),
            clip=1.0,
            ema_half_life=887_000,
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


def emoji() -> Recipe:
    """Emoji at 32 pixels, colour and alpha."""
    return _of(ddpm.emoji())


def points() -> Recipe:
    """25 Gaussians in the plane, with a perceptron; the likelihood is computed with the exact trace."""
    return replace(ddpm.points(), model="flow-matching", config=FlowMatchingConfig(probes=0))


def points_straight() -> Recipe:
    """The same with two rounds of reflow: paths that hardly bend."""
    base = points()
    assert isinstance(base.config, FlowMatchingConfig)
    return replace(base, config=replace(base.config, rounds=2), training=replace(base.training, steps=9_000))


def _of(base: Recipe) -> Recipe:
    assert isinstance(base.config, DDPMConfig)
    config = FlowMatchingConfig(unet=base.config.unet, time="logit_normal")
    return replace(base, model="flow-matching", config=config)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "flow-matching-digits": digits,
    "flow-matching-mnist": mnist,
    "flow-matching-mnist-straight": mnist_straight,
    "flow-matching-cifar": cifar,
    "flow-matching-emoji": emoji,
    "flow-matching-pictures": pictures,
    "flow-matching-pictures-32": pictures_32,
    "flow-matching-pictures-32-wide": pictures_32_wide,
    "flow-matching-grid": points,
    "flow-matching-grid-straight": points_straight,
    "flow-matching-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "flow-matching-digits",
    "mnist": "flow-matching-mnist",
    "cifar10-jpeg": "flow-matching-cifar",
    "noto-emoji": "flow-matching-emoji",
    "points:*": "flow-matching-grid",
    "*": "flow-matching-pictures",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": tuple(
        replace(p, recipe=p.recipe.replace("ddpm", "flow-matching"), seen=False) for p in ddpm.PRESETS["image"]
    ),
}

DEMO = "flow-matching-digits"

TINY = "flow-matching-tiny"
