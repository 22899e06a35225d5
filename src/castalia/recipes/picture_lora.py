"""Recipes of LoRA of pictures: each starts from a run of latent diffusion with captions, whose sizes it takes over.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable

from castalia.configuration import Recipe
from castalia.models.multimodal.picture_lora import PictureLoRAConfig
from castalia.recipes.preset import Preset
from castalia.recipes.subjects import SENTENCES, of_nothing, of_pictures, of_ring


def blue_ring() -> Recipe:
    """A blue ring, a shape that it lacks, on a run of ``latent-diffusion-emblems``: built in."""
    return of_ring("picture-lora", PictureLoRAConfig(kind="circle"), steps=250, lr=3e-3)


def pictures() -> Recipe:
    """A handful of your pictures of one thing on a run of yours, at its size: the default."""
    return of_pictures(blue_ring(), PictureLoRAConfig(templates=SENTENCES), lr=1e-3)


def tiny() -> Recipe:
    """On nothing, with small networks: for tests."""
    return of_nothing("picture-lora", PictureLoRAConfig, targets=("query", "value"), places="cross")


RECIPES: dict[str, Callable[[], Recipe]] = {
    "picture-lora-pictures": pictures,
    "picture-lora-blue-ring": blue_ring,
    "picture-lora-tiny": tiny,
}

DEFAULTS: dict[str, str] = {"blue-ring": "picture-lora-blue-ring", "*": "picture-lora-pictures"}

PRESETS: dict[str, tuple[Preset, ...]] = {}

DEMO = "picture-lora-tiny"

TINY = "picture-lora-tiny"
