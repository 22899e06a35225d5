from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from castalia.core.config import from_json
from castalia.core.errors import RunError, UsageError
from castalia.core.files import read_json, read_sealed, write_bytes, write_sealed

VALUE = {"recipe": {"training": {"batch_size": 128, "lr": 1e-3}, "names": ["a", "é"]}, "schema_version": 1}


def test_a_sealed_file_reads_back(tmp_path: Path) -> None:
    write_sealed(tmp_path / "a.json", VALUE)
    assert read_sealed(tmp_path / "a.json") == VALUE


def test_a_file_of_an_older_version_reads_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(VALUE))
    assert read_sealed(tmp_path / "a.json") == VALUE
    (tmp_path / "a.json").write_text("[1, 2]")
    assert read_sealed(tmp_path / "a.json") == [1, 2]


def test_without_the_line_of_its_hash_an_edited_file_can_be_read(tmp_path: Path) -> None:
    """What the error tells people to do."""
    write_sealed(tmp_path / "a.json", VALUE)
    lines = (tmp_path / "a.json").read_text().replace("128", "64").splitlines()
    (tmp_path / "a.json").write_text("\n".join(lines))
    with pytest.raises(RunError, match="remove its line 'sha256'"):
        read_sealed(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("\n".join(line for line in lines if '"sha256"' not in line))
    assert read_sealed(tmp_path / "a.json")["recipe"]["training"]["batch_size"] == 64


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_sealed(path, VALUE)
    data = path.read_bytes()
    for at in range(len(data)):
        for bit in (at % 8, (at + 3) % 8):
            path.write_bytes(data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :])
            try:
                found = read_sealed(path)
            except RunError:
                continue
            # a bit in the name of the hash leaves one field more; white space means nothing
            assert {key: found[key] for key in VALUE} == VALUE


def test_contents_that_cannot_be_sealed(tmp_path: Path) -> None:
    deep = "[" * 900 + "]" * 900
    (tmp_path / "a.json").write_text(f'{{"sha256": "x", "a": {deep}}}')
    with pytest.raises(RunError, match=r"a\.json"):
        read_sealed(tmp_path / "a.json")


def test_a_pipe_and_a_device_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zeros.json").symlink_to("/dev/zero")
    for name in ("pipe.json", "zeros.json"):
        with pytest.raises(RunError, match="not a plain file"):
            read_json(tmp_path / name)
    with pytest.raises(RunError, match="Is a directory"):
        read_json(tmp_path)


def test_a_read_only_disk_is_an_error_for_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses to remove even the temporary file that it refused to make."""

    def refuse(*arguments: object, **more: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / "a"))

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(RunError, match="Read-only file system"):
        write_bytes(tmp_path / "a", b"x")


def test_an_error_that_quotes_something_endless_is_cut() -> None:
    text = str(RunError(f"a.json: there is no field {'x' * 100_000!r}. Did you mean 'y'?"))
    assert len(text) <= 3000
    assert text.startswith("a.json")
    assert text.endswith("Did you mean 'y'?")
    assert str(RunError("short")) == "short"


def test_an_integer_too_large_for_a_number() -> None:
    with pytest.raises(UsageError, match=r"training\.lr: 1000.* is not a finite number"):
        from_json(Rate, {"lr": 10**400}, "training")
    assert from_json(Rate, {"lr": 10**20}).lr == 1e20


@dataclass(frozen=True)
class Rate:
    lr: float = 0.1


def test_a_seal_whose_name_is_damaged_is_a_damaged_file(tmp_path: Path) -> None:
    write_sealed(tmp_path / "a.json", {"metrics": {"nll": 82.1}})
    text = (tmp_path / "a.json").read_text()
    for place in range(text.index("sha256"), text.index("sha256") + 6):
        for bit in range(7):
            flipped = text[:place] + chr(ord(text[place]) ^ 1 << bit) + text[place + 1 :]
            (tmp_path / "b.json").write_text(flipped)
            with pytest.raises(RunError):
                read_sealed(tmp_path / "b.json")
    (tmp_path / "b.json").write_text('{"other": "' + 64 * "0" + '"}')
    assert read_sealed(tmp_path / "b.json") == {"other": 64 * "0"}
