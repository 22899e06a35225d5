"""Text on the terminal while it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from castalia import api
from castalia.cli.main import main
from castalia.media.text.medium import TextMedium
from castalia.training.loop import train
from tests.tools import small_recipe


def test_what_is_streamed_is_the_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = small_recipe("gpt2", steps=20)
    run = train(recipe, api.training_data(recipe), tmp_path / "run", quiet=True)
    capsys.readouterr()
    command = ["sample", str(run.path), "--stream", "--prompt", "1 2 3", "--seed", "4", "-n", "2", "--set", "length=20"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    drawn = api.sample(run, 2, seed=4, prompt="1 2 3", options=["length=20"])
    texts = TextMedium().texts(drawn, run.spec)
    assert shown == "".join(text + "\n" for text in texts)
    assert all(text.startswith("1 2 3") for text in texts)
    assert main(["sample", str(run.path)]) == 2
    assert "--out" in capsys.readouterr().err


def test_pictures_are_not_streamed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = small_recipe("vae", steps=1)
    run = train(recipe, api.training_data(recipe), tmp_path / "run", quiet=True)
    assert main(["sample", str(run.path), "--stream"]) == 2
    assert "can be streamed" in capsys.readouterr().err
