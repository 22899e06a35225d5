import math

import numpy as np
import pytest
import torch

from castalia.core.errors import UsageError
from castalia.estimators.mixtures import Bernoullis, DiagonalGaussians, FullGaussians, log_bin_mass
from castalia.evaluation.baselines import BaseRates, BestMixture, IndependentPixels, baselines, mixture_target

from .toys import Pictures, all_ids, random_pictures


def digits():
    from sklearn.datasets import load_digits

    return torch.from_numpy(load_digits().data.astype(np.uint8)).view(-1, 1, 8, 8)


def test_histogram_sums_to_one_and_never_gives_zero():
    x = torch.zeros(20, 3, 4, 4, dtype=torch.uint8)
    x[:, 1] = 255
    fitted = IndependentPixels.fit(x)
    assert fitted.probability.shape == (48, 256)
    assert torch.allclose(fitted.probability.sum(1), torch.ones(48, dtype=torch.float64))
    assert (fitted.probability > 0).all()
    assert fitted.nats(x).mean() / 48 < 0.1


def test_histogram_of_uniform_values_reaches_eight_bits():
    x = torch.arange(256, dtype=torch.uint8).repeat(40)[
        torch.randperm(10240, generator=torch.Generator().manual_seed(0))
    ]
    pictures = x.view(-1, 1, 1, 1)
    bits = IndependentPixels.fit(pictures[:8000]).nats(pictures[8000:]).mean() / math.log(2)
    assert float(bits) == pytest.approx(8.0, abs=0.05)


def test_known_answer_on_digits_with_17_levels():
    # measured with other code on another 1,297 / 500 split: independent 2.436, Gaussian mixture 2.636 bits/dim
    x = digits()
    pixels = IndependentPixels.fit(x[:1297], levels=17)
    assert float(pixels.nats(x[1297:]).mean()) / 64 / math.log(2) == pytest.approx(2.436, abs=0.06)
    best = BestMixture.fit(x[:1297], "none", levels=17)
    target = mixture_target(type(best.mixture), x[1297:], np.arange(500), "none", 0)
    assert -float(best.mixture.log_prob(target, best.strength).mean()) / 64 / math.log(2) < 2.636


def test_bin_masses_sum_to_one_even_far_out():
    level = torch.arange(256, dtype=torch.float64)[:, None]
    mean = torch.tensor([-4000.0, 0.0, 17.3, 255.0, 9000.0, 128.0], dtype=torch.float64)
    for std in (0.3, 5.0, 1e4):
        mass = log_bin_mass(level, mean, torch.full((6,), std, dtype=torch.float64), 256)
        assert torch.isfinite(mass).all()
        assert torch.allclose(mass.exp().sum(0), torch.ones(6, dtype=torch.float64), atol=1e-12)


def test_bin_mass_agrees_with_scipy():
    from scipy.stats import norm

    x = torch.tensor([3.0, 90.0, 200.0], dtype=torch.float64)
    mass = log_bin_mass(x, torch.tensor(100.0).double(), torch.tensor(12.0).double(), 256)
    expected = np.log(norm.cdf(x + 0.5, 100, 12) - norm.cdf(x - 0.5, 100, 12))
    assert np.allclose(mass[:2], expected[:2], rtol=1e-6)
    # beyond the mean scipy's difference loses its digits; by symmetry 200 mirrors 0
    mirrored = np.log(norm.cdf(0.5, 100, 12) - norm.cdf(-0.5, 100, 12))
    assert float(mass[2]) == pytest.approx(mirrored, rel=1e-9)


def test_discretised_mixture_sums_to_one_and_both_ways_of_scoring_agree():
    g = torch.Generator().manual_seed(0)
    x = (torch.randn(60, 2, generator=g) * 30 + 100).round().clamp(0, 255).double()
    mixture = DiagonalGaussians(x, 3, 256, 0)
    every = torch.stack(torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij"), -1).view(-1, 2).double()
    table = mixture.log_prob(every, 2.0)
    assert float(table.exp().sum()) == pytest.approx(1.0, abs=1e-9)
    assert torch.allclose(mixture.log_prob(every[:200], 2.0), table[:200], atol=1e-10)


def test_one_gaussian_is_the_maximum_likelihood_gaussian():
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)).double() * 20 + 90
    diagonal = DiagonalGaussians(x, 1, 256, 0)
    assert torch.allclose(diagonal.mean[0], x.mean(0), atol=1e-4)
    assert torch.allclose(diagonal.std[0], x.std(0, correction=0), atol=1e-4)
    full = FullGaussians(x, 1, 256, 0)
    cov = x.T.cov(correction=0) + torch.eye(3, dtype=torch.float64) * 4.0**2
    expected = torch.distributions.MultivariateNormal(x.mean(0), cov).log_prob(x)
    assert torch.allclose(full.log_prob(x, 4.0), expected, atol=1e-8)


def test_full_gaussian_with_fewer_examples_than_pixels():
    x = torch.randn(10, 40, generator=torch.Generator().manual_seed(0)).double() * 20 + 90
    cov = x.T.cov(correction=0) + torch.eye(40, dtype=torch.float64) * 8.0**2
    expected = torch.distributions.MultivariateNormal(x.mean(0), cov).log_prob(x + 3)
    assert torch.allclose(FullGaussians(x, 1, 256, 0).log_prob(x + 3, 8.0), expected, atol=1e-7)


