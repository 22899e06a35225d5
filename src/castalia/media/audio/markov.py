"""What counting alone predicts of sound: Markov chains of mu-law codes, the floors that a model has to beat.

A chain of order k predicts a code from the k codes before it. Counts are smoothed by mixing each order with the one
below (a Dirichlet prior around it, MacKay & Peto 1995): ``p_k = (count + strength p_{k-1}) / (total + strength)``, from
equal shares up. The strengths are chosen on a part of the training clips that is not counted; the test split is looked
at once.

    python -m castalia.media.audio.markov free-spoken-digits
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import numpy as np
import torch

from castalia.media.audio.clips import FULL_SCALE, AudioClips
from castalia.nn import mulaw

ORDERS = 2
STRENGTHS = tuple(4.0**k for k in range(-2, 8))
BEFORE = mulaw.SILENCE
"""The code that stands before a clip's first."""


def codes_of(data: AudioClips, clips: Sequence[int]) -> list[np.ndarray]:
    """Mu-law codes ``int64`` (T,) of mono clips."""
    if data.spec.channels != 1:
        raise ValueError("chains are of mono sound")
    return [mulaw.encode(torch.from_numpy(data.clip(i)[:, 0].astype(np.float32) / FULL_SCALE)).numpy() for i in clips]


def contexts(clips: Sequence[np.ndarray], order: int) -> np.ndarray:
    """For every code the number of its context and itself, written in base 256, ``int64`` (N,)."""
    parts = []
    for codes in clips:
        long = np.concatenate([np.full(order, BEFORE), codes])
        parts.append(sum(long[k : k + len(codes)] << (8 * (order - k)) for k in range(order + 1)))
    return np.concatenate(parts)


class Chain:
    """Smoothed counts of all orders up to ``order``.

    Args:
        clips: codes to count.
        order: longest context.
    """

    def __init__(self, clips: Sequence[np.ndarray], order: int = ORDERS) -> None:
        self.counts = [
            np.bincount(contexts(clips, k), minlength=256 ** (k + 1)).astype(np.int32) for k in range(order + 1)
        ]
        self.totals = [counts.reshape(-1, 256).sum(1) for counts in self.counts]

    def probabilities(self, clips: Sequence[np.ndarray], strengths: Sequence[float]) -> np.ndarray:
        """Probability of every code of the clips, ``float64`` (N,), by the chain of order ``len(strengths) - 1``."""
        p = np.full(sum(map(len, clips)), 1 / 256)
        for k, strength in enumerate(strengths):
            key = contexts(clips, k)
            p = (self.counts[k][key] + strength * p) / (self.totals[k][key >> 8] + strength)
        return p

    def tune(self, clips: Sequence[np.ndarray], order: int) -> tuple[float, ...]:
        """Strengths for a chain of that order, each the best on ``clips`` given those of lower orders."""
        chosen: tuple[float, ...] = ()
        for _ in range(order + 1):
            tried = [(bits(self.probabilities(clips, (*chosen, s))), s) for s in STRENGTHS]
            chosen = (*chosen, min(tried)[1])
        return chosen


def bits(probabilities: np.ndarray) -> float:
    """Mean bits per code."""
    return float(-np.log(probabilities).mean() / math.log(2))


def floors(train: AudioClips, test: AudioClips, orders: int = ORDERS) -> dict[str, float]:
    """Bits per sample of the test clips by chains of each order, counted on the training clips.

    Returns:
        ``order 0``, ``order 1``, ... in bits.
    """
    held = [i for i in range(len(train)) if i % 10 == 9]
    kept = [i for i in range(len(train)) if i % 10 != 9]
    strengths = Chain(codes_of(train, kept), orders).tune(codes_of(train, held), orders)
    whole, measured = Chain(codes_of(train, range(len(train))), orders), codes_of(test, range(len(test)))
    return {f"order {k}": bits(whole.probabilities(measured, strengths[: k + 1])) for k in range(orders + 1)}


def main() -> None:
    """Print the floors of a named set or a path."""
    from castalia.media.audio.decode import AudioOptions
    from castalia.media.named import open_data

    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("source", help="a named set of sound, or a path")
    parser.add_argument("--rate", type=int, help="samples a second")
    options = parser.parse_args()
    wanted = AudioOptions(rate=options.rate, channels=1)
    train, test = (open_data(options.source, wanted, split=split) for split in ("train", "test"))
    assert isinstance(train, AudioClips)
    assert isinstance(test, AudioClips)
    print(f"{options.source}: mu-law codes of {len(test.samples):,} test samples, {len(train.samples):,} counted")
    for name, value in floors(train, test).items():
        print(f"{name}: {value:.4f} bits/sample")


if __name__ == "__main__":
    main()
