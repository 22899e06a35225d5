"""Recipes of StyleGAN3.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.media.image.decode import ImageOptions
from castalia.models.adversarial.stylegan3 import StyleGAN3Config
from castalia.recipes.preset import Preset
from castalia.recipes.stylegan2 import BGC, STEADY


def stylegan3_digits() -> Recipe:
    """Scikit-learn's 8x8 digits by class: the demo. Four layers and small margins are enough for them."""
    return Recipe(
        model="stylegan3",
        config=StyleGAN3Config(
            latent_dims=32,
            style_dims=64,
            channels=256,
            most=64,
            layers=4,
            margin=3,
            conditional=True,
            r1=0.05,
            critic_lr=2.5e-3,
            magnitude=1_000.0,
            average=138.0,
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
    base = stylegan3_digits()
    return replace(
        base,
        config=replace(
            base.config,
            kind="r",
            latent_dims=8,
            style_dims=16,
            channels=32,
            most=8,
            layers=2,
            critical=1,
            margin=2,
            mixing=0.5,
            ada=("geometry", "colour", "noise"),
            ada_examples=5_000.0,
            r1_every=8,
            average=20.0,
            magnitude=200.0,
            blur=1.0,
            blur_steps=20,
            eps=1e-5,
            lr=5e-3,
            critic_lr=5e-3,
        ),
        training=replace(base.training, ema_half_life=100, sample_every=100_000),
    )


def stylegan3_pictures_32() -> Recipe:
    """Any pictures at 32 pixels: hours of a processor. The critic sees changed ones."""
    return Recipe(
        model="stylegan3",
        config=StyleGAN3Config(
            latent_dims=128,
            style_dims=128,
            channels=512,
            most=64,
            layers=6,
            margin=4,
            r1=0.1,
            magnitude=10_000.0,
            average=138.0,
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


def stylegan3_emoji_32() -> Recipe:
    """Emoji at 32 pixels, colour and alpha."""
    base = stylegan3_pictures_32()
    return replace(base, data=Data("noto-emoji", options=ImageOptions(size=32, channels=4)))


def stylegan3_pictures() -> Recipe:
    """Any pictures at 64 pixels, with all layers of the paper, of fewer channels; for an accelerator."""
    return Recipe(
        model="stylegan3",
        config=StyleGAN3Config(
            latent_dims=256, style_dims=256, channels=4096, most=256, r1=0.5, ada=BGC, ada_examples=200_000.0
        ),
        data=Data("pictures", options=ImageOptions(size=64)),
        training=Training(steps=30_000, batch_size=32, schedule=STEADY, ema_half_life=10_000),
    )


# the sizes of the paper


def stylegan3_t_256() -> Recipe:
    """Any pictures at 256 pixels, configuration T: 25 million pictures; for accelerators."""
    return Recipe(
        model="stylegan3",
        config=StyleGAN3Config(channels=16384, r1=2.0),
        data=Data("pictures", options=ImageOptions(size=256)),
        training=Training(steps=781_250, batch_size=32, schedule=STEADY, ema_half_life=10_000),
    )


def stylegan3_r_256() -> Recipe:
    """Any pictures at 256 pixels, configuration R: 25 million pictures; for accelerators."""
    base = stylegan3_t_256()
    return replace(base, config=replace(base.config, kind="r", blur=10.0))


def stylegan3_t_1024() -> Recipe:
    """Any pictures at 1,024 pixels, configuration T: 25 million pictures; for accelerators."""
    base = stylegan3_t_256()
    return replace(
        base,
        config=replace(base.config, channels=32768, r1=32.0),
        data=Data("pictures", options=ImageOptions(size=1024)),
    )


def stylegan3_r_1024() -> Recipe:
    """Any pictures at 1,024 pixels, configuration R: 25 million pictures; for accelerators."""
    base = stylegan3_t_1024()
    return replace(base, config=replace(base.config, kind="r", blur=10.0))


RECIPES: dict[str, Callable[[], Recipe]] = {
    "stylegan3-digits": stylegan3_digits,
    "stylegan3-emoji-32": stylegan3_emoji_32,
    "stylegan3-pictures-32": stylegan3_pictures_32,
    "stylegan3-pictures": stylegan3_pictures,
    "stylegan3-t-256": stylegan3_t_256,
    "stylegan3-r-256": stylegan3_r_256,
    "stylegan3-t-1024": stylegan3_t_1024,
    "stylegan3-r-1024": stylegan3_r_1024,
    "stylegan3-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "stylegan3-digits",
    "noto-emoji": "stylegan3-emoji-32",
    "*": "stylegan3-pictures",
}

LABELLED = ("config.conditional=true",)

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": (Preset("stylegan3-pictures-32", 4_000, 30_000, "details that move with what they are on", LABELLED),),
}

DEMO = "stylegan3-digits"

TINY = "stylegan3-tiny"
