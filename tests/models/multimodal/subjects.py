"""Subjects that are taught to a short run, for the tests of the ways to do it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from castalia import api, runs
from castalia.catalogue import entry
from castalia.core.captions import CAPTION, bytes_of
from castalia.core.model import Model, build, lay_out, training_mode
from castalia.core.rng import BatchRng, SampleRng
from tests.tools import small_recipe


def recipe_on(start: runs.Run, name: str, steps: int = 6, **config: Any) -> Any:
    """A recipe whose network is to be taken over from the start."""
    base = small_recipe(name, steps=steps)
    kind = type(base.config)
    own = {"kind": "star", "class_pictures": 5} if name == "dreambooth" else {"kind": "star"}
    return replace(base, config=kind(**{**own, **config}), parents=(("start", str(start.path)),))


def begun(start: runs.Run, name: str, **config: Any) -> Any:
    """A model as it is before its first step."""
    recipe = recipe_on(start, name, **config)
    data = api.training_data(recipe)
    model = build(entry(name).load(), runs.complete(recipe, data), data.spec)
    below = start.model()[0]
    model.initialise(data, BatchRng(0, total=1), {"start": below})
    runs.start_from(model, below, start.path)
    lay_out(model)
    training_mode(model)
    stage = model.stages()[-1]
    assert stage.enter is not None
    stage.enter(BatchRng(0, total=1))
    return model


def stir(model: Model, amount: float = 0.1) -> None:
    with torch.no_grad():
        for part in model.adapters():
            for i, p in enumerate(part.parameters()):
                p.add_(amount * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))


def samples(model: Any, caption: str, n: int = 3) -> torch.Tensor:
    given = {CAPTION: bytes_of([caption] * n)}
    model.eval()
    return model.sample(n, given, rng=SampleRng(0, range(n)), options=model.SampleOptions(steps=3)).x
