"""The short form of the full and read-only disks, and that it sees what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from torture import disks, small
from torture.report import Options


def test_short(tmp_path: Path) -> None:
    rows = disks.run(Options(True, 0, tmp_path))
    assert rows
    assert [row.failures for row in rows if not row.held] == []


def test_where_nothing_can_be_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on file sizes stands in, and the note says so."""
    monkeypatch.setattr(disks, "_mount", lambda *words: False)
    monkeypatch.setattr(disks, "SHORT_SIZES", 4)
    row = disks.training("vae", Options(True, 0, tmp_path), between=True)
    assert row.failures == ()
    assert row.trials >= 3
    assert "no mount allowed here" in row.note
    assert "full" in row.note


@pytest.mark.parametrize(
    ("code", "text", "wrong"),
    [
        (1, "castalia: The disk is full while writing /x/run/a.", None),
        (0, "", "exit code 0"),
        (70, "Traceback (most recent call last): ...", "exit code 70"),
        (1, "Traceback (most recent call last):\ncastalia: /x/run", "not one clear paragraph"),
        (1, "castalia: The disk is full.", "does not name"),
    ],
)
def test_what_counts_as_a_clear_error(code: int, text: str, wrong: str | None) -> None:
    found = small.complaint(code, text, Path("/x/run"))
    assert found is None if wrong is None else wrong in (found or "")
