"""What unpacks to far more than it is, or takes far longer than its size, is refused by readers of rows."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from castalia.core import files
from castalia.core.errors import DataError
from castalia.media.molecule import source
from castalia.media.molecule.read import MoleculeOptions, open_molecules
from castalia.media.table import read as table_read
from castalia.media.table.read import TableOptions, open_table


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds at which a test is quick."""
    monkeypatch.setattr(files, "UNPACKED_LEAST", 1 << 16)
    monkeypatch.setattr(source, "MOST_LINES", 1 << 14)
    monkeypatch.setattr(table_read, "GROUP_BYTES", 1 << 20)


@pytest.mark.parametrize(
    ("name", "row", "read"),
    [
        ("a.csv.gz", b"1,2,abc\n", lambda path: open_table(path, TableOptions())),
        ("a.smi.gz", b"CCO\n", lambda path: open_molecules(path, MoleculeOptions())),
    ],
)
def test_packed_rows_that_are_a_bomb(name, row, read, tmp_path: Path, small: None) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(row * 1_000_000))
    with pytest.raises(DataError, match=r"a\.(csv|smi)\.gz.*bomb"):
        read(path)


def test_a_table_of_zeros_that_is_a_bomb(tmp_path: Path, small: None) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame({name: np.zeros(1_000_000, np.int8) for name in "ab"}).to_parquet(path, compression="zstd")
    with pytest.raises(DataError, match=r"a\.parquet.*bomb"):
        open_table(path, TableOptions())


def test_a_text_that_a_column_repeats(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame({"a": ["x" * 2_000_000] * 100, "b": np.arange(100) % 7}).to_parquet(path)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(DataError, match=r"column 'a' holds a text of more than 1 MiB"):
        open_table(path, TableOptions())


def test_texts_that_repeat_are_read_as_they_are(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"a": ["x", "y", None, "x"] * 10, "b": np.arange(40) % 7, "when": pd.date_range("2020", periods=40)}
    )
    frame.to_parquet(tmp_path / "a.parquet")
    read = table_read.read_frame(tmp_path / "a.parquet")
    usual = pd.read_parquet(tmp_path / "a.parquet")
    assert (read.dtypes == usual.dtypes).all()
    assert read.astype(str).replace("None", "nan").equals(usual.astype(str).replace("None", "nan"))


def test_a_molecule_that_would_take_minutes(tmp_path: Path) -> None:
    (tmp_path / "a.smi").write_text("C" * 60_000 + "\n")
    started = time.perf_counter()
    with pytest.raises(DataError):
        open_molecules(tmp_path / "a.smi", MoleculeOptions())
    assert time.perf_counter() - started < 5
