"""Runs that were damaged or written by strangers, and disks that are full: errors for people."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from castalia import catalogue, checkpoints, runs
from castalia.core.errors import RunError
from castalia.core.files import sha256
from castalia.core.weights import load_tensors, save_tensors
from castalia.runs import Run
from castalia.training.loop import train
from castalia.training.progress import Reporter
from tests.tools import Table
from tests.training import toys
from tests.training.toys import recipe


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "CATALOGUE", {**catalogue.CATALOGUE, **toys.entries()})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return train(recipe("toy-alternating", checkpoint_every=4), toys.table(), tmp_path / "run", quiet=True)


def resume(run: Run) -> Run:
    return train(run.recipe, toys.table(), run.path, quiet=True, resume=True)


def edit(path: Path, change: Callable[[Path], None]) -> None:
    """Change a file of a checkpoint, and the manifest with it, as whoever can write there can."""
    change(path)
    manifest = path.with_name("manifest.json")
    data = json.loads(manifest.read_text())
    data["files"][path.name] = {"size": path.stat().st_size, "sha256": sha256(path)}
    manifest.write_text(json.dumps(data))


@pytest.mark.parametrize(("old", "new"), [('"batch_size": 6', '"batch_size": 7'), ('"seed": 0', '"seed": 1')])
def test_a_changed_digit_of_the_configuration_is_noticed(run: Run, old: str, new: str) -> None:
    path = run.path / "config.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(RunError, match=r"config\.json is damaged or was edited"):
        runs.open_run(run.path)


def test_a_changed_digit_of_the_plan_is_noticed(run: Run) -> None:
    from castalia.training import plan

    path = run.path / "plan.json"
    path.write_text(path.read_text().replace('"steps": 12', '"steps": 13'))
    with pytest.raises(RunError, match=r"plan\.json is damaged"):
        plan.load(path, {})


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 3},
        {"step": 11},
        {"step": True},
        {"window": {"a": [1.0]}},
        {"window": {"a": [1.0, 0]}},
        {"window": 3},
        {"seconds": "x"},
        {"plan": []},
        {"skipped": -1},
    ],
)
def test_the_state_of_a_stranger(run: Run, change: dict[str, Any]) -> None:
    newest = checkpoints.newest(run.checkpoints)
    assert newest is not None
    edit(newest.path / "state.json", lambda p: p.write_text(json.dumps(json.loads(p.read_text()) | change)) and None)
    with pytest.raises(RunError, match=r"state\.json is not the state of a training"):
        resume(run)


@pytest.mark.parametrize("name", ["x", "critic/x/step", "critic/99/step", "critic/-1/step"])
def test_the_moments_of_a_stranger(run: Run, name: str) -> None:
    newest = checkpoints.intact(run.checkpoints)[0]
    for later in checkpoints.intact(run.checkpoints)[1:]:
        (later.path / "manifest.json").unlink()

    def change(path: Path) -> None:
        tensors, metadata = load_tensors(path)
        save_tensors(path, tensors | {name: torch.zeros(3)}, metadata)

    edit(newest.path / "optimizer.safetensors", change)
    if name == "x":  # of no optimizer: not looked at
        resume(run)
        return
    with pytest.raises(RunError, match="does not fit the model"):
        resume(run)


def test_the_averages_of_a_stranger(run: Run) -> None:
    newest = checkpoints.newest(run.checkpoints)
    assert newest is not None

    def change(path: Path) -> None:
        tensors, metadata = load_tensors(path)
        tensors.pop("generator.0.weight")
        save_tensors(path, tensors, metadata)

    edit(newest.path / "ema.safetensors", change)
    with pytest.raises(RunError, match=r"generator\.0\.weight"):
        resume(run)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_log_that_is_no_file(run: Run, make: Callable[[Path], None]) -> None:
    path = run.path / "metrics.jsonl"
    path.unlink()
    make(path)
    with pytest.raises(RunError, match=r"metrics\.jsonl"):
        run.metrics()
    with pytest.raises(RunError, match=r"metrics\.jsonl"):
        resume(run)


def test_losses_that_are_no_numbers_are_left_out(run: Run) -> None:
    line = json.dumps({"step": 13, "critic/loss": "much", "generator/loss": True})
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write(line + "\n")
    losses = run.losses()
    assert all(isinstance(value, float) for curve in losses.values() for _, value in curve)
    assert len(losses["critic/loss"]) == len(run.metrics()) - 1


def test_a_file_where_samples_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def block(step: int, logs: object) -> None:
        if step == 1:
            (tmp_path / "run" / "samples").write_text("x")

    made = recipe("toy-alternating", sample_every=4)
    run = train(made, toys.table(), tmp_path / "run", callback=block)
    assert "no samples were drawn (FileExistsError" in capsys.readouterr().err
    assert run.weights_are_of(made.training.steps), "a picture is not worth a training"


def test_leftovers_that_are_no_files_do_not_end_a_resume(run: Run) -> None:
    (run.path / ".x.tmp-1").mkdir()
    (run.path / ".y.tmp-1").write_text("")
    resume(run)
    assert not (run.path / ".y.tmp-1").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_log_on_a_full_disk(tmp_path: Path) -> None:
    """One error for people; closing, which tries to write once more, adds none."""
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    reporter = Reporter(tmp_path, 1, "none", quiet=True)
    with pytest.raises(RunError, match="The disk is full"):
        reporter.log({"step": 1})
    reporter.close()


def test_a_log_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(RunError, match=r"metrics\.jsonl"):
        Reporter(tmp_path, 1, "none", quiet=True)


class Judged(toys.Toy):
    """A generator whose loss runs another network with batch statistics, and is not finite in one step."""

    def __init__(self, config: toys.ToyConfig, spec: object) -> None:
        super().__init__(config, spec)  # type: ignore[arg-type]
        self.judge = torch.nn.Sequential(torch.nn.BatchNorm1d(16), torch.nn.Linear(16, 1))

    def stages(self):
        from castalia.core.model import Objective, Stage

        return (Stage("train", (Objective("loss", self.generator, self.loss),)),)

    def loss(self, batch, rng, progress):
        out = self.generator(rng.normal("z", 3))
        return self.judge(out * float("nan") if progress.step == 3 else out).mean(), {}


def test_a_refused_loss_leaves_no_statistics_in_other_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = replace(catalogue.CATALOGUE["toy-chain"], name="judged", cls=Judged)
    monkeypatch.setattr(catalogue, "CATALOGUE", {**catalogue.CATALOGUE, "judged": entry})
    made = train(recipe("judged"), toys.table(), tmp_path / "run", quiet=True)
    newest = checkpoints.newest(made.checkpoints)
    assert newest is not None
    assert newest.state()["skipped"] == 1
    assert all(t.isfinite().all() for t in newest.tensors("model").values())


def test_the_table_is_used(run: Run) -> None:
    """The checks above are of runs that resume when nothing is wrong."""
    assert isinstance(toys.table(), Table)
    assert resume(run).weights_are_of(12)
