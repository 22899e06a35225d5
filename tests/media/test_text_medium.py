"""Text as a medium: files, pictures, rates, what it recognises, and its named sets."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from castalia.core.data import Batch
from castalia.core.errors import DataError, UsageError
from castalia.core.specs.text import TextSpec
from castalia.media.text.draw import LINES, WIDTH, layout, texts_image
from castalia.media.text.medium import TextMedium
from castalia.media.text.packing import TextOptions
from castalia.media.text.sets import tiny
from castalia.media.text.tokens import tokens_of

BYTES = TextSpec("bytes", 257, 8)
ROOM = TextMedium()


def batch(*texts: str) -> Batch:
    rows = [list(text.encode()) for text in texts]
    longest = max(map(len, rows))
    return Batch.of(torch.tensor([row + [-1] * (longest - len(row)) for row in rows]))


def test_texts_become_files_with_their_recipe_beside(tmp_path: Path) -> None:
    paths = ROOM.write(batch("one\n", "caf\u00e9"), BYTES, tmp_path / "new", start=7, recipe={"seed": 3})
    assert [p.name for p in paths] == ["0007.txt", "0008.txt"]
    assert paths[1].read_bytes() == "caf\u00e9".encode()
    assert json.loads(paths[0].with_suffix(".json").read_text()) == {"seed": 3, "index": 7}
    inner = Batch.of(torch.tensor([[97, 256, 98, 256]]))
    (path,) = ROOM.write(inner, BYTES, tmp_path)
    assert path.read_text() == "a\n<|endoftext|>\nb"
    assert not path.with_suffix(".json").exists()


def test_what_is_typed_and_what_is_in_a_file(tmp_path: Path) -> None:
    assert ROOM.read("a<|endoftext|>", BYTES).tolist() == list(b"a<|endoftext|>")
    (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbfhi\n")
    assert ROOM.read_file(tmp_path / "p.txt", BYTES).tolist() == list(b"hi\n")
    assert ROOM.given(f"@{tmp_path / 'p.txt'}", BYTES).tolist() == list(b"hi\n")
    (tmp_path / "p.txt").write_bytes(b"hi\xff")
    with pytest.raises(DataError, match=r"p\.txt: byte 2 is not UTF-8"):
        ROOM.read_file(tmp_path / "p.txt", BYTES)
    letters = TextSpec("chars", 3, 8, alphabet="ab")
    with pytest.raises(UsageError, match="has no 'c'"):
        ROOM.read("abc", letters)
    (tmp_path / "p.txt").write_bytes(b"abc")
    with pytest.raises(DataError, match=r"p\.txt: The vocabulary has no 'c'"):
        ROOM.read_file(tmp_path / "p.txt", letters)


@pytest.mark.parametrize("kind", ["bytes", "chars"])
def test_a_uniform_model_costs_log2_of_the_vocabulary(kind: str) -> None:
    """Per token; and per byte as many times as tokens have bytes, with ends paid for."""
    spec = BYTES if kind == "bytes" else TextSpec("chars", 4, 8, alphabet="a\u00e9\u4e00")
    ids = [[97, 0xC3, 0xA9, 256]] if kind == "bytes" else [[0, 1, 2, 3]]
    nats = -3 * math.log(spec.size)  # three tokens are predicted, the first is context
    rates = ROOM.rates(Batch.of(torch.tensor(ids)), spec)
    per_token, per_byte = rates["nats_per_token"], rates["bits_per_byte"]
    assert -nats / per_token.counts.item() / math.log(per_token.base) == pytest.approx(math.log(spec.size))
    assert per_byte.counts.item() == (2 if kind == "bytes" else 5)
    bits = -nats / math.log(per_byte.base) / per_byte.counts.item()
    assert bits == pytest.approx(3 * math.log2(spec.size) / (2 if kind == "bytes" else 5))


def test_rates_count_each_byte_of_a_source_once(tmp_path: Path) -> None:
    text = "na\u00efve \u4e00 text " * 30
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    data = ROOM.open(tmp_path / "a.txt", TextOptions(tokens="chars", length=7), None)
    rates = ROOM.rates(data.batch(np.arange(len(data))), data.spec)
    assert rates["bits_per_byte"].counts.sum().item() == len(text.encode())
    assert rates["nats_per_token"].counts.sum().item() == len(text) + 1  # and the end


def test_pictures_show_texts() -> None:
    plain = ROOM.picture(batch("one", "two", "three"), BYTES)
    other = ROOM.picture(batch("one", "two", "THREE"), BYTES)
    assert plain.mode == "RGB"
    assert plain.size == other.size
    assert plain.tobytes() != other.tobytes()
    assert ROOM.picture(batch("a", "b", "c", "d"), BYTES, columns=4).width > 4 * 300
    with pytest.raises(UsageError, match="at least one"):
        texts_image([])
    lines = layout("a b\n" + "word " * 40 + "\n" + "x" * 200 + "\n" * 50)
    assert len(lines) == LINES
    assert max(map(len, lines)) <= WIDTH
    assert lines[:2] == ["a b", ("word " * 40)[:WIDTH]]
    assert lines[-1] == "..."
    assert layout("a\x00\x1b\u200bb\tc") == ["a\u00b7\u00b7\u00b7b   c"]
    texts_image(["\U0001f600\u4e00\u0301"])  # whatever fonts there are


def test_what_is_recognised(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    for name in ("a.txt", "b.py", "c.jsonl.gz", "metadata.jsonl", "d.png"):
        (tmp_path / name).write_bytes(b"")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "t.parquet")
    pq.write_table(pa.table({"text": ["a"], "image": [b"x"]}), tmp_path / "i.parquet")
    found = {p.name for p in tmp_path.iterdir() if ROOM.reads(p)}
    assert found == {"a.txt", "b.py", "c.jsonl.gz", "t.parquet"}
    assert not ROOM.reads(tmp_path)  # a folder of pictures, with something written beside them
    (tmp_path / "d.png").unlink()
    assert ROOM.reads(tmp_path)
    for i in range(5):
        (tmp_path / f"train-images-{i}").write_bytes(b"")
    assert not ROOM.reads(tmp_path)  # something else, with something written beside it
    (tmp_path / "empty").mkdir()
    assert not ROOM.reads(tmp_path / "empty")


def test_the_tiny_set_counts() -> None:
    data = tiny()
    assert 20 <= len(data) <= 40
    parts = [ROOM.open_named("counting", TextOptions(tokens="chars", length=32), split) for split in ("train", "test")]
    ends = [int((part.row == part.spec.end).sum()) - 1 for part in parts]  # type: ignore[attr-defined]
    assert ends == [270, 30]
    whole = tokens_of(data.spec).decode(data.row.astype(np.int64), "|")
    for text in filter(None, whole.split("|")):
        numbers = list(map(int, text.split(" ")))
        assert numbers == list(range(numbers[0], numbers[0] + 8))
    assert tiny().fingerprint == data.fingerprint
    x = data.batch(np.arange(20))
    assert ROOM.distance(x, x, data.spec) == 0
    noise = Batch.of(torch.randint(0, 12, x.x.shape, generator=torch.Generator().manual_seed(0)))
    assert 0.3 < ROOM.distance(x, noise, data.spec) <= 1


def test_the_standard_library_is_there() -> None:
    data = ROOM.open_named("stdlib", TextOptions(length=512), "test")
    assert len(data) > 100
    assert "source files of the standard library" in data.notes[0]


def test_plays(castalia_data: Path) -> None:
    options = TextOptions(tokens="chars", length=64)
    train, test = (ROOM.open_named("tinyshakespeare", options, split) for split in ("train", "test"))
    assert isinstance(train.spec, TextSpec)
    assert (train.spec.size, train.spec) == (66, test.spec)
    counts = [
        float(ROOM.rates(d.batch(np.arange(len(d))), d.spec)["bits_per_byte"].counts.sum()) for d in (train, test)
    ]
    assert counts == [1_003_854, 111_540]
