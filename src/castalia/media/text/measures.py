"""What can be said of texts without a likelihood: whether they repeat themselves, are copied, and have the right pairs.

Papers
    Welleck et al. 2020 (arXiv:1908.04319): repetition is the share of runs of n = 4 that a text had before; here of
    words, whatever the tokens are, so that models with different vocabularies can be compared.
    McCoy et al. 2023 (arXiv:2111.09509): copying is the share of a text's n-grams that the training data have; here of
    runs of tokens.

Longer texts repeat more, so samples and real examples are cut to one length first.
"""

from __future__ import annotations

import numpy as np

from castalia.core.data import Batch
from castalia.core.rng import derive
from castalia.core.specs.text import TextSpec
from castalia.estimators.metric import Metric, subset
from castalia.estimators.progress import Ticker
from castalia.media.base import Measure, Work
from castalia.media.measures import beside
from castalia.media.text.packed import PackedText
from castalia.media.text.tokens import tokens_of

WORDS = 4
"""Words of a run that counts as repeated."""

RUN = {"bpe": 8, "bytes": 24, "chars": 24}
"""Tokens of a run that counts as copied: about five words."""

AT_ONCE = 1 << 20
"""Tokens of the training data that are looked at at once; bounds the memory."""


def repetition(work: Work) -> dict[str, Metric]:
    """``repetition``: share of the runs of four words that a text has had before."""
    spec, length = work.spec, _length(work)
    tokens = tokens_of(spec)

    def shares(batch: Batch) -> np.ndarray:
        texts = [tokens.decode(row, "\n") for row in batch.x[:, :length].numpy()]
        return np.array([_repeated(text.split()) for text in texts])

    what = f"runs of {WORDS} words that a text had before, within {length} tokens"
    return beside("repetition", shares, work, "share", what)


def _repeated(words: list[str]) -> float:
    runs = [tuple(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else float("nan")


def copied(work: Work) -> dict[str, Metric]:
    """``copied``: share of the runs of tokens of a text that stand in the training data too."""
    spec, train, held_out, length = work.spec, work.train, work.held_out, _length(work)
    assert work.samples is not None
    assert held_out is not None
    if not isinstance(train, PackedText):  # the only texts there are; of others it is not known what follows on what
        return {}
    n = RUN[spec.kind]
    hashes = _Hashes(spec, n)
    real = held_out.batch(subset(len(held_out), len(work.samples), work.seed, "floor"))
    wanted = np.unique(np.concatenate([hashes.of(row) for x in (work.samples.x, real.x) for row in x.numpy()]))
    found = np.zeros(len(wanted), bool)
    ticker = Ticker("copied", len(train.row), work.show)
    for start in range(0, len(train.row), AT_ONCE):
        there = hashes.of(train.row[start : start + AT_ONCE + n - 1])
        found |= np.isin(wanted, there)
        ticker.step(min(AT_ONCE, len(train.row) - start))
    known = wanted[found]

    def shares(batch: Batch) -> np.ndarray:
        rows = [hashes.of(row) for row in batch.x[:, :length].numpy()]
        return np.array([np.isin(row, known).mean() if len(row) else np.nan for row in rows])

    what = f"runs of {n} tokens that stand in {train.name} too, within {length} tokens"
    return beside("copied", shares, work, "share", what)


def pairs(work: Work) -> dict[str, Metric]:
    """``pairs``: how differently often neighbouring pairs of tokens occur in samples and in held-out examples."""
    samples, train, held_out, length, spec = work.samples, work.train, work.held_out, _length(work), work.spec
    assert samples is not None
    assert held_out is not None
    assert train is not None
    n = min(len(samples), len(train), len(held_out))  # the distance falls with the counts, so they are equal
    real = held_out.batch(subset(len(held_out), n, work.seed, "floor")).x.numpy()[:, :length]
    other = train.batch(subset(len(train), n, work.seed, "pairs")).x.numpy()[:, :length]
    reference = pair_shares(real, spec.size)
    out = {}
    for suffix, x, what in (("", samples.x.numpy()[:n, :length], "samples"), ("_floor", other, "training examples")):
        value = total_variation(pair_shares(x, spec.size), reference)
        detail = (
            f"total variation of the shares of pairs; {n} {what} against {n} held-out ones, of {length} tokens each"
        )
        kind = "plug-in, larger at smaller counts"
        out["pairs" + suffix] = Metric(value, "share", kind, n, work.seed, None, detail)
    return out


def pair_shares(x: np.ndarray, size: int) -> dict[int, float]:
    """How often each pair of neighbouring tokens occurs, as shares; ``x`` is ``int64`` (B, T), padded with -1."""
    numbers = (x[:, :-1] * (size + 1) + x[:, 1:])[(x[:, :-1] >= 0) & (x[:, 1:] >= 0)]
    values, counts = np.unique(numbers, return_counts=True)
    total = max(int(counts.sum()), 1)
    return dict(zip(values.tolist(), (counts / total).tolist(), strict=True))


def total_variation(a: dict[int, float], b: dict[int, float]) -> float:
    """Half the sum of absolute differences of shares, 0 to 1."""
    return 0.5 * sum(abs(a.get(k, 0.0) - b.get(k, 0.0)) for k in a.keys() | b.keys())


class _Hashes:
    """Numbers for runs of n tokens; two different runs have the same one once in 2^64."""

    def __init__(self, spec: TextSpec, n: int) -> None:
        random = np.random.Generator(np.random.Philox(derive(0, "runs")))
        self.n = n
        self.values = random.integers(0, 1 << 64, spec.size, dtype=np.uint64)
        self.factors = random.integers(0, 1 << 64, n, dtype=np.uint64) | np.uint64(1)

    def of(self, row: np.ndarray) -> np.ndarray:
        """``uint64`` (T - n + 1,) of the runs of tokens (T,), without padding; empty where there is no run."""
        row = row[row >= 0] if row.dtype == np.int64 else row
        count = len(row) - self.n + 1
        out = np.zeros(max(count, 0), np.uint64)
        if count > 0:
            numbers = self.values[row]
            for k in range(self.n):
                out += numbers[k : k + count] * self.factors[k]
        return out


def _length(work: Work) -> int:
    """Tokens that both samples and windows have at most."""
    assert work.samples is not None
    return min(work.samples.x.shape[1], work.spec.length + 1)


MEASURES = (
    Measure("repetition", ("samples", "held-out"), repetition),
    Measure("copied", ("samples", "held-out", "train"), copied),
    Measure("pairs", ("samples", "held-out", "train"), pairs),
)
