"""Tables that have a name, and the tiny one that is built in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from castalia.core.rng import derive
from castalia.core.specs.table import Part, TableSpec
from castalia.media.sets import DataFile, NamedData, Progress, find
from castalia.media.table.array import TableArray
from castalia.media.table.kinds import settled
from castalia.media.table.read import TableOptions, open_table

ADULT, TINY = "adult", "people"
SIMULATED = ("gm-grid", "gm-gridr", "gm-ring")
COUNT = 10_000
"""Rows of each part of a simulated table."""
VARIANCE = 0.05
"""Of each of its Gaussians, in each direction."""


def _simulated(what: str) -> NamedData:
    counts = {"train": COUNT, "test": COUNT}
    return NamedData(f"{what} (CTGAN's simulated data)", "none needed: computed", (2,), counts, {})


SETS: Mapping[str, NamedData] = {
    ADULT: NamedData(
        "census rows of adults, with whether they earn more than 50,000 dollars, which is the target",
        "CC BY 4.0",
        (15,),
        {"train": 29_256, "test": 3_305},
        {
            "all": (
                DataFile(
                    "adult.csv.gz",
                    "b1ee59153ff6055037ada6074d5cbed507af97f4d4d4b1fffcd7f62133c283a5",
                    packed=("d33b857d859db8b0cc6ac10035c1f0f3165aef143e48972c0147f4adab9ec027",),
                    inside=3811655,
                ),
            )
        },
        "adult.csv of https://github.com/sdv-dev/CTGAN (examples/csv), packed with gzip",
    ),
    "gm-grid": _simulated("25 Gaussians on a grid of spacing 2, variance 0.05"),
    "gm-gridr": _simulated("the same, each moved by up to a half in both directions"),
    "gm-ring": _simulated("8 Gaussians on a circle of radius 1, variance 0.05"),
    TINY: NamedData(
        "people made by a rule: age, income, education, children, city, whether they own a house, and since when",
        "none needed: computed",
        (7,),
        {"train": 2_000, "test": 400},
        {},
    ),
}


def open_set(
    name: str, options: TableOptions, split: str, like: TableSpec | None, progress: Progress | None
) -> TableArray:
    """Open a named set."""
    if name == TINY:
        return people(split)
    if name in SIMULATED:
        return simulated(name, split)
    entry = SETS[name]
    path = find(name, entry, entry.files["all"][0], progress)
    options = replace(options, target=options.target or "income")
    return open_table(path, options, split=split, like=like, name=name, progress=progress)


def centres(name: str) -> np.ndarray:
    """Means of the Gaussians of a simulated table (K, 2)."""
    if name == "gm-ring":
        angle = 2 * np.pi * np.arange(8) / 8
        return np.stack([np.cos(angle), np.sin(angle)], 1)
    line = np.arange(-4, 5, 2.0)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    if name == "gm-gridr":
        grid = grid + np.random.Generator(np.random.Philox(derive(18, "gridr"))).uniform(-0.5, 0.5, grid.shape)
    return grid


def simulated(name: str, split: str) -> TableArray:
    """A mixture of Gaussians in the plane, equally likely."""
    rng = np.random.Generator(np.random.Philox(derive(18, name, split)))
    means = centres(name)
    x = means[rng.integers(len(means), size=COUNT)] + np.sqrt(VARIANCE) * rng.normal(size=(COUNT, 2))
    reach = float(np.abs(means).max()) + 2.0
    parts = tuple(Part(c, "number", low=-reach, high=reach) for c in ("x", "y"))
    return TableArray(np.clip(x, -reach, reach), None, TableSpec(parts), name=name)


def log_density(name: str, x: np.ndarray) -> np.ndarray:
    """Natural logarithm of a simulated table's density at points (N, 2)."""
    means = centres(name)
    square = np.square(x[:, None] - means[None]).sum(-1) / VARIANCE
    logs = -0.5 * square - np.log(2 * np.pi * VARIANCE) - np.log(len(means))
    top = logs.max(1)
    return top + np.log(np.exp(logs - top[:, None]).sum(1))


PEOPLE = TableSpec(
    (
        Part("age", "integer", low=18, high=90),
        Part("income", "number", decimals=2, missing=True, low=0, high=20_000),
        Part("education", "category", ("college", "none", "school")),
        Part("children", "integer", low=0, high=6),
        Part("city", "category", ("Lyon", "Oslo", "Porto", "Riga")),
        Part("owner", "boolean", ("no", "yes")),
        Part("since", "date", format="%Y-%m-%d", low=315_532_800, high=1_704_067_200),
    ),
    "owner",
)


def people(split: str = "train") -> TableArray:
    """Rows by a rule: education and age raise income, income makes owners, nobody under 25 has more than one child."""
    n = SETS[TINY].counts[split]
    rng = np.random.Generator(np.random.Philox(derive(18, TINY, split)))
    age = np.clip(np.where(rng.random(n) < 0.5, rng.normal(28, 5, n), rng.normal(55, 10, n)), 18, 90).round()
    education = rng.choice(3, n, p=(0.3, 0.2, 0.5))
    level = np.array([2.0, 0.6, 1.0])[education]
    income = np.clip(level * (1_000 + 30 * age) * np.exp(0.2 * rng.normal(size=n)), 0, 20_000)
    children = np.minimum(rng.poisson(np.where(age < 25, 0.2, 1.4)), np.where(age < 25, 1, 6))
    city = (education + rng.choice(2, n)) % 4
    owner = (income + 800 * rng.normal(size=n) > 3_500).astype(float)
    since = 1_704_067_200 - 86_400 * np.round(365 * (age - 18) * rng.uniform(0.2, 0.6, n))
    x = np.stack([age, income, education, children, city, owner, since], 1).astype(np.float64)
    x = np.stack([settled(x[:, j], part) for j, part in enumerate(PEOPLE.parts)], 1)
    missing = np.zeros(x.shape, np.uint8)
    missing[:, 1] = rng.random(n) < 0.1
    return TableArray(x, missing, PEOPLE, name=TINY)
