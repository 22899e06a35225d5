"""The language server, spoken with over pipes: answers, questions taken back, moments of quiet, nonsense."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from castalia.core.specs.text import TextSpec
from castalia.models.sequence.gpt2 import GPT2, GPT2Config
from castalia.models.sequence.writing import WritingOptions
from castalia.serving.engine import Engine
from castalia.serving.lsp import LanguageServer, at
from castalia.serving.request import Request
from castalia.serving.worker import Worker
from tests.models.sequence.toys import made

SPEC = TextSpec("bytes", 260, 96, middles=True)
DOCUMENT = "def one():\n    return 1\n\ndef two():\n    ret\n"


def model(spec: TextSpec = SPEC) -> GPT2:
    found = made(GPT2, GPT2Config(2, 2, 16, init=0.4), spec)
    assert isinstance(found, GPT2)
    return found


class Editor:
    """The other end of the pipes."""

    def __init__(self, read: Any, write: Any) -> None:
        self.read, self.write, self.number = read, write, 0

    def send(self, **message: Any) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.write.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.write.flush()

    def ask(self, method: str, **params: Any) -> int:
        self.number += 1
        self.send(id=self.number, method=method, params=params)
        return self.number

    def hear(self) -> dict[str, Any]:
        size = int(self.read.readline().split(b":")[1])
        assert self.read.readline() == b"\r\n"
        return json.loads(self.read.read(size))

    def open(self, text: str, uri: str = "file:///a.py") -> None:
        document = {"uri": uri, "languageId": "python", "version": 1, "text": text}
        self.send(method="textDocument/didOpen", params={"textDocument": document})

    def complete(self, line: int, character: int, uri: str = "file:///a.py") -> int:
        place = {"line": line, "character": character}
        context = {"triggerKind": 2}
        return self.ask("textDocument/inlineCompletion", textDocument={"uri": uri}, position=place, context=context)


@pytest.fixture
def worker() -> Iterator[Worker]:
    found = Worker(Engine(model(), rows=2), 4)
    found.start()
    yield found
    found.stop()
    assert not found.alive


@pytest.fixture
def talk(worker: Worker) -> Iterator[tuple[Editor, LanguageServer]]:
    theirs, ours = os.pipe(), os.pipe()
    files = [os.fdopen(theirs[0], "rb"), os.fdopen(ours[1], "wb"), os.fdopen(ours[0], "rb"), os.fdopen(theirs[1], "wb")]
    server = LanguageServer(worker, files[0], files[1], wait=0.05, length=24)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(server.run()), daemon=True)
    thread.start()
    editor = Editor(files[2], files[3])
    yield editor, server
    number = editor.ask("shutdown")
    while editor.hear()["id"] != number:
        pass
    editor.send(method="exit")
    thread.join(10)
    assert codes == [0]
    for file in files:
        file.close()


def test_a_completion_is_what_the_engine_says(talk: tuple[Editor, LanguageServer]) -> None:
    editor, server = talk
    editor.ask("initialize", processId=None, capabilities={})
    able = editor.hear()["result"]["capabilities"]
    assert able["inlineCompletionProvider"]
    assert able["positionEncoding"] == "utf-16"
    assert "completionProvider" in able
    editor.ask("initialize", capabilities={"textDocument": {"inlineCompletion": {}}})
    assert "completionProvider" not in editor.hear()["result"]["capabilities"], "a client of both would ask twice"
    editor.send(method="initialized", params={})
    editor.open(DOCUMENT)
    before, behind = at(DOCUMENT, 4, 7)
    (text,) = Engine(model()).run([server.request(before, behind)])
    number = editor.complete(4, 7)
    answer = editor.hear()
    assert answer["id"] == number
    assert answer["result"]["items"] == ([{"insertText": text.text}] if text.text.strip() else [])
    place = {"line": 4, "character": 7}
    editor.ask("textDocument/completion", textDocument={"uri": "file:///a.py"}, position=place)
    listed = editor.hear()["result"]
    assert listed["isIncomplete"]
    edits = [{"range": {"start": place, "end": place}, "newText": text.text}] if text.text.strip() else []
    assert [item["textEdit"] for item in listed["items"]] == edits
    changed = DOCUMENT.replace("two", "three")
    document = {"uri": "file:///a.py", "version": 2}
    editor.send(
        method="textDocument/didChange", params={"textDocument": document, "contentChanges": [{"text": changed}]}
    )
    (text,) = Engine(model()).run([server.request(*at(changed, 4, 7))])
    editor.complete(4, 7)
    assert editor.hear()["result"]["items"] == ([{"insertText": text.text}] if text.text.strip() else [])


def test_what_is_asked(worker: Worker) -> None:
    server = LanguageServer(worker, None, None)  # type: ignore[arg-type]
    _, s, m = SPEC.marks
    line = server.request("def two():\n    ret", "\nmore")
    assert line.stops == ("\n",)
    assert line.prompt[1] == s
    assert bytes(line.prompt[line.prompt.index(m) + 1 :]) == b"def two():\n    ret"
    assert server.request("def two():\n    ", "\nmore").stops == ("\n\n",)
    assert len(server.request("x" * 9999, "y" * 9999).prompt) + server.length == SPEC.length
    plain = LanguageServer(Worker(Engine(model(TextSpec("bytes", 257, 96))), 1), None, None)  # type: ignore[arg-type]
    assert bytes(plain.request("abc", "def").prompt) == b"abc"
    assert len(plain.request("x" * 9999, "").prompt) == 48


def test_a_newer_question_takes_the_place(talk: tuple[Editor, LanguageServer], worker: Worker) -> None:
    editor, server = talk
    server.wait = 0.3
    editor.open(DOCUMENT)
    editor.open(DOCUMENT, "file:///b.py")
    first, other, last = editor.complete(4, 5), editor.complete(4, 5, "file:///b.py"), editor.complete(4, 6)
    answers = {(answer := editor.hear())["id"]: answer for _ in range(3)}
    assert answers[first]["error"]["code"] == -32801
    assert "result" in answers[other]
    assert "result" in answers[last]
    assert worker.engine.read < 2 * SPEC.length  # the first one was never put
    assert worker.texts == 0


def test_questions_are_taken_back(talk: tuple[Editor, LanguageServer], worker: Worker) -> None:
    editor, server = talk
    editor.open(DOCUMENT)
    server.wait = 30
    number = editor.complete(4, 7)
    editor.send(method="$/cancelRequest", params={"id": number})
    assert editor.hear()["error"]["code"] == -32800
    assert worker.engine.read == 0
    server.wait = 0.0
    server.request = lambda before, behind: Request((), WritingOptions(length=10**9, end=False))  # type: ignore[method-assign]
    number = editor.complete(4, 7)
    while not worker.engine.read:
        time.sleep(0.01)
    editor.send(method="$/cancelRequest", params={"id": number})
    assert editor.hear()["error"]["code"] == -32800
    until = time.monotonic() + 5
    while worker.texts and time.monotonic() < until:
        time.sleep(0.01)
    assert worker.texts == 0
    assert not worker.engine.rows


def test_nonsense(talk: tuple[Editor, LanguageServer]) -> None:
    editor, _ = talk
    editor.ask("textDocument/hover")
    assert editor.hear()["error"]["code"] == -32601
    editor.complete(0, 0, "file:///unknown.py")
    assert editor.hear()["error"]["code"] == -32602
    editor.open(DOCUMENT)
    for place in ((99, 0), (0, -1)):
        editor.complete(*place)
        assert editor.hear()["error"]["code"] == -32602
    editor.ask("textDocument/inlineCompletion", textDocument=3)
    assert editor.hear()["error"]["code"] == -32602
    editor.write.write(b"Content-Length: 5\r\n\r\n{]\n[}")
    editor.write.flush()
    assert editor.hear()["error"]["code"] == -32700
    editor.send(method="$/unheardOf", params={})
    editor.complete(0, 3)
    assert "result" in editor.hear()


def test_lines_end_where_the_protocol_says() -> None:
    for odd in ("\x0c", "\u2028", "\x85", "\x1c"):
        assert at(f"a{odd}b\ncd\n", 1, 1) == (f"a{odd}b\nc", "d\n")
    assert at("a\r\nb\rc", 2, 0) == ("a\r\nb\r", "c")


def test_places_are_told_in_units_of_utf_16() -> None:
    text = "a\U0001f600b\r\nsecond\n"
    assert at(text, 0, 3) == ("a\U0001f600", "b\r\nsecond\n")
    assert at(text, 0, 99) == ("a\U0001f600b", "\r\nsecond\n")
    assert at(text, 1, 2) == ("a\U0001f600b\r\nse", "cond\n")
    assert at(text, 2, 0) == (text, "")
    with pytest.raises(ValueError, match="no line"):
        at(text, 3, 0)
