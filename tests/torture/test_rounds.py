"""Two processes end their group without hanging."""

from __future__ import annotations

from pathlib import Path

from torture import rounds
from torture.report import Options


def test_no_group_hangs(tmp_path: Path) -> None:
    (row,) = rounds.run(Options(short=True, seed=1, folder=tmp_path))
    assert row.trials == 20
    assert row.held, row.failures
