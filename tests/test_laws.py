"""Laws that a model must obey whatever its paper says, and that are easily broken unseen.

A density of the plane integrates to 1. No model finds fresh noise likelier than its entropy allows: one that does sees
what it should predict. The uniform density of 8-bit pictures costs 8 bits a value. A sequence model that has learnt to
count goes on counting when it samples.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from castalia import api, recipes
from castalia.catalogue import CATALOGUE
from castalia.core.capabilities import Density, Likelihood
from castalia.core.data import Batch, Dataset, spread
from castalia.core.model import Generator, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.text import TextSpec
from castalia.evaluation import likelihood
from castalia.training.loop import train
from tests.conformance.test_conformance import having, short
from tests.tools import Table, small_recipe

PICTURES = [name for name in having(Density) if CATALOGUE[name].media[0] == "image"]
POINTS = [name for name in having(Density) if "points" in CATALOGUE[name].media]
TEXTS = [name for name in having(Density) if CATALOGUE[name].media[0] == "text" and name != "dpo"]
"""Those that learn from texts; ``dpo`` learns from pairs of them."""


@pytest.mark.parametrize("name", PICTURES)
def test_noise_costs_its_entropy(name: str) -> None:
    """Pixels drawn independently from the levels of the data: their cost is at least what they contain."""
    data = api.training_data(small_recipe(name))
    assert isinstance(data.spec, ImageSpec)
    model = build(CATALOGUE[name].load(), small_recipe(name).config, data.spec)
    model.initialise(data, BatchRng(0, total=1), {})
    model.eval()
    assert isinstance(model, Density)
    levels = data.batch(spread(len(data), 200)).x.unique()
    g = torch.Generator().manual_seed(0)
    noise = levels[torch.randint(len(levels), (24, *data.spec.shape), generator=g)]
    with torch.no_grad():
        found = model.log_likelihood(Batch.of(noise), rng=SampleRng(0, range(24)), samples=20)
    if "binaris" in found.preprocessing:
        ones = (levels > 127).double().mean() if "threshold" in found.preprocessing else (levels / 255).double().mean()
        entropy = -float(ones * ones.log() + (1 - ones) * (1 - ones).log())
    else:
        entropy = math.log(len(levels))
    cost = -found.nats / data.spec.dims
    assert cost.mean() > entropy - 4 * cost.std() / 24**0.5 - (0.02 if found.kind == "estimate" else 0)


class Uniform(Density):
    device = torch.device("cpu")

    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        dims = batch.x[0].numel()
        return Likelihood(torch.full((len(batch),), -dims * math.log(256), dtype=torch.float64), "exact", "", "none")


def test_the_uniform_density_of_pictures_costs_8_bits() -> None:
    data = Table(torch.zeros(5, 3, 4, 6, dtype=torch.uint8), ImageSpec(3, 4, 6))
    assert likelihood.measure(Uniform(), data, np.arange(5))["bits_per_dim"].value == pytest.approx(8, abs=1e-12)


FINE = {"flow-matching": 30}
"""Points along a side where 18 are too coarse: after so few steps its density is rough."""


@pytest.mark.parametrize("name", POINTS)
def test_a_density_of_the_plane_integrates_to_one(name: str, tmp_path: Path) -> None:
    """Exactly for what calls itself exact or an estimate of that, and to no more than that for a bound.

    A bound is one in expectation: its noise would raise the mean of its exponential, so several draws are averaged.
    """
    g = torch.Generator().manual_seed(0)
    data = Table((torch.randn(512, 2, generator=g) * 0.7 + 0.3).float(), api.open_data("two-moons").spec)
    data.labels = torch.randint(2, (512,), generator=g)
    base = recipes.default(name, "points.csv", "points")
    training = replace(base.training, steps=150, batch_size=128, precision="float32", samples=4, minutes=0.0)
    config = replace(base.config, timesteps=24) if hasattr(base.config, "timesteps") else base.config
    model = train(replace(base, config=config, training=training), data, tmp_path / "run", quiet=True).model()[0]
    assert isinstance(model, Density)
    side, reach = FINE.get(name, 18), 3.5
    axis = (torch.arange(side) + 0.5) / side * 2 * reach - reach
    x = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    found = model.log_likelihood(Batch.of(x), rng=SampleRng(0, range(len(x))), samples=1000)
    nats = found.nats
    if found.kind == "bound":
        draws = [
            model.log_likelihood(Batch.of(x), rng=SampleRng(s, range(len(x))), samples=1000).nats for s in range(12)
        ]
        nats = torch.stack(draws).mean(0)
    total = float(nats.exp().sum()) * (2 * reach / side) ** 2
    assert total < 1.05, f"{found.kind}: {total:.3f}"
    if found.kind != "bound":
        assert total > 0.95, f"{found.kind}: {total:.3f}"


class Counting(Dataset):
    """Texts that count upwards, 0123456789012..., each from a digit of its own."""

    name = fingerprint = "counting upwards"

    def __init__(self, length: int) -> None:
        self.spec = TextSpec("chars", 11, length, "0123456789")

    def __len__(self) -> int:
        return 200

    def batch(self, ids: np.ndarray, rng: object = None) -> Batch:
        index = torch.from_numpy(ids)
        assert isinstance(self.spec, TextSpec)
        return Batch((index[:, None] + torch.arange(self.spec.length + 1)) % 10, index)


@pytest.mark.parametrize("name", TEXTS)
def test_what_counts_goes_on_counting(name: str, tmp_path: Path) -> None:
    """Its own samples follow the rule as often as its predictions of given text do."""
    tiny = recipes.tiny(name)
    data = Counting(32)
    training = replace(tiny.training, steps=300, minutes=0.0, precision="float32", samples=4)
    run = train(replace(tiny, training=training), data, tmp_path / "run", quiet=True)
    model = run.model()[0]
    assert isinstance(model, Generator)
    assert isinstance(model, Density)
    batch = data.batch(np.arange(10))
    with torch.no_grad():
        nats = model.log_likelihood(batch, rng=SampleRng(0, range(10))).nats / 32
    sure = float(nats.exp().mean())
    assert sure > 0.9, "it has not learnt to count"
    drawn = model.sample(
        16, {"prompt": batch.x[:1, :5].expand(16, -1)}, rng=SampleRng(0, range(16)), options=short(model)
    )
    x = drawn.x[:, 5:]
    there = (x[:, 1:] >= 0) & (x[:, :-1] >= 0)
    right = ((x[:, 1:] - x[:, :-1]) % 10 == 1)[there].double().mean()
    assert right > sure - 0.1
