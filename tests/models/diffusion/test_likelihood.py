"""Likelihoods against closed forms: the bound of Gaussian data, bins that sum to one, the density along the flow."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from castalia.models.diffusion import likelihood, schedules
from castalia.models.diffusion.schedules import Discrete
from castalia.nn import bins
from castalia.nn.dequantisation import gaussian_dequantisation
from tests.models.diffusion.mixture import Mixture

MEAN, STD = 0.3, 0.7


# the variational bound


@pytest.mark.parametrize(
    ("steps", "terms"), [(1000, 1), (1000, 10), (1000, 100), (1000, 998), (1000, 5000), (4, 2), (2, 7)]
)
def test_strata_cover_every_term_once(steps: int, terms: int) -> None:
    pieces = likelihood.strata(steps, terms)
    assert len(pieces) == min(terms, steps - 1)
    assert [t for start, stop in pieces for t in range(start, stop)] == list(range(1, steps))
    widths = [stop - start for start, stop in pieces]
    assert widths[0] == min(widths)
    with pytest.raises(ValueError, match="at least one"):
        likelihood.strata(steps, 0)


def gaussian(process: Discrete):
    """The exact denoiser of N(MEAN, STD^2), by step number."""

    def predict(x: Tensor, times: Tensor) -> tuple[Tensor, None]:
        sigma = likelihood.levels_at(process, times, x)
        return MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN), None

    return predict


def density(x0: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    return -0.5 * ((x0 - mean) / deviation) ** 2 - torch.log(deviation) - 0.5 * math.log(2 * math.pi)


def bound(process: Discrete, x0: Tensor, predict, terms: int = 10_000, seed: int = 0, decoder=density, **own) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return likelihood.variational_bound(
        predict,
        x0,
        process,
        decoder,
        noise=lambda i: torch.randn(x0.shape, generator=g, dtype=x0.dtype),
        where=lambda i: torch.rand(len(x0), generator=g),
        terms=terms,
        **own,
    )


def gaussian_data(n: int = 4_000, dims: int = 3) -> Tensor:
    return MEAN + STD * torch.randn(n, dims, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def expected_bound(process: Discrete, variance: float) -> float:
    """The same bound in expectation over data and noise, per value: sums of closed forms."""
    bars = process.alpha_bars
    second = MEAN**2 + STD**2
    total = 0.5 * (bars[-1] * second - bars[-1] - math.log(1 - bars[-1]))
    error = STD**2 * process.sigmas**2 / (STD**2 + process.sigmas**2)  # mean square error of the denoiser
    for t in range(1, len(process)):
        a, b, beta = bars[t], bars[t - 1], process.betas[t]
        small = (1 - b) / (1 - a) * beta
        model = small ** (1 - variance) * beta**variance
        squared = (math.sqrt(b) * beta / (1 - a)) ** 2 * error[t]
        total += 0.5 * (math.log(model / small) + (small + squared) / model - 1)
    first = (1 - bars[0]) / (1 - bars[1]) * process.betas[1]
    last = first ** (1 - variance) * process.betas[0] ** variance
    return total + 0.5 * (math.log(2 * math.pi * last) + error[0] / last)


@pytest.mark.parametrize("variance", [0.0, 0.5, 1.0])
def test_bound_of_gaussian_data_agrees_with_its_closed_form(variance: float) -> None:
    """Ho et al.'s terms written in variance-preserving units; 4,000 examples, within 4 standard errors."""
    process = Discrete.of(schedules.linear_betas(100, 1e-3, 0.2))
    found = bound(process, gaussian_data(), gaussian(process), variance=variance, decoder_variance=variance) / 3
    exact = expected_bound(process, variance)
    assert abs(float(found.mean()) - exact) < 4 * float(found.std()) / math.sqrt(len(found))


def test_bound_of_the_ideal_denoiser_falls_to_the_entropy() -> None:
    """As T grows, the excess over the entropy falls roughly as 1/T, and stays positive (beta as variance)."""
    entropy = 0.5 * math.log(2 * math.pi * math.e * STD**2)
    excess = []
    for steps in (125, 500, 2000, 8000):
        process = Discrete.of(schedules.linear_betas(steps, 0.1 / steps, 20 / steps))
        excess.append(expected_bound(process, 1.0) - entropy)
    assert all(a > 3 * b > 0 for a, b in pairwise(excess)), excess
    assert excess[-1] < 2e-3


def test_a_random_part_of_the_terms_is_unbiased() -> None:
    """Five of a hundred terms, against all of them: means within 4 standard errors of their difference."""
    process = Discrete.of(schedules.linear_betas(100, 1e-3, 0.2))
    x0 = gaussian_data(20_000, 2)
    part = bound(process, x0, gaussian(process), terms=5, variance=1.0, decoder_variance=1.0)
    exact = 2 * expected_bound(process, 1.0)
    assert abs(float(part.mean()) - exact) < 4 * float(part.std()) / math.sqrt(len(part))
    assert float(part.std()) < 10, "the pieces keep the variance of the estimate low"


