"""Drawing tokens: the shapes of distributions, the distribution of draws, stopping; for both language models alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from castalia.core.capabilities import Streaming
from castalia.core.errors import UsageError
from castalia.core.model import Generator
from castalia.core.rng import SampleRng
from castalia.core.sampling import Preview
from castalia.models.sequence.gpt2 import GPT2, GPT2Config
from castalia.models.sequence.lstm import LSTM, LSTMConfig
from castalia.models.sequence.writing import WritingOptions, choose, shaped
from tests.models.sequence.toys import LETTERS, letters, made, prompts, rows, streams

MODELS: dict[str, Callable[[], Generator]] = {
    "gpt2": lambda: made(GPT2, GPT2Config(2, 2, 16, init=0.4)),
    "lstm": lambda: made(LSTM, LSTMConfig(8, 12, 2)),
    "lstm tied": lambda: made(LSTM, LSTMConfig(8, 12, 1, tied=True)),
}
OPTIONS = {
    "plain": WritingOptions(length=30, end=False),
    "ends": WritingOptions(length=30),
    "shaped": WritingOptions(length=25, temperature=0.8, top_k=5, top_p=0.9, repetition=1.3),
    "greedy": WritingOptions(length=20, temperature=0, end=False),
    "stops": WritingOptions(length=30, stop="b"),
}
GIVEN = {
    "nothing": None,
    "prompts": prompts("abc", "d", ""),
    "long prompts": prompts("abcdefghij" * 2, "jihgfedcb", "aaaaaaaaaaaaaaaa"),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("options", OPTIONS)
def test_fast_is_naive_and_a_stream_is_the_text(name: str, given: str, options: str) -> None:
    model, what, o, rng = MODELS[name](), GIVEN[given], OPTIONS[options], streams(3)
    assert isinstance(model, Streaming)
    fast = model.sample(3, what, rng=rng, options=o).x
    assert torch.equal(fast, model.naive(3, what or {}, rng, o).x)
    state, pieces = model.start(3, what or {}, rng, o), []
    while True:
        try:
            piece, state = model.advance(state)
        except StopIteration:
            break
        pieces.append(piece)
    joined = torch.cat(pieces, 1)
    assert [[t for t in row if t >= 0] for row in joined.tolist()] == rows(fast)
    for i in range(3):  # no text depends on those beside it
        alone = model.sample(1, what and {"prompt": what["prompt"][i : i + 1]}, rng=SampleRng(3, [i]), options=o).x
        assert rows(alone) == [rows(fast)[i]]


def test_prompts_are_what_texts_begin_with() -> None:
    model = MODELS["gpt2"]()
    x = rows(model.sample(3, prompts("abc", "d", ""), rng=streams(3), options=WritingOptions(length=4, end=False)).x)
    assert [row[: len(row) - 4] for row in x] == [[0, 1, 2], [3], []]
    broken = {"prompt": torch.tensor([[0, -1, 1]])}
    with pytest.raises(UsageError, match="padding"):
        model.sample(1, broken, rng=streams(1))
    with pytest.raises(UsageError, match="prompt"):
        model.sample(1, {"prompt": torch.tensor([[len(LETTERS) + 1]])}, rng=streams(1))
    with pytest.raises(UsageError, match="Did you mean 'prompt'"):
        model.sample(1, {"promt": torch.tensor([[0]])}, rng=streams(1))


def test_stopping() -> None:
    model = MODELS["gpt2"]()
    x = rows(model.sample(40, rng=streams(40), options=WritingOptions(length=60)).x)
    assert all(10 not in row[:-1] for row in x)
    assert sum(row[-1] == 10 for row in x) > 20
    assert any(len(row) == 60 or row[-1] == 10 for row in x)
    plain = rows(model.sample(40, rng=streams(40), options=WritingOptions(length=60, end=False)).x)
    texts = ["".join((*LETTERS, "|")[i] for i in row) for row in plain]
    stop = max((t[i : i + 2] for t in texts for i in range(59) if "|" not in t[i : i + 2]), key="".join(texts).count)
    x = rows(model.sample(40, rng=streams(40), options=WritingOptions(length=60, stop=stop, end=False)).x)
    stopped = ["".join((*LETTERS, "|")[i] for i in row) for row in x]
    assert stopped == [t[: t.index(stop) + 2] if stop in t else t for t in texts]
    assert sum(t.endswith(stop) for t in stopped) > 5


def test_watching_shows_beginnings() -> None:
    seen: list[Preview] = []
    model, options = MODELS["gpt2"](), WritingOptions(length=5, end=False)
    x = model.sample(2, prompts("ab", "c"), rng=streams(2), options=options, watch=seen.append).x
    assert [(p.step, p.steps) for p in seen] == [(i, 5) for i in range(1, 6)]
    assert rows(seen[2].examples().x) == [row[: len(row) - 2] for row in rows(x)]


def test_draws_follow_the_distribution() -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 6, generator=g).double()
    p = torch.softmax(logits, -1)[0]
    u = torch.arange(60_000) / 60_000
    counts = torch.bincount(choose(logits.expand(60_000, -1), u), minlength=6) / 60_000
    torch.testing.assert_close(counts.double(), p, atol=3e-5, rtol=0)
    holes = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]])
    for value in (0.0, 0.4999, 0.5, 0.99999994):
        assert choose(holes, torch.tensor([value])).item() in (1, 3)
    assert choose(holes + torch.tensor([0, 0, 0, 1.0, 0]), torch.tensor([0.0]), greedy=True).item() == 3


def kept(logits: torch.Tensor, **options: object) -> list[int]:
    return torch.isfinite(shaped(logits[None], WritingOptions(**options))[0]).nonzero()[:, 0].tolist()  # type: ignore[arg-type]


def test_what_is_left_of_a_distribution() -> None:
    logits = torch.tensor([0.15, 0.5, 0.05, 0.3]).log()
    assert kept(logits) == [0, 1, 2, 3]
    assert kept(logits, top_k=2) == [1, 3]
    assert kept(logits, top_k=9) == [0, 1, 2, 3]
    # 0.5, 0.8, 0.95, 1: the token that crosses is kept, or is not
    assert kept(logits, top_p=0.6) == [1, 3]
    assert kept(logits, top_p=0.6, top_p_rule="below") == [1]
    assert kept(logits, top_p=0.2) == kept(logits, top_p=0.2, top_p_rule="below") == [1]
    assert kept(logits, top_p=0.9, top_k=2) == [1, 3]
    torch.testing.assert_close(shaped(logits[None], WritingOptions(temperature=0.5))[0], logits.double() * 2)
    seen = torch.tensor([[True, False, False, True]])
    changed = shaped(torch.tensor([[-1.0, 1, 1, 1]]), WritingOptions(repetition=2.0), seen)
    assert changed.tolist() == [[-2.0, 1.0, 1.0, 0.5]]


def test_shapes_are_those_of_transformers() -> None:
    process = pytest.importorskip("transformers.generation.logits_process")
    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(1)).double() * 2
    ids = torch.randint(0, 40, (50, 12), generator=torch.Generator().manual_seed(2))
    theirs = process.RepetitionPenaltyLogitsProcessor(1.4)(ids, logits)
    for warper in (process.TemperatureLogitsWarper(0.7), process.TopKLogitsWarper(20), process.TopPLogitsWarper(0.8)):
        theirs = warper(ids, theirs)
    seen = torch.zeros(50, 40, dtype=torch.bool).scatter(1, ids, True)
    ours = shaped(logits, WritingOptions(temperature=0.7, top_k=20, top_p=0.8, repetition=1.4), seen)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "wrong", [{"length": -1}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}, {"repetition": 0.0}, {"temperature": -1.0}]
)
def test_options_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        WritingOptions(**wrong)  # type: ignore[arg-type]


def test_length_is_the_context_unless_said() -> None:
    for name in MODELS:
        x = MODELS[name]().sample(2, rng=streams(2), options=WritingOptions(end=False)).x
        assert x.shape == (2, letters().length)
