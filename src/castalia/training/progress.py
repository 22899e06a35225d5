"""What a person sees while it runs, and what is kept for machines.

On a terminal one live line; elsewhere a plain line now and then; always ``metrics.jsonl``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from castalia.core.errors import MissingExtra, shown
from castalia.core.files import disk_error


def duration(seconds: float) -> str:
    """A length of time as people write it: ``48 s``, ``3:07 min``, ``2:15:00 h``."""
    s = round(max(seconds, 0))
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60}:{s % 60:02d} min"
    return f"{s // 3600}:{s // 60 % 60:02d}:{s % 60:02d} h"


class Tracker(Protocol):
    """Somewhere else to log, in the shape of wandb."""

    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def finish(self) -> None: ...


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra("The tensorboard tracker", "track") from error
        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def finish(self) -> None:
        self.writer.close()


def tracker(name: str, folder: Path) -> Tracker | None:
    """Return the tracker of that name, or None for ``none``."""
    if name == "tensorboard":
        return _TensorBoard(folder)
    if name == "wandb":
        try:
            import wandb  # type: ignore[import-not-found]
        except ImportError as error:
            raise MissingExtra("The wandb tracker", "wandb") from error
        return wandb.init(project="castalia", name=folder.name, dir=str(folder))
    return None


class Reporter:
    """Writes the log of one run.

    Args:
        folder: the run.
        steps: steps of the whole run.
        batch_size: examples per step.
        tracker_name: additional log.
        quiet: show nothing on the terminal.
        stream: where lines go.
    """

    def __init__(self, folder: Path, steps: int, tracker_name: str, *, quiet: bool = False, stream: Any = None) -> None:
        self.path, self.steps, self.quiet = folder / "metrics.jsonl", steps, quiet
        self.stream = stream or sys.stderr
        self.live = not quiet and self.stream.isatty()
        try:
            self.file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise disk_error(self.path, error) from error
        self.tracker = tracker(tracker_name, folder)
        self._shown = 0.0
        self._status: Any = None
        if self.live:
            from rich.console import Console
            from rich.live import Live

            # no refresh thread: it would compete with the computing threads for a core
            self._status = Live(console=Console(file=self.stream), auto_refresh=False)
            self._status.start()

    def log(self, line: Mapping[str, Any]) -> None:
        """Append a line to ``metrics.jsonl`` (and the tracker)."""
        try:
            self.file.write(json.dumps(line) + "\n")
            self.file.flush()
        except OSError as error:
            raise disk_error(self.path, error) from error
        if self.tracker is not None:
            values = {k: v for k, v in line.items() if isinstance(v, int | float) and k != "step"}
            self.tracker.log(values, step=line["step"])

    def show(self, step: int, losses: Mapping[str, float], rate: float, seconds_left: float, *, now: bool) -> None:
        """Show where training stands, at most four times a second (a plain line every ten seconds)."""
        clock = time.monotonic()
        if self.quiet or (not now and clock - self._shown < (0.25 if self.live else 10.0)):
            return
        self._shown = clock
        shown = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
        text = f"step {step:,} of {self.steps:,}  {shown}  {rate:,.0f} samples/s  {duration(seconds_left)} left"
        if self._status is not None:
            from rich.progress_bar import ProgressBar
            from rich.table import Table

            table = Table.grid(padding=(0, 1))
            table.add_row(ProgressBar(self.steps, step, width=24), text)
            self._status.update(table, refresh=True)
        else:
            self._print(text)

    def say(self, text: str) -> None:
        """Show a sentence."""
        text = shown(text)
        if self.quiet:
            return
        if self._status is not None:
            self._status.console.print(text, highlight=False, markup=False)
        else:
            self._print(text)

    def _print(self, text: str) -> None:
        """Print a line; when nobody reads any more (``| head``), be quiet and let the training go on."""
        try:
            print(text, file=self.stream, flush=True)
        except OSError:
            self.quiet = True

    def close(self) -> None:
        """Flush and leave the terminal as it was."""
        if self._status is not None:
            self._status.stop()
        if self.tracker is not None:
            self.tracker.finish()
        with suppress(OSError):  # closing tries once more to write what the full disk refused, which was said already
            self.file.close()
