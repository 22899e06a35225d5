"""How long a measurement still takes, as a line of text."""

from __future__ import annotations

import time
from collections.abc import Callable

from castalia.core.threads import look_again

Show = Callable[[str], None]


class Ticker:
    """Counts work and shows a line such as ``likelihood: 300 of 1,000, 12 s left``.

    Args:
        what: what is being measured.
        total: units of work in all.
        show: receives each line; None shows nothing.
        look: look at the threads again now and then; not where their number decides last bits that are kept.
    """

    def __init__(self, what: str, total: int, show: Show | None, *, look: bool = True) -> None:
        self.what, self.total, self.show, self.look = what, total, show, look
        self.done, self.started = 0, time.monotonic()

    def step(self, n: int) -> None:
        """Count ``n`` more units as done; an occasion to look at the threads again."""
        if self.look:
            look_again()
        self.done += n
        if self.show is not None:
            elapsed = time.monotonic() - self.started
            left = elapsed * (self.total - self.done) / max(self.done, 1)
            self.show(f"{self.what}: {self.done:,} of {self.total:,}, {_duration(left)} left")


def _duration(seconds: float) -> str:
    s = round(max(seconds, 0.0))
    if s < 60:
        return f"{s} s"
    return f"{s // 60}:{s % 60:02d} min" if s < 3600 else f"{s // 3600}:{s // 60 % 60:02d}:{s % 60:02d} h"
