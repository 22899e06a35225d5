"""What a part of the torture found: one row per kind of cruelty."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import torch

from castalia.core.files import write_bytes, write_json


@dataclass(frozen=True)
class Options:
    """How long and how.

    Attributes:
        short: the form that ``make test`` runs: a few trials of each kind, seconds.
        seed: of everything that is drawn.
        folder: where to work; empty, removed by the caller.
        systems: names from the catalogue; empty: all.
        say: told about progress.
    """

    short: bool
    seed: int
    folder: Path
    systems: tuple[str, ...] = ()
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


def write(rows: Sequence[Row], command: str, seconds: float, json: Path | None, page: Path | None) -> None:
    """Write the rows as JSON and as a page of the documentation."""
    about = {
        "command": command,
        "date": date.today().isoformat(),
        "seconds": round(seconds),
        "machine": platform.machine(),
        "torch": torch.__version__,
    }
    if json is not None:
        write_json(json, about | {"rows": [asdict(row) | {"held": row.held} for row in rows]})
    if page is not None:
        failures = [f"- {row.part}: {text}" for row in rows for text in row.failures]
        found = "\n".join(["", "## What did not hold", "", *failures, ""]) if failures else ""
        write_bytes(
            page,
            f"# Bad days\n\nWritten by `{command}` on {about['date']}, in {seconds / 60:.0f} minutes, on "
            f"{about['machine']} with torch {about['torch']}. A short form of each row is in `make test`.\n\n"
            f"{table(rows)}\n{found}".encode(),
        )
