"""How many threads can run at once, which is fewer than there are cores where other programs keep some of them busy.

The parts of one operation wait for each other. Where one of them has no core, all the others wait until the system
gives it one, thousands of times in a training step: one busy program can make two threads a hundred times slower than
one (``docs/log.md``).
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

LOOK = 0.05
"""Seconds of work to look at: a system lends cores for some milliseconds at a time, in which all looks well."""

ELEMENTS = 1 << 15
"""Numbers for each thread: torch gives a thread at least so many of an elementwise operation."""

SLOWER = 1.5
"""Threads that take this many times as long as a single one get in each other's way: 0.85 to 1.0 times are usual where
all have cores, 1.7 to 2,000 where they do not."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def asked() -> int | None:
    """Threads that the environment asks for."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) else None


def free_threads(most: int) -> int:
    """How many of ``most`` threads do not have to wait for cores just now: all of them, one less, a half, a quarter...

    Takes a twentieth of a second, or two; more where cores are busy.
    """
    before = torch.get_num_threads()
    try:
        numbers = torch.zeros(ELEMENTS * most)
        alone = statistics.median(_seconds(numbers, 1, 800, LOOK))  # which does not see when the thread had to pause
        operations, limit = math.ceil(LOOK / alone), LOOK * SLOWER
        # twice, because anything can be late once
        return next(
            n
            for n in _fewer(most)
            if n == 1 or any(sum(_seconds(numbers, n, operations, limit)) < limit for _ in range(2))
        )
    finally:
        torch.set_num_threads(before)


AGAIN = 5.0
"""Seconds after which threads are looked at again, where there is an occasion."""


@dataclass
class _Mine:
    """What is known of a process that is ours alone.

    Attributes:
        most: threads that it had at first; 0 where the process is somebody's.
        looked: when they were looked at last.
    """

    most: int = 0
    looked: float = -math.inf


_mine = _Mine()


def use_free_threads() -> None:
    """Set the threads of this process to those that are free, unless the environment says how many.

    For processes that are Castalia's own. From then on :func:`look_again` does so too.
    """
    if asked() is None:
        _mine.most = _mine.most or torch.get_num_threads()
        torch.set_num_threads(free_threads(_mine.most))
        _mine.looked = time.monotonic()


def look_again() -> None:
    """:func:`use_free_threads` between two pieces of work, at most every few seconds; nothing in somebody's process.

    Other programs come and go while samples are drawn and likelihoods are measured. A training decides for itself
    (``training/plan.py``), and writes down what it decided.
    """
    if _mine.most and time.monotonic() - _mine.looked >= AGAIN:
        use_free_threads()


def _fewer(most: int) -> Iterator[int]:
    yield most
    if most > 2:
        yield most - 1
    while most > 1:
        most //= 2
        yield most


def _seconds(numbers: Tensor, threads: int, operations: int, limit: float = math.inf) -> list[float]:
    """Times of small operations, of as many as are asked for or as come to ``limit``."""
    torch.set_num_threads(threads)
    numbers.add_(1)  # the threads are made here
    times: list[float] = []
    total = 0.0
    while len(times) < operations and total < limit:
        started = time.perf_counter()
        numbers.add_(1)
        times.append(time.perf_counter() - started)
        total += times[-1]
    return times
