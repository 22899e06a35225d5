"""The voxel VAE: its networks, its bound, the paper's loss, classes, and that it learns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.shape import ShapeSpec
from castalia.media.shape.read import ShapeOptions
from castalia.media.shape.sets import open_set
from castalia.models.shapes.carvers import ShapeSampling
from castalia.models.shapes.voxel_vae import VoxelVAE, VoxelVAEConfig, log_prob, sparse_loss
from castalia.recipes import voxel_vae as recipes
from tests.tools import Table

SPEC = ShapeSpec(8, ("a", "b"))


def small(spec: ShapeSpec = SPEC, **config: Any) -> VoxelVAE:
    found = {"latent_dims": 2, "widths": (2, 4, 4, 8), "hidden": 4, "start": 4, **config}
    made = build(VoxelVAE, VoxelVAEConfig(**found), spec)
    assert isinstance(made, VoxelVAE)
    return made.eval()


def some(n: int = 6, size: int = 8) -> Batch:
    g = torch.Generator().manual_seed(0)
    x = (torch.rand(n, 1, size, size, size, generator=g) < 0.3).to(torch.uint8)
    return Batch.of(x, torch.arange(n) % 2)


def test_the_networks_of_the_paper() -> None:
    """8 x 30^3, 16 x 15^3, 32 x 13^3 and 64 x 7^3, then 343 and 100; back from 7^3 by 15^3 to 32^3."""
    recipe = recipes.paper()
    assert recipe.config == VoxelVAEConfig(loss="sparse")
    with torch.device("meta"):
        model = VoxelVAE(recipe.config, ShapeSpec(32))
        x, sizes = torch.zeros(1, 1, 32, 32, 32), []
        for layer in model.encoder.layers[:-1]:
            x = layer(x)
            sizes.append(tuple(x.shape[1:3]))
        assert sizes[::2] == [(8, 30), (16, 15), (32, 13), (64, 7)]
        assert model.decoder(torch.zeros(2, 100)).shape == (2, 1, 32, 32, 32)
    encoder = [(1, 8, 27), (8, 16, 27), (16, 32, 27), (32, 64, 27), (64 * 343, 343, 1), (343, 200, 1)]
    decoder = [(100, 343, 1), (1, 64, 27), (64, 32, 27), (32, 16, 27), (16, 8, 64), (8, 1, 27)]
    for module, layers in ((model.encoder, encoder), (model.decoder, decoder)):
        assert sum(p.numel() for p in module.parameters()) == sum(a * b * k + b for a, b, k in layers)


@pytest.mark.parametrize("size", [8, 12, 16, 20, 64])
def test_cubes_of_other_sizes_come_back_as_large(size: int) -> None:
    with torch.device("meta"):
        model = VoxelVAE(VoxelVAEConfig(), ShapeSpec(size))
        assert model.logits(torch.zeros(1, 100), None).shape == (1, 1, size, size, size)
    for wrong in (4, 10, 18):
        with pytest.raises(UsageError, match="multiple of 4"):
            VoxelVAE(VoxelVAEConfig(), ShapeSpec(wrong))


def test_the_loss_is_the_bound_and_its_parts_are_those_of_torch() -> None:
    model, batch = small(beta=0.5), some()
    loss, logs = model.loss(batch, rng := BatchRng(0, total=6), Progress(5, 10))
    mean, std = model.posterior(batch.x, None)
    z = mean + std * rng.normal("latent", 2)
    voxels = torch.distributions.Bernoulli(logits=model.logits(z, None)).log_prob(batch.x.float()).flatten(1).sum(1)
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(mean, std), torch.distributions.Normal(0, 1))
    torch.testing.assert_close(loss, (0.5 * kl.sum(1) - voxels).mean())
    torch.testing.assert_close(logs["reconstruction"], -voxels.mean())
    torch.testing.assert_close(model.posterior_kl(batch), kl)


def test_the_bound_tightens_towards_the_truth() -> None:
    """With a latent of one number the integral is done on a grid."""
    model, batch = small(latent_dims=1), some(4)
    with torch.no_grad():
        model.decoder.dense.weight.mul_(8)
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    with torch.no_grad():
        logits = model.logits(z.float()[:, None], None).flatten(1).double()
    x = batch.x.flatten(1).double()
    inside = x @ torch.nn.functional.logsigmoid(logits).T + (1 - x) @ torch.nn.functional.logsigmoid(-logits).T
    prior = -0.5 * z.square() - 0.5 * math.log(2 * math.pi)
    truth = torch.logsumexp(inside + prior, 1) + math.log(16 / 4000)
    rng = SampleRng(0, range(4))
    one, many = (model.log_likelihood(batch, rng=rng, samples=k).nats for k in (1, 400))
    assert one.mean() < truth.mean()
    assert bool((many <= truth + 0.05).all())
    torch.testing.assert_close(many, truth, atol=0.05, rtol=0)


def test_the_loss_for_sparse_voxels() -> None:
    """The paper's formula voxel by voxel; a filled voxel that is missed costs more than an empty one that is filled."""
    logits, x = torch.tensor([[-2.0, 0.0, 1.5]]), torch.tensor([[1, 0, 1]], dtype=torch.uint8)
    expected = 0.0
    for logit, filled in zip((-2.0, 0.0, 1.5), (1, 0, 1), strict=True):
        o, t = 0.1 + 0.9 / (1 + math.exp(-logit)), 3 * filled - 1
        expected -= 0.97 * t * math.log(o) + 0.03 * (1 - t) * math.log(1 - o)
    assert float(sparse_loss(logits, x, 0.97)) == pytest.approx(expected, rel=1e-5)
    sure = torch.full((1, 1), 40.0)
    missed = sparse_loss(-sure, torch.ones(1, 1), 0.97) - sparse_loss(sure, torch.ones(1, 1), 0.97)
    filled = sparse_loss(sure, torch.zeros(1, 1), 0.97) - sparse_loss(-sure, torch.zeros(1, 1), 0.97)
    assert missed.isfinite()
    assert missed > filled > 0
    model, batch = small(loss="sparse"), some()
    loss, logs = model.loss(batch, BatchRng(0, total=6), Progress(0, 10))
    assert loss.isfinite()
    said = model.log_likelihood(batch, rng=SampleRng(0, range(6))).preprocessing
    assert "trained for another cost" in said
    assert "another cost" not in small().log_likelihood(batch, rng=SampleRng(0, range(6))).preprocessing
    assert not torch.equal(logs["reconstruction"], -log_prob(torch.zeros(6, 1, 8, 8, 8), batch.x).mean())


