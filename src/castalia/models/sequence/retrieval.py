"""Finding what is like something: one interface for all indexes, and a database of chunks of text with one of them.

Papers
    Borgeaud et al. 2021 (arXiv:2112.04426): chunks, their continuations, and that a document does not find itself.
    Weinberger et al. 2009 (arXiv:0902.2206): hashed features. Robertson & Zaragoza 2009: BM25.

Numbers of :class:`Exact` over whole numbers are exact in single precision as long as all sums stay below 2^24, as those
of :class:`Hashed` do. So what is found does not depend on how many look for something at once, and equal scores are
ordered by number: what is sampled with a database is the same alone and among others.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from castalia.core.errors import UsageError

AT_ONCE = 1 << 24
"""Scores that are held at once."""

LENGTH = 1000.0
"""Length of the vectors of :class:`Hashed` before they are rounded to whole numbers."""

BUCKETS = 1 << 16
"""Kinds of n-grams that are told apart when they are counted."""


class Index(ABC):
    """Rows that can be searched.

    Attributes:
        size: how many.
    """

    size: int

    @abstractmethod
    def search(self, queries: Tensor, k: int, barred: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The best k rows for each query, the best first, of equal ones that with the smaller number.

        Args:
            queries: (q, ...), what the rows are.
            k: at least 1.
            barred: ``int64`` (q, 2): rows from the first number up to before the second are not found.

        Returns:
            Scores ``float64`` (q, k), larger is better, -inf where there is nothing; numbers ``int64`` (q, k), or -1.
        """


