"""Recipes of DreamBooth: each starts from a run of latent diffusion with captions, whose sizes it takes over.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable

from castalia.configuration import Recipe
from castalia.media.image.emblems import CAPTIONS
from castalia.models.multimodal.dreambooth import DreamBoothConfig
from castalia.recipes.preset import Preset
from castalia.recipes.subjects import SENTENCES, of_nothing, of_pictures, of_ring


def blue_ring() -> Recipe:
    """A blue ring, a shape that it lacks, on a run of ``latent-diffusion-emblems``: built in."""
    return of_ring("dreambooth", DreamBoothConfig(kind="circle", class_prompts=CAPTIONS), steps=200, lr=5e-4)


def pictures() -> Recipe:
    """A handful of your pictures of one thing on a run of yours, at its size: the default."""
    return of_pictures(blue_ring(), DreamBoothConfig(templates=SENTENCES), lr=1e-4)


def tiny() -> Recipe:
    """On nothing, with small networks: for tests."""
    return of_nothing("dreambooth", DreamBoothConfig, class_pictures=4, class_guidance=1.0)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "dreambooth-pictures": pictures,
    "dreambooth-blue-ring": blue_ring,
    "dreambooth-tiny": tiny,
}

DEFAULTS: dict[str, str] = {"blue-ring": "dreambooth-blue-ring", "*": "dreambooth-pictures"}

PRESETS: dict[str, tuple[Preset, ...]] = {}

DEMO = "dreambooth-tiny"

TINY = "dreambooth-tiny"
