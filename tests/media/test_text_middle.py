"""Gaps in texts: cut anywhere between characters, always undone by putting the parts together again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from castalia.core import assets
from castalia.core.config import to_json
from castalia.core.errors import UsageError
from castalia.core.rng import BatchRng
from castalia.core.specs.text import TextSpec
from castalia.core.vocabulary import pieces_of
from castalia.media.text.middle import Gaps, asked
from castalia.media.text.packed import pack
from castalia.media.text.packing import TextOptions, open_texts
from castalia.media.text.tokens import tokens_of, train_pieces

TEXTS = ["h\u00e9llo w\u00f6rld, this is \U0001f600 one", "and a second one that goes on and on", "short", "ab"] * 8


def spec_of(kind: str, length: int = 48) -> TextSpec:
    if kind == "bytes":
        return TextSpec("bytes", 260, length, middles=True)
    if kind == "chars":
        alphabet = "".join(sorted(set("".join(TEXTS))))
        return TextSpec("chars", len(alphabet) + 4, length, alphabet=alphabet, middles=True)
    pytest.importorskip("tokenizers")
    pieces = train_pieces(TEXTS, 300)
    kept = assets.keep(pieces.data(), "vocabulary.json")
    return TextSpec("bpe", pieces.size + 3, length, vocabulary=kept, middles=True)


def undone(row: list[int], spec: TextSpec) -> list[tuple[str, str]]:
    """The texts of a window as they were, each with the form that it had."""
    tokens, (p, s, m), found = tokens_of(spec), spec.marks, []
    while row:
        size = row.index(spec.end) if spec.end in row else len(row)
        text, row = row[:size], row[size + 1 :]
        if p not in text:
            assert s not in text
            assert m not in text
            found.append(("plain", tokens.decode(text)))
            continue
        assert text[0] == p
        a, b = text.index(s), text.index(m)
        before, behind, middle = text[1:a], text[a + 1 : b], text[b + 1 :]
        if a == 1:  # what stands before the gap may be nothing in the other form, too
            found.append(("SPM", tokens.decode(middle + behind)))
        else:
            found.append(("PSM", tokens.decode(before + middle + behind)))
    return found


@pytest.mark.parametrize("kind", ["chars", "bytes", "bpe"])
def test_gaps_can_be_undone(kind: str) -> None:
    spec = spec_of(kind)
    data = pack(TEXTS, spec, name="texts")
    data.gaps = Gaps(spec, 0.7, 0.5)
    forms: list[str] = []
    ids = np.arange(len(data))
    for seed in range(20):
        made = data.batch(ids, BatchRng(seed, total=len(ids))).x.numpy()
        data.gaps, gaps = None, data.gaps
        plain = data.batch(ids, BatchRng(seed, total=len(ids))).x.numpy()
        data.gaps = gaps
        tokens = tokens_of(spec)
        for row, before in zip(made, plain, strict=True):
            assert len(row) == spec.length + 1
            wanted = [tokens.decode(part) for part in _texts(before.tolist(), spec.end)]
            found = [(form, text) for form, text in undone(row[row >= 0].tolist(), spec) if text]
            forms += [form for form, _ in found]
            for form, text in found[:-1]:  # the last one may be cut
                assert "\ufffd" not in text.strip("\ufffd")  # windows begin anywhere, gaps do not
                assert any(one.startswith(text) for one in wanted), (form, text, wanted)
    shares = {form: forms.count(form) / len(forms) for form in ("plain", "PSM", "SPM")}
    assert shares["PSM"] > 0.1  # of short texts many have nothing before the gap, which counts as the other form here
    assert shares["SPM"] > 0.1
    assert shares["plain"] > 0.2
    assert len(forms) > 300


def _texts(row: list[int], end: int) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for token in row:
        if token == end:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def test_every_gap_that_is_there_ends() -> None:
    spec = spec_of("bytes", 40)
    data = pack(["x" * 500], spec, name="texts")
    data.gaps = Gaps(spec, 1.0, 0.5)
    x = data.batch(np.arange(len(data)), BatchRng(1, total=len(data))).x.numpy()
    assert (x[:, -1] == spec.end).all()
    assert (x == spec.marks[2]).sum() == len(x)


def test_measuring_sees_no_gaps() -> None:
    spec = spec_of("bytes")
    data = pack(TEXTS, spec, name="texts")
    data.gaps = Gaps(spec, 1.0, 0.5)
    assert not np.isin(data.batch(np.arange(len(data))).x.numpy(), spec.marks).any()


@pytest.mark.parametrize("tokens", ["chars", "bytes", "bpe"])
def test_opened_with_gaps(tmp_path: Path, tokens: str) -> None:
    for i, text in enumerate(TEXTS):
        (tmp_path / f"{i}.txt").write_text(text)
    options = TextOptions(tokens=tokens, vocabulary=300, length=32, middle=1.0)  # type: ignore[arg-type]
    data = open_texts(tmp_path, options, "train")
    assert data.spec.middles
    assert len(pieces_of(data.spec)) == data.spec.size == tokens_of(data.spec).size
    assert not any(pieces_of(data.spec)[-4:])
    assert pieces_of(data.spec) == tokens_of(data.spec).pieces
    ids = np.arange(len(data))
    x = data.batch(ids, BatchRng(0, total=len(ids))).x
    assert np.isin(x.numpy(), data.spec.marks).any()
    assert int(x.max()) == data.spec.end
    test = open_texts(tmp_path, options, "test", like=data.spec)
    assert tokens_of(test.spec).decode(test.batch(np.arange(1)).x[0].numpy(), "|").strip("|")
    without = open_texts(tmp_path, TextOptions(tokens=tokens, vocabulary=300, length=32), "train")  # type: ignore[arg-type]
    assert not without.spec.middles
    assert without.spec.size == data.spec.size - 3


def test_data_without_marks_are_what_they_were() -> None:
    """Runs that were trained before there were marks go on with their data."""
    data = pack(["abc"], TextSpec("bytes", 257, 8), name="texts")
    assert data.fingerprint == "f8519046a2cd08b7ab06bb879457a8a9"
    assert to_json(data.spec)["middles"] is False


def test_asking_for_a_middle() -> None:
    spec = spec_of("bytes")
    p, s, m = spec.marks
    assert asked(spec, "ab", "c", 30) == [p, 97, 98, s, 99, m]
    long = asked(spec, "a" * 100, "b" * 100, 33)
    assert len(long) == 33
    assert long.count(97) == 20
    assert long.count(98) == 10
    assert asked(spec, "a" * 100, "b", 33).count(97) == 29
    assert asked(spec, "a", "b" * 100, 33).count(98) == 29
    with pytest.raises(UsageError, match="not learned"):
        asked(TextSpec("bytes", 257, 8), "a", "b", 30)
    with pytest.raises(UsageError, match="no room"):
        asked(spec, "a", "b", 3)
