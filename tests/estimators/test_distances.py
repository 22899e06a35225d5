"""Distances against closed forms, scipy and torchmetrics, and what must not change them."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import energy_distance as scipy_energy
from scipy.stats import wasserstein_distance

from castalia.core.errors import UsageError
from castalia.estimators import distances
from castalia.estimators.distances import (
    energy_distance,
    frechet,
    frechet_gaussians,
    kernel_distance,
    kernel_distance_subsets,
    sliced_wasserstein,
)


def normal(n, dims, seed, shift=0.0, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, dims, generator=g, dtype=torch.float64) * scale + shift


def spd(dims, seed, rank=None):
    a = normal(dims, rank or dims, seed)
    return a @ a.T / dims


def rotation(dims, seed):
    return torch.linalg.qr(normal(dims, dims, seed))[0]


# Fréchet


def test_frechet_of_gaussians_that_commute_is_that_of_their_deviations():
    q = rotation(6, 1)
    a, b = torch.rand(6, dtype=torch.float64) + 0.1, torch.rand(6, dtype=torch.float64) + 0.1
    m1, m2 = normal(2, 6, 2)
    found = frechet_gaussians(m1, q @ torch.diag(a**2) @ q.T, m2, q @ torch.diag(b**2) @ q.T)
    assert found == pytest.approx(float(((m1 - m2) ** 2).sum() + ((a - b) ** 2).sum()), abs=1e-12)


def test_frechet_of_any_gaussians_is_that_of_the_matrix_root():
    scipy_root = pytest.importorskip("scipy.linalg").sqrtm
    s1, s2 = spd(8, 1), spd(8, 2)
    m1, m2 = normal(2, 8, 3)
    expected = ((m1 - m2) ** 2).sum() + torch.trace(s1 + s2) - 2 * np.trace(scipy_root((s1 @ s2).numpy())).real
    assert frechet_gaussians(m1, s1, m2, s2) == pytest.approx(float(expected), abs=1e-10)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_singular_covariances_cost_no_digits(rank):
    # a subspace of their own, where the answer is that of the small matrices
    q = rotation(40, 4)[:, :rank]
    s1, s2 = spd(rank, 5), spd(rank, 6)
    zero, small = torch.zeros(40), torch.zeros(rank)
    found = frechet_gaussians(zero, q @ s1 @ q.T, zero, q @ s2 @ q.T)
    assert found == pytest.approx(frechet_gaussians(small, s1, small, s2), abs=1e-7)
    assert frechet_gaussians(zero, q @ s1 @ q.T, zero, q @ s1 @ q.T) == pytest.approx(0, abs=1e-7)
    nothing = torch.zeros(40, 40)
    assert frechet_gaussians(zero, q @ s1 @ q.T, zero, nothing) == pytest.approx(float(s1.trace()), abs=1e-9)


def test_frechet_of_sets_uses_their_means_and_covariances():
    x, y = normal(70, 5, 1), normal(60, 5, 2, 0.5, 2.0)
    expected = frechet_gaussians(x.mean(0), torch.cov(x.T), y.mean(0), torch.cov(y.T))
    assert frechet(x, y).value == pytest.approx(expected, rel=1e-10)
    assert frechet(x.float(), y.float()).value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("count", [2, 3, 20])
def test_fewer_examples_than_dimensions(count):
    x, y = normal(count, 30, 1), normal(count, 30, 2)
    found = frechet(x, y)
    expected = frechet_gaussians(x.mean(0), torch.cov(x.T), y.mean(0), torch.cov(y.T))
    assert found.value == pytest.approx(expected, rel=1e-7)
    assert math.isfinite(found.error)
    same = frechet(x, x)
    assert (same.value, same.error) == pytest.approx((0, 0), abs=1e-6)


def test_a_collapsed_set_is_measured_too():
    x, point = normal(100, 4, 1), torch.ones(50, 4)
    found = frechet(x, point)
    expected = ((x.mean(0) - 1) ** 2).sum() + torch.cov(x.T).trace()
    assert found.value == pytest.approx(float(expected), rel=1e-7)
    assert found.error > 0
    assert frechet(point, point).value == 0


def features_network(dims):
    """A feature network for torchmetrics whose features are the pixels of a picture."""

    class Pixels(torch.nn.Module):
        num_features = dims

        def forward(self, x):
            return x.flatten(1).double()

    return Pixels()


def peer(cls, dims, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cls(feature=features_network(dims), **options)


def as_pictures(features):
    return features.view(len(features), 1, 1, -1)


def test_frechet_agrees_with_torchmetrics():
    image = pytest.importorskip("torchmetrics.image.fid")
    x, y = normal(300, 12, 1), normal(250, 12, 2, 0.3, 1.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = image.FrechetInceptionDistance(feature=features_network(12), input_img_size=(1, 1, 12))
        theirs.set_dtype(torch.float64)
        theirs.update(as_pictures(x), real=True)
        theirs.update(as_pictures(y), real=False)
        expected = float(theirs.compute())
    assert frechet(x, y).value == pytest.approx(expected, rel=1e-6)


# Kernel


def moments(mean, cov):
    """E[x], E[x x^T] and E[x x x] of a Gaussian."""
    second = cov + torch.outer(mean, mean)
    third = (
        torch.einsum("a,b,c->abc", mean, mean, mean)
        + torch.einsum("a,bc->abc", mean, cov)
        + torch.einsum("b,ac->abc", mean, cov)
        + torch.einsum("c,ab->abc", mean, cov)
    )
    return mean, second, third


def expected_kernel(p, q):
    """E (x . y / d + 1)^3 of independent x and y, from their moments up to the third."""
    d = len(p[0])
    inner, square, cube = ((a * b).sum() for a, b in zip(p, q, strict=True))
    return float(1 + 3 * inner / d + 3 * square / d**2 + cube / d**3)


def test_kernel_distance_is_unbiased_for_the_closed_form_on_gaussians():
    shift, scale = 0.4, 1.3
    p = moments(torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64))
    q = moments(torch.full((3,), shift, dtype=torch.float64), scale**2 * torch.eye(3, dtype=torch.float64))
    truth = expected_kernel(p, p) + expected_kernel(q, q) - 2 * expected_kernel(p, q)
    equal, unequal = [], []
    for seed in range(600):
        x = normal(12, 3, 3 * seed)
        equal.append(kernel_distance(x, normal(9, 3, 3 * seed + 1)).value)
        unequal.append(kernel_distance(x, normal(9, 3, 3 * seed + 2, shift, scale)).value)
    for values, expected in ((equal, 0.0), (unequal, truth)):
        # 4 standard errors of a mean of 600 draws; the biased statistic is off by some 20 of them
        assert abs(np.mean(values) - expected) < 4 * np.std(values) / math.sqrt(len(values))
    assert truth > 0.5


def test_blocks_do_not_change_the_kernel_distance(monkeypatch):
    x, y = normal(57, 4, 1), normal(43, 4, 2, 0.5)
    whole = [f(x, y) for f in (kernel_distance, energy_distance, sliced_wasserstein)]
    monkeypatch.setattr(distances, "PAIRS_AT_ONCE", 100)
    for a, b in zip(whole, [f(x, y) for f in (kernel_distance, energy_distance, sliced_wasserstein)], strict=True):
        assert (a.value, a.error) == pytest.approx((b.value, b.error), rel=1e-10)


def test_subsets_agree_with_torchmetrics_where_a_subset_is_everything():
    image = pytest.importorskip("torchmetrics.image.kid")
    x, y = normal(80, 6, 1), normal(80, 6, 2, 0.4)
    theirs = peer(image.KernelInceptionDistance, 6, subsets=3, subset_size=80)
    theirs.update(as_pictures(x), real=True)
    theirs.update(as_pictures(y), real=False)
    expected, spread = (float(v) for v in theirs.compute())
    assert kernel_distance(x, y).value == pytest.approx(expected, rel=1e-6)
    mean, deviation = kernel_distance_subsets(x, y, subsets=3, size=80)
    assert mean == pytest.approx(expected, rel=1e-6)
    assert deviation == pytest.approx(spread, abs=1e-6)


def test_subsets_estimate_what_all_pairs_do():
    x, y = normal(600, 4, 1), normal(500, 4, 2, 0.3)
    mean, deviation = kernel_distance_subsets(x, y, subsets=60, size=100)
    assert abs(mean - kernel_distance(x, y).value) < 4 * deviation / math.sqrt(60)
    assert kernel_distance_subsets(x, y, subsets=4, size=50, seed=1) == kernel_distance_subsets(
        x, y, subsets=4, size=50, seed=1
    )


# Energy


def test_energy_distance_on_the_line_agrees_with_scipy():
    x, y = normal(40, 1, 1), normal(30, 1, 2, 1.0)
    # scipy's is the root of the biased statistic, which counts each example with itself at distance 0
    biased = scipy_energy(x[:, 0].numpy(), y[:, 0].numpy()) ** 2
    bias = sum(float(torch.cdist(t, t).sum()) * (1 / (n * (n - 1)) - 1 / n**2) for t, n in ((x, 40), (y, 30)))
    assert energy_distance(x, y).value == pytest.approx(biased - bias, rel=1e-9)


def test_energy_distance_of_two_points_apart():
    # two pairs of equal points at distance 3: 2 * 3 - 0 - 0
    found = energy_distance(torch.zeros(2, 2), torch.tensor([[3.0, 0.0], [3.0, 0.0]]))
    assert found.value == pytest.approx(6)


# Sliced Wasserstein


SOME = st.lists(st.floats(-100, 100, width=32, allow_subnormal=False), min_size=2, max_size=30)


@given(SOME, SOME)
@settings(max_examples=100, deadline=None)
def test_on_the_line_it_is_scipys_wasserstein_distance(x, y):
    found = sliced_wasserstein(torch.tensor(x)[:, None], torch.tensor(y)[:, None]).value
    assert found == pytest.approx(wasserstein_distance(x, y), abs=1e-9)


def test_a_shift_in_the_plane_moves_each_projection_by_its_share():
    x = normal(200, 2, 1)
    shift = torch.tensor([3.0, 4.0], dtype=torch.float64)
    # the mean of |cos| over the circle is 2 / pi
    found = sliced_wasserstein(x, x + shift, projections=4000).value
    assert found == pytest.approx(5 * 2 / math.pi, rel=0.02)
    assert sliced_wasserstein(x, x).value == pytest.approx(0, abs=1e-15)


def test_directions_belong_to_the_seed():
    x, y = normal(50, 3, 1), normal(40, 3, 2, 0.2)
    a, b, c = (sliced_wasserstein(x, y, projections=8, seed=s).value for s in (1, 1, 2))
    assert a == b != c


# all

ALL = (frechet, kernel_distance, energy_distance, lambda x, y: sliced_wasserstein(x, y, projections=16))


@given(st.integers(0, 10_000), st.integers(2, 20), st.integers(2, 20), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_symmetry_order_and_what_leaves_distances_unchanged(seed, m, n, dims):
    x, y = normal(m, dims, seed), normal(n, dims, seed + 1, 0.5, 2.0)
    g = torch.Generator().manual_seed(seed)
    mixed = x[torch.randperm(m, generator=g)]
    q = rotation(dims, seed)
    shift = normal(1, dims, seed + 2, scale=10)
    for f in ALL:
        value = f(x, y)
        for other in (f(y, x), f(mixed, y)):
            assert (value.value, value.error) == pytest.approx((other.value, other.error), rel=1e-6, abs=1e-6)
    for f in (frechet, kernel_distance, energy_distance):
        assert f(x @ q, y @ q).value == pytest.approx(f(x, y).value, rel=1e-6, abs=1e-6)
    for f in (frechet, energy_distance, ALL[3]):
        assert f(x + shift, y + shift).value == pytest.approx(f(x, y).value, rel=1e-6, abs=1e-6)
    assert frechet(3 * x, 3 * y).value == pytest.approx(9 * frechet(x, y).value, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("f", ALL)
@pytest.mark.parametrize(("shift", "scale", "low", "high"), [(0.0, 1.0, 0.7, 2.2), (0.4, 1.3, 0.7, 1.35)])
def test_the_standard_error_is_that_of_repetitions(f, shift, scale, low, high):
    found = [f(normal(150, 3, 2 * s), normal(200, 3, 2 * s + 1, shift, scale)) for s in range(120)]
    ratio = np.mean([e.error for e in found]) / np.std([e.value for e in found])
    # 120 repetitions know their deviation within 13%; at equal distributions the error may be too large
    assert low < ratio < high


def test_intervals_stay_where_values_are_possible():
    found = distances.Estimate(0.1, 0.1)
    assert found.interval() == pytest.approx((-0.096, 0.296))
    assert found.interval(0, 0.2) == pytest.approx((0, 0.2))
    assert distances.Estimate(0.1, None).interval() is None


def test_too_few_examples_are_refused():
    for f in ALL:
        with pytest.raises(UsageError, match="at least 2"):
            f(normal(1, 3, 0), normal(5, 3, 1))
        with pytest.raises(ValueError, match="one length"):
            f(normal(4, 3, 0), normal(5, 2, 1))
    with pytest.raises(UsageError, match="at least 50"):
        kernel_distance_subsets(normal(40, 3, 0), normal(80, 3, 1), size=50)
