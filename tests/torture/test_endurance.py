"""The short form of the endurance, and that its judge sees what grows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from torture import endurance
from torture.endurance import EVERY, Look, judge
from torture.report import Options


def test_endurance(tmp_path: Path) -> None:
    rows = endurance.run(Options(short=True, seed=0, folder=tmp_path))
    assert len(rows) == 2
    for row in rows:
        assert row.held, row.failures


def looks(count: int = 60) -> list[Look]:
    """Of a training that is as it should be."""
    return [
        Look(EVERY * i, 0.2 * i, 0.1 * i, 400_000_000, 5, 1, 1_000_000, 1_700 * i, 200 * i, 12)
        for i in range(1, count + 1)
    ]


def test_all_is_well() -> None:
    assert judge(looks(), 6.0, 0.6)[0] == []
    uneven = [replace(look, memory=look.memory + 400_000 * (i % 3)) for i, look in enumerate(looks())]
    assert judge(uneven, 6.0, 0.6)[0] == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda i, look: replace(look, memory=look.memory + 250_000 * i), "memory grew"),
        (lambda i, look: replace(look, files=5 + i // 20), "files: between"),
        (lambda i, look: replace(look, files=5 + (i == 40)), "files: between"),
        (lambda i, look: replace(look, threads=1 + i // 30), "threads: between"),
        (lambda i, look: replace(look, others=12 + i), "others: between"),
        (lambda i, look: replace(look, checkpoints=look.checkpoints + 1_000 * i), "checkpoints grew"),
        (lambda i, look: replace(look, log=2 * i * i), "line of the log grew"),
        (lambda i, look: replace(look, log=0), "line of the log"),
        (lambda i, look: replace(look, samples=20 * i * i), "grid grew"),
        (lambda i, look: replace(look, busy=0.1 * i + 0.005 * i * i), "steps a second"),
    ],
)
def test_what_grows_is_seen(change: object, says: str) -> None:
    changed = [change(i, look) for i, look in enumerate(looks(), 1)]  # type: ignore[operator]
    found = judge(changed, 6.0, 0.6)[0]
    assert any(says in text for text in found), found


def test_a_slow_log_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endurance, "SECONDS_FOR_LINES", -1e9)
    row = endurance.long_log(Options(short=True, seed=0, folder=tmp_path), 100)
    assert not row.held
