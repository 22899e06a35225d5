"""What several tests need."""

from __future__ import annotations

import fcntl
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from castalia import recipes
from castalia.catalogue import CATALOGUE
from castalia.configuration import Recipe, Schedule
from castalia.core.data import Batch, Dataset
from castalia.core.errors import RunError
from castalia.core.rng import Rng
from castalia.core.spec import Spec
from castalia.core.specs.image import ImageSpec
from castalia.runs import Run, open_run
from castalia.training.loop import train

T = TypeVar("T")


class Table(Dataset):
    """A few examples in memory."""

    def __init__(self, x: torch.Tensor, spec: Spec, labels: torch.Tensor | None = None) -> None:
        self.x, self.spec, self.labels = x, spec, labels
        self.name, self.fingerprint = "table", "test"

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        i = torch.from_numpy(ids)
        return Batch(self.x[i], i, None if self.labels is None else self.labels[i])


class Few(Dataset):
    """The first examples of a data set; pictures in black and white: no noise that nobody could learn."""

    def __init__(self, data: Dataset, n: int) -> None:
        self.spec, self.name, self.fingerprint = data.spec, "few", "few"
        found = data.batch(np.arange(n))
        self.all = (
            replace(found, x=torch.where(found.x > 127, 255, 0).to(torch.uint8))
            if isinstance(data.spec, ImageSpec)
            else found
        )
        self.labels = found.label

    def __len__(self) -> int:
        return len(self.all)

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        return self.all[torch.from_numpy(ids)]


GENTLE = Schedule("step", warmup=0, end=0.02, milestones=(0.0,))
"""A fiftieth of the usual rate: at the full one, sums in another order are soon another training."""


def small_recipe(model: str, **training: object) -> Recipe:
    """The tiny recipe of a model, short, gentle and in float32."""
    base = recipes.tiny(model)
    settings = {
        "precision": "float32",
        "schedule": GENTLE if "steps" not in training else base.training.schedule,
        "steps": 12,
        "batch_size": 8,
        "samples": 4,
        "sample_every": 1_000 if "steps" in training else 6,  # at the end; of a dozen steps once on the way as well
        "log_every": 5,
        **training,
    }
    return replace(base, training=replace(base.training, **settings))  # type: ignore[arg-type]


MODELS = sorted(CATALOGUE)

FAMILIES = sorted({entry.family: entry.name for entry in reversed(CATALOGUE.values())}.values())
"""One system of each family, the first in the catalogue: for what takes long and depends little on the system."""


class Lazily(dict[str, T]):
    """Makes what is asked for when it is first asked for: ``made[name]``."""

    def __init__(self, make: Callable[[str], T]) -> None:
        super().__init__()
        self.make = make

    def __missing__(self, name: str) -> T:
        self[name] = self.make(name)
        return self[name]


def trained_once(name: str, data: Dataset, folder: Path) -> Run:
    """A short, uninterrupted run of a model, which all processes of the suite share: the first that asks makes it."""
    folder.mkdir(exist_ok=True)
    with open(folder / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return open_run(folder / name)
        except RunError:
            return train(small_recipe(name), data, folder / name, quiet=True)


def two_processes(script: Path, *arguments: Path | str, seconds: float = 300) -> None:
    """Run a script under torchrun in two processes, and see that it ended well."""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "tests.tools", str(script)]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr[-4000:]


if __name__ == "__main__":  # a script of one of several processes, which leaves as the command line does
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
