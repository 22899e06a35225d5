"""The engine writes what the model's own sampler writes: alone, in company, with guesses and without."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from castalia.core.errors import UsageError
from castalia.models.sequence.gpt2 import GPT2, GPT2Config
from castalia.models.sequence.writing import WritingOptions
from castalia.serving import engine as engines
from castalia.serving.drafts import Draft, DraftModel, Lookup
from castalia.serving.engine import Engine, Full, joined
from castalia.serving.request import Piece, Request
from tests.models.sequence.toys import LETTERS, made
from tests.serving.toys import MODELS, offline, small

PROMPTS = [(), (0, 1, 2), (3,), tuple(range(10)) * 2, (9, 8, 7, 6, 5, 4, 3), (0,) * 16]
OPTIONS = [
    WritingOptions(length=30, end=False),
    WritingOptions(length=25),
    WritingOptions(length=12, temperature=0, end=False),
    WritingOptions(length=20, temperature=0.8, top_k=5, top_p=0.9, repetition=1.3, min_p=0.05),
    WritingOptions(),
]


def requests() -> list[Request]:
    pairs = itertools.product(PROMPTS, OPTIONS)
    return [Request(prompt, options, seed=5, number=i) for i, (prompt, options) in enumerate(pairs)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rows", [1, 4])
def test_texts_are_those_of_the_sampler(name: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come and go: thirty texts of different lengths, of which four at most are written at the same time."""
    monkeypatch.setattr(engines, "CHUNK", 3)  # prompts are read in parts
    model, asked = MODELS[name](), requests()
    if rows == 1:
        asked = asked[::4]
    made = Engine(model, rows=rows).run(asked)
    assert [text.tokens for text in made] == [offline(model, request) for request in asked]
    for text, request in zip(made, asked, strict=True):
        whole = "".join(LETTERS[token] for token in text.tokens if token < len(LETTERS))
        assert text.text == whole
        ended = request.options.end and text.tokens[-1] == 10
        assert text.reason == ("stop" if ended else "length")


def test_requests_join_and_leave() -> None:
    """Whoever comes or goes changes nothing for the others, and rows are free at once."""
    model, chance = small(), random.Random(0)
    asked = requests()
    expected = [offline(model, request) for request in asked]
    engine = Engine(model, rows=3)
    pieces: dict[int, list[Piece]] = {}
    tickets: dict[int, int] = {}
    gone: set[int] = set()
    todo = list(range(len(asked)))
    while todo or engine.busy:
        for _ in range(chance.randrange(3)):
            if todo:
                number = todo.pop()
                tickets[engine.submit(asked[number])] = number
        for piece in engine.step():
            assert piece.ticket not in gone
            pieces.setdefault(piece.ticket, []).append(piece)
        if chance.random() < 0.2 and engine.rows:
            row = chance.choice([*engine.rows, *engine.waiting])
            assert engine.cancel(row.ticket)
            gone.add(row.ticket)
        assert len(engine.rows) <= 3
    assert len(gone) > 3
    for ticket, number in tickets.items():
        whole = tuple(token for piece in pieces.get(ticket, []) for token in piece.tokens)
        if ticket in gone:
            assert expected[number][: len(whole)] == whole
        else:
            assert whole == expected[number]
    assert not engine.cancel(1)


def drafts(name: str) -> Draft:
    if name == "look-up":
        return Lookup(most=5, run=1)
    if name == "itself":  # guesses are nearly always right
        return DraftModel(small(), 4, most=3)
    return DraftModel(made(GPT2, GPT2Config(1, 2, 16, init=0.4), small().spec, seed=1), 4, most=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["gpt2", "gpt3", "gpt-modern", "lora"])
@pytest.mark.parametrize("draft", ["look-up", "itself", "another"])
def test_guessing_changes_no_text(name: str, draft: str) -> None:
    model, asked = MODELS[name](), requests()
    engine = Engine(model, rows=4, draft=drafts(draft))
    made = engine.run(asked)
    assert [text.tokens for text in made] == [offline(model, request) for request in asked]
    assert engine.guessed > 50
    assert 0 < engine.accepted <= engine.guessed
    if name == "gpt2" and draft == "itself":
        assert engine.accepted > 0.9 * engine.guessed
    if draft == "another":
        assert engine.accepted < 0.9 * engine.guessed


def test_who_cannot_take_back_takes_no_guesses() -> None:
    with pytest.raises(UsageError, match="take back"):
        Engine(MODELS["lstm"](), draft=Lookup())
    with pytest.raises(UsageError, match="take back"):
        DraftModel(MODELS["lstm"](), 2)  # type: ignore[arg-type]


