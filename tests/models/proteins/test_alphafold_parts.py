"""AlphaFold's parts: frames, attention, triangles, outer products, invariant points, against naive loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from castalia.models.proteins.evoformer import (
    Attention,
    Block,
    ColumnAttention,
    GlobalColumnAttention,
    OuterProductMean,
    RowAttention,
    Sizes,
    Stack,
    TriangleAttention,
    TriangleMultiplication,
)
from castalia.models.proteins.frames import Frames, rotation, update

SIZES = Sizes(m=8, z=6, heads=2, head=4, outer=3, triangle=5, pair_heads=2, pair_head=3)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + len(shape)), dtype=torch.float64)


def stirred(module: nn.Module) -> nn.Module:
    """In float64, with weights that are nowhere zero."""
    module = module.double().eval()
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p.add_(0.3 * numbers(*p.shape, seed=i) if p.ndim else 0.1)
    return module


def turned(seed: int = 3) -> Frames:
    return Frames(torch.from_numpy(Rotation.random(random_state=seed).as_matrix()), 5 * numbers(3, seed=seed))


def some_frames(*shape: int, seed: int = 0) -> Frames:
    q = numbers(*shape, 4, seed=seed)
    return Frames(rotation(q / q.norm(dim=-1, keepdim=True)), 3 * numbers(*shape, 3, seed=seed + 1))


def close(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# frames


def test_frames_are_rotations_and_go_back() -> None:
    frames, x = some_frames(5), numbers(5, 3, seed=9)
    close(frames.r @ frames.r.transpose(-1, -2), torch.eye(3, dtype=torch.float64).expand(5, 3, 3))
    close(torch.linalg.det(frames.r), torch.ones(5, dtype=torch.float64))
    close(frames.undo(frames.apply(x)), x)
    close(frames.inverse().apply(frames.apply(x)), x)
    other = some_frames(5, seed=4)
    close(frames.then(other).apply(x), frames.apply(other.apply(x)))
    close(frames.then(frames.inverse()).t, torch.zeros(5, 3, dtype=torch.float64))


def test_quaternions_are_those_of_scipy() -> None:
    q = numbers(20, 4)
    q = q / q.norm(dim=-1, keepdim=True)
    expected = Rotation.from_quat(np.roll(q.numpy(), -1, axis=1)).as_matrix()  # scipy has the real part last
    close(rotation(q), torch.from_numpy(expected))
    six = numbers(7, 6)
    one = torch.cat([torch.ones(7, 1, dtype=torch.float64), six[:, :3]], 1)
    close(update(six).r, rotation(one / one.norm(dim=1, keepdim=True)))
    close(update(torch.zeros(6)).r, torch.eye(3))


def test_frames_of_three_points() -> None:
    """Algorithm 21: C on the x axis, N in the plane with y above; it turns with the points."""
    n, ca, c = numbers(3, 4, 3)
    frames = Frames.of_points(n, ca, c)
    close(frames.undo(ca), torch.zeros(4, 3, dtype=torch.float64), 1e-6)
    close(frames.undo(c)[:, 1:], torch.zeros(4, 2, dtype=torch.float64), 1e-6)
    assert (frames.undo(c)[:, 0] > 0).all()
    close(frames.undo(n)[:, 2], torch.zeros(4, dtype=torch.float64), 1e-6)
    assert (frames.undo(n)[:, 1] > 0).all()
    move = turned()
    moved = Frames.of_points(*(move.apply(p) for p in (n, ca, c)))
    close(moved.r, move.then(frames).r)
    same = Frames.of_points(*torch.zeros(3, 3))
    assert same.r.isfinite().all()


# the Evoformer


def test_attention_against_a_loop() -> None:
    module = stirred(Attention(6, 2, 3))
    x, bias = numbers(5, 6), numbers(2, 5, 5, seed=4)
    q, k, v = (f(x).view(5, 2, 3) for f in (module.q, module.k, module.v))
    out = torch.zeros(5, 2, 3, dtype=torch.float64)
    for h in range(2):
        for i in range(5):
            weights = torch.stack([q[i, h] @ k[j, h] / math.sqrt(3) + bias[h, i, j] for j in range(5)]).softmax(0)
            out[i, h] = sum(weights[j] * v[j, h] for j in range(5))
    close(module(x, bias), module.out(module.gate(x).sigmoid() * out.flatten(1)))


@pytest.mark.parametrize("kind", ["outgoing", "incoming"])
def test_triangle_multiplication_against_loops(kind) -> None:
    module, z = stirred(TriangleMultiplication(6, 5, kind)), numbers(1, 4, 4, 6)
    pairs = torch.ones(1, 4, 4, dtype=torch.float64)
    x = module.norm(z)[0]
    a, b = (g(x).sigmoid() * f(x) for f, g in ((module.a, module.a_gate), (module.b, module.b_gate)))
    mixed = torch.zeros(4, 4, 5, dtype=torch.float64)
    for i in range(4):
        for j in range(4):
            for k in range(4):
                mixed[i, j] += a[i, k] * b[j, k] if kind == "outgoing" else a[k, i] * b[k, j]
    close(module(z, pairs)[0], module.gate(x).sigmoid() * module.out(module.inner_norm(mixed)))


@pytest.mark.parametrize("kind", ["starting", "ending"])
def test_triangle_attention_against_loops(kind) -> None:
    """Algorithms 13 and 14: pair (i, j) asks (i, k) with the bias of (j, k); or (k, j) with that of (k, i)."""
    module, z = stirred(TriangleAttention(6, 2, 3, kind)), numbers(1, 4, 4, 6)
    x = module.norm(z)[0]
    inner = module.attention
    q, k_, v = (f(x).view(4, 4, 2, 3) for f in (inner.q, inner.k, inner.v))
    bias = module.bias(x)
    out = torch.zeros(4, 4, 2, 3, dtype=torch.float64)
    for i in range(4):
        for j in range(4):
            others = [(i, k) for k in range(4)] if kind == "starting" else [(k, j) for k in range(4)]
            sides = [(j, k) for k in range(4)] if kind == "starting" else [(k, i) for k in range(4)]
            for h in range(2):
                logits = [q[i, j, h] @ k_[o][h] / math.sqrt(3) + bias[s][h] for o, s in zip(others, sides, strict=True)]
                weights = torch.stack(logits).softmax(0)
                out[i, j, h] = sum(w * v[o][h] for w, o in zip(weights, others, strict=True))
    expected = inner.out(inner.gate(x).sigmoid() * out.flatten(2))
    close(module(z, torch.ones(1, 4, 4, dtype=torch.float64))[0], expected)


def test_triangle_attention_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    module, z = stirred(TriangleAttention(6, 2, 3, "ending")), numbers(2, 5, 5, 6)
    pairs = torch.ones(2, 5, 5, dtype=torch.float64)
    whole = module(z, pairs)
    monkeypatch.setattr("castalia.models.proteins.evoformer.ROWS_AT_ONCE", 200)
    with torch.no_grad():
        close(module(z, pairs), whole)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_outer_product_mean_against_loops(rows: int) -> None:
    """Both orders of computing it, for few rows and for many."""
    module, m = stirred(OuterProductMean(8, 6, 3)), numbers(1, rows, 4, 8)
    there = torch.ones(1, rows, 4, dtype=torch.float64)
    x = module.norm(m)[0]
    a, b = module.left(x), module.right(x)
    expected = torch.zeros(4, 4, 6, dtype=torch.float64)
    for i in range(4):
        for j in range(4):
            outer = sum(torch.outer(a[s, i], b[s, j]).flatten() for s in range(rows)) / rows
            expected[i, j] = module.out(outer)
    close(module(m, there)[0], expected * rows / (rows + 1e-3))
    left, right = module.left(module.norm(m)), module.right(module.norm(m))
    close(module.few(left, right), module.many(left, right))


def test_global_attention_against_a_loop() -> None:
    module, m = stirred(GlobalColumnAttention(8, 2, 4)), numbers(1, 3, 4, 8)
    x = module.norm(m)[0]
    out = torch.zeros(3, 4, 8, dtype=torch.float64)
    for i in range(4):
        q = module.q(x[:, i].mean(0)).view(2, 4)
        keys, values = module.k(x[:, i]), module.v(x[:, i])
        mixed = torch.cat([(keys @ q[h] / 2).softmax(0) @ values for h in range(2)])
        out[:, i] = module.out(module.gate(x[:, i]).sigmoid() * mixed)
    close(module(m, torch.ones(1, 3, 4, dtype=torch.float64))[0], out)


def test_column_attention_looks_down_columns_only() -> None:
    module, m = stirred(ColumnAttention(8, 2, 4)), numbers(1, 3, 4, 8)
    rows = torch.ones(1, 3, 4, dtype=torch.float64)
    changed = m.clone()
    changed[:, 0, 2, 0] += 1
    moved = (module(changed, rows) - module(m, rows)).abs().amax(-1)[0]
    assert (moved[:, 2] > 1e-6).all()
    assert (moved[:, [0, 1, 3]] == 0).all()


def test_row_attention_looks_along_rows_only() -> None:
    module, m, z = stirred(RowAttention(8, 6, 2, 4)), numbers(1, 3, 4, 8), numbers(1, 4, 4, 6)
    rows = torch.ones(1, 3, 4, dtype=torch.float64)
    changed = m.clone()
    changed[:, 1, 2, 0] += 1
    moved = (module(changed, z, rows) - module(m, z, rows)).abs().amax(-1)[0]
    assert (moved[1] > 1e-6).all()
    assert (moved[[0, 2]] == 0).all()


@pytest.mark.parametrize("extra", [False, True])
def test_what_is_masked_does_not_matter(extra: bool) -> None:
    block = stirred(Block(SIZES, extra))
    m, z = numbers(1, 4, 5, 8), numbers(1, 5, 5, 6)
    rows, mask = torch.ones(1, 4, 5, dtype=torch.float64), torch.ones(1, 5, dtype=torch.float64)
    rows[:, 3], rows[:, :, 4], mask[:, 4] = 0, 0, 0  # the last row, and the last residue
    pairs = mask[:, :, None] * mask[:, None]
    one = block(m, z, rows, pairs)
    m2, z2 = m.clone(), z.clone()
    m2[:, 3], m2[:, :, 4], z2[:, 4], z2[:, :, 4] = 50, -30, 70, 20
    two = block(m2, z2, rows, pairs)
    close(one[0][:, :3, :4], two[0][:, :3, :4])
    close(one[1][:, :4, :4], two[1][:, :4, :4])
    short = block(m[:, :3, :4], z[:, :4, :4], rows[:, :3, :4], pairs[:, :4, :4])
    close(one[0][:, :3, :4], short[0])
    close(one[1][:, :4, :4], short[1])


@pytest.mark.parametrize("extra", [False, True])
def test_the_order_of_relatives_does_not_matter_to_pairs(extra: bool) -> None:
    block, order = stirred(Block(SIZES, extra)), [0, 3, 1, 2]
    m, z = numbers(1, 4, 5, 8), numbers(1, 5, 5, 6)
    rows, pairs = torch.ones(1, 4, 5, dtype=torch.float64), torch.ones(1, 5, 5, dtype=torch.float64)
    one, two = block(m, z, rows, pairs), block(m[:, order], z, rows, pairs)
    close(one[1], two[1])
    close(one[0][:, order], two[0])


def test_blocks_begin_by_doing_nothing_and_saving_changes_nothing() -> None:
    m, z = numbers(1, 2, 4, 8), numbers(1, 4, 4, 6)
    rows, pairs = torch.ones(1, 2, 4, dtype=torch.float64), torch.ones(1, 4, 4, dtype=torch.float64)
    fresh = Stack(2, SIZES).double().eval()
    close(fresh(m, z, rows, pairs)[0], m)
    close(fresh(m, z, rows, pairs)[1], z)
    stack = stirred(Stack(2, SIZES, saving=True))
    slopes = []
    for saving in (True, False):
        stack.saving = saving
        stack.zero_grad()
        sum(part.square().sum() for part in stack(m, z, rows, pairs)).backward()
        slopes.append([p.grad.clone() for p in stack.parameters()])
    for one, two in zip(*slopes, strict=True):
        close(one, two)
