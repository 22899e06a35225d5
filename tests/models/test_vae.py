"""The VAE's mathematics: bounds against closed forms, likelihoods that sum to one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.autoencoders.vae import VAE, VAEConfig, gaussian_kl, log_ratios
from castalia.nn.likelihoods import Bernoulli, Gaussian, LogisticMixture, PixelLikelihood
from tests.tools import Table


def vae(spec: ImageSpec, **config: object) -> VAE:
    made = build(VAE, VAEConfig(**config), spec)  # type: ignore[arg-type]
    assert isinstance(made, VAE)
    return made.eval()


class LinearGaussian(PixelLikelihood):
    """x ~ N(W z + b, s^2): makes a linear VAE a probabilistic PCA (Tipping & Bishop 1999)."""

    maps, preprocessing, exact = 1, "none", True

    def __init__(self, std: float) -> None:
        self.std = std

    def target(self, x, rng):
        return x.float()

    def features(self, target):
        return target

    def log_prob(self, outputs, target):
        return (-0.5 * ((target - outputs) / self.std) ** 2 - math.log(self.std) - 0.5 * math.log(2 * math.pi)).sum(
            (-3, -2, -1)
        )

    def expected(self, outputs):
        return outputs

    def sample(self, outputs, rng):
        return outputs

    def base(self, mean, std):
        return mean


class LinearEncoder(torch.nn.Module):
    """Mean of the exact posterior times ``shrink``, deviation ``widen`` times the exact marginal deviation."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, std: float, shrink: float, widen: float) -> None:
        super().__init__()
        precision = torch.eye(weight.shape[1]) + weight.T @ weight / std**2
        self.covariance = torch.linalg.inv(precision)
        self.gain = shrink * self.covariance @ weight.T / std**2
        deviation = widen * self.covariance.diagonal().sqrt()
        self.raw = torch.log(torch.expm1(deviation - 1e-4))
        self.bias = bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = (x.flatten(1) - self.bias) @ self.gain.T
        return torch.cat([mean, self.raw.expand_as(mean)], 1)


def probabilistic_pca(shrink: float = 1.0, widen: float = 1.0) -> tuple[VAE, torch.Tensor, torch.Tensor]:
    """A linear VAE with orthogonal loadings, examples drawn from it, and their exact log-likelihoods."""
    g = torch.Generator().manual_seed(0)
    d, k, std = 12, 3, 0.5
    # orthogonal columns: the exact posterior is then a diagonal Gaussian, which the encoder can represent
    weight = torch.linalg.qr(torch.randn(d, k, generator=g))[0] * torch.tensor([1.5, 1.0, 0.6])
    bias = torch.randn(d, generator=g)
    model = vae(ImageSpec(1, 3, 4), network="dense", widths=(4,), latent_dims=k)
    model.pixels = LinearGaussian(std)
    model.encoder = LinearEncoder(weight, bias, std, shrink, widen)
    model.decoder = torch.nn.Sequential(torch.nn.Linear(k, d, bias=False), torch.nn.Unflatten(1, (1, 3, 4)))
    with torch.no_grad():
        model.decoder[0].weight.copy_(weight)
        model.base.copy_(bias.view(1, 3, 4))
    n = 40
    x = torch.randn(n, k, generator=g) @ weight.T + bias + std * torch.randn(n, d, generator=g)
    marginal = torch.distributions.MultivariateNormal(
        bias.double(), (weight @ weight.T + std**2 * torch.eye(d)).double()
    )
    return model, x.view(n, 1, 3, 4), marginal.log_prob(x.double())


def test_bound_is_exact_with_the_exact_posterior() -> None:
    model, x, exact = probabilistic_pca()
    found = model.log_likelihood(Batch.of(x), rng=SampleRng(0, range(len(x))), samples=1)
    torch.testing.assert_close(found.nats, exact, atol=2e-4, rtol=0)


def test_importance_weighting_reaches_the_closed_form() -> None:
    """Within 1e-3 nat at large K with a posterior that is wrong, and from below in expectation."""
    model, x, exact = probabilistic_pca(shrink=0.9, widen=1.2)
    few, some, many = (
        torch.stack(
            [model.log_likelihood(Batch.of(x), rng=SampleRng(s, range(len(x))), samples=k).nats for s in range(r)]
        )
        for k, r in ((1, 40), (10, 40), (20_000, 2))
    )
    gaps = [float((exact - b.mean(0)).mean()) for b in (few, some, many)]
    assert gaps[0] > gaps[1] > 0.0, "the bound must rise with K and stay below the truth in expectation"
    error = float((exact - few.mean(0)).std() / math.sqrt(len(x)))
    assert gaps[0] > 3 * error
    assert abs(gaps[2]) < 1e-3


