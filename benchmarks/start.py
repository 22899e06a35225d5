"""How long a person waits: for ``--help``, for ``import castalia``, for the first training step; and memory held.

Every time is the wall time of a whole process, the median over rounds. The first step is that of ``castalia train vae``
on 60,000 pictures of 28x28 (MNIST where ``CASTALIA_DATA`` has it, else random ones in a .npy file), from starting the
process until the step is done, with the precision already measured once on this machine.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.harness import Options, Row

MEMORY = """
import sys
from castalia import api
import torch, numpy, PIL.Image
import castalia.media.image.sources

def held():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

api.open_data("digits")
before = held()
data = api.open_data(sys.argv[1])
print((held() - before) / data.x.numel())
"""

FIRST_STEP = """
import sys
from pathlib import Path
from castalia import api
from castalia.training.loop import train

class Done(Exception): ...
def first(step, logs): raise Done
recipe = api.make_recipe("vae", sys.argv[1], recipe="vae-mnist", steps=1000)
try:
    train(recipe, api.training_data(recipe), Path(sys.argv[2]), quiet=True, callback=first)
except Done:
    pass
"""


def seconds(command: list[str], rounds: int) -> list[float]:
    """Wall times of a command."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return times


def row(work: str, times: list[float], target: float | None, unit: str = "s", note: str = "") -> Row:
    """A row without another side."""
    middle = statistics.median(times)
    return Row(
        "start",
        work,
        "",
        middle,
        None,
        unit,
        middle,
        min(times),
        max(times),
        None,
        len(times),
        target,
        "at most",
        note=note,
    )


def rows(options: Options) -> Iterator[Row]:
    """Commands, imports, first step, memory."""
    python, rounds = sys.executable, min(options.rounds, 5)
    yield row("castalia --help", seconds([python, "-m", "castalia", "--help"], rounds), 0.5)
    yield row("castalia train --help", seconds([python, "-m", "castalia", "train", "--help"], rounds), 0.5)
    yield row("import castalia", seconds([python, "-c", "import castalia"], rounds), 0.5)
    yield row("import torch, for comparison", seconds([python, "-c", "import torch"], rounds), None)
    with tempfile.TemporaryDirectory() as folder:
        source = "mnist"
        if not (Path(os.environ.get("CASTALIA_DATA", "/nowhere")) / "mnist").is_dir():
            source = str(Path(folder) / "pictures.npy")
            np.save(source, np.random.default_rng(0).integers(0, 256, (60_000, 28, 28), dtype=np.uint8))
        times = []
        for number in range(rounds + 1):
            times += seconds([python, "-c", FIRST_STEP, source, str(Path(folder) / f"run{number}")], 1)
        yield row("first step on 60,000 pictures, precision being measured", times[:1], None)
        yield row("first step on 60,000 pictures", times[1:], 5.0)
        found = [
            float(subprocess.run([python, "-c", MEMORY, source], check=True, capture_output=True, text=True).stdout)
            for _ in range(rounds)
        ]
        yield row(
            "memory held by 60,000 pictures, in their own size",
            found,
            1.5,
            "times",
            "resident memory after opening less that before, by bytes of pixels",
        )
