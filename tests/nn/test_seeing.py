"""Networks that look at pictures see what they see in the model itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from castalia import api
from castalia.catalogue import CATALOGUE
from castalia.core.capabilities import Perception
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import build
from castalia.core.specs.points import PointsSpec
from tests.tools import small_recipe


def made(name: str, spec: Any = None, **config: Any) -> Any:
    recipe, kind = small_recipe(name), CATALOGUE[name].load()
    data = api.training_data(recipe)
    chosen = replace(recipe.config, **config)  # type: ignore[type-var]
    return build(kind, chosen, spec or data.spec).eval(), data.batch(np.arange(6))


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "logistic"])
def test_encoders_see_expected_pixels(likelihood: str) -> None:
    vae, batch = made("vae", likelihood=likelihood, binarise="dynamic")
    out = vae.perceive()["encoder"](batch.x.float())
    torch.testing.assert_close(out.chunk(2, 1)[0], vae.encode(batch), rtol=1e-5, atol=1e-5)
    vqvae, batch = made("vqvae", likelihood=likelihood, binarise="dynamic")
    maps = vqvae.perceive()["encoder"](batch.x.float())
    rows = vqvae.outputs_of(batch.x)
    torch.testing.assert_close(maps, vqvae.grid(rows), rtol=1e-5, atol=1e-5)


def test_pictures_are_left_as_they_are() -> None:
    vae, batch = made("vae")
    x = batch.x.float()
    vae.perceive()["encoder"](x)
    assert torch.equal(x, batch.x.float())


@pytest.mark.parametrize("name", ["gan", "wgan"])
def test_critics_see_packs_of_one_picture_and_the_usual_class(name: str) -> None:
    model, batch = made(name)
    label = model.labels.usual(6)
    torch.testing.assert_close(
        model.perceive()["critic"](batch.x.float()).flatten(), model.judge(model.inside(batch.x), label)
    )
    packed, batch = made(name, pack=2, condition="none", conditional_norm=False)
    twice = Batch.of(batch.x.repeat_interleave(2, 0))
    x = packed.inside(twice.x).reshape(6, -1, *batch.x.shape[2:])
    torch.testing.assert_close(packed.perceive()["critic"](batch.x.float()).flatten(), packed.judge(x, None))


def test_energies() -> None:
    model, batch = made("ebm")
    out = model.perceive()["energy"](batch.x.float())
    torch.testing.assert_close(out[:, 0], model.energy(model.inward(batch.x, None), torch.zeros(6, dtype=torch.int64)))


@pytest.mark.parametrize("name", ["gan", "wgan", "ebm"])
def test_points_are_no_pictures(name: str) -> None:
    config = {"conditional": False} if name == "ebm" else {"network": "mlp", "condition": "none", "augment": ()}
    if name != "ebm":
        config["conditional_norm"] = False
    model, _ = made(name, PointsSpec(2), **config)
    assert isinstance(model, Perception)
    with pytest.raises(UsageError, match="not at pictures"):
        model.perceive()