def test_stops_bias_and_scores() -> None:
    model = small()
    plain = Request((0, 1), WritingOptions(length=40, end=False), seed=1)
    (text,) = Engine(model).run([plain])
    stop = text.text[10:12]
    (stopped,) = Engine(model).run([Request(plain.prompt, plain.options, seed=1, stops=(stop, "zz"))])
    assert stopped.text == text.text[: text.text.index(stop)]
    assert stopped.reason == "stop"
    assert stopped.tokens == text.tokens[: len(stopped.tokens)]
    assert "".join(LETTERS[token] for token in stopped.tokens if token < 10) == stopped.text + stop
    greedy = WritingOptions(length=5, temperature=0, end=False)
    (forced, without) = Engine(model).run(
        [
            Request((0,), greedy, bias={4: 100.0}, top=2),
            Request((0,), greedy, bias={token: float("-inf") for token in range(9)}),
        ]
    )
    assert forced.text == "eeeee"
    assert set(without.tokens) <= {9, 10}
    logs = torch.log_softmax(model(torch.tensor([[0, 4, 4, 4, 4]]))[0].double(), -1)
    for at, score in enumerate(forced.scores):
        assert score.token == 4
        assert score.logprob == pytest.approx(logs[at, 4].item(), abs=1e-5)
        assert [token for token, _ in score.top] == logs[at].topk(2).indices.tolist()
    assert not without.scores


def test_what_is_shown_is_certain() -> None:
    """No half characters and nothing of a stop; all pieces together are the text."""
    from castalia.serving.words import Words

    pieces = [bytes([b]) for b in range(256)]
    words = Words(pieces, ("STOP", "\u00e9nd"))
    shown = []
    for byte in "a\u00e9 STO STOx \u00e9n \u00e9nd more".encode():
        assert not words.stopped
        shown.append(words.add(byte))
        if words.stopped:
            break
    assert all("\ufffd" not in part and "STOP" not in part for part in shown)
    assert "".join(shown) == "a\u00e9 STO STOx \u00e9n "
    assert words.stopped
    assert words.finish() == ""
    words = Words(pieces, ("STOP",))
    assert "".join(words.add(b) for b in b"a ST\xc3") + words.finish() == "a ST\ufffd"


def test_the_queue_is_bounded() -> None:
    engine = Engine(small(), rows=2, waiting=3)
    for _ in range(5):
        engine.submit(Request(options=WritingOptions(length=3)))
    with pytest.raises(Full, match="later"):
        engine.submit(Request())
    engine.step()
    assert len(engine.rows) == 2
    with pytest.raises(Full):
        engine.submit(Request())


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Request((11,)), "none of this model"),
        (Request(bias={-1: 0.0}), "none of this model"),
        (Request(top=12), "Log-probabilities"),
        (Request(options=WritingOptions(stop="a")), "stops"),
    ],
)
def test_requests_that_make_no_sense(request_: Request, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Engine(small()).submit(request_)


def test_pieces_make_a_text() -> None:
    assert joined([Piece(1, (2,), "a"), Piece(1, (3,), "b", reason="stop")]).text == "ab"


def test_bfloat16_is_near() -> None:
    """Tokens may differ there; log-probabilities hardly do."""
    asked = [Request((1, 2, 3), WritingOptions(length=1, temperature=0), top=11, bias={5: 100.0})]
    exact, rough = (Engine(small(), precision=p).run(asked)[0].scores[0] for p in ("float32", "bfloat16"))
    assert dict(rough.top) == pytest.approx(dict(exact.top), abs=0.1)


@pytest.mark.parametrize("pattern", ["a(bc)*d", "[a-c]{5}", "(ab|cd|ef)+j?", "aaa"])
def test_texts_match_their_pattern(pattern: str) -> None:
    import re

    options = WritingOptions(length=12)
    asked = [Request((number % 10,), options, seed=1, number=number, pattern=pattern) for number in range(12)]
    for draft in (None, Lookup(most=3, run=1)):
        texts = Engine(small(), rows=5, draft=draft).run([*asked, Request((1,), options)])
        assert texts[-1].tokens == offline(small(), Request((1,), options))
        ended = [text.text for text in texts[:-1] if text.reason == "stop"]
        assert len(ended) > 3
        assert all(re.fullmatch(pattern, text) for text in ended)


def test_patterns_that_are_none() -> None:
    with pytest.raises(UsageError, match="no regular expression"):
        Engine(small()).submit(Request(pattern="a(b"))
    with pytest.raises(UsageError, match="may have"):
        Engine(small()).submit(Request(pattern="a" * 2000))
    slow = Request((), WritingOptions(length=12), pattern="(a|aa)+$|(a?){25}a{25}", bias={0: 100.0})
    assert Engine(small()).run([slow])[0].reason in ("stop", "length")


@pytest.mark.parametrize("name", ["gpt2", "gpt-modern", "lora", "lstm"])
def test_eight_bits_are_near_and_do_not_depend_on_company(name: str) -> None:
    from castalia.serving.int8 import to_int8

    exact, rough = MODELS[name](), to_int8(MODELS[name]())
    asked = [Request((1, 2, number), WritingOptions(length=1, temperature=0), top=11) for number in range(6)]
    scores = [dict(text.scores[0].top) for text in Engine(exact).run(asked)]
    rounded = [dict(text.scores[0].top) for text in Engine(rough).run(asked)]
    errors = [abs(score[token] - one[token]) for score, one in zip(scores, rounded, strict=True) for token in score]
    assert 0 < max(errors) < 0.3
    together = Engine(rough, rows=6).run(requests())
    assert [text.tokens for text in together] == [text.tokens for text in Engine(rough, rows=2).run(requests())]