def test_one_sample_of_the_importance_bound_is_the_plain_bound_estimate() -> None:
    """Burda et al.: with K = 1 the two bounds agree, the KL being estimated by its one sample."""
    spec = ImageSpec(1, 8, 8)
    x = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    batch, rng = Batch(x, torch.arange(6)), BatchRng(5, total=6)
    importance = vae(spec, bound="importance", samples=1)
    plain = vae(spec, bound="elbo", samples=1)
    plain.load_state_dict(importance.state_dict())
    one, _ = importance.loss(batch, rng, Progress(0, 1))
    two, logs = plain.loss(batch, rng, Progress(0, 1))
    target = plain.pixels.target(x, rng)
    mean, std = plain.posterior(target)
    noise = rng.normal("latent", 1, plain.latent_dims).transpose(0, 1)
    sampled_kl = -log_ratios(mean + std * noise, noise, std).sum(-1).mean()
    torch.testing.assert_close(one, two - logs["kl"] + sampled_kl, atol=1e-3, rtol=1e-5)


def test_analytic_kl_against_monte_carlo() -> None:
    mean, std = torch.tensor([0.3, -1.2, 0.0]), torch.tensor([0.5, 1.7, 1.0])
    noise = torch.randn(400_000, 3, generator=torch.Generator().manual_seed(1))
    z = mean + std * noise
    q = torch.distributions.Normal(mean, std).log_prob(z)
    p = torch.distributions.Normal(0.0, 1.0).log_prob(z)
    torch.testing.assert_close((q - p).mean(0), gaussian_kl(mean, std), atol=0.01, rtol=0)
    torch.testing.assert_close((p - q).sum(-1), log_ratios(z, noise, std).sum(-1), atol=1e-4, rtol=1e-4)


def test_beta_warmup_and_free_bits() -> None:
    spec = ImageSpec(1, 8, 8)
    x = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    batch, rng = Batch(x, torch.arange(6)), BatchRng(5, total=6)

    def loss(at: float = 1.0, **config: object) -> tuple[float, float, float]:
        value, logs = vae(spec, latent_dims=5, **config).loss(batch, rng, Progress(int(100 * at), 100))
        return value.item(), logs["reconstruction"].item(), logs["kl"].item()

    value, reconstruction, kl = loss(beta=4.0)
    assert value == pytest.approx(reconstruction + 4 * kl, rel=1e-5)
    value, reconstruction, kl = loss(at=0.25, warmup=0.5, beta=2.0)
    assert value == pytest.approx(reconstruction + kl, rel=1e-5)
    value, reconstruction, _ = loss(free_bits=3.0)
    assert value == pytest.approx(reconstruction + 15.0, rel=1e-5)


@pytest.mark.parametrize("wrong", [{"beta": 2.0}, {"warmup": 0.1}, {"free_bits": 0.5}], ids=lambda w: next(iter(w)))
def test_options_that_do_not_go_together_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="elbo"):
        VAEConfig(bound="importance", **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("scale", [0.05, 1.0, 6.0])
def test_logistic_mixture_sums_to_one(channels: int, scale: float) -> None:
    """Over the 256 values of every channel, given the channels before it; also for extreme outputs."""
    likelihood = LogisticMixture(channels, 4)
    g = torch.Generator().manual_seed(2)
    outputs = scale * torch.randn(1, 1, likelihood.maps, 1, 1, generator=g)
    x = torch.randint(0, 256, (1, channels, 1, 1), generator=g).to(torch.uint8)
    last = channels - 1
    # channels factorise in order: summing over the last one leaves the marginal of the others
    every = x.repeat(256, 1, 1, 1)
    every[:, last, 0, 0] = torch.arange(256, dtype=torch.uint8)
    joint = likelihood.log_prob(outputs.expand(1, 256, -1, 1, 1), likelihood.target(every, None)).double()
    if channels == 1:
        assert torch.logsumexp(joint, 1).exp().item() == pytest.approx(1.0, abs=1e-5)
        return
    # the mixture component is shared by the channels: the marginal is that of the same mixture without the last
    narrow = LogisticMixture(last, 4)
    w, m, s, c = outputs.split([4, channels * 4, channels * 4, len(likelihood.pairs) * 4], dim=2)
    kept = torch.cat([w, m[:, :, : last * 4], s[:, :, : last * 4], c[:, :, : len(narrow.pairs) * 4]], 2)
    marginal = narrow.log_prob(kept, narrow.target(x[:, :last], None)).double()
    assert torch.logsumexp(joint, 1).item() == pytest.approx(marginal.item(), abs=1e-5)


def test_logistic_mixture_samples_follow_its_probabilities() -> None:
    likelihood = LogisticMixture(1, 3)
    outputs = torch.randn(likelihood.maps, 1, 1, generator=torch.Generator().manual_seed(4)) * 1.5
    values = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)
    p = likelihood.log_prob(outputs.expand(1, 256, -1, 1, 1), likelihood.target(values, None)).exp()[0]
    n = 40_000
    drawn = likelihood.sample(outputs.expand(n, -1, 1, 1), BatchRng(0, total=n)).flatten()
    counts = torch.bincount(drawn.long(), minlength=256) / n
    assert (counts - p).abs().sum() < 0.12  # total variation of 40,000 draws over 256 values is about 0.08
    assert float((counts.cumsum(0) - p.cumsum(0)).abs().max()) < 0.01


