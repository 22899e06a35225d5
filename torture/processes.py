"""Castalia's command line in processes that can be killed: started afresh, or forked from a server."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import castalia

PATIENCE = 180.0
"""Seconds after which a process that should have ended counts as hanging."""

Aim = tuple[str, int, int]
"""Kind of a file operation, its number, a signal; see :mod:`torture.forks`."""


def environment(folder: Path) -> dict[str, str]:
    """One thread, this very code, and a cache of one's own."""
    roots = [Path(__file__).parents[1], Path(castalia.__file__).parents[1]]
    paths = [*map(str, roots), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",  # scikit-learn imports pandas, and pandas Arrow
        "PYTHONPATH": os.pathsep.join(paths),
        "CASTALIA_CACHE": str(folder / "cache"),
    }


class Process(Protocol):
    """A started process."""

    pid: int

    def wait(self, seconds: float) -> int | None:
        """Its exit code, negative for a signal, or None while it runs."""
        ...


class Fresh:
    """A process of the operating system, interpreter and imports included.

    Args:
        command: what follows the interpreter.
        env: its environment.
        log: where its words go.
    """

    def __init__(self, command: Sequence[str], env: dict[str, str], log: Path) -> None:
        with open(log, "ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, *command], stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=env
            )
        self.pid = self.process.pid

    def wait(self, seconds: float) -> int | None:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


class Forked:
    """A child of the server."""

    def __init__(self, server: Server, pid: int) -> None:
        self.server, self.pid = server, pid
        self.code: int | None = None

    def wait(self, seconds: float) -> int | None:
        if self.code is None and (answer := self.server.read(seconds)) is not None:
            self.code = answer["code"]
        return self.code


class Server:
    """Forks processes that have all imports behind them; one at a time.

    Args:
        folder: where to work.
    """

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "torture.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(folder),
            text=True,
            bufsize=1,
        )
        ready = self.read(PATIENCE)
        if ready != {"ready": 1}:
            raise RuntimeError(f"the fork server must have one thread, and said {ready}")

    def read(self, seconds: float) -> dict[str, Any] | None:
        """Its next line, or None if none comes in time."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], max(seconds, 0))[0]:
            return None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the fork server ended")
        return json.loads(line)

    def start(
        self, arguments: Sequence[str], folder: Path, log: Path, aim: Aim | None = None, counts: Path | None = None
    ) -> Forked:
        """Run a command line in a child.

        Args:
            arguments: of ``castalia``.
            folder: of the run, whose file operations count.
            log: where its words go.
            aim: send itself this signal before this operation.
            counts: where to write how many operations of each kind there were.
        """
        assert self.process.stdin is not None
        order = {"arguments": list(arguments), "folder": str(folder), "log": str(log), "aim": aim}
        self.process.stdin.write(json.dumps(order | {"counts": str(counts) if counts else None}) + "\n")
        answer = self.read(PATIENCE)
        assert answer is not None
        return Forked(self, answer["pid"])

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """A server for a while."""
    made = Server(folder)
    try:
        yield made
    finally:
        made.close()


def finish(process: Process, seconds: float = PATIENCE) -> int | None:
    """Its exit code; a process that hangs is killed with its children, and gives None."""
    code = process.wait(seconds)
    if code is None:
        for pid in (*offspring(process.pid), process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(PATIENCE)
    return code


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler of its own for a signal."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    mask = next((int(line.split()[1], 16) for line in lines if line.startswith("SigCgt")), 0)
    return bool(mask >> (number - 1) & 1)


def await_moment(process: Process, seconds: float) -> bool:
    """Wait so long; False where the process ended before."""
    until = time.monotonic() + seconds
    return process.wait(max(until - time.monotonic(), 0)) is None


def offspring(pid: int) -> list[int]:
    """The children of a process, oldest first."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, task.read_text().split())
    return sorted(found)
