"""Vocabularies: every text comes back, special tokens are text, GPT-2's files in all their forms."""

from __future__ import annotations

import json
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from castalia.core import assets
from castalia.core.errors import DataError, RunError, UsageError
from castalia.core.specs.text import TextSpec
from castalia.core.vocabulary import BYTES, pieces_of
from castalia.media.text import tokens as module
from castalia.media.text.tokens import (
    END,
    Bytes,
    Characters,
    Pieces,
    cut,
    read_pieces,
    tokens_of,
    train_pieces,
)

pytest.importorskip("tokenizers")

TEXTS = ["the cat sat on the mat; the hat is the cat's.\n\n  That's 1234 that's!", "def f(x):\n    return x\n"] * 8


@cache
def small() -> Pieces:
    return train_pieces(TEXTS, 290)


@pytest.fixture(scope="module")
def learned() -> Pieces:
    return train_pieces(TEXTS, 300)


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=150, deadline=None)
def test_every_text_comes_back(text: str) -> None:
    for tokens in (Bytes(), small(), Characters("".join(sorted(set(text))))):
        ids = tokens.encode(text)
        assert tokens.decode(ids) == text
        assert ids.dtype == np.int64
        assert not len(ids) or 0 <= ids.min() <= ids.max() < tokens.end
        assert tokens.lengths[ids].sum() == len(text.encode())


def test_special_tokens_in_a_text_are_text(learned: Pieces) -> None:
    text = f"a{END}b"
    for tokens in (Bytes(), learned, Characters("".join(sorted(set(text))))):
        ids = tokens.encode(text)
        assert tokens.end not in ids
        assert tokens.decode(ids) == text
        assert tokens.lengths[tokens.end] == 0


def test_ends_are_shown_as_asked_for() -> None:
    tokens = Bytes()
    assert tokens.decode([97, 256, 98, 256, -1, -1]) == "ab"
    assert tokens.decode([97, 256, 98], "|") == "a|b"
    assert tokens.decode([0xC3]) == "\ufffd"  # half of a character, which a model may well write


def test_characters_that_are_not_there_are_named() -> None:
    with pytest.raises(UsageError, match=r"has no '\\n' \(U\+000A\), 'x' \(U\+0078\)\."):
        Characters("ab").encode("axb\nx")
    with pytest.raises(ValueError, match="twice"):
        Characters("aba")
    ids, known = Characters("ba").look_up("abc")
    assert ids[:2].tolist() == [1, 0]
    assert known.tolist() == [True, True, False]


def test_half_of_a_pair_is_no_text(learned: Pieces) -> None:
    for tokens in (Bytes(), learned):
        with pytest.raises(UsageError, match=r"Character 1 .*surrogate"):
            tokens.encode("a\ud800")


def reference(tokens: Pieces, text: str) -> list[int]:
    """GPT-2's encoder by the book: cut by its pattern, then merge the pair that was learned first, again and again."""
    regex = pytest.importorskip("regex")
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    spelling = {byte: c for c, byte in BYTES.items()}
    rank = {pair: i for i, pair in enumerate(tokens.merges)}
    found = []
    for word in regex.findall(pattern, text):
        parts = [spelling[b] for b in word.encode()]
        while len(parts) > 1:
            pairs = [(rank.get((a, b), len(rank)), i) for i, (a, b) in enumerate(pairwise(parts))]
            best, i = min(pairs)
            if best == len(rank):
                break
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        found += [tokens.vocabulary[part] for part in parts]
    return found


@given(st.text(st.sampled_from("the cat'sTH 1290\n\t .\u00e9\U0001f600"), max_size=60))
@settings(max_examples=100, deadline=None)
def test_encoding_is_that_of_the_paper(text: str) -> None:
    assert small().encode(text).tolist() == reference(small(), text)


def test_learning_is_the_same_each_time_and_learns(learned: Pieces) -> None:
    again = train_pieces(list(TEXTS), 300)
    assert again.data() == learned.data()
    assert learned.size <= 300
    assert len(learned.encode("the cat")) <= 3
    assert train_pieces([], 300).size == 257
    with pytest.raises(UsageError, match="between 257 and"):
        train_pieces(TEXTS, 256)


