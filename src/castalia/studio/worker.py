"""The process that computes: one task at a time, and between the steps of a long one the short ones that came.

Lines of JSON come in and go out: ``{"id", "task", "path", "wish", "out"}`` in; ``{"id", "told"}``, ``{"id", "done"}``
or ``{"id", "failed"}`` out. ``{"cancel": id}`` ends a task at its next step. The end of the input ends the process.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from castalia.core.errors import CastaliaError, shown
from castalia.core.memory import keep_memory
from castalia.core.threads import use_free_threads

if TYPE_CHECKING:
    from castalia.studio.bench import Opened

OFTEN = 0.05
"""Seconds between two tellings of progress, at least."""


class Cancelled(Exception):
    """Nobody wants the result any more."""


class Inbox:
    """What came in: short tasks first, then long ones in their order."""

    def __init__(self, source: BinaryIO) -> None:
        self.source, self.short, self.long = source, deque[dict[str, Any]](), deque[dict[str, Any]]()
        self.cancelled: set[int] = set()
        self.changed, self.ended = threading.Condition(), False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.source:
            task = json.loads(line)
            with self.changed:
                if "cancel" in task:
                    self.cancelled.add(task["cancel"])
                else:
                    (self.long if "out" in task else self.short).append(task)
                self.changed.notify()
        with self.changed:
            self.ended = True
            self.changed.notify()

    def next(self) -> dict[str, Any] | None:
        """The next task; None at the end."""
        with self.changed:
            self.changed.wait_for(lambda: self.short or self.long or self.ended)
            if self.ended:
                return None
            return (self.short or self.long).popleft()


class Worker:
    """Does tasks as they come in."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        from castalia.studio.bench import Bench

        self.inbox, self.sink, self.bench = Inbox(source), sink, Bench()

    def work(self) -> None:
        """Until the input ends."""
        self.say({"ready": os.getpid()})
        while (task := self.inbox.next()) is not None:
            self.do(task)

    def say(self, message: dict[str, Any]) -> None:
        """Send a message."""
        self.sink.write(json.dumps(message).encode() + b"\n")
        self.sink.flush()

    def do(self, task: dict[str, Any]) -> None:
        """Do one task, and say how it ended."""
        number = task["id"]
        try:
            done = self._long(task) if "out" in task else self._short(task)
            self.say({"id": number, "done": done})
        except Cancelled:
            self.say({"id": number, "cancelled": True})
        except CastaliaError as error:
            self.say({"id": number, "failed": str(error)})
        except (MemoryError, RuntimeError) as error:
            short = isinstance(error, MemoryError) or "alloc" in str(error) or "out of memory" in str(error)
            words = "There is not enough memory for this; ask for less." if short else _unexpected(error)
            self.say({"id": number, "failed": words})
        except Exception as error:  # whatever a task raises, the next one is still to be done
            self.say({"id": number, "failed": _unexpected(error)})

    def _short(self, task: dict[str, Any]) -> Any:
        opened = self.bench.open(task["path"])
        # it may come between two steps of a job that computes in half precision
        with torch.autocast(opened.model.device.type, enabled=False):
            return self._answer(opened, task)

    def _answer(self, opened: Opened, task: dict[str, Any]) -> Any:
        if task["task"] == "form":
            from castalia.studio.forms import of_run

            return of_run(opened.run, opened.model)
        if task["task"] == "axes":
            return [*self.bench.axes(opened)]
        if task["task"] == "decode":
            return base64.b64encode(self.bench.decode(opened, task["wish"])).decode()
        return self.bench.dream(opened, task["wish"])

    def _long(self, task: dict[str, Any]) -> dict[str, Any]:
        out, last = Path(task["out"]), [0.0]
        out.mkdir(parents=True, exist_ok=True)

        def tell(value: dict[str, Any]) -> None:
            if task["id"] in self.inbox.cancelled:
                raise Cancelled
            while self.inbox.short:
                self.do(self.inbox.short.popleft())
            now = time.monotonic()
            if value and now - last[0] >= OFTEN:
                last[0] = now
                self.say({"id": task["id"], "told": value})

        tell({})
        kind, wish = task["task"], task["wish"]
        if kind in ("evaluate", "compare"):
            from castalia.studio import measuring

            recipe = getattr(measuring, kind)(wish, out, tell)  # safe: one of two literals
        else:
            does = {"sample": self.bench.sample, "text": self.bench.text, "edit": self.bench.edit,
                    "film": self.bench.film}[kind]  # fmt: skip
            recipe = does(self.bench.open(task["path"]), wish, out, tell)
        tell({})
        return recipe


def _unexpected(error: BaseException) -> str:
    """A fault of ours, in words; all of it is in the log."""
    traceback.print_exception(error, file=sys.stderr)
    return shown(f"This failed, and should not have: {type(error).__name__}: {error}")[:600]


def main() -> None:
    """Work on standard input and output; what anybody prints goes to standard error."""
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    warnings.showwarning = lambda message, *rest, **more: print(shown(str(message)), file=sys.stderr)
    keep_memory()
    use_free_threads()
    Worker(sys.stdin.buffer, sink).work()


if __name__ == "__main__":
    main()
