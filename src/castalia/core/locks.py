"""One writer at a time: locks that end with the process that holds them, however it ends."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from types import TracebackType

from castalia.core.errors import RunError, UsageError

try:
    import fcntl
except ImportError:  # not on Windows: there is no lock then
    fcntl = None  # type: ignore[assignment]

PATIENCE = 60.0
"""Seconds that a short piece of writing waits for another."""


class Lock:
    """A lock on a file or folder that is there; nothing is written for it, and a crash leaves nothing behind.

    Some network file systems have no such locks, and Windows has none of this kind: there it holds off nobody.

    Args:
        path: of what is locked. A file that is replaced would not do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def take(self, wait: float = 0.0) -> Lock:
        """Take it, waiting ``wait`` seconds at most.

        Raises:
            UsageError: another process, or another part of this one, has it.
        """
        try:
            fd = os.open(self.path, os.O_RDONLY)
        except OSError:  # a folder that cannot be opened: whoever writes into it will say so
            return self
        ends = time.monotonic() + wait
        while fcntl is not None:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                    break
                if time.monotonic() < ends:
                    time.sleep(0.05)
                    continue
                os.close(fd)
                raise UsageError(
                    f"Another process is writing to {self.path}. Two at once would damage what both write: wait until "
                    "it has ended, or choose another folder."
                ) from error
        self._fd = fd
        return self

    def check(self) -> None:
        """See that what was locked is still where it was.

        Raises:
            RunError: it was moved, removed or replaced.
        """
        if self._fd is None:
            return
        held = os.fstat(self._fd)
        try:
            there = os.stat(self.path)
        except OSError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino):
            raise RunError(
                f"{self.path} was moved, removed or replaced while it was written to. Nothing more is written; what "
                "was saved before is where the folder went, and can be continued there with --resume."
            )

    def release(self) -> None:
        """Give it back."""
        if self._fd is not None:
            os.close(self._fd)  # which ends the lock
            self._fd = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()
