"""Recipes of the SMILES GPT.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Expected, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.molecule.read import MoleculeOptions
from castalia.models.molecules.smiles_gpt import MOLGPT
from castalia.models.sequence.gpt2 import GPT2Config
from castalia.recipes.preset import Preset

MUON = Optimizer("muon", betas=(0.9, 0.99), others=0.5)


def small() -> Recipe:
    """Small molecules made by a rule: the demo."""
    return Recipe(
        model="smiles-gpt",
        config=GPT2Config(layers=3, heads=4, dim=96, dropout=0.0),
        data=Data("small-molecules", medium="molecule", options=MoleculeOptions(kind="smiles")),
        training=Training(
            steps=400,
            batch_size=64,
            lr=0.02,
            optimizer=MUON,
            schedule=Schedule("cosine", warmup=20, end=0.0),
            clip=1.0,
            ema_half_life=0.0,
        ),
    )


def tiny() -> Recipe:
    """A small network: for tests."""
    base = small()
    return replace(base, config=GPT2Config(layers=1, heads=2, dim=24, dropout=0.0))


def zinc() -> Recipe:
    """A quarter of a million drug-like molecules, a small network: half an hour of two cores."""
    base = small()
    return replace(
        base,
        config=GPT2Config(layers=4, heads=4, dim=192, dropout=0.0),
        data=Data("zinc250k", medium="molecule", options=MoleculeOptions(kind="smiles")),
        training=replace(base.training, steps=1_800, batch_size=128),
        expected=(Expected("nats_per_token", 0.63, "none on these molecules", 20),),
    )


def molecules() -> Recipe:
    """Any molecules: the default for people's own."""
    base = zinc()
    options = MoleculeOptions(kind="smiles", on_bad_line="skip")
    return replace(base, data=Data("molecules", medium="molecule", options=options), expected=())


def paper() -> Recipe:
    """The paper's size, with its batch, rate and ten epochs (of ZINC here, where it has MOSES)."""
    base = zinc()
    return replace(
        base,
        config=MOLGPT,
        expected=(),
        training=Training(
            steps=5_850,
            batch_size=384,
            lr=6e-4,
            optimizer=Optimizer("adamw", betas=(0.9, 0.95), weight_decay=0.1),
            schedule=Schedule("cosine", warmup=100, end=0.1),
            clip=1.0,
            ema_half_life=0.0,
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "smiles-gpt-small": small,
    "smiles-gpt-zinc": zinc,
    "smiles-gpt-molecules": molecules,
    "smiles-gpt-paper": paper,
    "smiles-gpt-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "small-molecules": "smiles-gpt-small",
    "zinc250k": "smiles-gpt-zinc",
    "qm9": "smiles-gpt-zinc",
    "molecule:*": "smiles-gpt-molecules",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "molecule": (Preset("smiles-gpt-molecules", 800, 10_000, "molecules of the right kind, nearly all of them valid"),),
}

DEMO = "smiles-gpt-small"

TINY = "smiles-gpt-tiny"
