"""Coverage, minimum matching distance and the accuracy of the nearest neighbour, of points on a line."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from castalia.estimators.matching import matching


def between(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, None] - b[None]).abs()


def of(made: list[float], real: list[float]) -> tuple[float, float, float]:
    a, b = torch.tensor(made), torch.tensor(real)
    return matching(between(a, b), between(a, a), between(b, b))


def test_by_hand() -> None:
    # 0.125 and 0.25 are nearest to 0, 5.5 and 6.25 to 6: two of four are covered
    covered, mmd, nna = of([0.125, 0.25, 5.5, 6.25], [0.0, 3.0, 6.0, 9.0])
    assert covered == 2 / 4
    assert mmd == pytest.approx((0.125 + 2.5 + 0.25 + 2.75) / 4)
    # nearest others: of 0.125 both 0 and 0.25, half; of 0.25 its own; of 5.5 and 6.25 the real 6; of the real ones
    # 0.125, 5.5, 6.25 and 6.25
    assert nna == 1.5 / 8


def test_equal_sets_are_learnt_by_heart() -> None:
    found = of([0.0, 1.0, 5.0], [0.0, 1.0, 5.0])
    assert found == (1.0, 0.0, 0.0)


def test_far_sets_are_told_apart() -> None:
    assert of([0.0, 1.0, 2.0], [100.0, 101.0, 102.0])[2] == 1.0


def test_one_distribution() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(1500, 2, generator=g) for _ in range(2))
    found = matching(torch.cdist(a, b), torch.cdist(a, a), torch.cdist(b, b))
    assert found.nna == pytest.approx(0.5, abs=0.03)
    assert 0.55 < found.coverage < 0.72


def test_ties_count_by_half() -> None:
    x = torch.zeros(4, 4)
    assert matching(x, x, x).nna == 0.5


def test_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="distances"):
        matching(torch.zeros(3, 2), torch.zeros(2, 2), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="distances"):
        matching(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1))
