"""Castalia with an allocator that keeps what is freed (``core/memory.py``), beside itself without."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from benchmarks.harness import Options, Row, alternate
from benchmarks.sides import Side
from benchmarks.unet import CASES, PRECISIONS, our_sampling, our_training


def rows(options: Options) -> Iterator[Row]:
    """Training steps and samplings of the smaller U-Net, in both precisions."""
    case = CASES[0]
    work = (("training step", our_training), (f"{case.steps} steps of DDIM", our_sampling))
    for (what, make), precision in product(work, PRECISIONS):
        with (
            Side(make, case, precision, threads=options.threads, keeps=True) as kept,
            Side(make, case, precision, threads=options.threads) as returned,
        ):
            timing = alternate(kept, returned, options.rounds)
        yield timing.row("memory", f"{case.name}: {what}, {precision}, memory kept", "memory given back")
