"""Recipes of diffusion in discrete time.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.diffusion.ddpm import DDPMConfig
from castalia.nn.unet import UNetConfig, ddpm_cifar, small_8, small_28
from castalia.recipes.preset import Preset

TINY_UNET = UNetConfig(channels=(16,), blocks=1, attention=(0,), head_channels=8, groups=4, middle="none")
"""For pictures of 8 pixels, in tests: each sample calls it dozens of times, and the U-Net has tests of its own."""


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits with their labels: the demo."""
    return Recipe(
        model="ddpm",
        config=DDPMConfig(unet=small_8(), schedule="cosine", prediction="v", variance="fixed_small", conditional=True),
        data=Data("digits"),
        training=Training(steps=2_000, batch_size=64, lr=2e-3, ema_half_life=10_000),
    )


def tiny() -> Recipe:
    """The demo with a small network: for tests."""
    base = digits()
    return replace(
        base,
        config=replace(base.config, unet=TINY_UNET),
        # fast enough for its samples to know their labels after a dozen steps; eps so that a gradient which is only
        # rounding (that of a key's bias is zero) moves nothing
        training=replace(
            base.training, lr=5e-3, optimizer=Optimizer(eps=1e-4), schedule=Schedule(warmup=0), ema_half_life=100
        ),
    )


def tiny_unseen() -> Training:
    """The training of ``ddpm-tiny`` without pictures of samples, which take longer than its steps."""
    return replace(tiny().training, sample_every=100_000)


def digits_likelihood() -> Recipe:
    """The same on the variational bound, with learned variance."""
    base = digits()
    return replace(base, config=replace(base.config, weighting="vlb", variance="learned"))


def mnist() -> Recipe:
    """MNIST with its labels, learned variance: about half an hour of one core with bfloat16 products."""
    return Recipe(
        model="ddpm",
        config=DDPMConfig(
            unet=small_28(),
            schedule="cosine",
            prediction="v",
            weighting="min_snr",
            variance="learned",
            conditional=True,
        ),
        data=Data("mnist"),
        training=Training(
            steps=7_000,
            batch_size=64,
            lr=1.5e-3,
            schedule=Schedule("cosine", warmup=300, end=0.01),
            clip=1.0,
            ema_half_life=20_000,
        ),
    )


def mnist_likelihood() -> Recipe:
    """The same network on the variational bound; meant to start from a finished run of :func:`mnist`."""
    base = mnist()
    return replace(
        base,
        config=replace(base.config, weighting="vlb"),
        training=replace(base.training, steps=1_200, lr=6e-4),
    )


def cifar() -> Recipe:
    """Ho et al. 2020 on small colour photographs, as published: 35.7 million parameters, for an accelerator and days.

    Their averaging of 0.9999 per step of 128 examples is a half-life of 887,000 examples, here after the first 138,600
    steps; theirs has no ramp.
    """
    return Recipe(
        model="ddpm",
        config=DDPMConfig(unet=ddpm_cifar(), variance="fixed_large"),
        data=Data("cifar10-jpeg", options=ImageOptions(flip=True)),
        training=Training(
            steps=800_000,
            batch_size=128,
            lr=2e-4,
            optimizer=Optimizer("adam", betas=(0.9, 0.999)),
            schedule=Schedule("constant", warmup=5_000),
            clip=1.0,
            ema_half_life=887_000,
        ),
    )


def pictures() -> Recipe:
    """Any pictures, colour and alpha, at 64 pixels: the default for people's own folders."""
    unet = UNetConfig(channels=(32, 64, 96, 128), blocks=1, attention=(3,), head_channels=32, groups=8, dropout=0.1)
    return Recipe(
        model="ddpm",
        config=DDPMConfig(unet=unet, schedule="cosine", prediction="v", variance="fixed_small", weighting="min_snr"),
        data=Data("pictures", options=ImageOptions(size=64)),
        training=Training(
            steps=20_000,
            batch_size=32,
            lr=1e-3,
            schedule=Schedule("cosine", warmup=500, end=0.02),
            clip=1.0,
            ema_half_life=50_000,
        ),
    )


def pictures_32() -> Recipe:
    """Any pictures at 32 pixels with a small network: minutes on a processor."""
    base = pictures()
    unet = UNetConfig(channels=(16, 32, 64), blocks=1, attention=(2,), head_channels=16, groups=8)
    return replace(
        base,
        config=replace(base.config, unet=unet),
        data=Data("pictures", options=ImageOptions(size=32)),
        training=replace(
            base.training,
            steps=3_000,
            lr=2e-3,
            schedule=Schedule("cosine", warmup=100, end=0.01),
            ema_half_life=10_000,
        ),
    )


def pictures_32_wide() -> Recipe:
    """The same with twice the channels: an hour on a processor."""
    base = pictures_32()
    return replace(
        base,
        config=replace(base.config, unet=small_28()),
        training=replace(base.training, steps=12_000, lr=1.5e-3, ema_half_life=20_000),
    )


def emoji() -> Recipe:
    """Emoji at 32 pixels, colour and alpha."""
    base = pictures()
    unet = replace(base.config.unet, channels=(32, 64, 128), attention=(2,))  # type: ignore[attr-defined]
    return replace(
        base,
        config=replace(base.config, unet=unet),
        data=Data("noto-emoji", options=ImageOptions(size=32, channels=4)),
    )


def points() -> Recipe:
    """25 Gaussians in the plane, with a perceptron."""
    return Recipe(
        model="ddpm",
        config=DDPMConfig(variance="fixed_small"),
        data=Data("grid-25", medium="points"),
        training=Training(steps=4_000, batch_size=512, lr=2e-3, ema_half_life=100_000),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "diffusion-digits": digits,
    "diffusion-digits-likelihood": digits_likelihood,
    "ddpm-mnist": mnist,
    "ddpm-mnist-likelihood": mnist_likelihood,
    "ddpm-cifar": cifar,
    "ddpm-emoji": emoji,
    "ddpm-pictures": pictures,
    "ddpm-pictures-32": pictures_32,
    "ddpm-pictures-32-wide": pictures_32_wide,
    "ddpm-grid": points,
    "ddpm-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "diffusion-digits",
    "mnist": "ddpm-mnist",
    "cifar10-jpeg": "ddpm-cifar",
    "noto-emoji": "ddpm-emoji",
    "points:*": "ddpm-grid",
    "*": "ddpm-pictures",
}

LABELLED = ("config.conditional=true",)

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (
        Preset("ddpm-pictures-32", 900, 6_000, "simple things to be told", LABELLED, seen=True),
        Preset("ddpm-pictures-32-wide", 5_000, 20_000, "sharp samples at 32 pixels", LABELLED),
        Preset("ddpm-pictures", 15_000, 60_000, "sharp samples at 64 pixels", LABELLED),
    ),
}

DEMO = "diffusion-digits"

TINY = "ddpm-tiny"
