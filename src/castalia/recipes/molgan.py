"""Recipes of MolGAN.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.molecule.read import MoleculeOptions
from castalia.models.molecules.molgan import MolGANConfig
from castalia.recipes.preset import Preset

ADAM = Optimizer("adam", betas=(0.5, 0.9))


def small() -> Recipe:
    """Small molecules made by a rule, with a reward for whole ones: the demo."""
    return Recipe(
        model="molgan",
        config=MolGANConfig(
            critic_steps=2,
            discrete="straight-through",
            batch_features=16,
            reward="valid",
            balance=0.5,
            reward_from=0.1,
        ),
        data=Data("small-molecules", medium="molecule"),
        training=Training(
            steps=1_200,
            batch_size=64,
            lr=1e-3,
            optimizer=ADAM,
            schedule=Schedule("linear", warmup=50, end=0.0),
            ema_half_life=10_000,
            precision="float32",
        ),
    )


def tiny() -> Recipe:
    """A small network: for tests."""
    base = small()
    return replace(
        base,
        config=replace(
            base.config,
            widths=(32, 48),
            convolutions=(16,),
            aggregated=32,
            dense=(32,),
            batch_features=0,
            reward="none",
        ),
        training=replace(base.training, steps=200, lr=4e-3, ema_half_life=300),
    )


def qm9() -> Recipe:
    """All small organic molecules, with a reward for whole ones that are not alike: twenty minutes of one core."""
    base = small()
    return replace(
        base,
        config=replace(base.config, critic_steps=4, batch_features=0, group=64, distinct=True),
        data=Data("qm9", medium="molecule"),
        training=replace(base.training, steps=4_000, batch_size=128, ema_half_life=50_000),
    )


def molecules() -> Recipe:
    """Any molecules of up to twelve atoms: the default for people's own."""
    base = small()
    options = MoleculeOptions(length=12, on_bad_line="skip")
    return replace(
        base,
        data=Data("molecules", medium="molecule", options=options),
        training=replace(base.training, steps=10_000),
    )


def paper() -> Recipe:
    """The paper's networks, batch, rate and 300 epochs of QM9, without a reward; its shares are soft."""
    base = qm9()
    return replace(
        base,
        config=MolGANConfig(),
        training=replace(
            base.training,
            steps=220_000,
            batch_size=32,
            lr=1e-3,
            optimizer=Optimizer("adam", betas=(0.9, 0.999)),
            schedule=Schedule("constant", warmup=0),
            ema_half_life=0.0,
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "molgan-small": small,
    "molgan-qm9": qm9,
    "molgan-molecules": molecules,
    "molgan-paper": paper,
    "molgan-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "small-molecules": "molgan-small",
    "qm9": "molgan-qm9",
    "molecule:*": "molgan-molecules",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "molecule": (Preset("molgan-molecules", 1_000, 20_000, "small molecules, most of them whole, of a few kinds"),),
}

DEMO = "molgan-small"

TINY = "molgan-tiny"
