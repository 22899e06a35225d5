"""How well things come back from pictures of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from castalia import recipes
from castalia.core.data import Batch, Dataset
from castalia.core.spec import ScalarSpec
from castalia.core.specs.image import ImageSpec
from castalia.evaluation.evaluate import evaluate
from castalia.evaluation.views import reconstruction, retakes
from castalia.media.image.decode import ImageOptions
from castalia.media.image.sets import open_named
from castalia.training.loop import train


class Squares(Dataset):
    """A square of 4 x 4 on 8 x 8, half of it bright; the other view is darker."""

    def __init__(self, n: int = 6) -> None:
        picture = ImageSpec(4, 8, 8)
        self.spec = replace(picture, columns=(("azimuth", ScalarSpec("degrees")), ("other", picture)))
        self.name, self.fingerprint, self.n = "squares", "squares", n

    def __len__(self) -> int:
        return self.n

    def batch(self, ids: np.ndarray, rng: object = None) -> Batch:
        x = torch.zeros(len(ids), 4, 8, 8, dtype=torch.uint8)
        x[:, :, 2:6, 2:6] = 255
        x[:, :3, 2:4, 2:6] = 55
        other = x.clone()
        other[:, :3] //= 5
        index = torch.from_numpy(ids)
        return Batch(x, index, None, {"azimuth": 350.0 + 5 * index.float() % 360, "other": other})


class Retaker:
    """Takes pictures again: shifted, with other colours, turned."""

    def __init__(self, shift: int, colour: int, turn: float) -> None:
        self.shift, self.colour, self.turn = shift, colour, turn

    def retaken(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        x, other = (t.roll(self.shift, 3).clone() for t in (batch.x, batch.extra["other"]))
        x[:, :3] = (x[:, :3].int() - self.colour).clamp(0, 255).to(torch.uint8)
        turned = batch.extra["azimuth"] + self.turn * (batch.ids % 2)
        return turned % 360, x, other


def test_what_is_right_has_no_error() -> None:
    found = reconstruction(Retaker(0, 0, 0.0), Squares(), np.arange(6))
    assert found["picture_iou"].value == found["other_iou"].value == 1
    assert found["colour_error"].value == found["other_colour_error"].value == 0
    assert found["azimuth_error"].value == 0
    assert found["azimuth_within_15"].value == 1
    assert found["colour_error_ceiling"].value == 100  # 55 and 255, and their mean 155
    assert found["other_colour_error_ceiling"].value == 20
    assert found["picture_iou"].n == 6
    assert found["azimuth_error"].unit == "degrees"


def test_what_is_wrong_has() -> None:
    found = reconstruction(Retaker(2, 10, -20.0), Squares(), np.arange(6))
    assert found["picture_iou"].value == pytest.approx(1 / 3)
    assert found["other_iou"].value == pytest.approx(1 / 3)
    assert found["colour_error"].value == pytest.approx(10)
    assert found["other_colour_error"].value == 0
    assert found["azimuth_error"].value == pytest.approx(10)  # half of the pictures, by 20
    assert found["azimuth_within_15"].value == 0.5


def test_nothing_in_common_has_no_colour() -> None:
    found = reconstruction(Retaker(4, 0, 0.0), Squares(), np.arange(2))
    assert found["picture_iou"].value == 0
    assert "colour_error" not in found


def test_it_is_part_of_an_evaluation(tmp_path: Path) -> None:
    recipe = recipes.tiny("ganverse3d")
    recipe = replace(recipe, training=replace(recipe.training, steps=2))
    run = train(recipe, open_named("few-car-views", "train", ImageOptions()), tmp_path / "run", quiet=True)
    data = open_named("few-car-views", "test", ImageOptions())
    found = evaluate(run, data, split="test", limit=5)
    assert {"picture_iou", "other_iou", "azimuth_within_15", "kl", "psnr"} <= set(found)
    assert found["picture_iou"].n == 5
    model = run.model()[0]
    assert retakes(model, data)
    assert not retakes(model, open_named("few-car-views", "test", ImageOptions(channels=3)))
