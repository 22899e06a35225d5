"""Which recipe a model uses where none is named."""

from __future__ import annotations

import pytest

from castalia import recipes
from castalia.catalogue import CATALOGUE
from castalia.core.errors import UsageError


@pytest.mark.parametrize(
    ("model", "source", "expected"),
    [
        ("vae", "mnist", "vae-mnist"),
        ("vae", "my_pictures/", "vae-pictures"),
        ("wgan", "data/points.CSV", "wgan-gp-grid"),
        ("ddpm", "points.tsv", "ddpm-grid"),
        ("edm", "ring-8", "edm-grid"),
    ],
)
def test_default(model: str, source: str, expected: str) -> None:
    assert recipes.default(model, source) == recipes.recipe(expected)


def test_tables_agree() -> None:
    for (model, _), name in recipes.DEFAULTS.items():
        assert recipes.recipe(name).model == model
    for model, name in recipes.DEMOS.items():
        assert recipes.recipe(name).model == model
        assert recipes.recipe(name).data.source == "digits"  # built in: the demo downloads nothing
    assert set(recipes.DEMOS) == set(CATALOGUE)


def test_unknown_names_are_said() -> None:
    with pytest.raises(UsageError, match="vae-mnist"):
        recipes.recipe("vae-mnits")
    with pytest.raises(UsageError, match="no recipe"):
        recipes.default("nothing", "mnist")
