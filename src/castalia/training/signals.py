"""Signals set a flag; the loop asks for it between steps. A second signal ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType


class Signals:
    """Context manager that catches SIGTERM and SIGINT.

    Attributes:
        received: number of the signal that asked the process to end, or 0.
    """

    def __init__(self) -> None:
        self.received = 0
        self._old: dict[int, object] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            os._exit(exit_code(number))
        self.received = number

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            for number in (signal.SIGTERM, signal.SIGINT):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)  # type: ignore[arg-type]


def exit_code(number: int) -> int:
    """The conventional exit code of a process ended by a signal: 143 for SIGTERM, 130 for SIGINT."""
    return 128 + number
