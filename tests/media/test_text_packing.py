"""Texts as windows of one row of tokens: every token once, splits by document, vocabularies of runs, the cache."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from castalia.core.errors import DataError
from castalia.core.rng import BatchRng
from castalia.core.specs.text import TextSpec
from castalia.media.sets import cache_folder
from castalia.media.text import packing
from castalia.media.text.packed import PackedText, pack
from castalia.media.text.packing import TextOptions, open_texts
from castalia.media.text.tokens import tokens_of, train_pieces

CHARS = TextOptions(tokens="chars", length=8)


def everything(data: PackedText) -> list[int]:
    """All tokens, as the windows give them: the first, and what each predicts."""
    x = data.batch(np.arange(len(data))).x
    return [int(x[0, 0]), *x[:, 1:][x[:, 1:] >= 0].tolist()]


def decoded(data: PackedText) -> str:
    return tokens_of(data.spec).decode(everything(data), "|")


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 16, 17, 40])
def test_every_token_but_the_first_is_predicted_once(size: int) -> None:
    row = np.arange(size + 1) % 200
    data = PackedText(row.astype(np.uint16), TextSpec("bytes", 257, 8), name="row")
    assert len(data) == -(-size // 8)
    assert everything(data) == row.tolist()
    x = data.batch(np.arange(len(data))).x
    assert len(data) == 1 or torch.equal(x[1:, 0], x[:-1, 8])  # neighbours share one token
    alone = data.batch(np.array([len(data) - 1])).x
    assert -1 not in alone


def test_training_windows_begin_anywhere_and_are_whole() -> None:
    row = np.arange(100, dtype=np.uint16)
    data = PackedText(row, TextSpec("bytes", 257, 8), name="row")
    ids = np.arange(len(data)).repeat(200)
    rng = BatchRng(0, total=len(ids))
    x = data.batch(ids, rng).x
    assert torch.equal(x, data.batch(ids, rng).x)
    assert torch.equal(x, x[:, :1] + torch.arange(9))
    counts = np.bincount(x[:, 0].numpy(), minlength=92)
    assert len(counts) == 92
    assert counts[:80].min() > 5
    tiny = PackedText(row[:4], TextSpec("bytes", 257, 8), name="row")
    assert tiny.batch(np.array([0, 0]), BatchRng(0, total=2)).x.tolist() == [[0, 1, 2, 3]] * 2


def test_texts_are_kept_apart_by_ends(tmp_path: Path) -> None:
    for name, text in (("a", "one"), ("b", ""), ("c", "three")):
        (tmp_path / f"{name}.txt").write_text(text)
    data = open_texts(tmp_path, CHARS, None)
    assert decoded(data) == "|one|three"
    assert data.spec == TextSpec("chars", len(set("onethree")) + 1, 8, alphabet="".join(sorted(set("onethree"))))
    assert data.row[0] == data.row[-1] == data.spec.end
    again = pack(["one", "three"], data.spec, name="x")
    assert np.array_equal(again.row, data.row)
    assert again.fingerprint == data.fingerprint


def test_a_single_text_is_cut_at_nine_tenths(tmp_path: Path) -> None:
    text = "".join(chr(97 + i % 26) for i in range(103))
    (tmp_path / "play.txt").write_text(text)
    train, test = (open_texts(tmp_path / "play.txt", CHARS, split) for split in ("train", "test"))
    assert decoded(train) == f"|{text[:92]}"
    assert decoded(test) == f"|{text[92:]}"
    assert "first nine tenths (92 characters)" in train.notes[0]
    assert decoded(open_texts(tmp_path / "play.txt", CHARS, None)) == f"|{text}"
    assert train.spec == test.spec  # the alphabet is that of the whole
    with pytest.raises(DataError, match="only 'train' and 'test'"):
        open_texts(tmp_path / "play.txt", CHARS, "validation")


def test_documents_are_split_by_a_hash_of_their_names(tmp_path: Path) -> None:
    for i in range(60):
        (tmp_path / f"{i}.txt").write_text(f"<{i}>")
    parts = {split: decoded(open_texts(tmp_path, CHARS, split)).split("|")[1:] for split in ("train", "test")}
    assert len(parts["train"]) + len(parts["test"]) == 60
    assert 1 <= len(parts["test"]) <= 15
    assert not set(parts["train"]) & set(parts["test"])
    for i in range(60, 80):  # a text stays in its part when others are added
        (tmp_path / f"{i}.txt").write_text(f"<{i}>")
    assert set(parts["test"]) <= set(decoded(open_texts(tmp_path, CHARS, "test")).split("|"))
    (tmp_path / "few").mkdir()
    for name in "ac":  # neither of which is held out
        (tmp_path / "few" / f"{name}.txt").write_text("x")
    with pytest.raises(DataError, match="only 2 documents, too few"):
        open_texts(tmp_path / "few", CHARS, "test")


def test_names_tell_splits(tmp_path: Path) -> None:
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"text": "{name}"}}\n')
    assert decoded(open_texts(tmp_path, CHARS, "test")) == "|test"
    assert decoded(open_texts(tmp_path, CHARS, "validation")) == "|valid"
    train = open_texts(tmp_path, CHARS, None)
    assert decoded(train) == "|train"
    assert "left out: test, validation" in train.notes[0]
    assert train.spec == open_texts(tmp_path, CHARS, "test").spec


def test_a_vocabulary_is_learned_from_the_training_part(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "play.txt").write_text("abab " * 900 + "zyzy " * 100)
    options = TextOptions(tokens="bpe", vocabulary=270, length=8)
    train, test = (open_texts(tmp_path, options, split) for split in ("train", "test"))
    assert train.spec == test.spec
    pieces = tokens_of(train.spec).pieces
    assert b"abab" in pieces
    assert not any(b"zy" in piece for piece in pieces)
    assert decoded(test) == "|" + "zyzy " * 100


def test_the_vocabulary_of_somebody_else(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    pieces = train_pieces(["the cat sat on the mat"] * 5, 265)
    (tmp_path / "vocab.json").write_text(json.dumps(pieces.vocabulary))
    (tmp_path / "merges.txt").write_text("".join(f"{a} {b}\n" for a, b in pieces.merges))
    (tmp_path / "a.txt").write_text("the cat <|endoftext|>")
    options = TextOptions(tokens="gpt2", vocabulary_path=str(tmp_path / "vocab.json"), length=8)
    data = open_texts(tmp_path / "a.txt", options, None)
    assert data.spec.size == pieces.size
    assert data.row[1:-1].tolist() == pieces.encode("the cat <|endoftext|>").tolist()
    assert data.spec.end not in data.row[1:-1]
    other = train_pieces(["<|endoftext|>"] * 5, 265)
    (tmp_path / "vocab.json").write_text(json.dumps(other.vocabulary))
    (tmp_path / "merges.txt").write_text("".join(f"{a} {b}\n" for a, b in other.merges))
    assert open_texts(tmp_path / "a.txt", options, None).spec.vocabulary != data.spec.vocabulary


def test_another_source_is_read_with_the_vocabulary_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc")
    (tmp_path / "b.txt").write_text("cabx\u00e9")
    like = open_texts(tmp_path / "a.txt", CHARS, None).spec
    with pytest.raises(
        DataError, match=r"b\.txt: .* does not have: 'x' \(U\+0078\), '\u00e9' \(U\+00E9\).*unknown=skip"
    ):
        open_texts(tmp_path / "b.txt", CHARS, None, like)
    data = open_texts(tmp_path / "b.txt", TextOptions(unknown="skip"), None, like)
    assert data.spec == like
    assert decoded(data) == "|cab"
    assert "2 characters were left out" in data.notes[0]


def test_what_was_packed_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("some text")
    first = open_texts(path, CHARS, None)

    def refuse(*_: object) -> None:
        raise AssertionError("it was packed again")

    with monkeypatch.context() as patched:
        patched.setattr(packing._Packing, "write", refuse)
        again = open_texts(path, CHARS, None)
        longer = open_texts(path, TextOptions(tokens="chars", length=4), None)
        with pytest.raises(AssertionError, match="again"):
            open_texts(path, TextOptions(tokens="bytes"), None)
    assert again.fingerprint == first.fingerprint != longer.fingerprint
    assert len(longer) == 3
    path.write_text("some texts")
    assert open_texts(path, CHARS, None).fingerprint != first.fingerprint


@pytest.mark.parametrize("what", ["tokens", "json"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"text to damage, {what}")
    first = open_texts(path, CHARS, None)
    row = first.row.copy()
    newest = max((cache_folder() / "packed").glob(f"*.{what}"), key=lambda p: p.stat().st_mtime_ns)
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    del first
    newest.write_bytes(data)
    assert np.array_equal(open_texts(path, CHARS, None).row, row)


def test_large_vocabularies_take_four_bytes() -> None:
    assert packing.token_type(1 << 16) is np.uint16
    assert packing.token_type((1 << 16) + 1) is np.uint32


def test_progress_and_errors(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(name)
    seen: list[tuple[int, int]] = []
    open_texts(tmp_path, CHARS, None, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("")
    with pytest.raises(DataError, match="holds no text: its 3 documents are empty"):
        open_texts(tmp_path, CHARS, None)
    with pytest.raises(ValueError, match="vocabulary_path"):
        TextOptions(tokens="gpt2")
    with pytest.raises(DataError, match="no vocabulary at"):
        open_texts(tmp_path, TextOptions(tokens="gpt2", vocabulary_path=str(tmp_path / "none")), None)
