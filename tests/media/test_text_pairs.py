"""Pairs of answers: how they are read, packed and split, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from castalia import configuration
from castalia.core.errors import DataError
from castalia.media.text.medium import TextMedium
from castalia.media.text.packing import TextOptions
from castalia.media.text.pairs import Pairs
from castalia.media.text.sets import open_set

OPTIONS = TextOptions(tokens="bytes", length=16, pairs=True)


def write(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, str]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def opened(path: Path, split: str | None = None, options: TextOptions = OPTIONS, like: Any = None) -> Pairs:
    found = TextMedium().open(path, options, split, like)
    assert isinstance(found, Pairs)
    return found


def test_pairs_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", pair("ab", "c", "de"), pair("", "\u00e4", "x" * 20), pair("f", "g", ""))
    data = opened(path)
    assert len(data) == 2
    assert any("1 pairs are longer than 16 tokens" in note for note in data.notes)
    batch = data.batch(np.arange(2))
    assert batch.x.tolist() == [[256, 97, 98, 99, 256], [256, 102, 103, 256, -1]]
    assert batch.extra["rejected"].tolist() == [[256, 97, 98, 100, 101, 256], [256, 102, 256, -1, -1, -1]]
    spec = configuration.spec_from_json(configuration.spec_to_json(data.spec))
    assert spec == data.spec
    assert "rejected" in dict(spec.columns)
    again = opened(path, like=data.spec, options=TextOptions())  # as a run's data were
    assert again.fingerprint == data.fingerprint
    assert opened(write(tmp_path / "q.jsonl", pair("ab", "c", "df"))).fingerprint != data.fingerprint


@pytest.mark.parametrize("tokens", ["chars", "bpe"])
def test_vocabularies(tmp_path: Path, tokens: Any) -> None:
    if tokens == "bpe":
        pytest.importorskip("tokenizers")
    path = write(tmp_path / "p.jsonl", *[pair("the cat", f" sat {i}", " flew") for i in range(20)])
    data = opened(path, options=TextOptions(tokens=tokens, vocabulary=270, length=32, pairs=True))
    (text,) = TextMedium().texts(data.batch(np.array([3])), data.spec)
    assert text.endswith("\nthe cat sat 3")  # behind the end of another one


def test_splits(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", *[pair(str(i), "a", "b") for i in range(60)])
    sizes = [len(opened(path, split)) for split in ("train", "test", "all", None)]
    assert sizes[0] + sizes[1] == sizes[2] == sizes[3] == 60
    assert 0 < sizes[1] < 20
    parts = [open_set("counting-pairs", OPTIONS, split) for split in ("train", "test", "all")]
    assert len(parts[0]) + len(parts[1]) == len(parts[2])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"prompt": "a", "chosen": "b"}, "line 2.*rejected"),
        (pair("a", "b", "b"), "the same"),
        ({"prompt": 1, "chosen": "b", "rejected": "c"}, "not a text"),
        ("x", "expected an object"),
    ],
)
def test_bad_pairs_are_named(tmp_path: Path, wrong: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        opened(write(tmp_path / "p.jsonl", pair("a", "b", "c"), wrong))


def test_nothing_that_fits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pairs that fit"):
        opened(write(tmp_path / "p.jsonl", pair("a" * 20, "b", "c")))
    (tmp_path / "t.txt").write_text("a text")
    with pytest.raises(DataError, match="prompt, chosen, rejected"):
        opened(tmp_path / "t.txt")
