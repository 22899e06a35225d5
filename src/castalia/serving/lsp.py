"""A language server: an editor tells it what stands in its files, and is told what may come at the cursor.

The protocol is the Language Server Protocol 3.18 over standard input and output, of which it speaks documents (sent
whole) and ``textDocument/inlineCompletion``; to editors that do not know that, ``textDocument/completion``, with a list
of one thing to insert. An editor asks at every keystroke: an answer waits a moment, and is not computed any more when
the editor takes the question back, or asks another one about the same document.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from castalia.core.errors import CastaliaError
from castalia.core.specs.text import TextSpec
from castalia.media.text.middle import asked
from castalia.media.text.tokens import tokens_of
from castalia.models.sequence.writing import WritingOptions
from castalia.serving.engine import joined
from castalia.serving.request import Piece, Request
from castalia.serving.worker import Asked, Worker
from castalia.version import __version__

LARGEST = 16 << 20
"""Bytes of a message."""
PARSE, UNKNOWN, INVALID, CANCELLED, CHANGED, FAILED = -32700, -32601, -32602, -32800, -32801, -32803
"""Codes of errors."""


@dataclass(eq=False)
class _Question:
    """A question that has not been answered.

    Attributes:
        number: the editor's name for it.
        document: what it is about.
        place: of the cursor, as the editor told it.
        listed: whether a list was asked for, and not text at the cursor.
        timer: waits before it is put.
        asked: of the engine, once it is put.
        pieces: what has come.
    """

    number: Any
    document: str
    place: Mapping[str, Any]
    listed: bool
    timer: threading.Timer | None = None
    asked: Asked | None = None
    pieces: list[Piece] = field(default_factory=list)


class LanguageServer:
    """Answers an editor until it says that it ends.

    Args:
        worker: has been started; it is stopped by whoever started it.
        read: what the editor says.
        write: what it is told.
        wait: seconds before a question is put.
        length: tokens of an answer.
    """

    def __init__(
        self, worker: Worker, read: BinaryIO, write: BinaryIO, *, wait: float = 0.15, length: int = 64
    ) -> None:
        self.worker, self.wait = worker, wait
        self.spec: TextSpec = worker.engine.spec
        self.length = min(length, self.spec.length // 2)
        self._read, self._write = read, write
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        self._texts: dict[str, str] = {}
        self._open: dict[Any, _Question] = {}
        self._ending = False

    def run(self) -> int:
        """Answer until the editor leaves: 0 where it said so before, else 1, as the protocol wants it."""
        while (message := self._next()) is not None:
            if message.get("method") == "exit":
                break
            try:
                self._take(message)
            except (KeyError, TypeError, AttributeError, ValueError, IndexError, OverflowError) as error:
                if "id" in message:
                    self._fail(message["id"], INVALID, f"{message.get('method')}: {type(error).__name__}: {error}")
        with self._lock:
            for question in list(self._open.values()):
                self._drop(question)
        return 0 if self._ending else 1

    # what the editor says

    def _take(self, message: dict[str, Any]) -> None:
        method, number = message.get("method"), message.get("id")
        given = message.get("params") or {}
        if method == "initialize":
            able = {"positionEncoding": "utf-16", "textDocumentSync": 1, "inlineCompletionProvider": True}
            theirs = (given.get("capabilities") or {}).get("textDocument") or {}
            if "inlineCompletion" not in theirs:  # who knows both would ask both, and take the first back each time
                able["completionProvider"] = {}
            self._answer(number, {"capabilities": able, "serverInfo": {"name": "castalia", "version": __version__}})
        elif method == "shutdown":
            self._ending = True
            self._answer(number, None)
        elif method == "textDocument/didOpen":
            self._texts[given["textDocument"]["uri"]] = given["textDocument"]["text"]
        elif method == "textDocument/didChange":
            self._texts[given["textDocument"]["uri"]] = given["contentChanges"][-1]["text"]
        elif method == "textDocument/didClose":
            self._texts.pop(given["textDocument"]["uri"], None)
        elif method in ("textDocument/inlineCompletion", "textDocument/completion"):
            self._ask(number, given, method == "textDocument/completion")
        elif method == "$/cancelRequest":
            with self._lock:
                if question := self._open.get(given["id"]):
                    self._end(question, CANCELLED, "The question was taken back.")
        elif number is not None and method is not None:
            self._fail(number, UNKNOWN, f"There is no {str(method)[:80]} here.")

    def _ask(self, number: Any, given: dict[str, Any], listed: bool) -> None:
        document, place = given["textDocument"]["uri"], given["position"]
        before, behind = at(self._texts[document], int(place["line"]), int(place["character"]))
        question = _Question(number, document, place, listed)
        question.timer = threading.Timer(self.wait, self._put, (question, before, behind))
        question.timer.daemon = True
        with self._lock:
            for other in [other for other in self._open.values() if other.document == document]:
                self._end(other, CHANGED, "Another question has come since.")
            self._open[number] = question
        question.timer.start()

    # questions

    def _put(self, question: _Question, before: str, behind: str) -> None:
        """Ask the engine, when the editor has been quiet for a moment."""
        try:
            request = self.request(before, behind)
        except Exception as error:  # a character that the vocabulary does not have; an editor waits for every answer
            with self._lock:
                self._end(question, FAILED, f"{error}")
            return
        with self._lock:
            if question.number not in self._open:
                return
            try:
                question.asked = self.worker.ask([request], lambda _, piece: self._hear(question, piece))
            except CastaliaError as error:
                self._end(question, FAILED, str(error))

    def request(self, before: str, behind: str) -> Request:
        """What is wanted at a cursor: the rest of a line, or, where the line is empty, a block up to an empty line.

        Raises:
            UsageError: the texts hold characters that the vocabulary does not have.
        """
        whole = not before[before.rfind("\n") + 1 :].strip()
        room = self.spec.length - self.length
        nearest = room * 64  # characters; no vocabulary has longer pieces on the average
        before, behind = before[-nearest:], behind[:nearest]
        if self.spec.middles:
            tokens = asked(self.spec, before, behind, room, suffix_first=True)
            bias = dict.fromkeys(self.spec.marks, float("-inf"))
        else:
            tokens, bias = tokens_of(self.spec).encode(before).tolist()[-room:], {}
        options = WritingOptions(temperature=0, length=self.length)
        return Request(tuple(tokens), options, stops=("\n\n",) if whole else ("\n",), bias=bias)

    def _hear(self, question: _Question, piece: Piece | Exception) -> None:
        with self._lock:
            if question.number not in self._open:
                return
            if isinstance(piece, Exception):
                self._end(question, FAILED, str(piece))
                return
            question.pieces.append(piece)
            if piece.reason is not None:
                text = joined(question.pieces).text
                del self._open[question.number]
                item = in_a_list(text, question.place) if question.listed else {"insertText": text}
                # a list is asked for again at the next keystroke, not filtered
                more = {"isIncomplete": True} if question.listed else {}
                self._answer(question.number, {"items": [item] if text.strip() else [], **more})

    def _end(self, question: _Question, code: int, words: str) -> None:
        self._drop(question)
        self._fail(question.number, code, words)

    def _drop(self, question: _Question) -> None:
        self._open.pop(question.number, None)
        if question.timer is not None:
            question.timer.cancel()
        if question.asked is not None:
            self.worker.cancel(question.asked)

    # messages

    def _next(self) -> dict[str, Any] | None:
        """The next message; None where the editor has gone, or says something that is no message at all."""
        while True:
            size = None
            while (line := self._read.readline(1000)) not in (b"\r\n", b"\n"):
                if not line:
                    return None
                name, _, value = line.partition(b":")
                if name.strip().lower() == b"content-length" and value.strip().isdigit():
                    size = int(value)
            if size is None or size > LARGEST:
                self._fail(None, PARSE, f"A message begins with its length, at most {LARGEST:,} bytes.")
                return None
            body = self._read.read(size)
            if len(body) < size:
                return None
            try:
                message = json.loads(body)
            except (ValueError, RecursionError):
                message = None
            if isinstance(message, dict):
                return message
            self._fail(None, PARSE, "A message is a JSON object.")

    def _answer(self, number: Any, result: Any) -> None:
        self._send({"jsonrpc": "2.0", "id": number, "result": result})

    def _fail(self, number: Any, code: int, words: str) -> None:
        self._send({"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": words}})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps(message, ensure_ascii=False).encode("utf-8", "replace")
        with self._writing:
            try:
                self._write.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
                self._write.flush()
            except (OSError, ValueError):  # nobody listens any more; the end of what is read will say so
                pass


def in_a_list(text: str, place: Mapping[str, Any]) -> dict[str, Any]:
    """A thing in an editor's list: inserted at the cursor, in place of nothing."""
    here = {"line": place["line"], "character": place["character"]}
    label = " ".join(text.split())
    edit = {"range": {"start": here, "end": here}, "newText": text}
    return {"label": label[:60], "kind": 1, "detail": "castalia", "documentation": text, "textEdit": edit}


def at(text: str, line: int, character: int) -> tuple[str, str]:
    """What stands before and behind a place, told in lines and units of UTF-16 from 0; beyond a line is its end."""
    lines = re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text)  # and at nothing else, as the protocol has it
    if not 0 <= line <= len(lines) or character < 0:
        raise ValueError(f"there is no line {line}")
    here = lines[line] if line < len(lines) else ""
    units = here.rstrip("\r\n").encode("utf-16-le", "surrogatepass")[: 2 * character]
    inside = units.decode("utf-16-le", "ignore")
    start = "".join(lines[:line]) + inside
    return start, text[len(start) :]
