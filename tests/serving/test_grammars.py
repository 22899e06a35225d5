"""Texts of grammars and under JSON schemas: what ends is what was asked for, and no grammar keeps the engine busy."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest
import torch

from castalia.core import assets
from castalia.core.errors import MissingExtra, UsageError
from castalia.core.model import Generator
from castalia.core.specs.text import TextSpec
from castalia.core.vocabulary import pieces_of
from castalia.media.text.tokens import train_pieces
from castalia.models.sequence.gpt2 import GPT2, GPT2Config
from castalia.models.sequence.writing import WritingOptions
from castalia.serving import grammars, reader
from castalia.serving.drafts import Draft, DraftModel, Lookup
from castalia.serving.engine import Engine
from castalia.serving.grammars import Grammars, of_schema
from castalia.serving.request import Request, Written
from tests.models.sequence.toys import made
from tests.serving.toys import offline, small

pytest.importorskip("llguidance")

BRACKETS = 'start: pair\npair: "a" (pair | "c")* "b"'
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 4},
        "größe": {"type": "integer", "minimum": -5, "maximum": 120},
        "of": {"enum": ["é", "naïve", "鴨", None]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "größe", "of", "tags"],
    "additionalProperties": False,
}


def of_bytes(length: int = 32) -> Generator:
    return made(GPT2, GPT2Config(2, 2, 16, init=0.4), TextSpec("bytes", 257, length))


def of_pieces() -> Generator:
    """Tokens of several bytes, among them halves of characters."""
    pieces = train_pieces(['{"name": "an", "größe": 12, "of": "naïve", "tags": [true, false]} 鴨 é null'] * 8, 300)
    spec = TextSpec("bpe", pieces.size, 32, vocabulary=assets.keep(pieces.data(), "vocabulary.json"))
    assert any(len(piece) > 3 for piece in pieces_of(spec))
    return made(GPT2, GPT2Config(2, 2, 16, init=0.4), spec)


def obeys(value: Any) -> bool:
    """Whether a value is one of ``SCHEMA``, by hand."""
    return (
        list(value) == ["name", "größe", "of", "tags"]
        and isinstance(value["name"], str)
        and len(value["name"]) <= 4
        and isinstance(value["größe"], int)
        and -5 <= value["größe"] <= 120
        and value["of"] in ("é", "naïve", "鴨", None)
        and 1 <= len(value["tags"]) <= 3
        and all(isinstance(tag, bool) for tag in value["tags"])
    )


def balanced(text: str) -> bool:
    depth = list(itertools.accumulate({"a": 1, "b": -1, "c": 0}[c] for c in text))
    return text.startswith("a") and depth[-1] == 0 and min(depth[:-1]) > 0


def asked(grammar: str, n: int = 8, length: int = 300) -> list[Request]:
    options = WritingOptions(length=length)
    return [Request((number % 10,), options, seed=2, number=number, grammar=grammar) for number in range(n)]


@pytest.mark.parametrize("model", [of_bytes, of_pieces])
def test_json_under_a_schema(model: Any) -> None:
    texts = Engine(model(), rows=3).run(asked(of_schema(SCHEMA)))
    ended = [text for text in texts if text.reason == "stop"]
    assert len(ended) > 5
    assert all(obeys(json.loads(text.text)) for text in ended)
    assert len({text.text for text in ended}) == len(ended)
    assert any(text.reason == "stop" for text in Engine(model()).run(asked(of_schema({"type": "object"}), 2)))


def test_any_json() -> None:
    texts = Engine(of_bytes(), rows=8).run(asked(of_schema(True), 16, 100))
    values = [json.loads(text.text) for text in texts if text.reason == "stop"]
    assert len(values) > 5


def drafts() -> list[Draft | None]:
    return [None, Lookup(most=3, run=1), DraftModel(small(), 5, most=3)]


def test_brackets_with_guesses_and_without() -> None:
    """Guesses change no token, and who writes beside such a text is not touched."""
    free = Request((1,), WritingOptions(length=12))
    found: list[list[Written]] = []
    for draft in drafts():
        engine = Engine(small(), rows=5, draft=draft)
        found.append(engine.run([*asked(BRACKETS, 12, 40), free]))
        assert draft is None or engine.accepted > 0
    assert found[0] == found[1] == found[2]
    assert found[0][-1].tokens == offline(small(), free)
    ended = [text.text for text in found[0][:-1] if text.reason == "stop"]
    assert len(ended) > 5
    assert all(balanced(text) for text in ended)
    assert max(map(len, ended)) > 4
    assert all(not balanced(text.text) for text in found[0][:-1] if text.reason == "length")


def test_the_likeliest_tokens_of_a_grammar() -> None:
    """A choice among what is allowed only, and of nothing where only one thing is."""
    (text,) = Engine(small()).run([Request((), WritingOptions(length=9, temperature=0), grammar='start: "abcab"')])
    assert (text.text, text.reason) == ("abcab", "stop")


def over(*pieces: bytes) -> Grammars:
    return Grammars([*pieces, b"\xff", b"", b""], torch.device("cpu"))


def test_tokens_of_several_bytes() -> None:
    """All spellings are open, marks and bytes of no text are not, and half characters go on."""
    words = over(b"a", b"b", b"ab", b"abc", b"\xc3", b"\xa9", b"c\xc3")
    text = words.of('start: "abcé" "a"?')
    assert text.allowed().nonzero().flatten().tolist() == [0, 2, 3]
    text.add(2)
    assert text.allowed().nonzero().flatten().tolist() == [6]
    text.add(6)
    assert text.allowed().nonzero().flatten().tolist() == [5]
    text.add(5)
    assert text.allowed().nonzero().flatten().tolist() == [0, words.end]
    text.add(0)
    assert text.allowed().nonzero().flatten().tolist() == [words.end]
    assert not text.stuck


def test_what_cannot_be_spelled_ends() -> None:
    """A text that cannot go on has not matched, and says so."""
    (text,) = Engine(small()).run([Request((), WritingOptions(length=9), grammar='start: "abxyz"')])
    assert (text.text, text.reason) == ("ab", "stuck")
    (text,) = Engine(small()).run([Request((), WritingOptions(length=9), pattern="abxyz")])
    assert (text.text, text.reason) == ("ab", "stuck")
    # an end in the middle is none, and neither is a mark
    (text,) = Engine(small()).run([Request((), WritingOptions(length=9), grammar='start: "a" <[10]> "b"')])
    assert (text.text, text.reason) == ("a", "stuck")


WRONG = [
    ("start: nobody", "unknown name"),
    ('start "a"', "Expected token"),
    ("start: /[/", "invalid regex"),
    ('begin: "a"', "start"),
    ("   ", "start"),
    ('start: "' + "a" * 60_000 + '"', "may have 50,000"),
    ("start: " + "(" * 10_000 + '"a"' + ")" * 10_000, "deeply nested"),
    ("start: /" + "(" * 20_000 + "a" + ")" * 20_000 + "/", "invalid regex"),
    ('start: start "a"', "No text can be written"),
    ('start: "xyz"', "No text can be written"),
    ("start: <|mark|>", "the library fails"),
    (of_schema({"$ref": "https://castalia.invalid/schema"}), "does not fetch"),
    (of_schema({"not": {}}), "Unimplemented keys"),
    (of_schema({"type": "letter"}), "cannot be used"),
    (of_schema(False), "Unsatisfiable"),
]


@pytest.mark.parametrize(("grammar", "said"), WRONG, ids=lambda value: value[:20])
def test_grammars_that_are_none(grammar: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        Engine(small()).submit(Request(grammar=grammar))
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)


def test_a_pattern_or_a_grammar_for_texts_that_end() -> None:
    with pytest.raises(UsageError, match="not both"):
        Engine(small()).submit(Request(grammar=BRACKETS, pattern="a+"))
    with pytest.raises(UsageError, match="allowed to end"):
        Engine(small()).submit(Request(grammar=BRACKETS, options=WritingOptions(end=False)))


AND = "start: A\nA: " + " & ".join(f"/(a|b)*a(a|b){{{i}}}.*/" for i in range(1, 40))
HOSTILE = {
    "ambiguous": 'start: start start start | "a" | "aa"',
    "empty": 'start: a*\na: b*\nb: c*\nc: "" | "a"',
    "nested numbers": "start: /((a{1,1000}){1,1000}){1,1000}/",
    "states": "start: /(.*a.{30}b|.*b.{29}c|.*[a-z].{33}[0-9])+/",
    "rules": "start: r0\n" + "\n".join(f'r{i}: "a" r{i * 7 % 900} | /[a-j]{{1,{i + 1}}}/' for i in range(900)),
    "long": of_schema({"type": "string", "minLength": 10**9}),
    "multiple": of_schema({"type": "integer", "multipleOf": 999_999_937}),
    "options": "start: " + " ".join(["x?"] * 5000) + '\nx: "a" | "aa"',
    "intersection": AND,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_grammars_end(name: str) -> None:
    began = time.monotonic()
    engine = Engine(small())
    try:
        (text,) = engine.run([Request((), WritingOptions(length=60), grammar=HOSTILE[name], bias={10: -100.0})])
        assert text.reason in ("stop", "length", "stuck")
    except UsageError as error:
        assert "cannot be used" in str(error) or "No text" in str(error)  # noqa: PT017 - either is an end
    assert time.monotonic() - began < 15
    assert Engine(small()).run(asked(BRACKETS, 1))


def test_a_text_goes_on_where_another_made_an_end_of_the_process() -> None:
    words = over(b"a", b"b", b"c")
    text = words.of(BRACKETS)
    text.add(0)
    first = words.process
    with pytest.raises(UsageError, match="takes more than"):
        words.of(AND)
    assert first is not None
    assert first.poll() is not None
    text.add(2)
    assert text.allowed().nonzero().flatten().tolist() == [0, 1, 2]
    assert words.process is not None
    text.add(1)
    assert text.allowed().nonzero().flatten().tolist() == [words.end]
    assert not text.stuck


def test_a_step_without_an_answer_ends_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    words = over(b"a", b"b", b"c")
    text = words.of(BRACKETS)
    assert words.process is not None
    words.process.kill()
    text.add(0)
    assert text.allowed().nonzero().flatten().tolist() == [words.end]
    assert text.stuck
    assert words.of(BRACKETS).allowed()[0]  # a process anew
    monkeypatch.setattr(grammars, "SECONDS", 1e-9)
    with pytest.raises(UsageError, match="takes more than"):
        words.of(AND)  # a small one may be answered before anybody waits


def test_the_reader_forgets_and_speaks_in_sentences() -> None:
    read = reader.Reader([b"a", b"b", b""])
    answer = read.answer({"number": 1, "grammar": 'start: "ab"', "tokens": [0], "gone": []})
    assert answer == {"wrong": "", "stuck": False, "mask": answer["mask"], "end": False}
    read.answer({"number": 2, "grammar": 'start: "ab"', "tokens": [], "gone": [1]})
    assert list(read.texts) == [2]
    said = reader.sentence('at 1(8): unknown name: "b"\n   1 | start: b\n              ^\n\n<state>\nmore')
    assert said == 'at 1(8): unknown name: "b"'


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="castalia\\[serve\\]"):
        Engine(small()).submit(Request(grammar=BRACKETS))
