"""Recipes of AlphaFold.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Budget, Data, Expected, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.protein.read import ProteinOptions
from castalia.models.proteins.settings import AlphaFoldConfig
from castalia.recipes.preset import Preset

SMALL = AlphaFoldConfig(
    blocks=3, extra_blocks=0, c_m=64, c_z=32, c_s=96, c_e=16, msa_heads=4, msa_head=16, extra_head=4, pair_heads=2,
    pair_head=16, triangle=32, outer=8, row_dropout=0.05, pair_dropout=0.1, layers=4, start="chain", ipa_heads=4,
    ipa_head=16, ipa_points=4, ipa_values=4, torsion_width=64, structure_dropout=0.05,
    confidence_width=64, recycles=1, crop=24,
    fine=0.2, fine_crop=64, clusters=1, extra=0, masked=0.0, clamped=0.5, violation=0.1, saving=False,
)  # fmt: skip
"""Less than a million parameters, for lone sequences."""

ADAM = Optimizer("adam", betas=(0.9, 0.999), eps=1e-6)


def small() -> Recipe:
    """Chains of up to 100 residues without alignments, half an hour of one core."""
    return Recipe(
        model="alphafold",
        config=SMALL,
        data=Data("small-proteins", medium="protein", options=ProteinOptions(most=100)),
        training=Training(
            minutes=30,
            batch_size=12,
            stages={"fine": Budget(batch_size=4, lr=5e-4)},
            lr=3e-3,
            optimizer=ADAM,
            schedule=Schedule("cosine", warmup=20, end=0.05),
            clip=1.0,
            ema_half_life=1_000,
            samples=4,
            sample_every=100_000,
        ),
    )


def quick() -> Recipe:
    """The same chains in two minutes of one core: a narrow network, for steps are worth more than width."""
    base = small()
    return replace(
        base,
        config=replace(SMALL, blocks=2, c_z=16, c_s=64, pair_head=8, triangle=16, row_dropout=0.0, pair_dropout=0.0,
                       structure_dropout=0.0, recycles=0, crop=32, fine=0.1, fine_crop=64),
        training=replace(base.training, minutes=1.9, lr=1e-3, ema_half_life=500),
        expected=(Expected("fold_rmsd", 13.0, "nothing of this size on these data", 2),),
    )  # fmt: skip


def folds() -> Recipe:
    """Helices and hairpins made by rule: the demo."""
    base = small()
    return replace(
        base,
        config=replace(SMALL, blocks=1, c_m=32, c_z=16, c_s=32, triangle=16, pair_head=8, layers=3, torsion_width=32,
                       confidence_width=32, msa_heads=2, ipa_head=8, recycles=0, crop=30, fine=0.0, row_dropout=0.0,
                       pair_dropout=0.0, structure_dropout=0.0),
        data=Data("folds", medium="protein", options=ProteinOptions(most=30)),
        training=replace(base.training, stages={}, minutes=0.0, steps=500, batch_size=16, lr=4e-3, ema_half_life=500),
        expected=(Expected("fold_rmsd", 0.5, "built-in data", 1),),
    )  # fmt: skip


def tiny() -> Recipe:
    """Short chains with alignments, a network that has every part: for tests."""
    base = folds()
    return replace(
        base,
        expected=(),
        config=replace(base.config, extra_blocks=1, c_m=16, c_z=8, c_s=16, c_e=8, msa_head=8, triangle=8, pair_heads=1,
                       outer=4, layers=2, ipa_heads=2, ipa_points=2, ipa_values=2, torsion_width=16,
                       confidence_width=16, confidence_bins=10, recycles=1, crop=9, clusters=2, extra=2,
                       masked=0.15, masked_msa=0.1),
        data=Data("folds", medium="protein", options=ProteinOptions(most=10, sequences=3)),
        training=replace(base.training, batch_size=8, lr=1e-2, ema_half_life=100,
                         schedule=Schedule("cosine", warmup=5)),
    )  # fmt: skip


def chains() -> Recipe:
    """Any structures, alone or with alignments beside: the default for people's own folders."""
    base = small()
    options = ProteinOptions(most=256, sequences=64, on_bad_file="skip")
    return replace(
        base,
        config=replace(
            SMALL, extra_blocks=1, clusters=16, extra=32, crop=32, fine_crop=96, recycles=2, masked=0.15, masked_msa=0.5
        ),
        data=Data("structures", medium="protein", options=options),
        training=replace(base.training, minutes=0.0, steps=20_000),
    )


def paper() -> Recipe:
    """The paper's network: crops of 256 residues, then the fine-tuning, 11.5 million examples in all."""
    return Recipe(
        model="alphafold",
        config=AlphaFoldConfig(),
        data=Data(
            "structures", medium="protein", options=ProteinOptions(most=2048, sequences=16384, on_bad_file="skip")
        ),
        training=Training(
            steps=90_000,
            batch_size=128,
            stages={"fine": Budget(lr=5e-4)},
            lr=1e-3,
            optimizer=ADAM,
            schedule=Schedule("step", warmup=1_000, end=0.95, milestones=(0.64,)),
            clip=0.1,
            ema_half_life=88_400,
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "alphafold-small": small,
    "alphafold-quick": quick,
    "alphafold-folds": folds,
    "alphafold-chains": chains,
    "alphafold-paper": paper,
    "alphafold-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "small-proteins": "alphafold-small",
    "folds": "alphafold-folds",
    "protein:*": "alphafold-chains",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "protein": (Preset("alphafold-chains", 1_000, 50_000, "helices and turns, and folds that the data repeat"),),
}

DEMO = "alphafold-folds"

TINY = "alphafold-tiny"
