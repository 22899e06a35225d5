"""Locks that hold off a second writer, and end with the process that has them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from castalia.core.errors import RunError, UsageError
from castalia.core.locks import Lock

HOLD = """
import sys
from pathlib import Path
from castalia.core.locks import Lock
lock = Lock(Path(sys.argv[1])).take()
print(flush=True)
sys.stdin.readline()
"""


def test_a_crash_leaves_no_lock_behind(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    other.stdout.readline()
    with pytest.raises(UsageError, match="Another process"):
        Lock(tmp_path).take()
    other.kill()
    other.communicate()
    with Lock(tmp_path).take():
        assert not list(tmp_path.iterdir()), "and nothing is written for it"


def test_it_waits_as_long_as_it_was_told(tmp_path: Path) -> None:
    first = Lock(tmp_path).take()
    with pytest.raises(UsageError):
        Lock(tmp_path).take(wait=0.1)
    first.release()
    first.release()
    Lock(tmp_path).take(wait=0.1).release()


def test_what_was_moved_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    with Lock(folder).take() as lock:
        lock.check()
        folder.rename(tmp_path / "b")
        with pytest.raises(RunError, match="moved"):
            lock.check()
        folder.mkdir()
        with pytest.raises(RunError, match="replaced"):
            lock.check()
