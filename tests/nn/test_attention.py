"""Attention in plain steps beside torch's own, with masks of every shape, and what drops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from castalia.nn.attention import attend, plainly
from castalia.nn.causal import attend_back


def made(dtype: torch.dtype, keys: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return tuple(torch.randn(3, 2, n, 8, generator=g).to(dtype) for n in (6, keys, keys))  # type: ignore[return-value]


MASKS = {
    "none": None,
    "of queries and keys": torch.ones(6, 9, dtype=torch.bool).tril(3),
    "of examples": (torch.arange(9) < torch.tensor([2, 9, 5])[:, None])[:, None, None],
    "of examples and queries": torch.rand(3, 1, 6, 9, generator=torch.Generator().manual_seed(1)) < 0.7,
    "of heads": torch.rand(1, 2, 6, 9, generator=torch.Generator().manual_seed(2)) < 0.7,
}


@pytest.mark.parametrize("name", list(MASKS))
def test_plain_steps_are_the_fused_ones(name: str) -> None:
    seen = MASKS[name]
    if seen is not None:
        seen = seen.clone()
        seen[..., 0] = True  # at least one key
    q, k, v = (z.requires_grad_() for z in made(torch.bfloat16))
    assert plainly(q, 9)
    assert not plainly(q, 513)
    assert not plainly(q.float(), 9)
    found = attend(q, k, v, seen)
    wanted = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=seen)
    torch.testing.assert_close(found.float(), wanted, atol=0.03, rtol=0.03)
    ours = torch.autograd.grad(found.float().square().sum(), (q, k, v))
    theirs = torch.autograd.grad(wanted.square().sum(), (q, k, v))
    for a, b in zip(ours, theirs, strict=True):
        assert float((a - b).norm() / b.norm()) < 0.03
    same = attend(*(z.float() for z in (q, k, v)), seen)
    torch.testing.assert_close(same, wanted)


@pytest.mark.parametrize("window", [None, 3])
def test_what_looks_back_sees_nothing_behind(window: int | None) -> None:
    q, k, v = made(torch.bfloat16, 6)
    before = attend_back(q, k, v, window=window)
    k[:, :, 4:], v[:, :, 4:] = 9, -9
    after = attend_back(q, k, v, window=window)
    assert torch.equal(before[:, :, :4], after[:, :, :4])
    assert not torch.equal(before[:, :, 4:], after[:, :, 4:])
    exact = attend_back(q.float(), k.float(), v.float(), window=window)
    torch.testing.assert_close(after.float(), exact, atol=0.1, rtol=0.03)


def test_nothing_asked_is_nothing_found() -> None:
    q, k, v = made(torch.bfloat16)
    assert attend(q[:0], k[:0], v[:0]).shape == (0, 2, 6, 8)
    assert attend(q[:, :, :0], k, v).shape == (3, 2, 0, 8)


def test_dropout_keeps_the_mean() -> None:
    q, k = torch.zeros(1, 1, 1, 8, dtype=torch.bfloat16), torch.zeros(1, 1, 500, 8, dtype=torch.bfloat16)
    torch.manual_seed(0)
    found = torch.cat([attend(q, k, torch.ones_like(k), None, 0.5).flatten() for _ in range(50)]).float()
    assert found.std() > 0.01
    assert float(found.mean()) == pytest.approx(1, abs=0.05)
