"""Which recipe a model uses where none is named, and what every system's recipes offer."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from castalia import api, catalogue, recipes
from castalia.catalogue import CATALOGUE
from castalia.core.errors import UsageError
from castalia.core.model import build
from castalia.media import named
from tests.tools import MODELS
from tests.training import toys

LARGEST_TINY = 50_000
"""Parameters of a tiny recipe: fifty systems are to be tested in minutes."""


def built_in(name: str) -> bool:
    """Whether a named set needs no file: it is in the program, or made from one that is."""
    entry = named.table()[name]
    return not entry.files and (not entry.base or built_in(entry.base))


@pytest.mark.parametrize(
    ("model", "source", "expected"),
    [
        ("vae", "mnist", "vae-mnist"),
        ("vae", "my_pictures/", "vae-pictures"),
        ("gan", "stacked-digits", "dcgan-pictures"),
        ("wgan", "pictures.npy", "wgan-pictures"),
    ],
)
def test_default(model: str, source: str, expected: str) -> None:
    assert recipes.default(model, source, "image") == recipes.recipe(expected)


def test_the_medium_counts() -> None:
    assert recipes.default("wgan", "points.npy", "points") == recipes.recipe("wgan-gp-grid")
    assert recipes.default("ddpm", "a.tsv", "points") == recipes.recipe("ddpm-grid")
    assert recipes.default("edm", "ring-8", "points") == recipes.recipe("edm-grid")


@pytest.mark.parametrize("model", MODELS)
def test_a_room_of_recipes(model: str) -> None:
    room = recipes.of(model)
    assert {room.demo, room.tiny, *room.defaults.values()} <= set(room.recipes)
    assert all(recipes.recipe(name).model == model for name in room.recipes)
    for recipe in (recipes.demo(model), recipes.tiny(model)):
        assert built_in(recipe.data.source)
    tiny = recipes.tiny(model)
    network = build(CATALOGUE[model].load(), tiny.config, api.training_data(tiny).spec)
    assert sum(p.numel() for p in network.parameters()) <= LARGEST_TINY


def test_no_two_systems_share_a_name() -> None:
    assert [name for name, times in Counter(recipes.names()).items() if times > 1] == []


def test_unknown_names_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="vae-mnist"):
        recipes.recipe("vae-mnits")
    with pytest.raises(UsageError, match="no model"):
        recipes.default("nothing", "mnist", "image")
    monkeypatch.setattr(catalogue, "CATALOGUE", {**CATALOGUE, **toys.entries()})
    with pytest.raises(UsageError, match="has no recipes"):
        recipes.default("toy-chain", "mnist", "image")


def test_only_what_is_asked_for_is_imported() -> None:
    code = "import sys; from castalia import recipes; recipes.recipe('vae-mnist'); print('castalia.recipes.edm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_paths_of_classes_are_of_one_form() -> None:
    for wrong in ("vae", "autoencoders.vae", "..os:Path", "autoencoders.vae:VAE.x", "os:path", "a.b:c"):
        with pytest.raises(ValueError, match="of the form"):
            catalogue.Entry("x", "X", wrong, (), "", ())
    assert catalogue.entry("vae").family == "autoencoders"
