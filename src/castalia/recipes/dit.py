"""Recipes of diffusion with a transformer.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.diffusion.dit import DiTConfig
from castalia.models.diffusion.transformer import TransformerConfig, size
from castalia.recipes import ddpm
from castalia.recipes.preset import Preset


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits with their labels: the demo."""
    return replace(
        ddpm.digits(),
        model="dit",
        config=DiTConfig(
            transformer=TransformerConfig(patch=2, width=96, depth=4, heads=4),
            schedule="cosine",
            prediction="v",
            variance="fixed_small",
            conditional=True,
        ),
    )


def tiny() -> Recipe:
    """The demo with a small network: for tests."""
    base = digits()
    assert isinstance(base.config, DiTConfig)
    small = TransformerConfig(patch=2, width=24, depth=2, heads=2, ratio=2.0)
    training = replace(ddpm.tiny().training, lr=1e-2, clip=1.0)
    return replace(base, config=replace(base.config, transformer=small), training=training)


def mnist() -> Recipe:
    """MNIST with its labels, learned variance, patches of 4."""
    base = ddpm.mnist()
    return replace(
        base,
        model="dit",
        config=DiTConfig(
            transformer=TransformerConfig(patch=4, width=192, depth=6, heads=6),
            schedule="cosine",
            prediction="v",
            weighting="min_snr",
            conditional=True,
        ),
        training=replace(base.training, lr=1e-3),
    )


def paper() -> Recipe:
    """DiT-XL as published, but on pictures of 64 pixels with patches of 4, not on latents: 677 million weights."""
    return Recipe(
        model="dit",
        config=DiTConfig(transformer=size("XL", 4), conditional=True),
        data=Data("pictures", options=ImageOptions(size=64, channels=3, flip=True)),
        training=Training(
            steps=400_000,
            batch_size=256,
            lr=1e-4,
            optimizer=Optimizer("adamw", betas=(0.9, 0.999)),
            schedule=Schedule("constant", warmup=0),
            ema_half_life=1_774_000,
        ),
    )


def pictures() -> Recipe:
    """Any pictures at 64 pixels: the default for people's own folders with time."""
    return _of(ddpm.pictures(), TransformerConfig(patch=4, width=256, depth=8, heads=8))


def pictures_32() -> Recipe:
    """Any pictures at 32 pixels with a small network: minutes on a processor."""
    return _of(ddpm.pictures_32(), TransformerConfig(patch=4, width=128, depth=4, heads=4))


def pictures_32_wide() -> Recipe:
    """The same with a network of twice the width: an hour on a processor."""
    return _of(ddpm.pictures_32_wide(), TransformerConfig(patch=4, width=256, depth=6, heads=8))


def _of(base: Recipe, transformer: TransformerConfig) -> Recipe:
    config = DiTConfig(
        transformer=transformer, schedule="cosine", prediction="v", variance="fixed_small", weighting="min_snr"
    )
    return replace(base, model="dit", config=config, training=replace(base.training, lr=1e-3))


RECIPES: dict[str, Callable[[], Recipe]] = {
    "dit-digits": digits,
    "dit-mnist": mnist,
    "dit-paper": paper,
    "dit-pictures": pictures,
    "dit-pictures-32": pictures_32,
    "dit-pictures-32-wide": pictures_32_wide,
    "dit-tiny": tiny,
}

DEFAULTS: dict[str, str] = {"digits": "dit-digits", "mnist": "dit-mnist", "*": "dit-pictures"}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": tuple(replace(p, recipe=p.recipe.replace("ddpm", "dit"), seen=False) for p in ddpm.PRESETS["image"]),
}

DEMO = "dit-digits"

TINY = "dit-tiny"
