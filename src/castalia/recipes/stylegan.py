"""Recipes of StyleGAN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.media.image.decode import ImageOptions
from castalia.models.adversarial.stylegan import StyleGANConfig
from castalia.recipes.preset import Preset

STEADY = Schedule("constant", warmup=0)


def stylegan_digits() -> Recipe:
    """Scikit-learn's 8x8 digits by class: the demo."""
    return Recipe(
        model="stylegan",
        config=StyleGANConfig(
            latent_dims=32,
            style_dims=64,
            mapping_layers=2,
            channels=256,
            most=64,
            conditional=True,
            r1=0.05,
            r1_every=16,
            mixing=0.0,
            lr=2.5e-3,
        ),
        data=Data("digits"),
        training=Training(
            steps=1_400,
            batch_size=32,
            schedule=Schedule("linear", warmup=20, end=0.1),
            ema_half_life=3_000,
        ),
    )


def tiny() -> Recipe:
    """A small network with the penalty in every step, as in the paper: for tests."""
    base = stylegan_digits()
    return replace(
        base,
        config=replace(
            base.config,
            latent_dims=8,
            style_dims=16,
            channels=64,
            most=16,
            mixing=0.9,
            r1_every=1,
            average=20.0,
            eps=1e-5,  # some biases before a normalisation have no gradient but rounding
            lr=5e-3,
        ),
        training=replace(base.training, ema_half_life=100),
    )


def stylegan_pictures_32() -> Recipe:
    """Any pictures at 32 pixels: one to two hours of a processor."""
    return Recipe(
        model="stylegan",
        config=StyleGANConfig(
            latent_dims=128,
            style_dims=128,
            mapping_layers=4,
            channels=512,
            most=64,
            r1=0.1,
            r1_every=16,
            lr=2.5e-3,
            ada=("blit", "geometry", "colour"),
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


def stylegan_pictures() -> Recipe:
    """Any pictures at 64 pixels."""
    return Recipe(
        model="stylegan",
        config=StyleGANConfig(
            latent_dims=256,
            style_dims=256,
            channels=4096,
            most=256,
            r1=1.0,
            r1_every=16,
            lr=2e-3,
        ),
        data=Data("pictures", options=ImageOptions(size=64)),
        training=Training(steps=30_000, batch_size=32, schedule=STEADY, ema_half_life=10_000),
    )


def stylegan_emoji() -> Recipe:
    """Emoji at 64 pixels, colour and alpha."""
    base = stylegan_pictures()
    return replace(base, data=Data("noto-emoji", options=ImageOptions(size=64, channels=4)))


def stylegan_emoji_32() -> Recipe:
    """Emoji at 32 pixels, colour and alpha."""
    base = stylegan_pictures_32()
    return replace(base, data=Data("noto-emoji", options=ImageOptions(size=32, channels=4)))


def stylegan_1024() -> Recipe:
    """Any pictures at 1,024 pixels with the networks of Karras et al. 2019: 25 million pictures; for accelerators."""
    return Recipe(
        model="stylegan",
        config=StyleGANConfig(lr=3e-3),
        data=Data("pictures", options=ImageOptions(size=1024)),
        training=Training(steps=781_250, batch_size=32, schedule=STEADY, ema_half_life=10_000),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "stylegan-digits": stylegan_digits,
    "stylegan-emoji-32": stylegan_emoji_32,
    "stylegan-emoji": stylegan_emoji,
    "stylegan-pictures-32": stylegan_pictures_32,
    "stylegan-pictures": stylegan_pictures,
    "stylegan-1024": stylegan_1024,
    "stylegan-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "stylegan-digits",
    "noto-emoji": "stylegan-emoji",
    "*": "stylegan-pictures",
}

LABELLED = ("config.conditional=true",)

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (
        Preset("stylegan-pictures-32", 4_000, 30_000, "simple things to be told, with styles to mix", LABELLED),
        Preset("stylegan-pictures", 20_000, 90_000, "sharp samples at 64 pixels, with styles to mix", LABELLED),
    ),
}

DEMO = "stylegan-digits"

TINY = "stylegan-tiny"
