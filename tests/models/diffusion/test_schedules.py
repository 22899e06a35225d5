"""Schedules: tables against their formulas, conversions against each other, step numbers against their definition."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from castalia.core.errors import UsageError
from castalia.models.diffusion import schedules as s

BETAS = {
    "linear": s.linear_betas(1000),
    "cosine": s.cosine_betas(1000),
    "scaled": s.scaled_linear_betas(1000),
    "zero": s.zero_terminal_snr(s.linear_betas(1000)),
}


def test_linear_and_cosine_are_those_of_the_papers() -> None:
    linear = s.linear_betas(1000)
    assert (linear[0], linear[-1]) == (1e-4, 0.02)
    assert s.alpha_bars_of(linear)[-1] == pytest.approx(4.0358e-5, rel=1e-4)  # Ho et al.: KL at T about 1e-5 bits/dim
    cosine = s.cosine_betas(4000)
    assert cosine.max() == 0.999
    bars = s.alpha_bars_of(cosine)
    t = np.arange(1, 3990)
    expected = np.cos((t / 4000 + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    np.testing.assert_allclose(bars[:3989], expected, rtol=1e-10)


def test_zero_terminal_snr_ends_without_signal_and_keeps_its_start() -> None:
    for betas in (s.linear_betas(1000), s.scaled_linear_betas(1000), s.cosine_betas(50)):
        before, after = s.alpha_bars_of(betas), s.alpha_bars_of(s.zero_terminal_snr(betas))
        assert after[-1] == 0
        assert after[0] == pytest.approx(before[0], rel=1e-12)
        assert (np.diff(after) < 0).all()
        # the square roots are an affine map of the old ones
        a, b = np.sqrt(before), np.sqrt(after)
        np.testing.assert_allclose(np.diff(b) / np.diff(a), np.full(len(a) - 1, np.diff(b)[0] / np.diff(a)[0]))


@pytest.mark.parametrize("name", BETAS)
def test_levels_and_signal_shares_are_inverse(name: str) -> None:
    process = s.Discrete.of(BETAS[name])
    assert (np.diff(process.sigmas) > 0).all()
    assert np.isfinite(process.sigmas).all()
    for t in (0, 1, 500, 999):
        sigma = float(process.sigmas[t])
        assert s.alpha_bar_of(sigma) == pytest.approx(process.alpha_bars[t], rel=1e-9)
        assert s.sigma_of(process.alpha_bars[t]) == pytest.approx(sigma, rel=1e-9)
        assert process.time(sigma) == t, "exactly, on the table"
        assert process.sigma(t) == sigma
    for t in (0.25, 500.5, 998.75):
        assert process.time(process.sigma(t)) == pytest.approx(t, abs=1e-8)
    assert process.time(1e-9) == 0
    assert process.time(1e9) == 999


def test_bad_betas_are_refused() -> None:
    for wrong in (np.array([]), np.array([0.1, 0.0]), np.array([1.1]), np.array([1.0, 1.0])):
        with pytest.raises(ValueError):
            s.Discrete.of(wrong)


def test_timesteps() -> None:
    assert s.timesteps(1000, 4, "leading") == [750, 500, 250, 0]
    assert s.timesteps(1000, 4, "leading", offset=1) == [751, 501, 251, 1]
    assert s.timesteps(1000, 4, "trailing") == [999, 749, 499, 249]
    assert s.timesteps(1000, 4, "linspace") == [999, 666, 333, 0]
    assert s.timesteps(1000, 1, "linspace") == [999]
    for count in (1, 3, 7, 333, 500, 999, 1000):
        for spacing in ("leading", "trailing", "linspace"):
            found = s.timesteps(1000, count, spacing)  # type: ignore[arg-type]
            assert len(set(found)) == count
            assert found == sorted(found, reverse=True)
    for wrong in (0, 1001):
        with pytest.raises(UsageError, match="1 to 1000"):
            s.timesteps(1000, wrong, "leading")
    with pytest.raises(UsageError, match="offset"):
        s.timesteps(1000, 1000, "leading", offset=1)


@pytest.mark.parametrize("make", [s.karras_sigmas, s.log_sigmas, s.logistic_sigmas])
def test_grids(make) -> None:
    for count in (1, 2, 18):
        grid = make(count, 0.002, 80.0)
        assert len(grid) == count + 1
        assert grid[0] == 80.0
        assert grid[-1] == 0.0
        assert all(a > b for a, b in pairwise(grid))
        assert count == 1 or grid[-2] == 0.002
    with pytest.raises(UsageError, match="at least one"):
        make(0, 0.002, 80.0)
    karras = s.karras_sigmas(18, 0.002, 80.0)
    assert karras[9] == pytest.approx((80 ** (1 / 7) + 9 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7)
    log = np.log(s.log_sigmas(18, 0.002, 80.0)[:-1])
    np.testing.assert_allclose(np.diff(log), np.full(17, math.log(0.002 / 80) / 17))
    logistic = np.array(s.logistic_sigmas(18, 0.002, 80.0, centre=0.5, width=2.0)[:-1])
    u = 1 / (1 + (0.5 / logistic) ** 0.5)
    np.testing.assert_allclose(np.diff(u), np.full(17, (u[-1] - u[0]) / 17))


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_every_prediction_gives_the_clean_example_back(prediction) -> None:
    g = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 50, generator=g, dtype=torch.float64)
    for value in (0.01, 0.5, 1.0, 3.0, 150.0):
        sigma = torch.tensor(value, dtype=torch.float64)
        skip, out, inner = s.scalings(prediction, sigma)
        x = x0 + sigma * eps
        torch.testing.assert_close(skip * x + out * s.target(prediction, x0, eps, sigma), x0, rtol=1e-10, atol=1e-10)
        assert float(inner) == pytest.approx(math.sqrt(s.alpha_bar_of(value)))


def test_v_is_that_of_the_paper() -> None:
    """Salimans & Ho: v = alpha eps - sigma x, in variance-preserving units."""
    x0, eps, sigma = torch.tensor(0.7), torch.tensor(-1.2), torch.tensor(2.0)
    bar = s.alpha_bar_of(2.0)
    expected = math.sqrt(bar) * -1.2 - math.sqrt(1 - bar) * 0.7
    assert s.target("v", x0, eps, sigma).item() == pytest.approx(expected, rel=1e-6)


def test_preconditioning_gives_input_and_target_variance_one() -> None:
    """Karras et al., appendix B.6, for data of deviation 0.5, by Monte Carlo within 1 %."""
    g = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 400_000, generator=g, dtype=torch.float64)
    for value in (0.002, 0.3, 5.0, 80.0):
        sigma = torch.tensor(value, dtype=torch.float64)
        skip, out, inner = s.edm_scalings(sigma, 0.5)
        x = 0.5 * x0 + sigma * eps
        assert float((inner * x).var()) == pytest.approx(1, abs=0.01)
        assert float(((0.5 * x0 - skip * x) / out).var()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_step_variances_are_those_of_ddpm(name: str) -> None:
    """Ho et al., eq. 7, divided by abar of the step that is gone to (the units of the variance-exploding picture)."""
    process = s.Discrete.of(BETAS[name])
    for t in (1, 2, 500, 999):
        bar, before, beta = process.alpha_bars[t], process.alpha_bars[t - 1], process.betas[t]
        levels = float(process.sigmas[t]), float(process.sigmas[t - 1])
        small, large = (1 - before) / (1 - bar) * beta / before, beta / before
        assert s.posterior_variance(*levels) == pytest.approx(small, rel=1e-8)
        assert s.beta_variance(*levels) == pytest.approx(large, rel=1e-8)
        assert s.step_deviation(*levels, 0.0) == pytest.approx(math.sqrt(small), rel=1e-8)
        assert s.step_deviation(*levels, 1.0) == pytest.approx(math.sqrt(large), rel=1e-8)
        learned = s.step_deviation(*levels, torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64))
        expected = [small**0.5, small**0.35 * large**0.15, large**0.5]
        np.testing.assert_allclose(learned.numpy(), expected, rtol=1e-8)
