"""Drawing pixel by pixel from what was kept is drawing with the whole network; and pictures are continued."""

from __future__ import annotations

import pytest
import torch

from castalia.core.errors import UsageError
from castalia.core.rng import SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.pixels.base import PixelSampling
from tests.models.pixels.made import NAMES, made

CLASSES = ("a", "b")


def model_of(kind, channels=1, **changes):
    if kind == "streams" and changes.get("likelihood") == "softmax":
        changes = {**changes, "likelihood": "logistic"}
    return made(kind, ImageSpec(channels, 6, 7, CLASSES), conditional=True, **changes)


CASES = [
    (1, {"likelihood": "bernoulli"}, PixelSampling()),
    (3, {"likelihood": "softmax", "values": (0, 128, 255)}, PixelSampling(temperature=0.7)),
    (2, {"likelihood": "softmax", "few": False}, PixelSampling(temperature=1.3)),
]


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize(("channels", "changes", "options"), CASES, ids=["binary", "three values", "all values"])
def test_pictures_are_those_of_the_whole_network(kind, channels, changes, options):
    model, rng = model_of(kind, channels, **changes), SampleRng(3, range(4))
    drawn = model.sample(4, rng=rng, options=options)
    with torch.no_grad():
        slow = model.naive(4, {}, rng, options)
    assert torch.equal(drawn.x, slow.x)
    assert torch.equal(drawn.label, slow.label)
    assert drawn.x.float().std() > 10
    label = torch.tensor([0, 1, 1, 0])
    given = model.sample(4, {"label": label}, rng=rng, options=options)
    assert not torch.equal(given.x, model.sample(4, {"label": 1 - label}, rng=rng, options=options).x)


@pytest.mark.parametrize("kind", ["gated", "plain", "row", "diagonal"])
def test_guidance_leans_towards_the_label(kind):
    model, rng, label = model_of(kind), SampleRng(3, range(3)), torch.tensor([0, 1, 0])
    options = PixelSampling(guidance=2.5)
    drawn = model.sample(3, {"label": label}, rng=rng, options=options)
    with torch.no_grad():
        slow = model.naive(3, {"label": label}, rng, options)
    assert torch.equal(drawn.x, slow.x)
    assert not torch.equal(drawn.x, model.sample(3, {"label": label}, rng=rng).x)


def test_guidance_needs_a_model_without_labels():
    with pytest.raises(UsageError, match="guidance"):
        made("gated", ImageSpec(1, 4, 4)).sample(1, rng=SampleRng(0, [0]), options=PixelSampling(guidance=2))
    with pytest.raises(UsageError, match="label_drop"):
        model_of("gated", label_drop=0.0).sample(1, rng=SampleRng(0, [0]), options=PixelSampling(guidance=2))
    with pytest.raises(UsageError, match="softmax or bernoulli"):
        model_of("streams", likelihood="logistic").sample(1, rng=SampleRng(0, [0]), options=PixelSampling(guidance=2))


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("rows", [0, 2, 3.5, 6])
def test_the_upper_part_of_a_prompt_is_kept(kind, rows):
    model, rng = model_of(kind, 1), SampleRng(1, range(3))
    prompt = torch.tensor([0, 255], dtype=torch.uint8)[torch.randint(2, (3, 1, 6, 7))]
    options, given = PixelSampling(rows=rows), {"prompt": prompt, "label": torch.tensor([0, 1, 1])}
    drawn = model.sample(3, given, rng=rng, options=options)
    kept = round(rows * 7)
    assert torch.equal(drawn.x.flatten(1)[:, :kept], prompt.flatten(1)[:, :kept])
    with torch.no_grad():
        assert torch.equal(drawn.x, model.naive(3, given, rng, options).x)
    if rows == 0:
        assert torch.equal(drawn.x, model.sample(3, {"label": given["label"]}, rng=rng).x)
    elif rows < 6:
        other = model.sample(3, given, rng=SampleRng(2, range(3)), options=options)
        assert not torch.equal(drawn.x, other.x)


def test_half_of_a_prompt_is_kept_unless_told_otherwise():
    model, prompt = model_of("gated"), torch.full((1, 1, 6, 7), 255, dtype=torch.uint8)
    drawn = model.sample(1, {"prompt": prompt}, rng=SampleRng(0, [0]))
    assert (drawn.x[:, :, :3] == 255).all()
    assert (drawn.x[:, :, 3:] != 255).any()


def test_rows_that_cannot_be():
    model, rng, prompt = model_of("gated"), SampleRng(0, [0]), torch.zeros(1, 1, 6, 7, dtype=torch.uint8)
    with pytest.raises(UsageError, match="rows=7"):
        model.sample(1, {"prompt": prompt}, rng=rng, options=PixelSampling(rows=7))
    with pytest.raises(UsageError, match="give one"):
        model.sample(1, rng=rng, options=PixelSampling(rows=3))
    with pytest.raises(ValueError, match="rows"):
        PixelSampling(rows=-1)


def test_a_stream_gives_rows():
    model, rng = model_of("gated", 3), SampleRng(0, range(2))
    state, rows = model.start(2, {}, rng, PixelSampling()), []
    for _ in range(6):
        row, state = model.advance(state)
        assert row.shape == (2, 3, 1, 7)
        rows.append(row)
    with pytest.raises(StopIteration):
        model.advance(state)
    assert torch.equal(torch.cat(rows, 2), model.sample(2, rng=rng).x)
