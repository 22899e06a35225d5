"""How long a person waits: for `--help`, for `import castalia`, and for the first training step.

    python benchmarks/start_up.py [--rounds 3] [--json FILE]

Every figure is the wall time of a whole process, the median over rounds. The first step is that of
`castalia train vae` on 60,000 pictures of 28x28 (MNIST where `CASTALIA_DATA` has it, else random ones in a .npy
file), from starting the process until the step is done, with the precision already measured once on this machine.

Targets: `--help` at most 0.5 s, first step at most 5 s.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

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


def seconds(command: list[str], rounds: int) -> float:
    """Median wall time of a command."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    python = sys.executable
    rows = {
        "castalia --help": (seconds([python, "-m", "castalia", "--help"], options.rounds), 0.5),
        "castalia train --help": (seconds([python, "-m", "castalia", "train", "--help"], options.rounds), 0.5),
        "import castalia": (seconds([python, "-c", "import castalia"], options.rounds), 0.5),
        "import torch, for comparison": (seconds([python, "-c", "import torch"], options.rounds), None),
    }
    with tempfile.TemporaryDirectory() as folder:
        source = "mnist"
        if not (Path(os.environ.get("CASTALIA_DATA", "/nowhere")) / "mnist").is_dir():
            source = str(Path(folder) / "pictures.npy")
            np.save(source, np.random.default_rng(0).integers(0, 256, (60_000, 28, 28), dtype=np.uint8))
        times = []
        for number in range(options.rounds + 1):
            out = str(Path(folder) / f"run{number}")
            times.append(seconds([python, "-c", FIRST_STEP, source, out], 1))
        rows["first step, precision being measured"] = (times[0], None)
        rows["first step"] = (statistics.median(times[1:]), 5.0)
    for name, (value, limit) in rows.items():
        verdict = "" if limit is None else f"  limit {limit:g} s  {'met' if value <= limit else 'MISSED'}"
        print(f"{name:<38}{value:7.2f} s{verdict}")
    if options.json:
        options.json.write_text(json.dumps({name: value for name, (value, _) in rows.items()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
