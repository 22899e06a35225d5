"""Indexes against brute force, what chunks are compared by, and what a database gives and bars."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from castalia.core.errors import UsageError
from castalia.models.sequence import retrieval
from castalia.models.sequence.retrieval import BM25, Database, Exact, Faiss, Hashed, by_terms, by_vectors, grams


def brute(scores: np.ndarray, k: int, barred: np.ndarray | None) -> tuple[list[list[float]], list[list[int]]]:
    """The best k of scores (q, N) by sorting pairs in Python."""
    found: list[list[float]] = []
    numbers: list[list[int]] = []
    for i, row in enumerate(scores):
        low, high = (0, 0) if barred is None else barred[i]
        pairs = sorted((-s, n) for n, s in enumerate(row.tolist()) if not low <= n < high and s > -math.inf)[:k]
        short = k - len(pairs)
        found.append([-s for s, _ in pairs] + [-math.inf] * short)
        numbers.append([n for _, n in pairs] + [-1] * short)
    return found, numbers


@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize("at_once", [1 << 24, 64])
@pytest.mark.parametrize("k", [1, 4, 60])
def test_exact_is_brute_force(metric: str, at_once: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with many equal scores, block by block, with more asked for than there is, and with ranges barred."""
    monkeypatch.setattr(retrieval, "AT_ONCE", at_once)
    g = torch.Generator().manual_seed(0)
    keys = torch.randint(-2, 3, (50, 3), generator=g).float()
    queries = torch.randint(-2, 3, (9, 3), generator=g).float()
    barred = torch.stack([torch.arange(9) * 3, torch.arange(9) * 8], 1)
    q, x = queries.double().numpy(), keys.double().numpy()
    scores = q @ x.T if metric == "dot" else -np.square(q[:, None] - x).sum(-1)
    index = Exact(keys, metric)  # type: ignore[arg-type]
    for limits in (None, barred):
        found, numbers = index.search(queries, k, limits)
        wanted = brute(scores, k, None if limits is None else limits.numpy())
        assert numbers.tolist() == wanted[1]
        assert found.tolist() == wanted[0]
    alone = index.search(queries[4:5], k, barred[4:5])[1]
    assert torch.equal(alone, index.search(queries, k, barred)[1][4:5])


def test_search_in_bfloat16_is_search_in_float32() -> None:
    g = torch.Generator().manual_seed(0)
    keys, queries = torch.randn(200, 16, generator=g), torch.randn(7, 16, generator=g)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Exact(keys).search(queries, 5)[1], Exact(keys).search(queries, 5)[1])
        found = Exact(keys).search(queries, 5)[1]
    assert torch.equal(found, Exact(keys).search(queries, 5)[1])


def test_bm25_is_its_formula() -> None:
    rows = torch.tensor([[1, 2, 2, 3], [2, 4, -1, -1], [5, 5, 5, 5], [1, 5, 2, -1]])
    index = BM25(rows)
    lengths = [4, 2, 4, 3]

    def score(query: list[int], n: int) -> float:
        row, total = rows[n].tolist(), 0.0
        for term in query:
            df = sum(term in other for other in rows.tolist())
            tf = row.count(term)
            idf = math.log(1 + (4 - df + 0.5) / (df + 0.5))
            total += idf * tf * 2.5 / (tf + 1.5 * (0.25 + 0.75 * lengths[n] / np.mean(lengths)))
        return float(total)

    queries = [[2, 2, 1], [5, 4, 9], [7, 8, -1]]
    scores = np.array([[score([t for t in q if t >= 0], n) or -math.inf for n in range(4)] for q in queries])
    found, numbers = index.search(torch.tensor(queries), 3)
    wanted = brute(scores, 3, None)
    assert numbers.tolist() == wanted[1]
    for one, other in zip(found.tolist(), wanted[0], strict=True):
        assert one == pytest.approx(other)
    assert numbers[2].tolist() == [-1, -1, -1]  # terms that nothing has
    barred = index.search(torch.tensor(queries), 3, torch.tensor([[0, 1], [2, 4], [0, 0]]))[1]
    assert barred.tolist() == brute(scores, 3, np.array([[0, 1], [2, 4], [0, 0]]))[1]


def test_faiss_is_asked_for_where_it_is_missing() -> None:
    try:
        import faiss  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        with pytest.raises(UsageError, match="pip install faiss-cpu"):
            Faiss(torch.zeros(4, 2))
        return
    keys = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    every = Faiss(keys, cells=4, probed=4)  # all cells: nothing can be missed
    barred = torch.tensor([[0, 100], [50, 60]])
    assert torch.equal(every.search(keys[:2], 5, barred)[1], Exact(keys).search(keys[:2], 5, barred)[1])


