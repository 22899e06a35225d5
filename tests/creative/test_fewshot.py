"""Questions with examples in the prompt: how they are read, put together, scored and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from castalia import api, editing
from castalia.core.errors import DataError, UsageError
from castalia.creative.edit import Page
from castalia.creative.fewshot import Asked, Marks, Question, demonstrations, prompt_of, read_questions
from castalia.models.sequence.gpt3 import GPT3, GPT3Config
from castalia.training.loop import train
from tests.models.sequence.toys import letters, made
from tests.tools import small_recipe


def question(context: str, *choices: str, answer: int = 0) -> Question:
    return Question(context, choices, answer, choices[answer])


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def test_questions_are_read(tmp_path: Path) -> None:
    both = ({"context": "2+2=", "choices": [" 4", "5 "], "answer": 0}, {"context": "x", "target": " y "})
    assert read_questions(lines(tmp_path / "q.jsonl", *both)) == [question("2+2=", "4", "5"), Question("x", (), 0, "y")]


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {"choices": ["a", "b"], "answer": 0},
        {"context": "a", "choices": ["b"], "answer": 0},
        {"context": "a", "choices": ["b", "c"], "answer": 2},
        {"context": "a", "choices": ["b", "c"], "answer": True},
        {"context": "a", "choices": ["b", 3], "answer": 0},
        {"context": "a", "target": " "},
        {"context": "a"},
    ],
)
def test_bad_questions_are_named(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"q\.jsonl, line 2"):
        read_questions(lines(tmp_path / "q.jsonl", {"context": "a", "target": "b"}, wrong))
    (tmp_path / "odd.jsonl").write_text('{"context": "a\u2028b", "target": "c"}', encoding="utf-8")
    assert read_questions(tmp_path / "odd.jsonl")[0].context == "a\u2028b", "a line ends where JSON lines end"
    (tmp_path / "broken.jsonl").write_text("{")
    with pytest.raises(DataError, match="line 1 is not JSON"):
        read_questions(tmp_path / "broken.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no lines"):
        read_questions(tmp_path / "empty.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff")
    with pytest.raises(DataError, match="byte 0"):
        read_questions(tmp_path / "bytes.jsonl")


def test_a_question_is_not_its_own_example() -> None:
    pool = [question(f"q{i}", "a", "b") for i in range(6)]
    seen = set()
    for number, one in enumerate(pool):
        shown = demonstrations(pool, one, 3, 0, number)
        assert len(shown) == 3
        assert one not in shown
        assert shown == demonstrations(pool, one, 3, 0, number)
        seen.update(q.context for q in shown)
    assert len(seen) > 4
    assert len(demonstrations(pool, pool[0], 99, 0, 0)) == 5
    assert demonstrations(pool, pool[0], 3, 0, 0) != demonstrations(pool, pool[0], 3, 1, 0)


def test_prompts() -> None:
    shown = [question("1:", "a", "b", answer=1), question("2:", "c", "d")]
    asked = question("3:", "e", "f")
    assert prompt_of(asked, shown, "\n\n") == "1: b\n\n2: c\n\n3:"
    assert prompt_of(asked, shown, "\n", lambda text: len(text) < 10) == "2: c\n3:"  # the first is left out
    assert prompt_of(asked, shown, "\n", lambda text: False) == "3:"


@pytest.fixture(scope="module")
def model() -> GPT3:
    from dataclasses import replace

    spec = replace(letters(16), alphabet="abcdefghi ")
    built = made(GPT3, GPT3Config(2, 2, 16, init=0.5, window=4), spec)
    assert isinstance(built, GPT3)
    return built


def logs(model: GPT3, text: str, start: int) -> list[float]:
    """log p of each character of ``text`` from ``start`` on, from the logits."""
    x = torch.tensor([[10, *("abcdefghi ".index(c) for c in text)]])
    p = torch.log_softmax(model(x[:, :-1]), -1)[0]
    return [p[i, x[0, i + 1]].item() for i in range(start, len(text))]


def test_scores_of_answers(model: GPT3) -> None:
    asked = Asked(model, model.spec)
    answers = ("bad", "a", "hide")
    by_hand = [logs(model, f"face {answer}", 4) for answer in answers]
    alone = [logs(model, f"cab {answer}", 3) for answer in answers]
    nats, sizes = asked.nats("face", answers)
    assert sizes.tolist() == [4, 2, 5]
    assert nats.tolist() == pytest.approx([sum(one) for one in by_hand], abs=1e-4)
    wanted = {
        "sum": [sum(one) for one in by_hand],
        "mean": [sum(one) / len(one) for one in by_hand],
        "ratio": [sum(one) - sum(other) for one, other in zip(by_hand, alone, strict=True)],
    }
    for score, values in wanted.items():
        chosen, found = asked.choose("face", answers, score, "cab")  # type: ignore[arg-type]
        assert found == pytest.approx(values, abs=1e-4)
        assert chosen == values.index(max(values))


def test_long_contexts_lose_their_beginning(model: GPT3) -> None:
    asked = Asked(model, model.spec)
    long = "abcdefghi" * 4 + "faced"
    assert asked.nats(long, ("bad",))[0].item() == asked.nats(long[-12:], ("bad",))[0].item()
    assert asked.nats(long, ("bad",))[0].item() != asked.nats(long[-6:], ("bad",))[0].item()
    assert asked.fits(4)("a" * 12)
    assert not asked.fits(4)("a" * 13)


def test_marks() -> None:
    marks = Marks(3, 4, 0.5)
    assert (marks.share, marks.centred) == (0.75, 0.5)
    assert marks.error == pytest.approx((0.75 * 0.25 / 4) ** 0.5)


def test_a_run_that_counts_is_asked(tmp_path: Path) -> None:
    """It was trained to count by ones, so it knows what follows, and says it."""
    recipe = small_recipe("gpt3", steps=250)
    run = train(recipe, api.training_data(recipe), tmp_path / "run", quiet=True)
    choices = [
        {"context": f"{n} {n + 1}", "choices": [str(n + 2), str(n + 57)], "answer": 0} for n in range(100, 240, 10)
    ]
    path = lines(tmp_path / "q.jsonl", *choices)
    product = editing.edit(run, "answer", of=str(path), shots=0)
    assert isinstance(product, Page)
    assert product.numbers["accuracy"] > 0.8
    assert product.numbers["chance"] == 0.5
    free = lines(tmp_path / "free.jsonl", {"context": "140 141", "target": "142"}, {"context": "1", "target": "never"})
    product = editing.edit(run, "answer", of=str(free), shots=0, length=4)
    assert isinstance(product, Page)
    said = [one["said"] for one in product.numbers["answers"]]
    assert product.numbers["accuracy"] == sum(s == t for s, t in zip(said, ("142", "never"), strict=True)) / 2
    assert product.numbers["chance"] == 0
    editing.write(product, run.spec, tmp_path / "page.html")
    assert "142" in (tmp_path / "page.html").read_text()
    assert json.loads((tmp_path / "page.json").read_text())["n"] == 2
    with pytest.raises(UsageError, match="no file"):
        editing.edit(run, "answer", of=str(tmp_path / "none.jsonl"))
