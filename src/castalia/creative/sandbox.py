"""Programs that nobody has read, tried in processes of their own with limits; see ``trial.py`` for the walls.

It holds what a model writes by accident: loops, memory, files, processes, network. It is no wall against somebody who
wants to get out: for that, run the whole in a virtual machine.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from castalia.creative import trial


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    Attributes:
        passed: it came to its end.
        why: what was wrong, in a line; empty where it passed.
        walls: what was put up around it: ``limits``, ``alone`` (no network, no sight of other processes), ``shut``
            (nothing written outside its own folder), ``single`` (no further processes).
    """

    passed: bool
    why: str
    walls: tuple[str, ...]


def tried(program: str, seconds: float = 5.0, memory: int = 512 << 20) -> Outcome:
    """Run a Python program to its end, or as far as it comes.

    Args:
        program: its text; it may import the standard library only.
        seconds: on the clock, without the start of the process.
        memory: bytes of address space.
    """
    secret = secrets.token_hex(16)
    told = {"seconds": max(1, round(seconds + 0.5)), "memory": memory, "secret": secret}
    with tempfile.TemporaryDirectory(prefix="castalia-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", "utf8", trial.__file__],
            cwd=folder,
            env={"PATH": os.defpath, "HOME": folder, "TMPDIR": folder},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        said, late = b"", False
        try:
            said, _ = process.communicate(f"{json.dumps(told)}\n{program}".encode("utf-8", "replace"), seconds + 1)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            said += _end(process)
    lines = [_object(line) for line in said.splitlines()[:2]]
    walls = tuple(map(str, lines[0].get("walls", ()))) if lines else ()
    if len(lines) == 2 and secrets.compare_digest(str(lines[1].get("secret", "")), secret):
        return Outcome(True, "", walls)
    if len(lines) == 2:
        line = f" in line {lines[1]['line']}" if lines[1].get("line") else ""
        return Outcome(False, f"{lines[1].get('wrong', 'another end')}{line}", walls)
    return Outcome(False, f"not done after {seconds:g} seconds" if late else "it ended the process", walls)


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


def _end(process: subprocess.Popen[bytes]) -> bytes:
    """End a process and all that it has started; what it had written where that has not been read."""
    if process.returncode is not None and process.stdout is not None and process.stdout.closed:
        return b""
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except ProcessLookupError:
        pass
    return process.communicate()[0]
