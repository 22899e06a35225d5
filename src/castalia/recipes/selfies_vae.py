"""Recipes of the SELFIES VAE.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.molecule.read import MoleculeOptions
from castalia.models.molecules.selfies_vae import MOSES, SelfiesVAEConfig
from castalia.recipes.preset import Preset

ADAM = Optimizer("adam", betas=(0.9, 0.999))


def small() -> Recipe:
    """Small molecules made by a rule: the demo."""
    return Recipe(
        model="selfies-vae",
        config=SelfiesVAEConfig(16, 24, 64, True, 128, 1, beta=0.2),
        data=Data("small-molecules", medium="molecule", options=MoleculeOptions(kind="selfies")),
        training=Training(
            steps=1_000,
            batch_size=64,
            lr=4e-3,
            optimizer=ADAM,
            schedule=Schedule("cosine", warmup=20, end=0.02),
            clip=1.0,
            ema_half_life=2_000,
        ),
    )


def tiny() -> Recipe:
    """A small network: for tests."""
    base = small()
    return replace(
        base,
        config=SelfiesVAEConfig(6, 12, 24, True, 48, 1, beta=0.05, rise=0.0),
        training=replace(base.training, lr=1e-2, ema_half_life=100),
    )


def zinc() -> Recipe:
    """A quarter of a million drug-like molecules, a small network: half an hour of two cores.

    With MOSES' small weight of the KL molecules come back well, and those of new latents are like none in the data; a
    half is between.
    """
    base = small()
    return replace(
        base,
        config=SelfiesVAEConfig(64, 32, 128, True, 320, 1, beta=0.5),
        data=Data("zinc250k", medium="molecule", options=MoleculeOptions(kind="selfies")),
        training=replace(base.training, steps=5_000, batch_size=128, lr=3e-3, ema_half_life=20_000),
    )


def molecules() -> Recipe:
    """Any molecules: the default for people's own."""
    base = zinc()
    options = MoleculeOptions(kind="selfies", on_bad_line="skip")
    return replace(base, data=Data("molecules", medium="molecule", options=options))


def paper() -> Recipe:
    """The network of MOSES with its batch, rate and a hundred epochs (of ZINC here); warm restarts left out."""
    base = zinc()
    return replace(
        base,
        config=MOSES,
        training=replace(
            base.training,
            steps=43_800,
            batch_size=512,
            lr=3e-4,
            schedule=Schedule("cosine", warmup=0, end=0.0),
            clip=50.0,
            ema_half_life=0.0,
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "selfies-vae-small": small,
    "selfies-vae-zinc": zinc,
    "selfies-vae-molecules": molecules,
    "selfies-vae-paper": paper,
    "selfies-vae-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "small-molecules": "selfies-vae-small",
    "zinc250k": "selfies-vae-zinc",
    "qm9": "selfies-vae-zinc",
    "molecule:*": "selfies-vae-molecules",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "molecule": (
        Preset("selfies-vae-molecules", 1_000, 20_000, "molecules of the right kind, and walks between them"),
    ),
}

DEMO = "selfies-vae-small"

TINY = "selfies-vae-tiny"
