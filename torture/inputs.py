"""What an input of the fuzzer is: files, and something that reads them."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SLOW = 0.25
"""Share of the inputs for readers of many files, or of whole models."""


@dataclass(frozen=True)
class Link:
    """A symbolic link among the files of an input."""

    target: str


Files = dict[str, bytes | Link]
"""The files of an input, by their path below its folder."""

Bend = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Reader:
    """Something that reads what strangers wrote.

    Attributes:
        name: for the table.
        seeds: good inputs.
        mutate: makes a hostile input of a good one.
        read: reads the input in a folder; writes nothing outside of it.
        share: of the usual number of inputs, less where one takes long.
    """

    name: str
    seeds: tuple[Files, ...]
    mutate: Callable[[Files, random.Random], Files]
    read: Callable[[Path], object]
    share: float = 1.0


def one_of(bend: Bend, *names: str) -> Callable[[Files, random.Random], Files]:
    """Mutates one of the files whose names end so (any, without names)."""

    def mutate(files: Files, dice: random.Random) -> Files:
        fitting = [n for n in files if n.endswith(names)] if names else list(files)
        name = dice.choice(sorted(fitting))
        old = files[name]
        return {**files, name: bend(old, dice) if isinstance(old, bytes) else old}

    return mutate


def lay(files: Files, folder: Path) -> None:
    """Write the files of an input into a fresh folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, Link):
            os.symlink(data.target, path)
        else:
            path.write_bytes(data)
