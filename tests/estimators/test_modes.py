import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from castalia.core.errors import UsageError
from castalia.estimators.modes import expected_shares, kl_divergence, mixture_modes

CENTRES = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])


def test_a_mode_is_covered_by_one_sample_within_reach():
    x = torch.tensor([[0.29, 0.0], [0.31, 0.0], [2.0, 0.31], [0.0, 2.2], [0.0, 2.1], [9.0, 9.0]])
    found = mixture_modes(x, CENTRES, 0.1)
    assert found.nearest.tolist() == [0, 0, 1, 2, 2, 1]
    assert found.good.tolist() == [True, False, False, True, True, False]
    assert found.counts.tolist() == [2, 2, 2]
    assert found.covered == 2
    assert mixture_modes(x, CENTRES, 0.1, reach=3.2).covered == 3


def test_the_share_within_reach_is_that_of_the_chi_distribution():
    g = torch.Generator().manual_seed(0)
    which = torch.randint(3, (20_000,), generator=g)
    x = CENTRES[which] + 0.05 * torch.randn(20_000, 2, generator=g)
    found = mixture_modes(x, CENTRES, 0.05)
    # in the plane 1 - exp(-9 / 2) lies within three deviations; four standard errors
    assert float(found.good.double().mean()) == pytest.approx(1 - math.exp(-4.5), abs=4 * math.sqrt(0.011 / 20_000))
    assert torch.equal(found.nearest, which)


def test_narrow_modes_far_away_keep_their_digits():
    far = torch.tensor([[1e4, 1e4], [1e4 + 1, 1e4]], dtype=torch.float64)
    found = mixture_modes(far + torch.tensor([2.9e-3, 0]), far, 1e-3)
    assert found.covered == 2
    assert mixture_modes(far + torch.tensor([3.1e-3, 0]), far, 1e-3).covered == 0


def test_divergence_agrees_with_scipy_and_with_what_is_known():
    counts, q = torch.tensor([5, 0, 3, 2]), torch.tensor([0.4, 0.1, 0.3, 0.2])
    assert kl_divergence(counts, q).value == pytest.approx(entropy([0.5, 0, 0.3, 0.2], q.double().numpy()), abs=1e-7)
    one = kl_divergence(torch.tensor([7, 0, 0, 0]), torch.ones(4))
    assert (one.value, one.error) == pytest.approx((math.log(4), 0))
    assert kl_divergence(torch.tensor([2, 2]), torch.tensor([1, 1])).value == 0


def test_divergence_of_equal_shares_is_above_zero_by_the_known_bias():
    modes, n = 50, 1000
    random = np.random.default_rng(0)
    found = [kl_divergence(torch.from_numpy(random.multinomial(n, np.full(modes, 1 / modes))), torch.ones(modes))
             for _ in range(300)]  # fmt: skip
    values = np.array([e.value for e in found])
    # chi square / 2n with M - 1 degrees of freedom, to first order
    assert values.mean() == pytest.approx((modes - 1) / (2 * n), rel=0.05)
    assert 0.8 < np.mean([e.error for e in found]) / values.std() < 2


def test_the_error_is_that_of_repetitions():
    p, q = np.array([0.5, 0.3, 0.15, 0.05]), torch.ones(4)
    random = np.random.default_rng(0)
    found = [kl_divergence(torch.from_numpy(random.multinomial(500, p)), q) for _ in range(400)]
    ratio = np.mean([e.error for e in found]) / np.std([e.value for e in found])
    assert ratio == pytest.approx(1, abs=0.15)


def test_what_has_no_divergence_is_refused():
    with pytest.raises(UsageError, match="infinite"):
        kl_divergence(torch.tensor([1, 1]), torch.tensor([1.0, 0.0]))
    with pytest.raises(UsageError, match="No sample"):
        kl_divergence(torch.zeros(3, dtype=torch.int64), torch.ones(3))
    with pytest.raises(ValueError, match="do not fit"):
        mixture_modes(torch.zeros(3, 3), CENTRES, 0.1)


def test_shares_of_the_data_are_never_zero():
    shares = expected_shares(torch.tensor([0, 0, 2]), 3)
    assert shares.tolist() == pytest.approx([2.5 / 4.5, 0.5 / 4.5, 1.5 / 4.5])
