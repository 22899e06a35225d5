"""The short form of damage, and that it sees wrong silent loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from castalia import runs
from castalia.core import weights
from castalia.core.files import SEAL, read_json
from torture import damage
from torture.report import Options


def test_short(tmp_path: Path) -> None:
    rows = damage.run(Options(True, 0, tmp_path))
    assert len(rows) == len(damage.KINDS)
    assert [row.failures for row in rows if not row.held] == []
    assert all("refused" in row.note for row in rows)


def test_a_silent_load_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the checks taken out of the code, the torture fails."""
    victim = damage.Victim("vae", Options(True, 0, tmp_path))
    original = (victim.whole / "config.json").read_text()
    assert '"batch_size": 8' in original

    def reseed(path: Path) -> None:
        path.write_text(original.replace('"batch_size": 8', '"batch_size": 9'))

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))

    victim.trial(Path("config.json"), "flip", "batch size", reseed, resume=True)
    victim.trial(Path("model.safetensors"), "flip", "last byte", flip, resume=True)
    assert victim.failures["flip"] == []
    monkeypatch.setattr(runs, "read_sealed", lambda path: {k: v for k, v in read_json(path).items() if k != SEAL})
    monkeypatch.setattr(weights, "TENSORS", "not looked at")
    victim.trial(Path("config.json"), "flip", "batch size", reseed, resume=False)
    victim.trial(Path("model.safetensors"), "flip", "last byte", flip, resume=False)
    assert "another configuration" in victim.failures["flip"][0]
    assert "other weights" in victim.failures["flip"][1]
