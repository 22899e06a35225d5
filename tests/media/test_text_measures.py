"""What is said of texts, on texts of which it is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from castalia.core.data import Batch, pad
from castalia.core.specs.text import TextSpec
from castalia.media.base import Work
from castalia.media.rooms import room
from castalia.media.text.measures import MEASURES, copied, pair_shares, pairs, repetition, total_variation
from castalia.media.text.packed import PackedText, pack
from tests.tools import Table

ALPHABET = "abcdefghijklmnopqrstuvwxyz "
SPEC = TextSpec("chars", len(ALPHABET) + 1, 60, alphabet=ALPHABET)


def prose(n: int, seed: int) -> list[str]:
    """Texts of random words."""
    random = np.random.default_rng(seed)
    return [" ".join("".join(random.choice(list(ALPHABET[:26]), 4)) for _ in range(200)) for _ in range(n)]


@pytest.fixture(scope="module")
def train() -> PackedText:
    return pack(prose(30, 1), SPEC, name="prose")


@pytest.fixture(scope="module")
def held_out() -> PackedText:
    return pack(prose(30, 2), SPEC, name="prose")


def samples(texts: list[str]) -> Batch:
    medium = room("text")
    return Batch.of(pad([medium.read(text, SPEC)[None] for text in texts], -1))


def work(texts: list[str], train: PackedText, held_out: PackedText) -> Work:
    return Work(SPEC, samples(texts), train, held_out)


def test_repetition_counts_runs_of_four_words(train: PackedText, held_out: PackedText) -> None:
    first, second = "aa bb cc dd aa bb cc dd", "aa bb cc dd ee ff gg hh ii jj kk ll"
    out = repetition(work([first, second, "a b"], train, held_out))
    assert out["repetition"].value == pytest.approx((1 / 5 + 0) / 2)
    assert out["repetition"].n == 2
    assert "1 more have none" in out["repetition"].detail
    assert out["repetition_floor"].value == 0
    assert f"within {len(second)} tokens" in out["repetition"].detail, "real texts are cut to the length of samples"
    assert repetition(work(["a b"], train, held_out)) == {}, "too short to tell"


def test_copies_are_found_wherever_they_begin(train: PackedText, held_out: PackedText) -> None:
    text = prose(30, 1)[7]
    mine = [text[100:160], text[333:393], prose(1, 9)[0][:60], text[500:530] + prose(1, 8)[0][:30]]
    out = copied(work(mine, train, held_out))
    assert out["copied"].value == pytest.approx((1 + 1 + 0 + 7 / 37) / 4)
    assert out["copied_floor"].value == 0
    assert copied(work(["abc"], train, held_out)) == {}, "too short to tell"


def test_copies_are_found_across_chunks(
    train: PackedText, held_out: PackedText, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = prose(30, 1)[7]
    whole = copied(work([text[100:160]], train, held_out))
    monkeypatch.setattr("castalia.media.text.measures.AT_ONCE", 50)
    assert copied(work([text[100:160]], train, held_out)) == whole
    assert whole["copied"].value == 1


def test_of_texts_in_no_order_nothing_is_said(held_out: PackedText) -> None:
    other = Table(torch.zeros(4, 10, dtype=torch.int64), SPEC)
    assert copied(Work(SPEC, samples(["abc"]), other, held_out)) == {}


def test_pairs_tell_real_texts_from_others(train: PackedText, held_out: PackedText) -> None:
    real = [text[:60] for text in prose(100, 5)]
    out = pairs(work(real, train, held_out))
    assert out["pairs"].value == pytest.approx(out["pairs_floor"].value, abs=0.05)
    assert out["pairs"].n == out["pairs_floor"].n == 100
    assert pairs(work(["ab" * 30] * 100, train, held_out))["pairs"].value > 0.9


def test_total_variation_is_half_the_sum_of_differences() -> None:
    a, b = (pair_shares(np.array([row]), 3) for row in ([0, 1, 0, 1, -1], [0, 1, 2, 2, -1]))
    assert sum(a.values()) == pytest.approx(1)
    assert total_variation(a, b) == pytest.approx(2 / 3)
    assert total_variation(a, a) == 0


def test_the_medium_brings_them() -> None:
    assert room("text").measures == MEASURES
    assert {measure.name for measure in MEASURES} == {"repetition", "copied", "pairs"}
