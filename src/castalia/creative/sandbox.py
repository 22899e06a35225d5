"""Programs that nobody has read, tried in processes of their own with limits; see ``trial.py`` for the walls.

It holds what a model writes by accident: loops, memory, files, processes, network. It is no wall against somebody who
wants to get out: for that, run the whole in a virtual machine.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from castalia.creative import trial

START = 0.25
"""Seconds on the clock that a process may take to begin."""
LARGEST = 1 << 16
"""Bytes that are read of what it said."""


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    Attributes:
        passed: it came to its end.
        why: what was wrong, in a line; empty where it passed.
        walls: what was put up around it: ``limits``, ``alone`` (no network, no other processes, a folder in
            memory), ``shut`` (nothing written elsewhere), ``single`` (no further processes, no sockets).
    """

    passed: bool
    why: str
    walls: tuple[str, ...]


def tried(program: str, seconds: float = 5.0, memory: int = 512 << 20) -> Outcome:
    """Run a Python program to its end, or as far as it comes.

    Args:
        program: its text; it may import the standard library only.
        seconds: on the clock, with a quarter of a second for the start of the process.
        memory: bytes of address space.
    """
    secret = secrets.token_hex(16)
    told = {"seconds": math.ceil(seconds), "memory": memory, "secret": secret}
    folder = tempfile.mkdtemp(prefix="castalia-")
    # files, not pipes: what is in them is bounded, and nobody waits for whoever holds the other end
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(f"{json.dumps(told)}\n{program}".encode("utf-8", "replace"))
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-s", "-S", "-P", "-X", "utf8", trial.__file__],
            cwd=folder,
            env={"PATH": os.defpath, "HOME": folder, "TMPDIR": folder, "PYTHONHASHSEED": "0"},
            stdin=given,
            stdout=said,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(seconds + START)
            late = False
        except subprocess.TimeoutExpired:
            late = True
        finally:
            _end(process)
            _remove(folder)
        said.seek(0)
        lines = [_object(line) for line in said.read(LARGEST).splitlines()[:2]]
    walls = tuple(map(str, lines[0].get("walls", ()))) if lines else ()
    if late:
        return Outcome(False, f"not done after {seconds:g} seconds", walls)
    if len(lines) < 2:
        return Outcome(False, "it ended the process", walls)
    if secrets.compare_digest(str(lines[1].get("secret", "")).encode(), secret.encode()):
        return Outcome(True, "", walls)
    line = f" in line {lines[1]['line']}" if lines[1].get("line") else ""
    return Outcome(False, f"{lines[1].get('wrong', 'another end')}{line}", walls)


def _object(line: bytes) -> dict[str, Any]:
    """What a line says; a program can write there as well, so it may be anything."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def all_tried(programs: Sequence[str], seconds: float = 5.0, memory: int = 512 << 20) -> list[Outcome]:
    """:func:`tried` of many, as many at once as there are processors."""
    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda program: tried(program, seconds, memory), programs))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()


def _remove(folder: str) -> None:
    """Remove a folder, however deep: libraries that call themselves for each level give up."""
    if os.name == "posix":
        subprocess.run(["rm", "-rf", "--", folder], check=False, stderr=subprocess.DEVNULL)
    else:
        shutil.rmtree(folder, ignore_errors=True)
