"""Patterns of attention: what a token sees, and that layers together see everything."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from castalia.nn.causal import Cache, CausalBlock, Pattern
from castalia.nn.sparse import alternating, block, column, local, previous, strided, summaries

T = 24


def seen(pattern: Pattern) -> Tensor:
    """Which tokens (columns) a token (row) sees, among those that are not after it."""
    at = torch.arange(T)
    return pattern(at[:, None], at) & (at[:, None] >= at)


@pytest.mark.parametrize(
    ("pattern", "of_13"),
    [
        (local(4), [10, 11, 12, 13]),
        (strided(4), [1, 5, 9, 13]),
        (block(4), [12, 13]),
        (summaries(4, 1), [3, 7, 11, 13]),
        (column(4), [1, 5, 9, 13]),
        (previous(4), [8, 9, 10, 11]),
    ],
)
def test_what_a_token_sees(pattern: Pattern, of_13: list[int]) -> None:
    assert seen(pattern)[13].nonzero()[:, 0].tolist() == of_13


def test_everything_has_something_to_see() -> None:
    for pattern in (local(4), strided(4), block(4), summaries(4, 1), previous(4)):
        assert seen(pattern).any(1).all()


@pytest.mark.parametrize("pair", [(local(4), strided(4)), (block(4), summaries(4, 1))])
def test_two_layers_of_a_pair_connect_everything(pair: tuple[Pattern, Pattern]) -> None:
    one, two = (seen(p).int() for p in pair)
    reach = (two @ one + one @ two) > 0
    assert torch.equal(reach, torch.ones(T, T).tril().bool())


def test_rows_columns_and_rows_before_connect_everything() -> None:
    """In three layers, the paper's turn, but for tokens further back in an earlier column than the row before."""
    one, two, three = (seen(p).int() + torch.eye(T).int() for p in (block(4), column(4), previous(4)))
    reach = (three @ two @ one) > 0
    assert reach.sum() > 0.95 * T * (T + 1) / 2


@pytest.mark.parametrize("kind", ["dense", "strided", "fixed", "banded"])
def test_a_block_with_a_pattern_is_one_with_its_mask_also_from_a_cache(kind: str) -> None:
    for pattern in alternating(kind, 2, 4):
        layer = CausalBlock(8, 2, 16, pattern=pattern).double()
        x = torch.randn(2, T, 8, dtype=torch.float64)
        whole = layer(x)
        for t in (5, 13, 20):
            changed = x.clone()
            hidden = torch.arange(T) > t if pattern is None else ~seen(pattern)[t]
            changed[:, hidden] += 1
            torch.testing.assert_close(layer(changed)[:, t], whole[:, t], atol=1e-12, rtol=0)
        cache = Cache.empty(2, 2, T, 4, torch.float64, torch.device("cpu"))
        parts = [layer(x[:, a:b], cache, torch.arange(a, b).expand(2, -1)) for a, b in ((0, 7), (7, 8), (8, T))]
        torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-12, rtol=0)
