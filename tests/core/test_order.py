"""Which examples belong to which draw, with and without blocks."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from castalia.core.data import SEEN_BLOCKS, Blocks, Order, labels_of, some_of, spread
from castalia.core.rng import derive
from castalia.core.specs.image import ImageSpec
from tests.tools import Table

SIZES = np.array([5, 0, 7, 1, 12, 9, 3, 8, 6, 4, 10], np.int64)
TOTAL = int(SIZES.sum())


def epochs(order: Order, draws: int) -> np.ndarray:
    ids = np.concatenate([order.ids(draw) for draw in range(draws)])
    return ids[: len(ids) // order.size * order.size].reshape(-1, order.size)


def test_without_blocks_nothing_has_changed() -> None:
    order = Order(10, 4, seed=3)
    philox = [np.random.Philox(derive(3, "order", epoch)) for epoch in range(2)]
    expected = np.concatenate([np.random.Generator(one).permutation(10) for one in philox])
    assert np.concatenate([order.ids(draw) for draw in range(5)]).tolist() == expected.tolist()


@pytest.mark.parametrize("window", [1, 2, 4, 11, 50])
@pytest.mark.parametrize("batch", [1, 6, 70, 200])
def test_every_example_once_an_epoch(window: int, batch: int) -> None:
    found = epochs(Order(TOTAL, batch, 0, Blocks(SIZES, window)), 3 * TOTAL // batch + 2)
    assert len(found) >= 3
    assert (np.sort(found) == np.arange(TOTAL)).all()
    assert (found[0] != found[1]).any()


def test_a_function_of_seed_and_draw() -> None:
    blocks = Blocks(SIZES, 3)
    order = Order(TOTAL, 7, 5, blocks)
    ahead = [order.ids(draw).tolist() for draw in range(40)]
    for draw in (0, 39, 17, 3, 22, 0):  # asked in any order, by a fresh one too
        assert order.ids(draw).tolist() == ahead[draw]
        assert Order(TOTAL, 7, 5, blocks).ids(draw).tolist() == ahead[draw]
    assert Order(TOTAL, 7, 6, blocks).ids(0).tolist() != ahead[0]


def test_draws_stay_in_a_few_blocks() -> None:
    sizes = np.full(100, 50, np.int64)
    order = Order(5000, 25, 0, Blocks(sizes, 4))
    ids = epochs(order, 200)[0]
    seen = [set(window.tolist()) for window in (ids // 50).reshape(25, 200)]
    assert all(len(blocks) == 4 for blocks in seen)
    assert len(set.union(*seen)) == 100
    first = (ids // 50)[:200]
    assert (np.diff(first) != 0).sum() > 100, "mixed inside of a window, not one block after the other"
    spans = [set((order.ids(draw) // 50).tolist()) for draw in range(200)]
    assert max(map(len, spans)) <= 4
    # eleven blocks in windows of at most four are three windows of nearly one length
    lengths = np.diff(Order(TOTAL, 1, 0, Blocks(SIZES, 4))._cuts)
    assert sorted(lengths.tolist()) == [3, 4, 4]


def test_a_hundred_million_examples_are_cheap() -> None:
    blocks = Blocks(np.full(100_000, 1000, np.int64), 17)
    order = Order(100_000_000, 256, 0, blocks)
    started = time.perf_counter()
    ids = [order.ids(draw) for draw in (0, 1, 2, 390_624, 390_625)]
    assert time.perf_counter() - started < 2
    assert all(0 <= one.min() <= one.max() < 100_000_000 for one in ids)
    assert sum(window.nbytes for window in order._windows.values()) < 1 << 20


def test_layout_of_a_part() -> None:
    ids = np.flatnonzero(np.arange(TOTAL) % 3 == 0)
    part = Blocks(SIZES, 3).of(ids)
    owner = np.repeat(np.arange(len(SIZES)), SIZES)[ids]
    assert part.sizes.tolist() == np.bincount(owner, minlength=len(SIZES)).tolist()
    assert part.window == 3
    with pytest.raises(ValueError, match="blocks of"):
        Order(TOTAL + 1, 4, 0, Blocks(SIZES, 3))


def test_a_few_examples_come_from_a_few_blocks() -> None:
    table = Table(torch.zeros(5000, 1, 1, 1, dtype=torch.uint8), ImageSpec(1, 1, 1), torch.arange(5000) % 7)
    assert some_of(table, 60).tolist() == spread(5000, 60).tolist()
    table.blocks = Blocks(np.full(100, 50, np.int64), 4)
    ids = some_of(table, 640)
    assert len(ids) == 640
    assert (np.diff(ids) > 0).all()
    assert len(set((ids // 50).tolist())) == SEEN_BLOCKS
    assert ids.min() == 0
    assert ids.max() == 4999
    found = labels_of(table, ids[::-1].copy())
    assert found is not None
    assert found.tolist() == (ids[::-1] % 7).tolist()
    table.labels = None
    assert labels_of(table, ids) is None
