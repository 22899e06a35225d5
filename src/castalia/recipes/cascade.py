"""Recipes of cascaded diffusion.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.image.decode import ImageOptions
from castalia.models.diffusion.cascade import CascadeConfig
from castalia.nn.unet import UNetConfig, small_8, small_28
from castalia.recipes import ddpm
from castalia.recipes.preset import Preset

BASE_4 = UNetConfig(channels=(32, 64), blocks=1, attention=(0,), head_channels=32, groups=8)
"""For pictures of 4 pixels."""

MINUTE = UNetConfig(channels=(8,), blocks=1, attention=(), groups=4, middle="none")
"""For tests."""


def digits() -> Recipe:
    """Scikit-learn's 8x8 digits with their labels, from 4x4: the demo."""
    config = CascadeConfig(base=BASE_4, upsamplers=(small_8(),), conditional=True)
    return replace(ddpm.digits(), model="cascade", config=config)


def tiny() -> Recipe:
    """The demo with small networks: for tests."""
    config = CascadeConfig(base=MINUTE, upsamplers=(MINUTE,), conditional=True)
    return replace(digits(), config=config, training=ddpm.tiny_unseen())


def mnist() -> Recipe:
    """MNIST with its labels, from 7x7 by way of 14x14."""
    config = CascadeConfig(
        base=small_8(), upsamplers=(small_28(), small_28()), factors=(2, 2), shares=(1.0, 1.0, 1.0), conditional=True
    )
    return replace(ddpm.mnist(), model="cascade", config=config)


def paper() -> Recipe:
    """ImageNet at 256 pixels by way of 32 and 64, at about the size of the paper.

    496, 520 and 318 million weights. Resolutions and the kind of network are the paper's; widths and depths were
    chosen near those of ADM's U-Nets, whose blocks are of the same kind. The steps are of all three together.
    """
    return Recipe(
        model="cascade",
        config=CascadeConfig(
            base=wide((256, 512, 768, 1024), blocks=3, attention=(1, 2), dropout=0.1),
            upsamplers=(
                wide((256, 512, 768, 1024), blocks=3, attention=(2, 3), dropout=0.1),
                wide((128, 256, 512, 512, 1024), blocks=2, attention=(4,)),
            ),
            factors=(2, 4),
            conditional=True,
            augment=2.0,
        ),
        data=Data("pictures", options=ImageOptions(size=256, channels=3, flip=True)),
        training=Training(
            steps=1_500_000,
            batch_size=1_024,
            lr=1e-4,
            optimizer=Optimizer("adam", betas=(0.9, 0.999)),
            schedule=Schedule("constant", warmup=10_000),
            ema_half_life=7_000_000,
        ),
    )


def wide(channels: tuple[int, ...], blocks: int, attention: tuple[int, ...], dropout: float = 0.0) -> UNetConfig:
    """A network of ADM's kind."""
    return UNetConfig(
        channels=channels,
        blocks=blocks,
        attention=attention,
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
    """Any pictures at 64 pixels, from 16 by way of 32: the default for people's own folders with time."""
    base = UNetConfig(channels=(64, 128), blocks=1, attention=(1,), head_channels=32, groups=8, dropout=0.1)
    first = UNetConfig(channels=(32, 64, 128), blocks=1, attention=(2,), head_channels=32, groups=8, dropout=0.1)
    second = UNetConfig(channels=(32, 64, 96, 128), blocks=1, attention=(3,), head_channels=32, groups=8)
    config = CascadeConfig(base=base, upsamplers=(first, second), factors=(2, 2))
    return replace(ddpm.pictures(), model="cascade", config=config)


def pictures_32() -> Recipe:
    """Any pictures at 32 pixels, from 16, with small networks: minutes on a processor."""
    base = UNetConfig(channels=(32, 64), blocks=1, attention=(1,), head_channels=16, groups=8)
    upper = UNetConfig(channels=(16, 32, 64), blocks=1, attention=(2,), head_channels=16, groups=8)
    return replace(ddpm.pictures_32(), model="cascade", config=CascadeConfig(base=base, upsamplers=(upper,)))


def pictures_32_wide() -> Recipe:
    """The same with twice the channels: an hour on a processor."""
    base = UNetConfig(channels=(64, 128), blocks=1, attention=(1,), head_channels=32, groups=8)
    config = CascadeConfig(base=base, upsamplers=(small_28(),))
    return replace(ddpm.pictures_32_wide(), model="cascade", config=config)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "cascade-digits": digits,
    "cascade-mnist": mnist,
    "cascade-paper": paper,
    "cascade-pictures": pictures,
    "cascade-pictures-32": pictures_32,
    "cascade-pictures-32-wide": pictures_32_wide,
    "cascade-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "digits": "cascade-digits",
    "mnist": "cascade-mnist",
    "*": "cascade-pictures",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "image": tuple(replace(p, recipe=p.recipe.replace("ddpm", "cascade"), seen=False) for p in ddpm.PRESETS["image"]),
}

DEMO = "cascade-digits"

TINY = "cascade-tiny"
