"""Precision, recall, density and coverage on constructed overlaps and against prdc."""

import contextlib
import io
from dataclasses import asdict

import numpy as np
import pytest
import torch

from castalia.core.errors import UsageError
from castalia.estimators import coverage as module
from castalia.estimators.coverage import coverage, coverage_estimates, radii


def uniform(n, dims, seed, low=0.0):
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(n, dims, generator=g, dtype=torch.float64)
    x[:, 0] += low
    return x


def normal(n, dims, seed, shift=0.0, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, dims, generator=g, dtype=torch.float64) * scale + shift


def test_radii_are_distances_to_the_kth_other_example():
    x = torch.tensor([[0.0], [1.0], [3.0], [3.0], [10.0]])
    assert radii(x, 1).sqrt().tolist() == pytest.approx([1, 1, 0, 0, 7])
    assert radii(x, 3).sqrt().tolist() == pytest.approx([3, 2, 3, 3, 9])


@pytest.mark.parametrize(("m", "n", "dims", "shift", "scale", "k"), [
    (300, 300, 8, 0.0, 1.0, 5), (250, 400, 3, 0.5, 1.0, 3), (400, 200, 20, 0.0, 0.7, 5), (200, 200, 64, 0.3, 1.3, 1),
])  # fmt: skip
def test_agrees_with_prdc(m, n, dims, shift, scale, k):
    compute_prdc = pytest.importorskip("prdc").compute_prdc
    real, generated = normal(m, dims, 1), normal(n, dims, 2, shift, scale)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = compute_prdc(real.numpy(), generated.numpy(), k)
    assert asdict(coverage(real, generated, k)) == pytest.approx({k: float(v) for k, v in theirs.items()}, abs=1e-12)


def test_half_overlapping_uniforms():
    # [0, 1] and [0.5, 1.5]: half of each lies in the other's support; balls reach a little beyond an edge
    real, generated = uniform(2000, 1, 1), uniform(2000, 1, 2, low=0.5)
    found = coverage(real, generated)
    assert asdict(found) == pytest.approx(
        {"precision": 0.5, "recall": 0.5, "density": 0.5, "coverage": 0.485}, abs=0.03
    )


def test_what_lies_apart_and_what_is_equal():
    real = uniform(500, 2, 1)
    apart = coverage(real, uniform(500, 2, 2, low=10))
    assert set(asdict(apart).values()) == {0.0}
    same = coverage(real, uniform(500, 2, 3))
    # Naeem et al.: density is 1 and coverage 1 - 2^-k in expectation
    assert same.density == pytest.approx(1, abs=0.08)
    assert same.coverage == pytest.approx(1 - 2**-5, abs=0.02)
    copies = coverage(real, real)
    assert copies.precision == copies.recall == copies.coverage == 1


def test_a_mode_that_was_dropped_costs_recall_and_an_invention_costs_precision():
    both = torch.cat([uniform(500, 2, 1), uniform(500, 2, 2, low=5)])
    one = uniform(1000, 2, 3)
    dropped, invented = coverage(both, one), coverage(one, both)
    assert dropped.precision > 0.95
    assert dropped.recall == pytest.approx(0.5, abs=0.03)
    assert invented.precision == pytest.approx(0.5, abs=0.03)
    assert invented.recall > 0.95


def test_an_outlier_fools_precision_but_not_density():
    # one real example far away has a ball that holds everything between; Naeem et al., figure 1
    real = torch.cat([uniform(500, 2, 1), torch.tensor([[30.0, 0.5]], dtype=torch.float64)])
    between = uniform(500, 2, 2, low=10)
    found = coverage(real, between)
    assert found.precision == 1
    assert found.density == pytest.approx(1 / 5)
    assert found.coverage == pytest.approx(1 / 501)


def test_collapse_is_measured():
    found = coverage(normal(200, 4, 1), torch.zeros(200, 4))
    assert found.precision == 1
    assert found.recall == 0
    assert found.coverage < 0.3


def test_what_does_not_change_them(monkeypatch):
    real, generated = normal(150, 5, 1), normal(120, 5, 2, 0.3)
    expected = coverage(real, generated)
    q = torch.linalg.qr(normal(5, 5, 3))[0]
    g = torch.Generator().manual_seed(0)
    assert coverage(real[torch.randperm(150, generator=g)], generated[torch.randperm(120, generator=g)]) == expected
    assert coverage(real @ q + 100, generated @ q + 100) == expected
    assert coverage(7 * real, 7 * generated) == expected
    assert coverage(real, generated, real_radii=radii(real)) == expected
    mirrored = coverage(generated, real)
    assert (mirrored.precision, mirrored.recall) == (expected.recall, expected.precision)
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", 700)
    assert coverage(real, generated) == expected


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.5, 1.0), (0.2, 1.3)])
def test_the_standard_error_is_that_of_repetitions(shift, scale):
    values, errors = [], []
    for s in range(60):
        found = coverage_estimates(normal(200, 4, 2 * s), normal(200, 4, 2 * s + 1, shift, scale), seed=s)
        values.append([e.value for e in found.values()])
        errors.append([e.error for e in found.values()])
    ratio = np.mean(errors, 0) / np.std(values, 0)
    # near a share of 1 it is too large; 60 repetitions know their deviation within 18%
    assert (ratio > 0.7).all(), ratio
    assert (ratio < 2.5).all(), ratio


def test_small_sets():
    with pytest.raises(UsageError, match="more than 5"):
        coverage(normal(5, 2, 1), normal(50, 2, 2))
    few = coverage_estimates(normal(10, 2, 1), normal(10, 2, 2))
    assert all(e.error is None for e in few.values())
    again = [coverage_estimates(normal(60, 2, 1), normal(50, 2, 2), seed=s) for s in (3, 3, 4)]
    assert again[0] == again[1] != again[2]
