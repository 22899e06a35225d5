"""The short form of the fuzzer, and that it sees crashes, hangs, memory, files and code."""

from __future__ import annotations

import faulthandler
import json
import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from castalia.core.errors import DataError
from torture import mutations, readers
from torture.inputs import Reader, one_of
from torture.report import Options


def test_short(tmp_path: Path) -> None:
    rows = readers.run(Options(True, 0, tmp_path))
    assert len(rows) >= 15
    assert [row.failures for row in rows if not row.held] == []


class Call:
    """A pickle that runs code."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("true",)


def hang(path: Path) -> None:
    while True:
        time.sleep(1)


def die(path: Path) -> None:
    faulthandler.disable()  # pytest's
    os.kill(os.getpid(), signal.SIGSEGV)


def swell(path: Path) -> None:
    bytearray(readers.MEMORY + (64 << 20))


def swell_without_end(path: Path) -> None:
    bytearray(readers.ADDRESSES + (64 << 20))


def peep(path: Path) -> None:
    Path("/etc/hostname").read_bytes()


def scribble(path: Path) -> None:
    (path.parent / "outside").write_text("x")


def unpickle(path: Path) -> None:
    pickle.loads(pickle.dumps(Call()))


def load_canary(path: Path) -> None:
    __import__("canary")


def stumble(path: Path) -> None:
    raise KeyError("x")


class Rambling(DataError):
    """An error that is not cut short, as all others are."""

    def __str__(self) -> str:
        return "x" * 9999


def ramble(path: Path) -> None:
    raise Rambling


@pytest.mark.parametrize(
    ("deed", "word"),
    [
        (hang, "longer than"),
        (die, "ended by signal 11"),
        (swell, "took "),
        (swell_without_end, "MemoryError"),
        (peep, "read of /etc/hostname"),
        (scribble, "write of"),
        (unpickle, "pickle.find_class"),
        (load_canary, "canary"),
        (stumble, "KeyError"),
        (ramble, "9999 characters"),
    ],
)
def test_what_is_wrong_is_seen(
    deed: Callable[[Path], None], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "SECONDS", 1)

    def read(path: Path) -> None:
        if (path / "a").read_bytes() == b"bad":
            deed(path)

    reader = Reader("test", ({"a": b"good"},), lambda files, dice: {"a": dice.choice((b"good", b"bad"))}, read)
    row = readers.fuzz(reader, 6, 0, tmp_path / "input")
    assert row.trials == 6
    assert row.failures
    assert all(word in text for text in row.failures), row.failures
    first = int(row.failures[0].split("input ")[1].split()[0])
    assert readers.make(reader, 0, first) == {"a": b"bad"}, "it can be made again"


def test_inputs_are_the_same_each_time(tmp_path: Path) -> None:
    from torture.seeds_media import arrays

    for reader in arrays():
        made = [[readers.make(reader, 3, n) for n in range(20)] for _ in range(2)]
        assert made[0] == made[1]
        assert json.dumps(sorted(map(str, made[0][0])))


def test_an_input_does_not_depend_on_those_before_it() -> None:
    values = repr(mutations.VALUES)
    text = json.dumps({"a": [1, {"b": 2}], "c": "x"}).encode()
    reader = Reader("JSON", ({"a.json": text},), one_of(mutations.bend_json), lambda path: None)
    alone = readers.make(reader, 0, 799)
    every = [readers.make(reader, 0, number) for number in range(800)]
    assert every[-1] == alone
    assert len({repr(files) for files in every}) > 600
    assert repr(mutations.VALUES) == values
