"""A thread with an engine, and how other threads ask it for texts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from castalia.serving.engine import Engine, Full
from castalia.serving.request import Piece, Request

Deliver = Callable[[int, Piece | Exception], None]
"""Called by the worker's thread with the place of a text among those asked for together, and what is new of it."""


@dataclass(eq=False)
class Asked:
    """Texts that were asked for together.

    Attributes:
        requests: what is wanted.
        deliver: is told of every piece; a last one has a reason. After an exception nothing more comes.
        tickets: those that are not finished, with their place; the worker's own.
        ended: whether nothing more is wanted or to come.
    """

    requests: Sequence[Request]
    deliver: Deliver
    tickets: dict[int, int] = field(default_factory=dict)
    left: int = 0
    ended: bool = False


class Worker:
    """Runs an engine.

    Args:
        engine: nobody else may touch it any more.
        waiting: texts that may wait for a row.
    """

    def __init__(self, engine: Engine, waiting: int) -> None:
        self.engine = engine
        self.most = engine.size + waiting
        self.texts = 0  # asked for and not ended
        self._lock = threading.Condition()
        self._new: list[Asked] = []
        self._gone: list[Asked] = []
        self._owners: dict[int, Asked] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="castalia-engine", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the step that is going on; texts that are not finished are not."""
        with self._lock:
            self._stopping = True
            self._lock.notify()
        self._thread.join(30)

    @property
    def alive(self) -> bool:
        """Whether it works."""
        return self._thread.is_alive()

    def ask(self, requests: Sequence[Request], deliver: Deliver) -> Asked:
        """Ask for texts; all of them or none.

        Raises:
            Full: too many are waiting.
            UsageError: a request makes no sense for the model.
        """
        for request in requests:
            self.engine.check(request)
        asked = Asked(requests, deliver, left=len(requests))
        with self._lock:
            if self.texts + len(requests) > self.most:
                raise Full(f"{self.texts} texts are being written or waiting already; try again later.")
            self.texts += len(requests)
            self._new.append(asked)
            self._lock.notify()
        return asked

    def cancel(self, asked: Asked) -> None:
        """Let texts go that nobody wants any more; those that have ended are not there."""
        with self._lock:
            if not asked.ended:
                self._gone.append(asked)
                self._lock.notify()

    def _work(self) -> None:
        with self.engine.computing():
            self._steps()

    def _steps(self) -> None:
        while True:
            with self._lock:
                while not (self._new or self._gone or self._stopping or self.engine.busy):
                    self._lock.wait()
                new, gone, self._new, self._gone = self._new, self._gone, [], []
                if self._stopping:
                    return
            for asked in new:
                self._begin(asked)
            for asked in gone:
                self._end(asked)
            if not self.engine.busy:
                continue
            try:
                pieces = self.engine.step()
            except Exception as error:  # one that nobody foresaw: the texts are lost, the server is not
                self.engine.clear()
                for asked in set(self._owners.values()):
                    self._fail(asked, error)
                continue
            for piece in pieces:
                self._hand(piece)

    def _begin(self, asked: Asked) -> None:
        try:
            for place, request in enumerate(asked.requests):
                ticket = self.engine.submit(request)
                asked.tickets[ticket], self._owners[ticket] = place, asked
        except Exception as error:  # a pattern or a grammar that is none
            self._fail(asked, error)

    def _hand(self, piece: Piece) -> None:
        asked = self._owners[piece.ticket]
        place = asked.tickets[piece.ticket]
        if piece.reason is not None:
            del self._owners[piece.ticket], asked.tickets[piece.ticket]
            asked.left -= 1
            with self._lock:
                self.texts -= 1
                asked.ended = not asked.left
        asked.deliver(place, piece)

    def _fail(self, asked: Asked, error: Exception) -> None:
        self._end(asked)
        asked.deliver(0, error)

    def _end(self, asked: Asked) -> None:
        for ticket in asked.tickets:
            self.engine.cancel(ticket)
            self._owners.pop(ticket, None)
        asked.tickets.clear()
        with self._lock:
            self.texts -= asked.left
            asked.left, asked.ended = 0, True