def test_long_texts_are_cut_where_no_token_reaches_across(learned: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(TEXTS * 4) + "\n\n\n   \nend"
    whole = learned.encode(text)
    monkeypatch.setattr(module, "PIECE", 200)
    parts = list(cut(text))
    assert len(parts) > 5
    assert "".join(parts) == text
    assert max(map(len, parts)) <= 200
    assert np.array_equal(learned.encode(text), whole)
    assert "".join(cut("x" * 1000)) == "x" * 1000


def test_a_vocabulary_is_kept_as_an_asset(learned: Pieces) -> None:
    spec = TextSpec("bpe", learned.size, 8, vocabulary=assets.keep(learned.data(), "vocabulary.json"))
    again = tokens_of(spec)
    assert np.array_equal(again.encode(TEXTS[0]), learned.encode(TEXTS[0]))
    assert pieces_of(spec) == learned.pieces == again.pieces
    for kind, tokens in (("bytes", Bytes()), ("chars", Characters("ab\u00e9"))):
        spec = TextSpec(kind, tokens.size, 8, alphabet="ab\u00e9" if kind == "chars" else "")  # type: ignore[arg-type]
        assert pieces_of(spec) == tokens.pieces
    with pytest.raises(RunError, match="no vocabulary"):
        tokens_of(TextSpec("bpe", 300, 8))
    broken = TextSpec("bpe", 300, 8, vocabulary=assets.keep(b'{"pieces": [3], "merges": []}', "vocabulary.json"))
    with pytest.raises(RunError, match="damaged"):
        tokens_of(broken)


def huggingface(folder: Path, tokens: Pieces, form: str) -> Path:
    """GPT-2's files as they are found."""
    merges = [f"{a} {b}" for a, b in tokens.merges]
    if form == "two files":
        (folder / "vocab.json").write_text(json.dumps(tokens.vocabulary), encoding="utf-8")
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
        return folder
    pairs = merges if form == "texts" else [list(pair) for pair in tokens.merges]
    whole = {
        "added_tokens": [{"id": tokens.end, "content": END, "special": True}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
        "model": {"type": "BPE", "vocab": {k: v for k, v in tokens.vocabulary.items() if k != END}, "merges": pairs},
    }
    (folder / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    return folder / "tokenizer.json"


@pytest.mark.parametrize("form", ["two files", "texts", "pairs"])
def test_vocabularies_of_hugging_face(tmp_path: Path, learned: Pieces, form: str) -> None:
    found = read_pieces(huggingface(tmp_path, learned, form))
    assert found.data() == learned.data()
    assert (found.size, found.end) == (learned.size, learned.size - 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.pop("a"), "not numbered from 0 without gaps"),
        (lambda v: v.update({"\u4e00": len(v)}), "not spelled in bytes"),
        (lambda v: v.update({"a": "b"}), "TypeError"),
        (lambda v: v.clear(), "not a vocabulary of"),
    ],
)
def test_vocabularies_that_are_none(tmp_path: Path, learned: Pieces, change, said: str) -> None:  # type: ignore[no-untyped-def]
    huggingface(tmp_path, learned, "two files")
    vocabulary = dict(learned.vocabulary)
    change(vocabulary)
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    with pytest.raises(DataError, match=said):
        read_pieces(tmp_path)


def test_other_bad_vocabularies(tmp_path: Path, learned: Pieces) -> None:
    with pytest.raises(DataError, match="neither"):
        read_pieces(tmp_path)
    with pytest.raises(DataError, match="no vocabulary at"):
        read_pieces(tmp_path / "nothing")
    huggingface(tmp_path, learned, "two files")
    (tmp_path / "merges.txt").write_text("#version\nt h\na b c\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"merges\.txt, line 3: 'a b c' is not a pair"):
        read_pieces(tmp_path)
    (tmp_path / "merges.txt").write_text("q zz\n", encoding="utf-8")
    with pytest.raises(DataError, match="the merge of 'q' and 'zz' is not in the vocabulary"):
        read_pieces(tmp_path)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(DataError, match=r"merges\.txt cannot be read"):
        read_pieces(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}', encoding="utf-8")
    with pytest.raises(DataError, match="not byte pair encoding"):
        read_pieces(tmp_path / "tokenizer.json")
    path = huggingface(tmp_path, learned, "pairs")
    good = json.loads(path.read_text(encoding="utf-8"))
    split = {"type": "Sequence", "pretokenizers": [{"type": "Split"}, {"type": "ByteLevel", "use_regex": False}]}
    for change, said in (
        ({"pre_tokenizer": split}, "pre_tokenizer.type is 'Sequence'"),
        ({"normalizer": {"type": "NFC"}}, "normalizer is"),
        ({"pre_tokenizer": {**good["pre_tokenizer"], "add_prefix_space": True}}, "add_prefix_space is 'True'"),
        ({"model": {**good["model"], "ignore_merges": True}}, "ignore_merges is 'True'"),
    ):
        path.write_text(json.dumps({**good, **change}), encoding="utf-8")
        with pytest.raises(DataError, match=said):
            read_pieces(path)
    (tmp_path / "tokenizer.json").write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match=r"tokenizer\.json: not a vocabulary"):
        read_pieces(tmp_path / "tokenizer.json")
