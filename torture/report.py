"""What a part of the torture found: one row per kind of cruelty."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import torch

from castalia.core.files import read_json, write_bytes, write_json


@dataclass(frozen=True)
class Options:
    """How long and how.

    Attributes:
        short: the form that ``make test`` runs: a few trials of each kind, seconds.
        seed: of everything that is drawn.
        folder: where to work; empty, removed by the caller.
        systems: names from the catalogue; empty: all.
        inputs: of each reader, where not as many as the form has; 0: as many.
        say: told about progress.
    """

    short: bool
    seed: int
    folder: Path
    systems: tuple[str, ...] = ()
    inputs: int = 0
    say: Callable[[str], None] = print


@dataclass(frozen=True)
class Row:
    """One kind of cruelty.

    Attributes:
        part: which part it belongs to.
        what: what was done, and what had to hold.
        trials: how often.
        failures: one sentence each; empty where all held.
        note: what else was measured, in words.
    """

    part: str
    what: str
    trials: int
    failures: tuple[str, ...] = ()
    note: str = ""

    @property
    def held(self) -> bool:
        """Whether something was tried and nothing failed."""
        return self.trials > 0 and not self.failures


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| part | what was done, and what had to hold | trials | held | note |", "|---|---|---|---|---|"]
    for row in rows:
        held = "yes" if row.held else f"**no**: {len(row.failures)} of {row.trials}"
        lines.append(f"| {row.part} | {row.what} | {row.trials:,} | {held} | {row.note} |")
    return "\n".join(lines)


def write(rows: Sequence[Row], command: str, seconds: float, json: Path) -> None:
    """Write the rows of one run as JSON."""
    about = {
        "command": command,
        "date": date.today().isoformat(),
        "seconds": round(seconds),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }
    write_json(json, about | {"rows": [asdict(row) for row in rows]})


def write_page(files: Sequence[Path], page: Path) -> None:
    """Write a page of the documentation from what :func:`write` wrote, perhaps of several runs."""
    runs = [read_json(file) for file in files]
    parts = []
    for run in runs:
        rows = [Row(**(row | {"failures": tuple(row["failures"])})) for row in run["rows"]]
        failures = [f"- {row.part}: {text}" for row in rows for text in row.failures]
        found = "\n".join(["", "What did not hold:", "", *failures, ""]) if failures else ""
        parts.append(
            f"## {', '.join(dict.fromkeys(row.part for row in rows))}\n\n"
            f"`{run['command']}`, {run['date']}, {run['seconds'] / 60:.0f} minutes, {run['cores']} cores "
            f"({run['machine']}), torch {run['torch']}.\n\n{table(rows)}\n{found}"
        )
    head = (
        "# Bad days\n\nKills, full disks, damage, poisoned losses, hostile files and long runs, made on purpose: "
        "`make torture`. A short form of\neach row is in `make test`. What each part does, and what counts as holding, "
        "stands at the top of its file in `torture/`.\n\n"
    )
    write_bytes(page, (head + "\n".join(parts)).encode())
