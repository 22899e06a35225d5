"""Recipes of StyleGAN2, with and without adaptive augmentation.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.media.image.decode import ImageOptions
from castalia.models.adversarial.ada import Kind
from castalia.models.adversarial.stylegan2 import StyleGAN2Config
from castalia.recipes.preset import Preset

STEADY = Schedule("constant", warmup=0)

BGC: tuple[Kind, ...] = ("blit", "geometry", "colour")
"""The changes of the paper (Karras et al. 2020b, section 3.1)."""


def stylegan2_digits() -> Recipe:
    """Scikit-learn's 8x8 digits by class: the demo."""
    return Recipe(
        model="stylegan2",
        config=StyleGAN2Config(
            latent_dims=32,
            style_dims=64,
            mapping_layers=2,
            channels=256,
            most=64,
            conditional=True,
            r1=0.05,
            path=0.0,
            mixing=0.0,
            lr=2.5e-3,
        ),
        data=Data("digits"),
        training=Training(
            steps=1_200,
            batch_size=32,
            schedule=Schedule("linear", warmup=20, end=0.1),
            ema_half_life=3_000,
        ),
    )


def tiny() -> Recipe:
    """A small network with everything switched on: for tests."""
    base = stylegan2_digits()
    return replace(
        base,
        config=replace(
            base.config,
            latent_dims=8,
            style_dims=16,
            channels=64,
            most=16,
            path=2.0,
            mixing=0.9,
            ada=("geometry", "colour", "noise"),
            ada_examples=5_000.0,
            r1_every=4,
            average=20.0,
            eps=1e-5,
            lr=5e-3,
        ),
        training=replace(base.training, ema_half_life=100),
    )


def stylegan2_pictures_32() -> Recipe:
    """Any pictures at 32 pixels: one to two hours of a processor. The critic sees changed ones."""
    return Recipe(
        model="stylegan2",
        config=StyleGAN2Config(
            latent_dims=128,
            style_dims=128,
            mapping_layers=4,
            channels=512,
            most=64,
            r1=0.1,
            path=0.0,
            lr=2.5e-3,
            ada=BGC,
            ada_examples=50_000.0,
        ),
        data=Data("pictures", options=ImageOptions(size=32)),
        training=Training(
            steps=8_000,
            batch_size=16,
            schedule=Schedule("linear", warmup=20, end=0.1),
            ema_half_life=10_000,
        ),
    )


def stylegan2_pictures() -> Recipe:
    """Any pictures at 64 pixels, with all parts of the paper at a smaller size."""
    return Recipe(
        model="stylegan2",
        config=StyleGAN2Config(
            latent_dims=256,
            style_dims=256,
            channels=4096,
            most=256,
            r1=0.5,
            ada=BGC,
            ada_examples=200_000.0,
        ),
        data=Data("pictures", options=ImageOptions(size=64)),
        training=Training(steps=30_000, batch_size=32, schedule=STEADY, ema_half_life=10_000),
    )


def stylegan2_emoji_32() -> Recipe:
    """Emoji at 32 pixels, colour and alpha."""
    base = stylegan2_pictures_32()
    return replace(base, data=Data("noto-emoji", options=ImageOptions(size=32, channels=4)))


def stylegan2_emoji_32_plain() -> Recipe:
    """The same without augmentation: to compare."""
    base = stylegan2_emoji_32()
    return replace(base, config=replace(base.config, ada=()))


def stylegan2_emoji() -> Recipe:
    """Emoji at 64 pixels, colour and alpha."""
    base = stylegan2_pictures()
    return replace(base, data=Data("noto-emoji", options=ImageOptions(size=64, channels=4)))


def stylegan2_emoji_plain() -> Recipe:
    """The same without augmentation: to compare."""
    base = stylegan2_emoji()
    return replace(base, config=replace(base.config, ada=()))


# the sizes of the papers


def stylegan2_cifar() -> Recipe:
    """Pictures of CIFAR-10 by class with ADA: 100 million; for an accelerator.

    Networks and rates are those of ``cifar`` in Karras et al. 2020b. The data are not its 50,000 pictures, and averages
    have one half-life from the beginning, where the paper's grows at first: results are not comparable.
    """
    return Recipe(
        model="stylegan2",
        config=StyleGAN2Config(
            mapping_layers=2,
            conditional=True,
            critic="plain",
            mixing=0.0,
            path=0.0,
            r1=0.01,
            group=32,
            lr=2.5e-3,
            ada=BGC,
        ),
        data=Data("cifar10-jpeg"),
        training=Training(steps=1_562_500, batch_size=64, schedule=STEADY, ema_half_life=500_000),
    )


def stylegan2_256() -> Recipe:
    """Any pictures at 256 pixels, ``paper256`` of Karras et al. 2020b: 25 million pictures; for accelerators."""
    return Recipe(
        model="stylegan2",
        config=StyleGAN2Config(channels=16384, r1=1.0, group=8, lr=2.5e-3, ada=BGC),
        data=Data("pictures", options=ImageOptions(size=256)),
        training=Training(steps=390_625, batch_size=64, schedule=STEADY, ema_half_life=20_000),
    )


def stylegan2_1024() -> Recipe:
    """Any pictures at 1,024 pixels, configuration F of Karras et al. 2020a: 25 million pictures; for accelerators."""
    return Recipe(
        model="stylegan2",
        config=StyleGAN2Config(),
        data=Data("pictures", options=ImageOptions(size=1024)),
        training=Training(steps=781_250, batch_size=32, schedule=STEADY, ema_half_life=10_000),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "stylegan2-digits": stylegan2_digits,
    "stylegan2-emoji-32": stylegan2_emoji_32,
    "stylegan2-emoji-32-plain": stylegan2_emoji_32_plain,
    "stylegan2-emoji": stylegan2_emoji,
    "stylegan2-emoji-plain": stylegan2_emoji_plain,
    "stylegan2-pictures-32": stylegan2_pictures_32,
    "stylegan2-pictures": stylegan2_pictures,
    "stylegan2-cifar": stylegan2_cifar,
    "stylegan2-256": stylegan2_256,
    "stylegan2-1024": stylegan2_1024,
    "stylegan2-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "stylegan2-digits",
    "noto-emoji": "stylegan2-emoji",
    "cifar10-jpeg": "stylegan2-cifar",
    "*": "stylegan2-pictures",
}

LABELLED = ("config.conditional=true",)

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (
        Preset("stylegan2-pictures-32", 4_000, 30_000, "simple things to be told, with styles to mix", LABELLED),
        Preset("stylegan2-pictures", 20_000, 90_000, "sharp samples at 64 pixels, with styles to mix", LABELLED),
    ),
}

DEMO = "stylegan2-digits"

TINY = "stylegan2-tiny"
