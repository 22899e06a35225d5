"""The very deep VAE: its bound, its latents both ways, its size."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from castalia import recipes
from castalia.core.data import Batch
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.sampling import Sampling
from castalia.core.specs.image import ImageSpec
from castalia.models.autoencoders.vdvae import VDVAE, VDVAEConfig
from tests.models.flows.test_layers import stir

SMALL = VDVAEConfig(
    factors=(2, 4),
    encoder=(1, 1, 1),
    decoder=(2, 1, 1),
    width=12,
    latent=2,
    bottleneck=0.5,
    likelihood="bernoulli",
    binarise="threshold",
)


def made(config: VDVAEConfig = SMALL, spec: ImageSpec | None = None, width: float = 0.1) -> VDVAE:
    model = build(VDVAE, config, spec or ImageSpec(1, 8, 8))
    assert isinstance(model, VDVAE)
    stir(model, width=width)
    return model.eval()


def pictures(n: int = 5) -> torch.Tensor:
    return torch.randint(0, 256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_latents_of_every_size() -> None:
    model = made()
    assert model.shapes == [(2, 1, 1), (2, 4, 4), (2, 8, 8), (2, 8, 8)]
    assert model.latent_dims == 2 + 32 + 2 * 128


@torch.no_grad()
def test_kl_and_ratio_are_torchs() -> None:
    model = made()
    target = model.pixels.target(pictures(), SampleRng(0, range(5)))
    for step in model.infer(target, model._noise(SampleRng(1, range(5))))[1]:
        assert step.posterior is not None
        p = torch.distributions.Normal(step.mean, step.log_std.exp())
        q = torch.distributions.Normal(step.posterior[0], step.posterior[1].exp())
        torch.testing.assert_close(step.kl(), torch.distributions.kl_divergence(q, p), atol=1e-5, rtol=1e-5)
        ratio = (p.log_prob(step.z) - q.log_prob(step.z)).flatten(1).sum(1)
        torch.testing.assert_close(step.log_ratio(), ratio, atol=1e-3, rtol=1e-4)


@torch.no_grad()
def test_what_is_encoded_is_decoded_by_the_same_path() -> None:
    """Latents of a picture, as standard normal numbers, give what its posteriors gave."""
    model = made()
    batch, rng = Batch.of(pictures()), SampleRng(2, range(5))
    target = model.pixels.target(batch.x, rng)
    for given, noise in ((None, model._noise(None)), (rng, model._noise(rng))):
        outputs, _ = model.infer(target, noise)
        again = model.outputs(model.encode(batch, rng=given))
        torch.testing.assert_close(again, outputs, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_bounds_rise_with_samples_and_one_is_unbiased() -> None:
    model, batch = made(width=0.2), Batch.of(pictures())
    several = torch.stack(
        [model.log_likelihood(batch, rng=SampleRng(s, range(5)), samples=1).nats.mean() for s in range(40)]
    )
    tight = model.log_likelihood(batch, rng=SampleRng(0, range(5)), samples=300)
    assert tight.kind == "bound"
    assert "K = 300" in tight.detail
    assert tight.nats.mean() > several.mean()
    loss, logs = model.loss(batch, BatchRng(0, total=5), Progress(0, 10))
    assert float(loss) == pytest.approx(float(logs["reconstruction"] + logs["kl"]), rel=1e-5)
    assert -float(loss) == pytest.approx(float(several.mean()), abs=5 * float(several.std()))


@torch.no_grad()
def test_the_price_of_latents_rises() -> None:
    model = made(replace(SMALL, warmup=0.5))
    losses = [model.loss(Batch.of(pictures()), BatchRng(0, total=5), Progress(s, 100)) for s in (0, 25, 50)]
    for (loss, logs), price in zip(losses, (0.0, 0.5, 1.0), strict=True):
        assert float(loss) == pytest.approx(float(logs["reconstruction"] + price * logs["kl"]), rel=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (28, 28), (5, 12)])
def test_any_size(size: tuple[int, int]) -> None:
    spec = ImageSpec(3, *size)
    model = made(replace(SMALL, likelihood="logistic", mixtures=2), spec)
    x = torch.randint(0, 256, (2, 3, *size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert model.log_likelihood(Batch.of(x), rng=SampleRng(0, range(2))).nats.isfinite().all()
    assert model.sample(2, rng=SampleRng(0, range(2))).x.shape == (2, 3, *size)


@torch.no_grad()
def test_it_begins_as_independent_pixels() -> None:
    """Priors start standard normal; so an unstirred model draws about the same picture whatever the latents."""
    model = build(VDVAE, SMALL, ImageSpec(1, 8, 8))
    assert isinstance(model, VDVAE)
    _, steps = model.descent(3, None, model._noise(SampleRng(0, range(3))))
    for step in steps:
        assert (step.mean == 0).all()
        assert (step.log_std == 0).all()


def test_the_size_of_the_paper() -> None:
    """39 million parameters for CIFAR-10 (the paper, table 1); 43 groups of latents by its configuration."""
    config = recipes.recipe("vdvae-cifar-paper").config
    with torch.device("meta"):
        model = VDVAE(config, ImageSpec(3, 32, 32))  # type: ignore[arg-type]
    total = sum(p.numel() for name, p in model.named_parameters() if name != "base")
    assert total == pytest.approx(39e6, rel=0.02)
    assert len(model.shapes) == 43
    assert model.latent_dims == 16 * (1 + 3 * 16 + 6 * 64 + 11 * 256 + 22 * 1024)


def test_bits_per_dimension_are_those_of_the_loss() -> None:
    model = made(replace(SMALL, likelihood="logistic", mixtures=2))
    with torch.no_grad():
        loss, logs = model.loss(Batch.of(pictures()), BatchRng(0, total=5), Progress(1, 1))
    assert float(logs["bits_per_dim"]) == pytest.approx(float(loss) / (64 * math.log(2)), rel=1e-5)


@torch.no_grad()
def test_draws_are_averaged() -> None:
    model, batch, rng = made(), Batch.of(pictures()), SampleRng(0, range(5))
    target, each = model.pixels.target(batch.x, rng), []
    for k in range(3):
        outputs, steps = model.infer(target, model._noise(rng.at("draw", k)))
        log_ratio = sum(step.log_ratio().double() for step in steps)
        each.append(model.pixels.log_prob(outputs[None], target)[0].double() + log_ratio)
    found = model.log_likelihood(batch, rng=rng, samples=3).nats
    torch.testing.assert_close(found, torch.logsumexp(torch.stack(each), 0) - math.log(3))


@torch.no_grad()
def test_every_posterior_sees_the_picture_and_the_prior_does_not() -> None:
    model, noise = made(), [0.0] * 4
    x = pictures(2)
    steps = model.infer(model.pixels.target(x, None), noise)[1]  # type: ignore[arg-type]
    for step in steps:
        assert step.posterior is not None
        assert all(not torch.equal(part[0], part[1]) for part in step.posterior)
    assert torch.equal(steps[0].mean[0], steps[0].mean[1])


def test_no_temperature_is_the_likeliest_path() -> None:
    model = made(width=0.3)
    cold = [model.sample(3, rng=SampleRng(seed, range(3)), options=Sampling(temperature=0.0)).x for seed in (0, 1)]
    assert torch.equal(*cold)
    assert torch.equal(cold[0], model.decode(torch.zeros(3, model.latent_dims)).x)
    assert not torch.equal(model.sample(3, rng=SampleRng(0, range(3))).x, cold[0])


@torch.no_grad()
def test_decoded_pictures_are_drawn_if_asked_and_exported_as_they_are() -> None:
    model = made()
    model.base.add_(1.0)
    z = torch.randn(3, model.latent_dims)
    assert set(model.decode(z, rng=SampleRng(0, range(3))).x.unique().tolist()) == {0, 255}
    torch.testing.assert_close(model.export_calls()["decoder"][0](z), model.outputs(z))


@pytest.mark.parametrize(
    "wrong", [{"factors": (2,)}, {"width": 0}, {"bottleneck": 0.0}, {"warmup": 2.0}, {"factors": (1, 2, 2, 2)}]
)
def test_wrong_configurations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        VDVAEConfig(**wrong)