class Exact(Index):
    """Every row is looked at.

    Args:
        keys: ``float32`` (N, d).
        metric: ``dot`` (scores are inner products) or ``l2`` (scores are negative squared distances).
    """

    def __init__(self, keys: Tensor, metric: Literal["dot", "l2"] = "dot") -> None:
        self.keys, self.metric, self.size = keys, metric, len(keys)

    def search(self, queries: Tensor, k: int, barred: Tensor | None = None) -> tuple[Tensor, Tensor]:
        keys = self.keys.to(queries.device)
        best, numbers = _nothing(len(queries), k, queries.device)
        step = max(1, AT_ONCE // max(len(queries), 1))
        for start in range(0, self.size, step):
            part = keys[start : start + step]
            with torch.autocast(queries.device.type, enabled=False):
                scores = queries.float() @ part.float().T
                if self.metric == "l2":
                    lengths = queries.double().square().sum(1, keepdim=True) + part.double().square().sum(1)
                    scores = 2 * scores.double() - lengths
            found = _best(scores.double(), k, start, barred)
            best, numbers = _merged(torch.cat([best, found[0]], 1), torch.cat([numbers, found[1]], 1), k)
        return best, numbers


class Faiss(Index):
    """Cells of similar rows, of which the nearest are looked at: for millions of rows. Needs ``faiss-cpu``.

    What lies in a barred range is left out of more rows than were asked for, so that fewer than k may remain.

    Args:
        keys: ``float32`` (N, d).
        metric: as in :class:`Exact`.
        cells: into how many parts the rows are cut; 0: the square root of their number.
        probed: how many parts are looked at.
        more: rows that are looked at beyond k where some are barred.
    """

    def __init__(
        self,
        keys: Tensor,
        metric: Literal["dot", "l2"] = "dot",
        cells: int = 0,
        probed: int = 32,
        more: int = 100,
    ) -> None:
        faiss = _faiss()
        self.metric, self.size, self.more = metric, len(keys), more
        rows = np.ascontiguousarray(keys.detach().cpu().numpy(), np.float32)
        kind = faiss.METRIC_INNER_PRODUCT if metric == "dot" else faiss.METRIC_L2
        count = min(cells or math.isqrt(len(rows)), len(rows))
        coarse = faiss.IndexFlatIP(rows.shape[1]) if metric == "dot" else faiss.IndexFlatL2(rows.shape[1])
        self.index = faiss.IndexIVFFlat(coarse, rows.shape[1], max(count, 1), kind)
        self.index.train(rows)
        self.index.add(rows)
        self.index.nprobe = probed

    def search(self, queries: Tensor, k: int, barred: Tensor | None = None) -> tuple[Tensor, Tensor]:
        wanted = min(k + (0 if barred is None else self.more), self.size)
        found = self.index.search(np.ascontiguousarray(queries.detach().cpu().numpy(), np.float32), wanted)
        scores, numbers = (torch.from_numpy(part).to(queries.device) for part in found)
        scores = scores.double() if self.metric == "dot" else -scores.double()
        out = numbers < 0
        if barred is not None:
            out |= (numbers >= barred[:, :1]) & (numbers < barred[:, 1:])
        return _merged(scores.masked_fill(out, -math.inf), numbers.masked_fill(out, -1), k)


def _faiss() -> Any:
    try:
        import faiss  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UsageError("This index needs FAISS: pip install faiss-cpu. The exact one needs nothing.") from error
    return faiss


class BM25(Index):
    """Rows of terms, scored by BM25: rare terms count for more, and terms that are repeated for less each time.

    Args:
        rows: terms ``int64`` (N, t), any numbers; -1 is none.
        k1: how soon repetitions stop to count.
        b: how much long rows count for less, 0 to 1.
    """

    def __init__(self, rows: Tensor, k1: float = 1.5, b: float = 0.75) -> None:
        self.size, terms = len(rows), rows.cpu().numpy()
        there = terms >= 0
        row = np.repeat(np.arange(self.size), there.sum(1))
        pairs, counts = np.unique(np.stack([terms[there], row]), axis=1, return_counts=True)  # by term, then by row
        self.terms, first, self.documents = np.unique(pairs[0], return_index=True, return_counts=True)
        self.first, self.rows = first, pairs[1]
        lengths = there.sum(1) / max(there.sum(1).mean(), 1e-9)
        idf = np.log1p((self.size - self.documents + 0.5) / (self.documents + 0.5))
        share = counts * (k1 + 1) / (counts + k1 * (1 - b + b * lengths[self.rows]))
        self.weights = np.repeat(idf, self.documents) * share

    def search(self, queries: Tensor, k: int, barred: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As :meth:`Index.search`; queries are terms ``int64`` (q, t). What has no term of a query is not found."""
        best, numbers = _nothing(len(queries), k, queries.device)
        for i, query in enumerate(queries.cpu().numpy()):
            scores = np.zeros(self.size)
            wanted, often = np.unique(query[query >= 0], return_counts=True)
            at = np.minimum(np.searchsorted(self.terms, wanted), len(self.terms) - 1)
            for term, count in zip(at[self.terms[at] == wanted], often[self.terms[at] == wanted], strict=True):
                part = slice(self.first[term], self.first[term] + self.documents[term])
                scores[self.rows[part]] += count * self.weights[part]
            scored = torch.from_numpy(np.where(scores > 0, scores, -np.inf))[None].to(queries.device)
            found = _best(scored, k, 0, None if barred is None else barred[i : i + 1])
            best[i], numbers[i] = _merged(*found, k)[0][0], _merged(*found, k)[1][0]
        return best, numbers


def _nothing(q: int, k: int, device: torch.device) -> tuple[Tensor, Tensor]:
    scores = torch.full((q, k), -math.inf, dtype=torch.float64, device=device)
    return scores, torch.full((q, k), -1, dtype=torch.int64, device=device)


def _best(scores: Tensor, k: int, start: int, barred: Tensor | None) -> tuple[Tensor, Tensor]:
    """The best k of scores ``float64`` (q, N) of rows that are numbered from ``start``."""
    numbers = torch.arange(start, start + scores.shape[1], device=scores.device)
    if barred is not None:
        scores = scores.masked_fill((numbers >= barred[:, :1]) & (numbers < barred[:, 1:]), -math.inf)
    k = min(k, scores.shape[1])
    top = scores.topk(k)
    least = top.values[:, -1:]
    if bool(((scores >= least).sum(1) == k).all()):
        return _merged(top.values, top.indices + start, k)
    # topk takes any of those that are equal to the last: of these, the first ones are wanted
    surely = scores > least
    equal = (scores == least) & ((scores == least).cumsum(1) <= k - surely.sum(1, keepdim=True))
    places = (surely | equal).nonzero()[:, 1].view(len(scores), k)
    return _merged(scores.gather(1, places), places + start, k)


def _merged(scores: Tensor, numbers: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The best k of what was found (q, n), the best first; of equal ones that with the smaller number."""
    by_number = numbers.sort(dim=1, stable=True).indices
    scores, numbers = scores.gather(1, by_number), numbers.gather(1, by_number)
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
    scores, numbers = scores.gather(1, order), numbers.gather(1, order)
    numbers = torch.where(scores == -math.inf, -1, numbers)
    if (short := k - scores.shape[1]) > 0:
        scores = torch.nn.functional.pad(scores, (0, short), value=-math.inf)
        numbers = torch.nn.functional.pad(numbers, (0, short), value=-1)
    return scores, numbers


# what chunks of text are compared by


def grams(chunks: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Numbers ``int64`` (q, ...) of all runs of tokens of some sizes in chunks ``int64`` (q, m).

    Runs with a different token have different numbers but for one in 2^40; those with padding (-1) are -1.
    """
    found = []
    for size in sizes:
        count = chunks.shape[1] - size + 1
        if count < 1:
            continue
        number = torch.full((len(chunks), count), size, dtype=torch.int64, device=chunks.device)
        there = torch.ones_like(number, dtype=torch.bool)
        for i in range(size):
            part = chunks[:, i : i + count]
            there &= part >= 0
            number = _mixed(number * 1_000_003 + part)
        found.append(torch.where(there, number & ((1 << 40) - 1), -1))
    if not found:
        raise UsageError(f"Chunks of {chunks.shape[1]} tokens have no runs of {min(sizes)}.")
    return torch.cat(found, 1)


def _mixed(x: Tensor) -> Tensor:
    """Numbers ``int64`` scattered; overflow wraps around."""
    x = x ^ ((x >> 31) & 0x1FFFFFFFF)
    x = x * 0x3C79AC492BA7B653
    return x ^ ((x >> 33) & 0x7FFFFFFF)


class Hashed:
    """Vectors of chunks: their runs of tokens, each with a weight by how rare it is, added up into ``dims`` numbers.

    Args:
        chunks: those of the database, ``int64`` (N, m), of which rarity is learned.
        sizes: of the runs.
        dims: of a vector.
    """

    def __init__(self, chunks: Tensor, sizes: tuple[int, ...], dims: int) -> None:
        self.sizes, self.dims = sizes, dims
        counts = torch.zeros(BUCKETS, dtype=torch.float64)
        for part in chunks.split(1 << 14):
            kinds = _bucket(grams(part, sizes))
            kinds = kinds.sort(1).values
            new = torch.nn.functional.pad(kinds[:, 1:] != kinds[:, :-1], (1, 0), value=True) & (kinds >= 0)
            counts += torch.bincount(kinds[new], minlength=BUCKETS)
        self.rarity = torch.log((len(chunks) + 1) / (counts + 1)).float()

    def __call__(self, chunks: Tensor) -> Tensor:
        """Vectors ``float32`` (q, dims) of whole numbers, about :data:`LENGTH` long; zero where there are no runs."""
        runs = grams(chunks, self.sizes)
        there = runs >= 0
        weights = self.rarity.to(runs.device)[_bucket(runs).clamp(min=0)].double() * there
        signs = 1 - 2 * ((runs >> 17) & 1)
        places = (runs >> 18) % self.dims
        out = torch.zeros(len(runs), self.dims, dtype=torch.float64, device=runs.device)
        out.scatter_add_(1, places.clamp(min=0), weights * signs)
        return (out * LENGTH / out.norm(dim=1, keepdim=True).clamp(min=1e-9)).round().float()


def _bucket(runs: Tensor) -> Tensor:
    return torch.where(runs >= 0, runs & (BUCKETS - 1), -1)


# a database of text

Maker = Callable[[Tensor], tuple[Index, Callable[[Tensor], Tensor]]]
"""Makes an index of chunks ``int64`` (M, m), and says what it is asked with for a chunk."""


def by_vectors(sizes: tuple[int, ...], dims: int) -> Maker:
    """An exact index of :class:`Hashed` vectors."""

    def make(chunks: Tensor) -> tuple[Index, Callable[[Tensor], Tensor]]:
        embed = Hashed(chunks, sizes, dims)
        return Exact(torch.cat([embed(part) for part in chunks.split(1 << 13)])), embed

    return make


def by_terms(sizes: tuple[int, ...]) -> Maker:
    """BM25 of runs of tokens."""

    def make(chunks: Tensor) -> tuple[Index, Callable[[Tensor], Tensor]]:
        return BM25(torch.cat([grams(part, sizes) for part in chunks.split(1 << 13)])), lambda some: grams(some, sizes)

    return make


class Database:
    """A long row of tokens in chunks; for a chunk, those that are like it, with what follows them.

    Args:
        row: tokens ``int64`` (N,).
        chunk: tokens of a chunk.
        end: the token that ends a text.
        section: a text longer than so many tokens counts as several.
        index: makes an index of chunks ``int64`` (M, chunk), and says what it is asked with.
    """

    def __init__(self, row: Tensor, chunk: int, end: int, section: int, index: Maker) -> None:
        self.chunk, self.end, self.size = chunk, end, len(row) // chunk
        if not self.size:
            raise UsageError(f"The data have {len(row)} tokens, which is not one chunk of {chunk}.")
        self.row = row
        self.chunks = row[: self.size * chunk].view(self.size, chunk)
        self.section_of = _sections(row, end, section)
        self.index, self.asked = index(self.chunks)

    def sections(self, first: Tensor, last: Tensor) -> Tensor:
        """Chunks ``int64`` (q, 2), from the first up to before the second, that share a text or section with a range.

        Args:
            first: places in the row where the ranges begin, ``int64`` (q,).
            last: the last places that belong to them, at least ``first``; what lies beyond the row has no chunks.
        """
        most = len(self.row) - 1
        low, high = (self.section_of[place.clamp(0, most).cpu()] for place in (first, last))
        begins = torch.searchsorted(self.section_of, low)
        ends = torch.searchsorted(self.section_of, high, right=True)
        barred = torch.stack([begins // self.chunk, -(-ends // self.chunk)], 1)
        return torch.where((first.cpu() > most)[:, None], 0, barred).to(first.device)

    def neighbours(self, chunks: Tensor, k: int, barred: Tensor | None = None) -> Tensor:
        """The k chunks that are most like each of ``int64`` (q, chunk), each with what follows it: (q, k, 2 chunk).

        Where a text ends within, -1 follows; a neighbour that is not there has an end, and -1 behind it.
        """
        numbers = self.index.search(self.asked(chunks), k, barred)[1]
        places = numbers[..., None] * self.chunk + torch.arange(2 * self.chunk, device=chunks.device)
        row = self.row.to(chunks.device)
        found = torch.where((numbers[..., None] >= 0) & (places < len(row)), row[places.clamp(0, len(row) - 1)], -1)
        ended = torch.nn.functional.pad((found == self.end).cumsum(-1)[..., :-1], (1, 0))
        ended = ended - (found[..., :1] == self.end).long() * (ended > 0)  # one that begins with an end is another text
        found = torch.where(ended > 0, -1, found)
        found[..., 0] = torch.where(found[..., 0] < 0, self.end, found[..., 0])
        return found


def _sections(row: Tensor, end: int, section: int) -> Tensor:
    """The number of the text or section of each token, ``int64`` (N,), rising; an end belongs to the text before it."""
    texts = torch.nn.functional.pad((row == end).long().cumsum(0)[:-1], (1, 0))
    begins = torch.searchsorted(texts, texts)  # where the text of each token begins
    new = torch.nn.functional.pad(texts[1:] != texts[:-1], (1, 0), value=False)
    places = torch.arange(len(row)) - begins
    return (new | ((places > 0) & (places % section == 0))).long().cumsum(0)
