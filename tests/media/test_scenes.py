"""Scenes with captions: what is drawn is what is said, the reader sees it, and training lacks what tests ask for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from castalia.core.captions import texts_of
from castalia.core.data import Batch
from castalia.media.base import Work
from castalia.media.image.decode import ImageOptions
from castalia.media.image.drawn import COLOURS, SHAPES, shapes
from castalia.media.image.obedience import MEASURES
from castalia.media.image.scenes import Scene, Thing, apart, obeyed, read_caption, read_picture, scenes
from castalia.media.image.sets import open_named


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_reader_sees_what_the_caption_says(split: str) -> None:
    data = scenes(split, 150)
    for pixels, caption in zip(data.pixels, data.captions, strict=True):
        scene = read_caption(caption)
        assert scene is not None
        assert str(scene) == caption
        assert read_picture(pixels) == scene, caption


def test_the_reader_sees_the_older_set_too() -> None:
    data = shapes("test", 100)
    for pixels, caption in zip(data.pixels, data.captions, strict=True):
        scene = read_caption(caption)
        assert scene is not None
        assert obeyed(scene, read_picture(pixels))["all"] == 1, caption


def test_training_and_test_share_no_pair_of_colour_and_shape() -> None:
    pairs = [
        {(t.colour, t.kind) for c in scenes(split, 600).captions if (s := read_caption(c)) for t in s.things}
        for split in ("train", "test")
    ]
    assert not pairs[0] & pairs[1]
    assert pairs[1] == {(c, k) for c in COLOURS for k in SHAPES if apart(c, k)}
    assert len(pairs[1]) == 8
    # every colour and every shape was seen, in other company
    assert {c for c, _ in pairs[0]} == set(COLOURS)
    assert {k for _, k in pairs[0]} == set(SHAPES)


def test_pictures_that_are_no_scene_and_captions_of_other_grammars() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    assert obeyed(Scene((Thing("large", "red", "star"),), "at the top"), read_picture(noise))["all"] == 0
    assert read_picture(np.full((32, 32, 3), 250, np.uint8)) is None
    assert read_caption("a red heart") is None
    assert read_caption("a large mauve heart at the top") is None
    assert read_caption("A small red heart at the top left.") is not None


def test_partial_obedience_is_counted_by_attribute() -> None:
    asked = Scene((Thing("large", "red", "star"), Thing("small", "blue", "moon")), "and")
    seen = Scene((Thing("large", "red", "heart"), Thing("small", "blue", "moon")), "above")
    assert obeyed(asked, seen) == {"colour": 1.0, "shape": 0.5, "size": 1.0, "place": 0.0, "all": 0.0}
    assert set(obeyed(asked, None).values()) == {0.0}
    assert obeyed(asked, asked)["all"] == 1.0


def test_the_measure_reads_samples_of_held_out_captions() -> None:
    held_out = open_named("scenes", "test", ImageOptions(captions=80))
    asked = np.arange(40)
    real = held_out.batch(asked)
    assert texts_of(real.extra["caption"]) == [held_out.texts[i] for i in range(40)]
    half = real.x.clone()
    half[20:] = 250
    found = MEASURES[0].run(Work(held_out.spec, Batch.of(half), None, held_out, asked, 0))
    assert found["caption"].value == 0.5
    assert found["caption_floor"].value == 1.0
    assert found["caption_ceiling"].value < 0.2
    assert found["caption_colour"].value == 0.5
    assert MEASURES[0].run(Work(held_out.spec, Batch.of(torch.zeros_like(half)), None, held_out, None, 0)) == {}
