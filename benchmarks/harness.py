"""Two sides timed in turn, and what a row of the table is."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch.utils.flop_counter import FlopCounterMode

Run = Callable[[], object]


class Timed(Protocol):
    """Work that is timed where it runs, in another process."""

    def seconds(self) -> tuple[float, float]:
        """Wall and processor seconds of one piece of work."""
        ...


Direction = Literal["at least", "at most"]

BUDGET = 40.0
"""Seconds of a row."""


@dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes:
        rounds: how often both sides are timed.
        threads: of this process.
        quick: small sizes, to see that it works.
        only: texts; only rows whose work holds one of them are measured; empty: all.
    """

    rounds: int = 7
    threads: int = 1
    quick: bool = False
    only: tuple[str, ...] = ()

    def wants(self, work: str) -> bool:
        """Whether a row is to be measured."""
        return not self.only or any(text in work for text in self.only)


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        group: the module that measured it.
        work: what both sides did.
        peer: the other side; empty where there is none.
        ours: median of our side, in ``unit``.
        theirs: median of the other side; None where there is none.
        unit: of both.
        value: what is judged: a ratio of speeds (theirs / ours in time, so more is better), or ``ours`` itself.
        low: smallest value of all rounds.
        high: largest value of all rounds.
        cpu: the same value in processor time; None where it was not taken.
        rounds: how many.
        target: what ``value`` should be.
        direction: on which side of the target.
        gflops: billions of operations a second that our side reached; None where they were not counted.
        share: of the machine's measured ceiling that this is.
        ceiling: which ceiling.
        profile: where our side spent its time: operations and their shares.
        note: what else is to be known.
    """

    group: str
    work: str
    peer: str
    ours: float
    theirs: float | None
    unit: str
    value: float
    low: float
    high: float
    cpu: float | None = None
    rounds: int = 1
    target: float | None = None
    direction: Direction = "at least"
    gflops: float | None = None
    share: float | None = None
    ceiling: str = ""
    profile: tuple[tuple[str, float], ...] = ()
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the median is on the right side of the target; None where there is no target."""
        if self.target is None:
            return None
        return self.value >= self.target if self.direction == "at least" else self.value <= self.target


@dataclass(frozen=True)
class Timing:
    """Both sides, round by round.

    Attributes:
        ours: (wall, processor) seconds of each round.
        theirs: the same of the other side.
    """

    ours: tuple[tuple[float, float], ...]
    theirs: tuple[tuple[float, float], ...]

    def ratios(self, clock: int) -> list[float]:
        """Theirs / ours within each round; clock 0 is wall, 1 processor time."""
        return [b[clock] / a[clock] for a, b in zip(self.ours, self.theirs, strict=True)]

    def row(
        self,
        group: str,
        work: str,
        peer: str,
        *,
        target: float | None = None,
        direction: Direction = "at least",
        inverse: bool = False,
        per: float = 1.0,
        unit: str = "ms",
        gflop: float | None = None,
        ceiling: tuple[str, float] | None = None,
        profile: tuple[tuple[str, float], ...] = (),
        note: str = "",
    ) -> Row:
        """The row of this timing.

        Args:
            group: see :class:`Row`.
            work: see :class:`Row`.
            peer: see :class:`Row`.
            target: see :class:`Row`.
            direction: see :class:`Row`.
            inverse: judge ours / theirs (a share of their cost) instead of theirs / ours.
            per: pieces of work in one timing, by which the times are divided.
            unit: ``ms`` or ``us`` for a piece.
            gflop: billions of operations of one piece.
            ceiling: its name and its billions of operations a second.
            profile: see :class:`Row`.
            note: see :class:`Row`.
        """
        scale = {"ms": 1e3, "us": 1e6}[unit] / per
        wall, cpu = self.ratios(0), self.ratios(1)
        if inverse:
            wall, cpu = [1 / r for r in wall], [1 / r for r in cpu]
        ours = statistics.median(a[0] for a in self.ours) * scale
        reached = None if gflop is None else gflop / (ours / {"ms": 1e3, "us": 1e6}[unit])
        return Row(
            group,
            work,
            peer,
            ours,
            statistics.median(b[0] for b in self.theirs) * scale,
            unit,
            statistics.median(wall),
            min(wall),
            max(wall),
            statistics.median(cpu),
            len(wall),
            target,
            direction,
            reached,
            None if reached is None or ceiling is None else reached / ceiling[1],
            "" if ceiling is None else ceiling[0],
            profile,
            note,
        )


def seconds(run: Run | Timed) -> tuple[float, float]:
    """Wall and processor seconds of one run."""
    if not callable(run):
        return run.seconds()
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def alternate(ours: Run | Timed, theirs: Run | Timed, rounds: int, warm: int = 1) -> Timing:
    """Time both sides in turn; who begins changes from round to round.

    Past :data:`BUDGET` seconds three rounds are enough.

    Args:
        ours: one side.
        theirs: the other.
        rounds: how often.
        warm: untimed runs before.
    """
    for _ in range(warm):
        seconds(ours), seconds(theirs)
    times: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    started = time.perf_counter()
    for number in range(rounds):
        if number >= 3 and time.perf_counter() - started > BUDGET:
            break
        for side in ((0, 1), (1, 0))[number % 2]:
            gc.collect()  # nobody pays for the other's rubbish
            times[side].append(seconds((ours, theirs)[side]))
    return Timing(tuple(times[0]), tuple(times[1]))


def gflop(run: Run) -> float:
    """Billions of floating-point operations (a multiplication and an addition are two) of a run."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 1e9


def profile(run: Run, most: int = 6) -> tuple[tuple[str, float], ...]:
    """Operations by their own processor time, largest first, as shares of the whole."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        run()
    events = [(e.key, e.self_cpu_time_total) for e in found.key_averages()]
    total = sum(time for _, time in events) or 1.0
    ranked = sorted(events, key=lambda e: -e[1])[:most]
    return tuple((name.removeprefix("aten::"), time / total) for name, time in ranked)
