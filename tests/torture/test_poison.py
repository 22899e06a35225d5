"""The short form of poisoned losses, and that it sees weights that moved."""

from __future__ import annotations

import random
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import pytest

from castalia import api
from castalia.training import stage
from castalia.training.loop import train
from torture import poison, small
from torture.report import Options


def test_short(tmp_path: Path) -> None:
    rows = poison.run(Options(True, 0, tmp_path))
    assert rows
    assert [row.failures for row in rows if not row.held] == []


def test_weights_that_moved_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the check for finite values taken out of the loop, every poisoned step is a failure."""
    monkeypatch.setattr(stage.math, "isfinite", lambda value: True)
    found = poison.Poison({1}, random.Random(0))
    recipe = small.recipe("vae", steps=3)
    with found.poured(), redirect_stderr(StringIO()) as told:
        train(recipe, api.training_data(recipe), tmp_path / "run", callback=found.after)
    assert any("changed" in text for text in found.failures)
    assert found.unsaid(told.getvalue())


def test_unnamed_examples_are_seen() -> None:
    found = poison.Poison({1}, random.Random(0))
    found.done.append(poison.Dose(2, "loss", "NaN in the loss", (4, 5, 6)))
    text = "Step 2 was skipped: loss/loss nan. Its examples: 4, 5, 6. No weight was changed by them"
    assert found.unsaid(text) == []
    assert found.unsaid(text.replace("5", "7"))
    assert found.unsaid(text.replace("nan", "1.0"))
