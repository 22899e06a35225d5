"""Resampling by filters, against SciPy's, and its derivatives against differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import upfirdn as reference

from castalia.nn.resampling import blur, enlarge, filter_taps, sampled, shrink, upfirdn


@pytest.mark.parametrize("up", [1, 2, 3])
@pytest.mark.parametrize("down", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 3, 4, 7])
def test_equals_scipys_along_both_axes(up: int, down: int, n: int) -> None:
    rng = np.random.default_rng(0)
    x, taps = rng.normal(size=(2, 3, 9, 11)), rng.normal(size=n)
    expected = reference(taps, reference(taps, x, up, down, axis=2), up, down, axis=3)
    # scipy keeps the whole tail of the convolution: zeros behind the last pixel are not part of its input
    around = (n - 1, n - 1 - (up - 1), n - 1, n - 1 - (up - 1))
    found = upfirdn(torch.from_numpy(x), torch.from_numpy(taps), up, down, around)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    both = upfirdn(torch.from_numpy(x), torch.from_numpy(np.outer(taps, taps)), up, down, around)
    np.testing.assert_allclose(both.numpy(), expected, atol=1e-12)


def test_first_and_second_derivatives() -> None:
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    taps = torch.randn(4, dtype=torch.float64)

    def f(x: torch.Tensor) -> torch.Tensor:
        return upfirdn(x, taps, 2, 1, (2, 1, 2, 1)).tanh()

    assert torch.autograd.gradcheck(f, (x,))
    assert torch.autograd.gradgradcheck(f, (x,))


@pytest.mark.parametrize("taps", [(1, 1), (1, 2, 1), (1, 3, 3, 1)])
def test_a_constant_stays_constant_inside(taps: tuple[float, ...]) -> None:
    x, f = torch.full((1, 1, 8, 8), 3.0), filter_taps(taps)
    changed = {16: enlarge(x, f), 4: shrink(x, f), 8: blur(x, f)}
    for size, y in changed.items():
        assert y.shape == (1, 1, size, size)
        if size != 16 or len(taps) % 2 == 0:  # between zeros, an odd filter meets more pixels at every second place
            middle = y[..., 2:-2, 2:-2] if size > 4 else y[..., 1:-1, 1:-1]
            torch.testing.assert_close(middle, torch.full_like(middle, 3.0))


def test_enlarging_by_a_box_repeats_and_shrinking_averages() -> None:
    x, box = torch.randn(2, 3, 6, 4), filter_taps((1, 1))
    torch.testing.assert_close(enlarge(x, box), x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(shrink(x, box), torch.nn.functional.avg_pool2d(x, 2))


def test_sampling_has_derivatives_of_any_order() -> None:
    x = torch.randn(2, 1, 4, 3, dtype=torch.float64, requires_grad=True)
    places = 3 * torch.rand(2, 3, 5, 2, dtype=torch.float64) - 1.5
    theirs = torch.nn.functional.grid_sample(x, places, "bilinear", "reflection", align_corners=False)
    assert torch.equal(sampled(x, places), theirs)

    def f(x: torch.Tensor) -> torch.Tensor:
        return sampled(x, places).tanh()

    assert torch.autograd.gradcheck(f, (x,))
    assert torch.autograd.gradgradcheck(f, (x,))