def test_terms_are_positive_and_zero_for_a_perfect_model() -> None:
    process = Discrete.of(schedules.cosine_betas(50))
    x0 = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times = torch.arange(200) % 49 + 1
    assert torch.equal(likelihood.step_kl(x0, x0, process, times, 0.0), torch.zeros_like(x0))
    off = x0 + 0.3 * torch.randn(200, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for fraction in (0.0, 0.3, 1.0, 1.4, -0.2, torch.rand(200, 2, dtype=torch.float64)):
        assert (likelihood.step_kl(x0, off, process, times, fraction) >= 0).all()
    assert (likelihood.prior_kl(x0, float(process.sigmas[-1])) >= 0).all()


def test_learned_variance_takes_its_gradient_and_leaves_the_mean_alone() -> None:
    process = Discrete.of(schedules.linear_betas(50))
    x0, denoised, fraction = torch.randn(3, 8, 2, generator=torch.Generator().manual_seed(0))
    denoised.requires_grad_()
    fraction = fraction.sigmoid().requires_grad_()
    times = torch.arange(8) + 1
    likelihood.step_kl(x0, denoised, process, times, fraction, stop_mean=True).sum().backward()
    assert denoised.grad is None
    assert fraction.grad is not None
    assert fraction.grad.abs().min() > 0


# bins


def test_bins_of_a_normal_are_exact_in_both_tails() -> None:
    """Against 60 digits, also where the plain difference of distribution functions has none left."""
    import mpmath

    mpmath.mp.dps = 400  # 1 - Phi(40) is 1e-350
    edges = [-40.0, -12.0, -3.0, -0.01, 0.0, 0.02, 4.0, 11.0, 39.0]
    lower, upper = torch.tensor(edges[:-1], dtype=torch.float64), torch.tensor(edges[1:], dtype=torch.float64)
    found = bins.log_normal_bin(lower, upper).numpy()
    expected = [float(mpmath.log(mpmath.ncdf(b) - mpmath.ncdf(a))) for a, b in pairwise(edges)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    mirrored = bins.log_normal_bin(-upper, -lower).numpy()
    np.testing.assert_allclose(mirrored, found, rtol=1e-13)
    narrow = bins.log_normal_bin(torch.tensor(30.0), torch.tensor(30.0 + 1e-6, dtype=torch.float64))
    assert float(narrow) == pytest.approx(float(mpmath.log(mpmath.npdf(30.0000005))) + math.log(1e-6), abs=1e-6)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("deviation", [1e-3, 0.01, 1.0, 50.0])
@pytest.mark.parametrize("mean", [-30.0, -1.0, 0.123, 1.0, 4.0])
def test_decoder_sums_to_one_over_all_values(levels: int, deviation: float, mean: float) -> None:
    x0 = torch.linspace(-1, 1, levels, dtype=torch.float64)
    log_p = bins.uniform_bins(levels)(x0, torch.tensor(mean), torch.tensor(deviation))
    assert float(torch.logsumexp(log_p, 0)) == pytest.approx(0.0, abs=1e-10)


def test_decoder_has_finite_gradients_at_its_open_ends() -> None:
    mean = torch.tensor([-1.5, 0.2, 1.0], requires_grad=True)
    deviation = torch.tensor(0.01, requires_grad=True)
    x0 = torch.tensor([-1.0, 1.0, 1.0])
    (-bins.uniform_bins(17)(x0, mean, deviation)).sum().backward()
    assert mean.grad is not None
    assert mean.grad.isfinite().all()
    assert deviation.grad is not None
    assert deviation.grad.isfinite()


def test_probabilities_of_all_pictures_of_two_pixels_sum_to_at_most_one() -> None:
    """A bound on log p is a lower bound on p: summed over the 25 pictures of 5 levels it cannot exceed 1."""
    levels = torch.linspace(-1, 1, 5, dtype=torch.float64)
    pictures = torch.cartesian_prod(levels, levels)
    weights = torch.softmax(torch.randn(25, generator=torch.Generator().manual_seed(0), dtype=torch.float64), 0)
    process = Discrete.of(schedules.linear_betas(1000))

    def predict(x: Tensor, times: Tensor) -> tuple[Tensor, None]:
        sigma = likelihood.levels_at(process, times, x)
        distance = (x[:, None] - pictures).square().sum(-1) / (2 * sigma**2)
        return torch.softmax(weights.log() - distance, 1) @ pictures, None

    found = bound(process, pictures.repeat(20, 1), predict, decoder=bins.uniform_bins(5))
    p = (-found.view(20, 25).mean(0)).exp()
    assert 0.9 < float(p.sum()) < 1.0
    assert float((p.log() - weights.log()).abs().max()) < 0.6, "the ideal denoiser comes close to the truth"


# the probability flow


def test_flow_density_within_1e_4_nat_at_200_steps() -> None:
    """Against the mixture's own density at the lowest level; with the exact density at the highest one.

    With N(0, 80^2) there instead, what is left is the truncation, reported apart: it does not fall with more steps.
    """
    mixture = Mixture()
    x = mixture.sample(200)
    errors = {}
    for steps in (100, 200):
        sigmas = schedules.karras_sigmas(steps + 1, 0.002, 80.0)[-2::-1]
        found = likelihood.flow_log_density(mixture.denoise, x, sigmas, prior=lambda y: mixture.log_density(y, 80.0))
        errors[steps] = float((found - mixture.log_density(x, 0.002)).abs().max())
    assert errors[200] < 1e-4, errors
    assert errors[100] > 10 * errors[200], "fourth order"
    truncated = likelihood.flow_log_density(mixture.denoise, x, sigmas)
    floor = float((truncated - mixture.log_density(x, 0.002)).abs().max())
    assert 1e-4 < floor < 0.05


def test_hutchinson_is_unbiased_and_exact_for_linear_flows() -> None:
    """Mean over 60 probes within 4 standard errors; Rademacher probes are exact where the Jacobian is diagonal."""
    mixture = Mixture()
    x = mixture.sample(6)
    sigmas = schedules.logistic_sigmas(21, 0.002, 80.0)[-2::-1]
    exact = likelihood.flow_log_density(mixture.denoise, x, sigmas)
    g = torch.Generator().manual_seed(0)
    many = torch.stack(
        [
            likelihood.flow_log_density(
                mixture.denoise, x, sigmas, probes=[torch.randn(x.shape, generator=g, dtype=torch.float64)]
            )
            for _ in range(60)
        ]
    )
    assert ((many.mean(0) - exact).abs() < 4 * many.std(0) / 7).all()
    signs = torch.randint(0, 2, x.shape, generator=g).double() * 2 - 1
    linear = lambda x, sigma: MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN)  # noqa: E731
    one = likelihood.flow_log_density(linear, x, sigmas, probes=[signs])
    torch.testing.assert_close(one, likelihood.flow_log_density(linear, x, sigmas), rtol=1e-12, atol=1e-12)


def test_flow_density_of_gaussian_data() -> None:
    """N(MEAN, STD^2 + low^2) in 5 dimensions, within 1e-5 nat; the truncation at the top is N(0, high^2)'s own error."""
    x = gaussian_data(50, 5)
    sigmas = schedules.log_sigmas(201, 0.01, 200.0)[-2::-1]
    exact = lambda x, sigma: density(x, torch.tensor(MEAN), torch.tensor(math.hypot(STD, sigma))).sum(1)  # noqa: E731

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN)

    found = likelihood.flow_log_density(denoise, x, sigmas, prior=lambda y: exact(y, 200.0))
    assert float((found - exact(x, 0.01)).abs().max()) < 1e-5
    truncated = likelihood.flow_log_density(denoise, x, sigmas)
    assert 1e-4 < float((truncated - exact(x, 0.01)).abs().max()) < 0.02


