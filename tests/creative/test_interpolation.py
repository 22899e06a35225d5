from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from castalia.core.errors import UsageError
from castalia.creative.interpolation import linear, spherical, walk


@pytest.fixture
def ends() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(64, 40, generator=generator), torch.randn(64, 40, generator=generator)


@pytest.mark.parametrize("path", [linear, spherical])
def test_ends_are_exact(path, ends):
    a, b = ends
    assert torch.equal(path(a, b, 0.0), a)
    assert torch.equal(path(a, b, 1.0), b)


def test_quarter_of_a_right_angle():
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    third = spherical(a, b, 1 / 3)
    assert torch.allclose(third, torch.tensor([[math.cos(math.pi / 6), math.sin(math.pi / 6)]]), atol=1e-7)
    assert torch.allclose(linear(a, b, 0.25), torch.tensor([[0.75, 0.25]]))


def test_arcs_keep_the_length_and_move_at_constant_angle(ends):
    a, b = (v / v.norm(dim=1, keepdim=True) * 6 for v in ends)
    points = [spherical(a, b, t / 8) for t in range(9)]
    for p in points:
        assert torch.allclose(p.norm(dim=1), torch.full((64,), 6.0), atol=1e-5)
    cosines = torch.stack([(p.double() * q.double()).sum(1) / 36 for p, q in pairwise(points)])
    angles = cosines.clamp(-1, 1).acos()
    assert torch.allclose(angles, angles[:1].expand_as(angles), atol=1e-4)


def test_nearly_parallel_opposite_and_zero_rows_fall_back_to_the_line():
    v = torch.tensor([1.0, 2.0, 3.0])
    a = torch.stack([v, v, v, torch.zeros(3), torch.zeros(3)])
    b = torch.stack([2 * v, v * (1 + 1e-7), -v, v, torch.zeros(3)])
    for t in (0.0, 0.3, 0.5, 1.0):
        out = spherical(a, b, t)
        assert torch.isfinite(out).all()
        assert torch.allclose(out, linear(a, b, t), atol=1e-6)


def test_each_row_has_its_own_t(ends):
    a, b = ends
    t = torch.linspace(0, 1, 64)
    together = spherical(a, b, t)
    for i in (0, 17, 63):
        assert torch.equal(together[i : i + 1], spherical(a[i : i + 1], b[i : i + 1], float(t[i])))


@pytest.mark.parametrize("how", ["linear", "spherical"])
def test_walk_visits_its_points(how, ends):
    points = ends[0][:4]
    path = walk(points, 3 * 7 + 1, how)
    assert path.shape == (22, 40)
    assert torch.equal(path[::7], points)
    uneven = walk(points, 11, how)
    assert torch.equal(uneven[0], points[0])
    assert torch.equal(uneven[-1], points[3])


def test_a_loop_closes_without_showing_a_frame_twice(ends):
    points = ends[0][:3]
    path = walk(points, 12, "linear", loop=True)
    assert torch.equal(path[::4], points)
    step = points[0] - path[-1]
    assert torch.allclose(step, (points[0] - points[2]) / 4, atol=1e-6)


def test_small_walks(ends):
    one = ends[0][:1]
    assert torch.equal(walk(one, 3), one.expand(3, -1))
    assert torch.equal(walk(one, 3, loop=True), one.expand(3, -1))
    assert torch.equal(walk(ends[0][:3], 1), one)
    for points, frames in ((ends[0][:0], 3), (ends[0], 0), (ends[0][0], 3)):
        with pytest.raises(UsageError):
            walk(points, frames)
