"""Recipes of diffusion led by a classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.diffusion.classifier_guidance import ClassifierGuidanceConfig
from castalia.models.diffusion.ddpm import DDPMConfig
from castalia.models.diffusion.networks import PerceptronConfig
from castalia.nn.unet import UNetConfig, small_8, small_28
from castalia.recipes import ddpm
from castalia.recipes.preset import Preset

SMALL = UNetConfig(channels=(32, 64), blocks=1, attention=(1,), head_channels=32, groups=8, dropout=0.1)
"""The classifier of pictures of 8 pixels."""


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits: a denoiser without labels, and a classifier that leads it; the demo."""
    base = ddpm.digits()
    config = ClassifierGuidanceConfig(
        unet=small_8(), classifier=SMALL, schedule="cosine", prediction="v", variance="fixed_small"
    )
    return replace(base, model="classifier-guidance", config=config, training=replace(base.training, steps=3_000))


def tiny() -> Recipe:
    """The demo with small networks: for tests."""
    base = digits()
    trunk = replace(ddpm.TINY_UNET, attention=())  # its pool attends
    small = replace(base.config, unet=trunk, classifier=replace(trunk, channels=(8,)))  # type: ignore[call-arg]
    return replace(base, config=small, training=ddpm.tiny_unseen())


def mnist() -> Recipe:
    """MNIST with learned variance, without labels, and a classifier of its own: 40 minutes of one core."""
    base = ddpm.mnist()
    config = ClassifierGuidanceConfig(
        unet=small_28(), classifier=small_28(), schedule="cosine", prediction="v", weighting="min_snr"
    )
    return replace(base, model="classifier-guidance", config=config, training=replace(base.training, steps=9_000))


def paper() -> Recipe:
    """ADM-G as published for ImageNet at 64 pixels: 296 million weights and 54 million of the classifier.

    Give a folder of pictures with a folder for each class as the data. The classifier's published batch is 1,024.
    """
    return Recipe(
        model="classifier-guidance",
        config=ClassifierGuidanceConfig(
            unet=adm(192, 3, dropout=0.1), classifier=adm(128, 4), schedule="cosine", conditional=True
        ),
        data=Data("pictures", options=ImageOptions(size=64, channels=3, flip=True)),
        training=Training(
            steps=840_000,
            batch_size=2_048,
            lr=3e-4,
            optimizer=Optimizer("adamw", betas=(0.9, 0.999)),
            schedule=Schedule("constant", warmup=0),
            ema_half_life=14_000_000,
        ),
    )


def adm(channels: int, blocks: int, dropout: float = 0.0) -> UNetConfig:
    """The network of Dhariwal & Nichol for 64 pixels, which is that of the classifier as well."""
    return UNetConfig(
        channels=tuple(channels * m for m in (1, 2, 3, 4)),
        blocks=blocks,
        attention=(1, 2, 3),
        head_channels=64,
        dropout=dropout,
        eps=1e-5,
        cos_first=True,
        freq_shift=0.0,
        conditioning="scale_shift",
        down="block",
        up="block",
    )


def pictures() -> Recipe:
    """Any labelled pictures at 64 pixels: the default for people's own folders with time."""
    return _of(ddpm.pictures())


def pictures_32() -> Recipe:
    """Any labelled pictures at 32 pixels with small networks: minutes on a processor."""
    return _of(ddpm.pictures_32())


def pictures_32_wide() -> Recipe:
    """The same with twice the channels: an hour on a processor."""
    return _of(ddpm.pictures_32_wide())


def points() -> Recipe:
    """25 Gaussians in the plane, each a class, with perceptrons."""
    base = ddpm.points()
    config = ClassifierGuidanceConfig(
        variance="fixed_small", classifier_perceptron=PerceptronConfig(width=64, blocks=2)
    )
    return replace(base, model="classifier-guidance", config=config)


def _of(base: Recipe) -> Recipe:
    c = base.config
    assert isinstance(c, DDPMConfig)
    config = ClassifierGuidanceConfig(
        unet=c.unet,
        classifier=replace(c.unet, dropout=0.1),
        schedule=c.schedule,
        prediction=c.prediction,
        variance=c.variance,
        weighting=c.weighting,
    )
    return replace(base, model="classifier-guidance", config=config)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "classifier-guidance-digits": digits,
    "classifier-guidance-mnist": mnist,
    "classifier-guidance-paper": paper,
    "classifier-guidance-pictures": pictures,
    "classifier-guidance-pictures-32": pictures_32,
    "classifier-guidance-pictures-32-wide": pictures_32_wide,
    "classifier-guidance-grid": points,
    "classifier-guidance-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "classifier-guidance-digits",
    "mnist": "classifier-guidance-mnist",
    "points:*": "classifier-guidance-grid",
    "*": "classifier-guidance-pictures",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": tuple(
        replace(p, recipe=p.recipe.replace("ddpm", "classifier-guidance"), labelled=(), seen=False)
        for p in ddpm.PRESETS["image"]
    ),
}

DEMO = "classifier-guidance-digits"

TINY = "classifier-guidance-tiny"