def test_correlated_pixels_make_the_full_covariance_win():
    g = torch.Generator().manual_seed(0)
    x = (128 + 30 * torch.randn(400, 1, 1, 1, generator=g) + 3 * torch.randn(400, 1, 4, 4, generator=g)).clamp(0, 255)
    best = BestMixture.fit(x.round().to(torch.uint8), "none")
    assert isinstance(best.mixture, FullGaussians)
    assert len(best.tried) == 2


def test_base_rates_are_exact_in_expectation_under_dynamic_binarisation():
    grey = torch.rand(200, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    fitted = BaseRates.fit(grey)
    assert ((fitted.rate > 0) & (fitted.rate < 1)).all()
    drawn = (torch.rand(4000, *grey.shape[1:], generator=torch.Generator().manual_seed(1)) < grey[:1]).float()
    assert float(fitted.nats(drawn).mean()) == pytest.approx(float(fitted.nats(grey[:1])[0]), abs=0.05)
    constant = BaseRates.fit(torch.zeros(50, 1, 2, 2))
    assert 0 < float(constant.nats(torch.zeros(1, 1, 2, 2))[0]) < 0.05
    assert math.isfinite(float(constant.nats(torch.ones(1, 1, 2, 2))[0]))


def test_bernoulli_mixture_sums_to_one_and_finds_two_patterns():
    pattern = torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1]]).double()
    x = pattern[torch.arange(200) % 2]
    mixture = Bernoullis(x, 2, 2, 0)
    every = torch.tensor([[i >> b & 1 for b in range(8)] for i in range(256)]).double()
    assert float(mixture.log_prob(every, 0.1).exp().sum()) == pytest.approx(1.0)
    assert -float(mixture.log_prob(x, 0.1).mean()) == pytest.approx(math.log(2), abs=0.1)


def test_both_baselines_in_both_units():
    train, data = random_pictures(60, seed=1), random_pictures(30, seed=2)
    out = baselines(train, data, all_ids(data))
    assert set(out) == {f"baseline_{kind}_{unit}" for kind in ("pixels", "mixture") for unit in ("nll", "bits_per_dim")}
    assert out["baseline_pixels_nll"].value == pytest.approx(
        out["baseline_pixels_bits_per_dim"].value * 4 * math.log(2)
    )
    assert out["baseline_pixels_bits_per_dim"].value == pytest.approx(8.0, abs=0.3)
    assert "Gaussians" in out["baseline_mixture_nll"].detail
    binary = baselines(train, data, all_ids(data), binarise="dynamic")
    assert binary["baseline_pixels_bits_per_dim"].unit == "bits/dim of binary values"
    assert binary["baseline_mixture_nll"].unit == "nats of binary values"
    assert binary["baseline_pixels_bits_per_dim"].value == pytest.approx(1.0, abs=0.1)
    with pytest.raises(UsageError):
        baselines(Pictures(torch.zeros(5, 1, 3, 3, dtype=torch.uint8)), data, all_ids(data))


def test_baselines_are_measured_over_the_values_that_the_model_knows():
    """Uniform pictures of 17 greys: log2(17) = 4.087 bits over 17 values, which 256 would make likelier in no way.

    On the 8x8 digits the mixture has 2.4 bits/dim over 17 values and 4.1 over 256: beside a model's likelihood over 17
    the latter flatters the model by 1.7.
    """
    greys = torch.tensor([round(255 * i / 16) for i in range(17)], dtype=torch.uint8)
    values = tuple(greys.tolist())
    g = torch.Generator().manual_seed(0)
    train, data = (Pictures(greys[torch.randint(0, 17, (n, 1, 2, 2), generator=g)]) for n in (4000, 500))
    out = baselines(train, data, all_ids(data), values=values)
    assert out["baseline_pixels_bits_per_dim"].value == pytest.approx(math.log2(17), abs=0.02)
    assert out["baseline_mixture_bits_per_dim"].value == pytest.approx(math.log2(17), abs=0.15)
    assert out["baseline_mixture_nll"].unit == "nats of 17 values"
    assert out["baseline_pixels_bits_per_dim"].unit == "bits/dim of 17 values"
    assert "over the 17 values" in out["baseline_mixture_nll"].detail
    # what nobody can be better at than by knowing the values: the mixture over 256 does not know them
    over_256 = baselines(train, data, all_ids(data))["baseline_mixture_bits_per_dim"].value
    assert over_256 > math.log2(17) + 1


def test_baselines_on_the_digits_over_17_values():
    x = (digits().float() * 255 / 16).round().to(torch.uint8)
    values = tuple(x.unique().tolist())
    assert len(values) == 17
    train, data = Pictures(x[:1297]), Pictures(x[1297:])
    out = baselines(train, data, all_ids(data), values=values)
    assert out["baseline_pixels_bits_per_dim"].value == pytest.approx(2.436, abs=0.06)
    assert out["baseline_mixture_bits_per_dim"].value < 2.636


def test_baseline_sees_the_same_binary_pictures_as_the_model():
    from castalia.core.rng import SampleRng
    from castalia.nn.likelihoods import Bernoulli

    data = random_pictures(6)
    ids = all_ids(data)
    seen = Bernoulli(1).target(data.x, SampleRng(3, ids.tolist()))
    assert torch.equal(mixture_target(Bernoullis, data.x, ids, "dynamic", 3).float(), seen.flatten(1))