def test_bernoulli_sums_to_one_over_all_pictures() -> None:
    outputs = torch.randn(1, 1, 1, 3, 3, generator=torch.Generator().manual_seed(3))
    bits = torch.tensor([[i >> k & 1 for k in range(9)] for i in range(512)]).view(512, 1, 3, 3)
    p = Bernoulli(1).log_prob(outputs.expand(1, 512, 1, 3, 3), bits.float())
    assert p.double().exp().sum().item() == pytest.approx(1.0, abs=1e-6)


def test_gaussian_bounds_the_probability_of_the_picture() -> None:
    """The density over the 256 bins integrates to the mass between 0 and 1."""
    likelihood = Gaussian(1)
    outputs = torch.tensor([0.5, -2.0]).view(1, 1, 2, 1, 1)
    fine = (torch.arange(256 * 40) + 0.5) / (256 * 40)
    density = likelihood.log_prob(outputs.expand(1, len(fine), 2, 1, 1), fine.view(-1, 1, 1, 1)) + math.log(256)
    assert density.double().exp().mean().item() == pytest.approx(
        math.erf(0.5 / math.exp(-2.0) / math.sqrt(2)), abs=1e-4
    )


def test_dynamic_binarisation_has_the_right_mean_and_follows_its_address() -> None:
    x = torch.full((2_000, 1, 4, 4), 64, dtype=torch.uint8)
    likelihood = Bernoulli(1)
    one = likelihood.target(x, BatchRng(0, total=2_000))
    assert set(one.unique().tolist()) == {0.0, 1.0}
    assert one.mean().item() == pytest.approx(64 / 255, abs=0.01)
    assert torch.equal(one, likelihood.target(x, BatchRng(0, total=2_000)))
    assert not torch.equal(one, likelihood.target(x, BatchRng(1, total=2_000)))
    rows = likelihood.target(x[500:1000], BatchRng(0, total=2_000, start=500, rows=500))
    assert torch.equal(rows, one[500:1000])


@pytest.mark.parametrize("size", [(28, 28), (13, 10), (33, 64)])
@pytest.mark.parametrize("network", ["conv", "dense"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "logistic"])
def test_any_size_and_likelihood(size: tuple[int, int], network: str, likelihood: str) -> None:
    spec = ImageSpec(3, *size)
    model = vae(spec, network=network, widths=(4, 8), hidden=8, likelihood=likelihood, top=4, mixtures=2)
    assert model.sample(2, rng=SampleRng(0, range(2))).x.shape == (2, 3, *size)


def test_too_many_halvings_are_refused() -> None:
    with pytest.raises(UsageError, match="too small for 4 halvings"):
        vae(ImageSpec(1, 8, 8), widths=(4, 4, 4, 4))


def test_starts_from_the_independent_pixel_model() -> None:
    g = torch.Generator().manual_seed(0)
    p = torch.rand(1, 8, 8, generator=g)
    x = (torch.rand(3_000, 1, 8, 8, generator=g) < p).to(torch.uint8) * 255
    model = vae(ImageSpec(1, 8, 8), binarise="threshold", widths=(4, 8), hidden=8)
    model.initialise(Table(x, model.spec), BatchRng(0, total=1), {})
    rates = (x.float() / 255).mean(0).clamp(0.01, 0.99)
    entropy = -(rates * rates.log() + (1 - rates) * (1 - rates).log()).sum().item()
    found = model.log_likelihood(Batch.of(x[:500]), rng=SampleRng(0, range(500)), samples=20)
    assert -found.nats.mean().item() == pytest.approx(entropy, rel=0.1)


def test_result_does_not_depend_on_how_work_is_cut_up() -> None:
    model = vae(ImageSpec(1, 8, 8))
    x = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8)
    whole = model.log_likelihood(Batch.of(x), rng=SampleRng(0, range(60)), samples=170).nats
    parts = [
        model.log_likelihood(Batch.of(x[i : i + 7]), rng=SampleRng(0, range(i, min(i + 7, 60))), samples=170).nats
        for i in range(0, 60, 7)
    ]
    np.testing.assert_allclose(whole.numpy(), torch.cat(parts).numpy(), rtol=1e-5)