def test_it_begins_at_how_often_each_voxel_is_filled() -> None:
    batch = some(40)
    model = small()
    model.initialise(Table(batch.x, SPEC, batch.label), BatchRng(0, total=1), {})
    shares = (batch.x.float().sum(0) + 1) / 42
    torch.testing.assert_close(model.base.sigmoid(), shares)


def test_classes_are_told_and_needed() -> None:
    model, batch = small(conditional=True), some()
    z = torch.zeros(2, 2)
    a, b = (model.logits(z, model.told(torch.full((2,), c))) for c in (0, 1))
    assert not torch.equal(a, b)
    told = model.log_likelihood(batch, rng=SampleRng(0, range(6))).nats
    other = model.log_likelihood(Batch.of(batch.x, 1 - batch.label), rng=SampleRng(0, range(6))).nats
    assert not torch.equal(told, other)
    with pytest.raises(UsageError, match="needs labels"):
        model.log_likelihood(Batch.of(batch.x), rng=SampleRng(0, range(6)))
    asked = model.sample(3, rng=SampleRng(0, range(3)), given={"label": torch.tensor([1, 1, 0])})
    assert asked.label.tolist() == [1, 1, 0]


def test_samples_follow_the_threshold_and_drawn_voxels_the_shares() -> None:
    model = small()
    few, many = (
        model.sample(4, rng=SampleRng(0, range(4)), options=ShapeSampling(threshold=t)).x.sum() for t in (0.9, 0.1)
    )
    assert few < many
    z = torch.zeros(400, 2)
    drawn = model.decode(z, rng=SampleRng(0, range(400))).x.float().mean(0)
    shares = model.logits(z[:1], None)[0].sigmoid().detach()
    assert float((drawn - shares).abs().max()) < 0.15


def test_a_few_solids_are_learnt() -> None:
    """Forty steps on 48 solids bring the bound below voxels that know nothing of one another, and the shapes back."""
    data = open_set("few-solids", ShapeOptions(size=8), "train")
    recipe = recipes.tiny()
    model = build(VoxelVAE, recipe.config, data.spec)
    model.initialise(data, BatchRng(0, total=1), {})
    batch = data.batch(np.arange(48))
    alone = -float(log_prob(model.base.detach().expand(48, -1, -1, -1, -1), batch.x).mean())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(150):
        loss, _ = model.loss(batch, BatchRng(step, total=48), Progress(step, 150))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimizer.step()
    assert float(loss.detach()) < 0.85 * alone
    back = model.decode(model.encode(batch)).x.bool()
    real = batch.x.bool()
    overlap = ((back & real).flatten(1).sum(1) / (back | real).flatten(1).sum(1)).mean()
    assert overlap > 0.6
