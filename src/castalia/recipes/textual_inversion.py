"""Recipes of textual inversion: each starts from a run of latent diffusion with captions, whose sizes it takes over.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable

from castalia.configuration import Recipe
from castalia.models.multimodal.textual_inversion import TextualInversionConfig
from castalia.recipes.preset import Preset
from castalia.recipes.subjects import SENTENCES, of_nothing, of_pictures, of_ring


def blue_ring() -> Recipe:
    """A blue ring, a shape that it lacks, on a run of ``latent-diffusion-emblems``: built in."""
    return of_ring("textual-inversion", TextualInversionConfig(kind="circle", vectors=2), steps=250, lr=1e-2)


def pictures() -> Recipe:
    """A handful of your pictures of one thing on a run of yours, at its size: the default."""
    return of_pictures(blue_ring(), TextualInversionConfig(templates=SENTENCES), steps=500, lr=5e-3)


def tiny() -> Recipe:
    """On nothing, with small networks: for tests."""
    return of_nothing("textual-inversion", TextualInversionConfig)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "textual-inversion-pictures": pictures,
    "textual-inversion-blue-ring": blue_ring,
    "textual-inversion-tiny": tiny,
}

DEFAULTS: dict[str, str] = {"blue-ring": "textual-inversion-blue-ring", "*": "textual-inversion-pictures"}

PRESETS: dict[str, tuple[Preset, ...]] = {}

DEMO = "textual-inversion-tiny"

TINY = "textual-inversion-tiny"
