"""Runs of GPT-2 as folders of Hugging Face and back: the same texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from castalia import api, recipes, runs
from castalia.core.errors import RunError, UsageError
from castalia.interop.gpt2_runs import export_gpt2, import_gpt2
from castalia.models.sequence.writing import WritingOptions
from castalia.training.loop import train

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> runs.Run:
    base = recipes.recipe("gpt2-tiny")
    short = replace(base, training=replace(base.training, steps=5, precision="float32"))
    return train(short, api.training_data(short), tmp_path_factory.mktemp("run") / "tiny", quiet=True)


def test_there_and_back(run: runs.Run, tmp_path: Path) -> None:
    back = import_gpt2(export_gpt2(run, tmp_path / "theirs"), tmp_path / "ours")
    assert back.spec == run.spec
    options = WritingOptions(length=20, end=False)
    assert torch.equal(api.sample(back, 3, seed=1, options=options).x, api.sample(run, 3, seed=1, options=options).x)
    short = import_gpt2(tmp_path / "theirs", tmp_path / "short", length=7)
    assert api.sample(short, 1, seed=1, options=WritingOptions(end=False)).x.shape == (1, 7)
    with pytest.raises(UsageError, match="not empty"):
        import_gpt2(tmp_path / "theirs", tmp_path / "ours")


def test_what_is_no_gpt2(run: runs.Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"config\.json"):
        import_gpt2(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    other = replace(run, recipe=recipes.recipe("lstm-tiny"))
    with pytest.raises(UsageError, match="A lstm cannot be exported"):
        export_gpt2(other, tmp_path / "out")