def test_runs_of_tokens() -> None:
    chunks = torch.tensor([[1, 2, 3, 1, 2], [9, 1, 2, -1, -1]])
    found = grams(chunks, (2, 3))
    assert found.shape == (2, 4 + 3)
    assert found[0, 0] == found[0, 3] == found[1, 1]  # 1 2
    assert len(set(found[0].tolist())) == 6
    assert found[1].tolist().count(-1) == 4  # those with padding
    some = torch.randint(0, 60, (2000, 3), generator=torch.Generator().manual_seed(0))
    assert len(set(grams(some, (3,)).flatten().tolist())) == len({tuple(row) for row in some.tolist()})
    with pytest.raises(UsageError, match="no runs"):
        grams(chunks, (6,))


def test_vectors_are_whole_numbers_and_know_what_is_alike() -> None:
    g = torch.Generator().manual_seed(0)
    chunks = torch.randint(0, 40, (200, 16), generator=g)
    embed = Hashed(chunks, (2, 3), 256)
    vectors = embed(chunks)
    assert torch.equal(vectors, vectors.round())
    assert (vectors.norm(dim=1) - 1000).abs().max() < 20
    assert torch.equal(embed(chunks[7:8]), vectors[7:8])
    changed = chunks.clone()
    changed[:, 8] = (changed[:, 8] + 1) % 40
    assert torch.equal(Exact(vectors).search(embed(changed), 1)[1][:, 0], torch.arange(200))
    assert not embed(torch.full((1, 16), -1)).any()
    common = torch.cat([chunks, torch.full((200, 4), 7)], 1)  # what all have says nothing
    weights = Hashed(common, (3,), 256)
    alone = weights.rarity[grams(torch.tensor([[7, 7, 7]]), (3,)) & (retrieval.BUCKETS - 1)]
    assert alone.item() < 0.01
    assert weights.rarity.max() > 4


END = 9


def base(row: list[int], chunk: int = 4, section: int = 100) -> Database:
    return Database(torch.tensor(row), chunk, END, section, by_vectors((1, 2), 64))


def test_neighbours_have_what_follows_them() -> None:
    row = [9, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 9, 2, 3, 5, 7]
    found = base(row).neighbours(torch.tensor([[4, 5, 6, 7], [8, 0, 1, 2]]), 1)
    assert found.shape == (2, 1, 8)
    assert found[0, 0].tolist() == [4, 5, 6, 7, 8, 0, 1, 9]  # up to the end of the text
    assert found[1, 0].tolist() == [8, 0, 1, 9, -1, -1, -1, -1]  # nothing of the next one
    first = base(row).neighbours(torch.tensor([[9, 1, 2, 3]]), 1)[0, 0]
    assert first.tolist() == [9, 1, 2, 3, 4, 5, 6, 7]  # an end before a text begins it
    last = base(row).neighbours(torch.tensor([[2, 3, 5, 7]]), 1)[0, 0]
    assert last.tolist() == [2, 3, 5, 7, -1, -1, -1, -1]  # nothing follows
    none = base(row).neighbours(torch.tensor([[4, 5, 6, 7]]), 2, torch.tensor([[0, 4]]))
    assert none.tolist() == [[[9, -1, -1, -1, -1, -1, -1, -1]] * 2]


@pytest.mark.parametrize("maker", [by_vectors((1, 2), 64), by_terms((1, 2))])
def test_a_document_does_not_find_itself(maker: retrieval.Maker) -> None:
    """Every chunk of a text is most like itself; where the text is barred, nothing of it is found."""
    g = torch.Generator().manual_seed(0)
    texts = [torch.randint(0, 9, (n,), generator=g).tolist() for n in (13, 30, 7, 22, 41, 18)]
    row = [END] + [t for text in texts for t in (*text, END)]
    made = Database(torch.tensor(row), 4, END, 1000, maker)
    begins = np.cumsum([1] + [len(text) + 1 for text in texts])
    for first, after in pairwise(begins.tolist()):
        chunks = made.chunks[-(-first // 4) : (after - 1) // 4]
        barred = made.sections(torch.tensor([first]), torch.tensor([after - 2]))
        assert barred[0, 0] * 4 <= first
        assert barred[0, 1] * 4 >= after - 1
        limits = barred.expand(len(chunks), -1)
        numbers = made.index.search(made.asked(chunks), 3, limits)[1]
        free = made.index.search(made.asked(chunks), 1)[1][:, 0]
        inside = numbers[(numbers >= 0) & (numbers * 4 < after - 1) & (numbers * 4 + 3 >= first)]
        assert not len(inside)
        own = (free * 4 + 3 >= first) & (free * 4 < after)
        assert own.float().mean() > 0.9


def test_long_texts_are_sections() -> None:
    row = [END, *range(8), *range(8), *range(8), END, 1, 2, 3]
    made = base(row, chunk=2, section=8)
    assert made.section_of.tolist() == [0] + [0 + 1] * 8 + [2] * 8 + [3] * 8 + [4] + [5] * 3
    barred = made.sections(torch.tensor([3, 10, 7, 500]), torch.tensor([5, 12, 11, 600]))
    assert barred.tolist() == [[0, 5], [4, 9], [0, 9], [0, 0]]


def test_too_little_for_a_chunk() -> None:
    with pytest.raises(UsageError, match="not one chunk"):
        base([1, 2, 3])
