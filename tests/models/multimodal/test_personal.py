"""Subjects taught to a run: the start at first, what moves, the prior's term, merging, words, and the start untouched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from castalia import api, recipes, runs
from castalia.configuration import Data
from castalia.core.captions import CAPTION, bytes_of
from castalia.core.errors import UsageError
from castalia.models.multimodal.dreambooth import DreamBoothConfig
from castalia.models.multimodal.personal import PersonalConfig
from castalia.models.multimodal.picture_lora import PictureLoRAConfig
from castalia.models.multimodal.textual_inversion import TextualInversionConfig
from castalia.training.loop import train
from tests.models.multimodal.subjects import begun, recipe_on, samples
from tests.tools import small_recipe

SYSTEMS = ("dreambooth", "textual-inversion", "picture-lora")


@pytest.mark.parametrize("name", SYSTEMS)
def test_at_first_it_is_the_start(start: runs.Run, name: str) -> None:
    """B is zero, and no known word's vector is new: the same pictures, bit for bit."""
    below: Any = start.model()[0]
    model = begun(start, name, **({"rank": 2} if name == "dreambooth" else {}))
    assert torch.equal(samples(model, "a small red star"), samples(below, "a small red star"))
    x, t = torch.randn(2, *model.shape), torch.tensor([3.0, 700.0])
    tokens = below.words.tokens(bytes_of(["a red star", "a blue ring"]))
    with torch.no_grad():
        assert torch.equal(model.calling(2, tokens, None)(x, t), below.calling(2, tokens, None)(x, t))


@pytest.mark.parametrize(
    ("name", "config", "moving"),
    [
        ("textual-inversion", {"vectors": 2}, ("placeholders.",)),
        ("picture-lora", {}, ("added.",)),
        ("dreambooth", {}, ("network.",)),
        ("dreambooth", {"text_encoder": True}, ("network.", "text.")),
        ("dreambooth", {"rank": 2}, ("added.",)),
    ],
)
def test_only_what_is_named_moves_and_the_start_stays(
    start: runs.Run, tmp_path: Path, name: str, config: dict[str, Any], moving: tuple[str, ...]
) -> None:
    before = start.weights.read_bytes()
    recipe = recipe_on(start, name, **config)
    run = train(recipe, api.training_data(recipe), tmp_path / "run", quiet=True)
    assert start.weights.read_bytes() == before
    model, below = run.model()[0], start.model()[0].state_dict()
    fresh = begun(start, name, **config).state_dict()
    same = {key: torch.equal(value, fresh[key]) for key, value in model.state_dict().items()}
    for key, value in below.items():
        assert torch.equal(model.state_dict()[key], value) or key.startswith(moving), key
    named = dict(model.named_parameters())
    moved = {key for key in named if not same[key]}
    assert moved
    assert all(key.startswith(moving) for key in moved)
    # every layer that is named moves: but a layer's A has no gradient before B has moved
    assert {key for key in named if key.startswith(moving)} - moved == set()


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_resumed_run_is_the_same(start: runs.Run, tmp_path: Path, name: str) -> None:
    recipe = recipe_on(start, name)
    recipe = replace(recipe, training=replace(recipe.training, checkpoint_every=2))
    data = api.training_data(recipe)

    def crash(step: int, logs: object) -> None:
        if step == 4:
            raise RuntimeError("crash")

    whole = train(recipe, data, tmp_path / "whole", quiet=True)
    with pytest.raises(RuntimeError, match="crash"):
        train(recipe, data, tmp_path / "run", quiet=True, callback=crash)
    resumed = train(recipe, data, tmp_path / "run", quiet=True, resume=True)
    left, right = whole.model()[0].state_dict(), resumed.model()[0].state_dict()
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_sizes_and_words_are_the_starts(start: runs.Run) -> None:
    made = runs.complete(recipe_on(start, "picture-lora"), api.training_data(recipe_on(start, "picture-lora")))
    assert isinstance(made, PictureLoRAConfig)
    assert isinstance(start.config, type(recipes.tiny("latent-diffusion").config))
    assert made.words == start.config.words  # type: ignore[attr-defined]
    assert made.unet == start.config.unet  # type: ignore[attr-defined]
    assert made.kind == "star"


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (PersonalConfig, {"token": "<sks>"}),
        (PersonalConfig, {"token": ""}),
        (PersonalConfig, {"kind": " "}),
        (PersonalConfig, {"templates": ("a thing",)}),
        (PersonalConfig, {"base_share": 1.0}),
        (PersonalConfig, {"known": "class"}),
        (PictureLoRAConfig, {"rank": 0}),
        (PictureLoRAConfig, {"targets": ()}),
        (PictureLoRAConfig, {"targets": ("key", "key")}),
        (DreamBoothConfig, {"rank": -1}),
        (DreamBoothConfig, {"prior": -0.1}),
        (DreamBoothConfig, {"class_pictures": 0}),
        (TextualInversionConfig, {"vectors": 0}),
        (TextualInversionConfig, {"vectors": 99}),
    ],
)
def test_configurations_that_make_no_sense(kind: type, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        kind(**wrong)


def test_what_cannot_be_taught(start: runs.Run, tmp_path: Path) -> None:
    recipe = recipe_on(start, "picture-lora")
    data = api.training_data(recipe)
    alone = replace(recipe, parents=(), config=small_recipe("picture-lora").config)
    alone = replace(alone, config=replace(alone.config, base_share=0.0))
    with pytest.raises(UsageError, match="--start RUN"):
        train(alone, data, tmp_path / "a", quiet=True)
    for name in SYSTEMS:
        known = recipe_on(start, name, token="star")
        with pytest.raises(UsageError, match="knows the word 'star'"):
            train(known, data, tmp_path / "b", quiet=True)
    larger = replace(recipe, data=replace(recipe.data, options=replace(recipe.data.options, size=12)))
    with pytest.raises(UsageError, match="--size 8"):
        train(larger, api.training_data(larger), tmp_path / "c", quiet=True)
    other = train(small_recipe("ddpm", steps=2), api.training_data(small_recipe("ddpm")), tmp_path / "d", quiet=True)
    with pytest.raises(UsageError, match="latent-diffusion with captions"):
        train(replace(recipe, parents=(("start", str(other.path)),)), data, tmp_path / "e", quiet=True)


def folder_of_pictures(folder: Path, count: int, size: int = 8) -> Path:
    """Pictures and nothing else."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    for i, one in enumerate(pixels):
        Image.fromarray(one).save(folder / f"{i}.png")
    return folder


def test_a_folder_of_pictures_without_captions(start: runs.Run, tmp_path: Path) -> None:
    """What is said of them are the templates, so none is needed; samples are asked for in words all the same."""
    folder = folder_of_pictures(tmp_path / "pictures", 4)
    for name in ("dreambooth", "textual-inversion"):
        recipe = recipe_on(start, name, steps=2)
        recipe = replace(recipe, data=Data(str(folder), medium="image", options=replace(recipe.data.options, size=8)))
        data = api.training_data(recipe)
        assert data.spec.columns == ()
        run = train(recipe, data, tmp_path / name, quiet=True)
        assert run.config.words == start.config.words  # type: ignore[attr-defined]
        assert samples(run.model()[0], "a sks star").shape == (3, 3, 8, 8)
        assert [*run.model()[0].accepts()] == [CAPTION]  # type: ignore[attr-defined]
        bare = replace(recipe, config=replace(recipe.config, templates=()))
        with pytest.raises(UsageError, match="have none that are read"):
            train(bare, data, tmp_path / f"{name}-bare", quiet=True)
