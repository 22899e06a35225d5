import time

import numpy as np
import pytest
import torch

from castalia.core.errors import DataError, UsageError
from castalia.core.rng import SampleRng
from castalia.media.image.array import ImageArray
from castalia.media.image.decode import ImageOptions
from castalia.media.image.stacked import StackedArray
from castalia.media.named import describe, open_data


@pytest.fixture(scope="module")
def stacks():
    return open_data("stacked-digits")


def test_channels_are_digits_and_the_label_spells_them(stacks):
    digits = open_data("digits")
    ids = np.array([0, 77_777, 127_999, 0])
    batch = stacks.batch(ids)
    assert batch.x.shape == (4, 3, 8, 8)
    assert batch.x.dtype == torch.uint8
    for row, i in enumerate(ids):
        parts = stacks.index[i]
        assert torch.equal(batch.x[row], digits.x[parts, 0])
        spelt = "".join(str(int(digits.labels[p])) for p in parts)
        assert stacks.spec.classes[int(batch.label[row])] == spelt
    assert batch.ids.tolist() == ids.tolist()


def test_a_thousand_modes(stacks):
    assert stacks.spec.shape == (3, 8, 8)
    assert stacks.spec.classes[:2] == ("000", "001")
    assert stacks.spec.classes[-1] == "999"
    assert len(stacks.spec.classes) == 1000
    counts = torch.bincount(stacks.labels, minlength=1000)
    assert len(stacks) == counts.sum() == 128_000
    assert counts.min() > 60, "every mode is there"
    # the digits of the channels are independent: the count of a mode is Poisson around its expectation
    shares = torch.bincount(open_data("digits").labels).double() / 1297
    expected = 128_000 * torch.einsum("a,b,c->abc", shares, shares, shares).flatten()
    assert ((counts - expected).abs() < 6 * expected.sqrt()).all()


def test_splits_share_no_digit_and_nothing_is_random(stacks):
    test = open_data("stacked-digits", split="test")
    assert len(test) == 26_000
    assert test.base.fingerprint == open_data("digits", split="test").fingerprint
    assert open_data("stacked-digits").fingerprint == stacks.fingerprint != test.fingerprint
    assert stacks.index[:2].tolist() == [[972, 874, 1232], [260, 471, 575]]
    assert sum(describe(test)["class_counts"].values()) == 26_000


def test_options(stacks):
    larger = open_data("stacked-digits", ImageOptions(size=16, channels=3, flip=True), "test")
    assert larger.batch(np.arange(2)).x.shape == (2, 3, 16, 16)
    rng = SampleRng(0, range(64))
    plain, flipped = larger.batch(np.arange(64)).x, larger.batch(np.arange(64), rng).x
    mirrored = rng.uniform("flip") < 0.5
    assert torch.equal(flipped[mirrored], plain[mirrored].flip(3))
    assert torch.equal(flipped[~mirrored], plain[~mirrored])
    with pytest.raises(UsageError, match="three channels"):
        open_data("stacked-digits", ImageOptions(channels=1))


def test_other_sets_are_no_base():
    pixels = np.zeros((2, 1, 4, 4), np.uint8)
    for base in (
        ImageArray(pixels, name="unlabelled"),
        ImageArray(np.zeros((2, 3, 4, 4), np.uint8), name="colour", labels=np.zeros(2), classes=("a",)),
        ImageArray(pixels, name="many", labels=np.zeros(2), classes=tuple(map(str, range(11)))),
    ):
        with pytest.raises(ValueError):
            StackedArray(base, name="bad", split="train")


def test_mnist_is_composed_fast(castalia_data):
    start = time.perf_counter()
    try:
        data = open_data("stacked-mnist")
    except DataError as error:
        pytest.skip(str(error))
    opened = time.perf_counter() - start
    assert data.spec.shape == (3, 28, 28)
    order = np.random.default_rng(0).permutation(len(data))
    times = []
    for i in range(0, 128 * 50, 128):
        start = time.perf_counter()
        batch = data.batch(order[i : i + 128])
        times.append(time.perf_counter() - start)
    assert batch.x.shape == (128, 3, 28, 28)
    # 0.7 s and 0.015 ms were measured; the bounds are loose because machines are shared
    assert opened < 5
    assert min(times) < 0.3e-3
