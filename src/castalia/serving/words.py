"""From tokens to the text that may already be shown, and the texts at which one stops."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class Words:
    """The text of one request while it is written.

    Args:
        pieces: the bytes of every token.
        stops: texts before which it ends.
    """

    def __init__(self, pieces: Sequence[bytes], stops: Sequence[str] = ()) -> None:
        self.pieces = pieces
        self.stops = [stop.encode("utf-8", "replace") for stop in stops]
        self._held = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that is certain with one more token, beyond what was certain before."""
        self._held += self.pieces[token]
        found = [at for stop in self.stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            text, self._held = self._held[: min(found)], b""
            return self._decoder.decode(text, True)
        held = max((_overlap(self._held, stop) for stop in self.stops), default=0)
        ready = len(self._held) - held
        text, self._held = self._held[:ready], self._held[ready:]
        return self._decoder.decode(text)

    def finish(self) -> str:
        """What was held back, when the text has ended without a stop."""
        if self.stopped:
            return ""
        text, self._held = self._held, b""
        return self._decoder.decode(text, True)


def _overlap(text: bytes, stop: bytes) -> int:
    """Bytes at the end of a text that are the beginning of a stop."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
