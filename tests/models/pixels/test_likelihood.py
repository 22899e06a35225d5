"""That likelihoods are likelihoods: everything sums to one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.pixels.pixelcnn import PixelCNN, PixelCNNConfig
from castalia.models.pixels.pixelcnn_pp import PixelCNNPPConfig
from castalia.models.pixels.values import Binary, Logistics, Softmax, counts_of, few_values
from tests.models.pixels.made import NAMES, made
from tests.tools import Table


def nats_of(model, x, label=None):
    rng = SampleRng(0, range(len(x)))
    return model.log_likelihood(Batch.of(x, label), rng=rng).nats


@pytest.mark.parametrize("kind", NAMES)
def test_all_binary_pictures_of_nine_pixels_sum_to_one(kind):
    every = torch.tensor(list(itertools.product((0, 255), repeat=9)), dtype=torch.uint8).view(512, 1, 3, 3)
    model = made(kind, ImageSpec(1, 3, 3), binarise="threshold")
    assert torch.logsumexp(nats_of(model, every), 0).exp().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", ["gated", "plain", "row", "diagonal"])
def test_so_do_three_pixels_of_three_channels(kind):
    every = torch.tensor(list(itertools.product((0, 90), repeat=9)), dtype=torch.uint8).view(512, 3, 1, 3)
    model = made(kind, ImageSpec(3, 1, 3), likelihood="softmax", values=(0, 90))
    assert torch.logsumexp(nats_of(model, every), 0).exp().item() == pytest.approx(1, abs=1e-5)


def test_so_does_a_pixel_of_three_channels_in_logistics():
    values = (0, 64, 128, 191, 255)
    every = torch.tensor(list(itertools.product(values, repeat=3)), dtype=torch.uint8).view(125, 3, 1, 1)
    model = made("streams", ImageSpec(3, 1, 1), likelihood="logistic", values=values, levels=1)
    assert torch.logsumexp(nats_of(model, every), 0).exp().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("scale", [-6.9, -4.0, -2.0, 1.0])
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_bins_of_logistics_sum_to_one_at_any_width(scale, levels):
    values = Logistics(1, tuple(np.rint(np.linspace(0, 255, levels)).astype(int).tolist()), 2)
    outputs = torch.tensor([0.3, -0.7, 0.999, -1.2, scale, scale + 0.5]).view(1, 6, 1, 1).expand(levels, -1, -1, -1)
    nats = values.log_prob(outputs, torch.arange(levels).view(-1, 1, 1, 1)).double()
    assert torch.logsumexp(nats, 0).exp().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("likelihood", ["softmax", "bernoulli"])
def test_without_a_label_it_sums_over_them(likelihood):
    spec = ImageSpec(1, 4, 4, ("a", "b", "c"))
    model = made("gated", spec, likelihood=likelihood, values=(0, 255) if likelihood == "softmax" else (),
                 binarise="threshold", conditional=True)  # fmt: skip
    model.labels.shares.copy_(torch.tensor([0.5, 0.2, 0.3]))
    x = torch.tensor([0, 255], dtype=torch.uint8)[torch.arange(32).view(2, 1, 4, 4) % 3 % 2]
    each = [nats_of(model, x, torch.full((2,), i)) for i in range(3)]
    assert (each[0] - each[1]).abs().min() > 1e-3
    together = torch.logsumexp(torch.stack(each) + model.labels.shares.double().log()[:, None], 0)
    torch.testing.assert_close(nats_of(model, x), together)


def draws(values, outputs, temperature=1.0, n=40_000):
    g = np.random.default_rng(0)
    uniform = g.random((n, values.draws // values.looks)).astype(np.float32)
    return values.draw(np.repeat(outputs, n, 0).astype(np.float32), uniform, temperature)


@pytest.mark.parametrize(
    ("values", "outputs"),
    [
        (Softmax(1, (0, 9, 80, 255)), [0.3, -1.0, 0.5, 0.0]),
        (Binary(1, "dynamic", 1), [0.7]),
        (Logistics(1, (0, 64, 128, 191, 255), 2), [0.2, -0.4, -0.6, 0.9, -1.0, -0.5]),
    ],
    ids=["softmax", "binary", "logistics"],
)
def test_draws_follow_the_probabilities(values, outputs):
    numbers = np.array([outputs], np.float32)
    drawn = draws(values, numbers)[:, 0]
    levels = getattr(values, "levels", 2)
    maps = torch.from_numpy(numbers).view(1, -1, 1, 1).expand(levels, -1, -1, -1)
    expected = values.log_prob(maps, torch.arange(levels).view(-1, 1, 1, 1)).exp().numpy()
    found = np.bincount(drawn, minlength=levels) / len(drawn)
    assert np.abs(found - expected).max() < 0.01
    mode = draws(values, numbers, 0.0)
    assert (mode == mode[0]).all()
    assert (draws(values, numbers, 0.3)[:, 0] == mode[0, 0]).mean() > (drawn == mode[0, 0]).mean()


def test_channels_in_logistics_depend_on_those_before():
    values = Logistics(2, (), 1)
    outputs = np.array([[0.0, 0.0, 0.0, -1.0, -4.0, 3.0]], np.float32)  # weight, means, scales, the coefficient
    drawn = draws(values, outputs, n=2000)
    assert np.corrcoef(drawn.T)[0, 1] > 0.95


def test_few_values_are_found():
    x = torch.tensor([0, 16, 255], dtype=torch.uint8)[torch.randint(3, (20, 1, 4, 4))]
    table = Table(x, ImageSpec(1, 4, 4))
    assert few_values(table) == (0, 16, 255)
    config = PixelCNN.complete(PixelCNNConfig(maps=4, layers=1, head=4), table)
    assert config.values == (0, 16, 255)
    assert PixelCNN.complete(PixelCNNConfig(few=False), table).values == ()
    # logistics need even distances
    assert PixelCNN.complete(PixelCNNPPConfig(), table).values == ()  # type: ignore[arg-type]
    model = build(PixelCNN, config, table.spec)
    with pytest.raises(UsageError, match="value 7"):
        nats_of(model, torch.full((1, 1, 4, 4), 7, dtype=torch.uint8))
    assert model.values.codes(torch.tensor([[[[7, 9, 250]]]], dtype=torch.uint8), None).flatten().tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", NAMES)
def test_training_begins_with_independent_values(kind):
    """The last bias is at the frequencies of values, and what is before it small or nothing."""
    g = torch.Generator().manual_seed(0)
    x = torch.tensor([0, 255], dtype=torch.uint8)[(torch.rand(200, 1, 4, 4, generator=g) < 0.3).long()]
    model = made(kind, ImageSpec(1, 4, 4), stir=0.0, binarise="threshold")
    table = Table(x, model.spec)
    model.initialise(table, BatchRng(0, total=1), {})
    share = (x > 127).float().mean().item()
    entropy = -(share * math.log(share) + (1 - share) * math.log(1 - share)) * 16
    assert -nats_of(model, x).mean().item() == pytest.approx(entropy, rel=0.1)
    assert counts_of(table).sum() == x.numel()


def test_bad_configurations_are_refused():
    for bad in ({"values": (3,)}, {"values": (5, 2)}, {"values": (0, 256)}, {"label_drop": 1.0}, {"first": 4}):
        with pytest.raises(ValueError, match=r"."):
            PixelCNNConfig(**bad)
    with pytest.raises(ValueError, match="evenly"):
        PixelCNNPPConfig(values=(0, 3, 255))
    with pytest.raises(ValueError, match="pixelcnn-pp"):
        PixelCNNConfig(likelihood="logistic")
    with pytest.raises(UsageError, match="no labels"):
        build(PixelCNN, PixelCNNConfig(conditional=True), ImageSpec(1, 4, 4))
    with pytest.raises(UsageError, match=r"config\.levels"):
        made("streams", ImageSpec(1, 1, 8))
