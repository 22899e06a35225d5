"""What the tests of subjects start from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from castalia import api, runs
from castalia.training.loop import train
from tests.tools import small_recipe


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> runs.Run:
    """A short run of latent diffusion with attention to words."""
    recipe = small_recipe("latent-diffusion", steps=12)
    below: Any = recipe.config
    recipe = replace(recipe, config=replace(below, unet=replace(below.unet, attention=(0,))))
    return train(recipe, api.training_data(recipe), tmp_path_factory.mktemp("start") / "run", quiet=True)
