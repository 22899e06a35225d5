"""Texts from files: what is a document, and what is said about files that are damaged or hostile."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from castalia.core.errors import DataError
from castalia.media.text import read
from castalia.media.text.read import documents, find_files, kind


def texts(path: Path, column: str = "text", errors: str = "strict") -> dict[str, str]:
    source = find_files(path)
    found = documents(source, source.files, column, errors)  # type: ignore[arg-type]
    return {document.name: "".join(document.parts()) for document in found}


def test_a_file_is_a_document_and_nothing_in_it_changes(tmp_path: Path) -> None:
    whole = "line\r\n\ttab \u00e9 \U0001f600\x00\n\n"
    (tmp_path / "a.txt").write_bytes(whole.encode())
    (tmp_path / "b.md.gz").write_bytes(gzip.compress(whole.encode()))
    (tmp_path / "c.py").write_bytes(b"\xef\xbb\xbf" + whole.encode())  # with a byte order mark
    assert texts(tmp_path) == {"a.txt": whole, "b.md.gz": whole, "c.py": whole}
    assert texts(tmp_path / "b.md.gz") == {"b.md.gz": whole}


def test_long_files_are_read_in_parts_that_cut_no_character(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "BLOCK", 7)
    whole = "\u00e9\U0001f600a" * 50
    (tmp_path / "a.txt").write_text(whole, encoding="utf-8")
    source = find_files(tmp_path / "a.txt")
    (document,) = documents(source, source.files, "text", "strict")
    parts = list(document.parts())
    assert len(parts) > 20
    assert "".join(parts) == whole


def test_rows_are_documents(tmp_path: Path) -> None:
    rows = [{"text": "one"}, {"text": "two\n", "n": 3}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    assert texts(tmp_path) == {"a.jsonl:1": "one", "a.jsonl:2": "two\n"}
    (tmp_path / "a.jsonl").write_text('{"story": "x"}\n', encoding="utf-8")
    assert texts(tmp_path / "a.jsonl", "story") == {"a.jsonl:1": "x"}


def test_a_column_of_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pa.table({"text": ["a", None, "c"] * 300, "n": list(range(900))})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    found = texts(tmp_path)
    assert len(found) == 600
    assert found["a.parquet:899"] == "c"
    with pytest.raises(DataError, match=r"no column of texts 'txt'. Did you mean 'text'\?"):
        texts(tmp_path, "txt")
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="not a Parquet file"):
        texts(tmp_path)


def test_hidden_files_and_other_files_are_left_out_and_said(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "a.txt").write_text("hidden")
    (tmp_path / ".b.txt").write_text("hidden")
    (tmp_path / "c.bin").write_bytes(b"\xff")
    (tmp_path / "d.txt").write_text("seen")
    source = find_files(tmp_path)
    assert [f.name for f in source.files] == ["d.txt"]
    assert "1 files that are no texts" in source.notes[0]
    assert "1 .bin" in source.notes[0]


def test_what_is_no_plain_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "broken.txt").symlink_to(tmp_path / "nothing")
    source = find_files(tmp_path)
    assert [f.name for f in source.files] == ["a.txt"]
    assert "2 entries are no files" in source.notes[-1]
    with pytest.raises(DataError, match="not a plain file"):
        texts(tmp_path / "pipe.txt")


@pytest.mark.parametrize("block", [3, 1 << 20])
def test_bytes_that_are_no_utf8_are_told_by_file_and_place(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "BLOCK", block)
    data = "abc\u00e9\u00e9".encode() + b"x\xffy"
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(DataError, match=rf"a\.txt: byte {data.index(0xFF)} is not UTF-8 .*encoding=replace"):
        texts(tmp_path)
    assert texts(tmp_path, errors="replace")["a.txt"] == "abc\u00e9\u00e9x\ufffdy"
    (tmp_path / "a.txt").write_bytes("abc\u00e9".encode()[:-1])  # cut in the middle of a character
    with pytest.raises(DataError, match="byte 3 is not UTF-8"):
        texts(tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1]", "expected an object with a field 'text'"),
        (b'{"txet": "a"}', "no field 'text'. Did you mean 'txet'?"),
        (b'{"text": 3}', "'text' is '3', not a text"),
        (b'{"text": "\\ud800"}', "character 0 of 'text' is half of a pair"),
        (b'{"text": "\xff"}', "byte 27 of the file is not UTF-8"),
    ],
)
def test_bad_rows_are_told_by_file_and_line(tmp_path: Path, line: bytes, said: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "fine"}\n' + line)
    with pytest.raises(DataError) as told:
        texts(tmp_path)
    assert "a.jsonl, line 2: " in str(told.value)
    assert said in str(told.value)


def test_a_line_without_end_and_a_bomb_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "MAX_LINE", 1000)
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "' + b"a" * 2000 + b'"}')
    with pytest.raises(DataError, match="line 1: longer than"):
        texts(tmp_path)
    (tmp_path / "a.jsonl").unlink()
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(bytes(20 << 20)))
    with pytest.raises(DataError, match="more text than is read from one file"):
        texts(tmp_path)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"abc" * 1000)[:-9])
    with pytest.raises(DataError, match=r"b\.txt\.gz: cannot be read"):
        texts(tmp_path)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no text files \(\.abc"):
        find_files(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="not a text file by its name"):
        find_files(tmp_path / "a.png")


@given(
    st.binary(max_size=300), st.sampled_from(["a.txt", "a.jsonl", "a.txt.gz", "a.jsonl.gz", "a.parquet"]), st.booleans()
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_file_holds_the_answer_is_a_text_or_a_plain_error(
    tmp_path: Path, data: bytes, name: str, packed: bool
) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if packed and name.endswith(".gz") else data)
    found, said = {}, str(path)
    try:
        found = texts(path)
    except DataError as error:
        said = str(error)
    assert str(path) in said
    assert all(isinstance(text, str) for text in found.values())


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a.txt", "text"),
        ("A.PY", "text"),
        ("a.jsonl.gz", "rows"),
        ("a.parquet", "parquet"),
        ("a.parquet.gz", None),
        ("gz", None),
    ],
)
def test_kinds(name: str, what: str | None) -> None:
    assert kind(Path(name)) == what