@pytest.mark.parametrize("ratio", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("levels", [2, 5])
def test_gaussian_dequantisation_gives_probabilities(levels: int, ratio: float) -> None:
    """For pixels of known probability: the mean of exp(log p(y) + ...) over the noise sums to 1, and is a bound's due.

    Where the noise is a tenth of the distance between values, the bound is tight to 1e-4.
    """
    gap = 2 / (levels - 1)
    values = torch.linspace(-1, 1, levels, dtype=torch.float64)
    weights = torch.softmax(torch.arange(levels, dtype=torch.float64), 0)
    z = torch.randn(levels, 40_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    totals, bounds = [], []
    for value, noise in zip(values, z, strict=True):
        x0 = value.expand(len(noise), 1)
        y, change = gaussian_dequantisation(x0, noise[:, None], ratio * gap, levels)
        log_q = -0.5 * ((y - values) / (ratio * gap)) ** 2 - math.log(ratio * gap) - 0.5 * math.log(2 * math.pi)
        found = torch.logsumexp(weights.log() + log_q, 1) + change
        totals.append(found.exp().mean())
        bounds.append(found.mean())
    assert float(torch.stack(totals).sum()) == pytest.approx(1.0, abs=0.02)
    below = weights.log() - torch.stack(bounds)
    assert float((weights * below).sum()) > -1e-6
    if ratio == 0.1:
        assert float(below.abs().max()) < 1e-4
