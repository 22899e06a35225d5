"""The inverse autoregressive flow: the density of its posterior, its bound, its size."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from castalia.core.data import Batch
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.autoencoders.iaf import IAF, IAFConfig
from castalia.models.autoencoders.vae import VAE, VAEConfig, gaussian_kl
from castalia.recipes import iaf as recipes
from tests.models.flows.test_layers import log_det, stir

SPEC = ImageSpec(1, 8, 8)
SMALL = IAFConfig(network="dense", latent_dims=3, widths=(16,), flow_widths=(12,), context=4, steps=3, free_bits=0.0)


def made(config: IAFConfig = SMALL) -> IAF:
    model = build(IAF, config, SPEC)
    assert isinstance(model, IAF)
    stir(model, width=0.3)
    return model.eval()


def pictures(n: int = 5) -> torch.Tensor:
    return torch.randint(0, 256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@torch.no_grad()
def test_the_density_of_the_posterior() -> None:
    """log q(z | x) = log N(e) - log |det dz/de|, with autograd's Jacobian."""
    model = made()
    target = model.pixels.target(pictures(1), SampleRng(0, [0]))
    propose = model.proposals(target)
    noise = torch.randn(4, 1, 3)
    normal = torch.distributions.Normal(0.0, 1.0)
    for e in noise:
        z, ratios = propose(e[None])
        change = log_det(lambda v: propose(v[None, None])[0][0], e[0])
        log_q = normal.log_prob(e).sum() - change
        assert float(normal.log_prob(z).sum() - log_q - ratios.sum()) == pytest.approx(0.0, abs=1e-4)


def test_without_steps_it_is_a_vae() -> None:
    """The same weights, draws and bound."""
    config = replace(SMALL, steps=0)
    model = made(config)
    plain = build(VAE, VAEConfig(network="dense", latent_dims=3, widths=(16,)), SPEC)
    assert isinstance(plain, VAE)
    own = model.state_dict()
    last = [name for name in own if name.startswith("encoder") and name.endswith("weight")][-1].removesuffix("weight")
    for end in ("weight", "bias"):
        own[last + end] = own[last + end][:6]  # without the context
    plain.load_state_dict(own)
    batch, rng = Batch.of(pictures()), SampleRng(3, range(5))
    for samples in (1, 20):
        one = model.log_likelihood(batch, rng=rng, samples=samples).nats
        torch.testing.assert_close(one, plain.eval().log_likelihood(batch, rng=rng, samples=samples).nats)


def test_more_samples_tighten_the_bound() -> None:
    model = made()
    batch, rng = Batch.of(pictures()), SampleRng(0, range(5))
    bounds = [model.log_likelihood(batch, rng=rng, samples=k).nats.mean() for k in (1, 50, 2_000)]
    assert bounds[0] < bounds[1] < bounds[2]


@torch.no_grad()
def test_the_loss_is_the_negative_bound() -> None:
    model = made(replace(SMALL, samples=400))
    batch, progress = Batch.of(pictures()), Progress(0, 10)
    loss, logs = model.loss(batch, BatchRng(0, total=5), progress)
    assert float(loss) == pytest.approx(float(logs["reconstruction"] + logs["kl"]), rel=1e-5)
    weighted = made(replace(SMALL, bound="importance", samples=400))
    bound = -weighted.loss(batch, BatchRng(0, total=5), progress)[0]
    assert bound > -loss


def test_every_step_begins_near_the_identity() -> None:
    model = build(IAF, SMALL, SPEC)
    assert isinstance(model, IAF)
    target = model.pixels.target(pictures(1), SampleRng(0, [0]))
    mean, std = model.posterior(target)
    noise = torch.randn(10, 1, 3)
    z, _ = model.proposals(target)(noise)
    gate = 1 / (1 + math.exp(-3.0))
    torch.testing.assert_close(z, gate**3 * (mean + std * noise))


def test_the_size_of_the_paper() -> None:
    """Eight masked networks of 32 - 1920 - 1920 - 64 with a context of 1,920."""
    with torch.device("meta"):
        model = IAF(recipes.mnist_paper().config, ImageSpec(1, 28, 28))  # type: ignore[arg-type]
    step = 32 * 1920 + 1920 + 1920**2 + 1920 + 1920 * 64 + 64 + 1920 * (1920 + 64)
    assert sum(p.numel() for p in model.flow.parameters()) == 8 * step


def test_orders_take_turns() -> None:
    """A latent is moved by those before it, in the next step by those behind it."""
    model = made()
    for number, step in enumerate(model.flow):
        slopes = torch.autograd.functional.jacobian(
            lambda z, step=step: step(z, torch.ones(1, 4))[0], torch.randn(1, 3)
        )
        for part in slopes[:, 0].split(3):  # type: ignore[index]  # means, then gates
            seen = part if number % 2 == 0 else part.flip(0, 1)
            assert (seen.triu() == 0).all()
            assert all(float(seen[i, j]) != 0 for i, j in ((1, 0), (2, 0), (2, 1)))


@torch.no_grad()
def test_some_of_the_price_is_free_and_it_rises() -> None:
    batch, rng = Batch.of(pictures()), BatchRng(0, total=5)
    model = made(replace(SMALL, free_bits=1e3))
    loss, logs = model.loss(batch, rng, Progress(0, 10))
    assert float(loss) == pytest.approx(float(logs["reconstruction"]) + 3e3, rel=1e-5)
    model = made(replace(SMALL, warmup=0.5, beta=2.0))
    for step, price in ((0, 0.0), (25, 1.0), (80, 2.0)):
        loss, logs = model.loss(batch, rng, Progress(step, 100))
        assert float(loss) == pytest.approx(float(logs["reconstruction"] + price * logs["kl"]), rel=1e-5)


def test_the_price_of_each_latent_is_about_the_vaes_where_there_is_no_flow() -> None:
    model = made(replace(SMALL, steps=0))
    found = model.posterior_kl(Batch.of(pictures()))
    exact = gaussian_kl(*model.posterior(model.pixels.target(pictures(), None))).detach()
    assert found.shape == (5, 3)
    assert float(found.sum()) == pytest.approx(float(exact.sum()), rel=0.2)


@torch.no_grad()
def test_where_steps_begin_and_what_is_encoded() -> None:
    model = build(IAF, replace(SMALL, keep=0.5), SPEC)
    assert isinstance(model, IAF)
    rng, x = SampleRng(0, range(5)), pictures()
    target = model.pixels.target(x, rng)
    mean, std = model.posterior(target)
    gate = (1 / (1 + math.exp(-0.5))) ** 3
    noise = rng.normal("latent", 3)
    torch.testing.assert_close(model.encode(Batch.of(x), rng=rng), gate * (mean + std * noise))
    mean, _ = model.posterior(model.pixels.target(x, None))
    torch.testing.assert_close(model.encode(Batch.of(x)), gate * mean)


@torch.no_grad()
def test_the_plain_start_takes_one_sample() -> None:
    batch, rng = Batch.of(pictures()), BatchRng(0, total=5)
    start = made(replace(SMALL, bound="importance", samples=7, plain_first=0.5))
    plain = made(SMALL).loss(batch, rng, Progress(1, 10))[0]
    torch.testing.assert_close(start.loss(batch, rng, Progress(1, 10))[0], plain)
    assert not torch.equal(start.loss(batch, rng, Progress(6, 10))[0], plain)


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"flow_widths": ()}, {"context": 0}, {"latent_dims": 0}])
def test_wrong_configurations_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        IAFConfig(**wrong)  # type: ignore[arg-type]
