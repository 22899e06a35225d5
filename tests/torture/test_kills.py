"""The short form of the kills, and that their checks see what they should."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from castalia import checkpoints
from castalia.core.weights import load_tensors, save_tensors
from castalia.training import parallel
from castalia.training.loop import train
from tests.tools import Table, small_recipe
from torture import kills, pairs
from torture.forks import kind_of
from torture.report import Options
from torture.same import differences


def test_kills(tmp_path: Path) -> None:
    rows = kills.run(Options(short=True, seed=0, folder=tmp_path))
    assert len(rows) == 2
    for row in rows:
        assert row.held, row.failures


def test_pairs(tmp_path: Path) -> None:
    rows = pairs.run(Options(short=True, seed=0, folder=tmp_path))
    assert len(rows) == 2
    for row in rows:
        assert row.held, row.failures


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from castalia.core.specs.image import ImageSpec

    folder = tmp_path_factory.mktemp("finished") / "a" / "run"
    table = Table(torch.zeros(12, 1, 8, 8, dtype=torch.uint8), ImageSpec(1, 8, 8))
    train(small_recipe("vae", steps=6, checkpoint_every=2, threads=1), table, folder, quiet=True)
    return folder


def other_bit(run: Path) -> None:
    """In the last weight, with a digest and a manifest that fit."""
    tensors, about = load_tensors(run / "checkpoints" / "step-00000006" / "optimizer.safetensors")
    groups = {g: load_tensors(run / "checkpoints" / "step-00000006" / f"{g}.safetensors")[0] for g in ("model", "ema")}
    state = json.loads((run / "checkpoints" / "step-00000006" / "state.json").read_text())
    name = next(n for n, t in tensors.items() if t.ndim > 1)
    tensors[name].view(torch.int32).view(-1)[-1] ^= 1
    about = {key: about[key] for key in ("castalia.model", "castalia.step")}
    shutil.rmtree(run / "checkpoints" / "step-00000006")
    checkpoints.save(run / "checkpoints", 6, {**groups, "optimizer": tensors}, state, metadata=about, keep=2)


def other_weights(run: Path) -> None:
    tensors, about = load_tensors(run / "model.safetensors")
    next(iter(tensors.values())).view(-1)[0] += 1
    save_tensors(run / "model.safetensors", tensors, about)


def other_log(run: Path) -> None:
    path = run / "metrics.jsonl"
    path.write_text(path.read_text().replace('"skipped": 0', '"skipped": 1', 1))


def twice_in_the_log(run: Path) -> None:
    path = run / "metrics.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n")


def no_grid(run: Path) -> None:
    next((run / "samples").glob("*.png")).unlink()


def older(run: Path) -> None:
    shutil.rmtree(run / "checkpoints" / "step-00000006")


def half_removed(run: Path) -> None:
    (run / "checkpoints" / "step-00000004" / "ema.safetensors").unlink()


def half_written(run: Path) -> None:
    (run / "checkpoints" / ".tmp-0123").mkdir()


def other_card(run: Path) -> None:
    (run / "README.md").write_text("x")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other_bit, "optimizer of step-00000006 differs in 1 tensors"),
        (other_weights, "model.safetensors differs"),
        (other_log, "metrics.jsonl differs"),
        (twice_in_the_log, "metrics.jsonl differs"),
        (no_grid, "samples differ"),
        (older, "newest checkpoint is step-00000004"),
        (half_removed, "half removed: step-00000004"),
        (half_written, "left over"),
        (other_card, "README.md differs"),
    ],
)
def test_what_differs_is_seen(change: Callable[[Path], None], says: str, finished: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(finished, other)
    assert differences(finished, other) == []
    change(other)
    found = differences(finished, other)
    assert any(says in text for text in found), found


SAVED = "castalia: Stopped by a signal after step 1,007; everything is saved."


@pytest.mark.parametrize(
    ("number", "code", "caught", "done", "words", "newest", "fine"),
    [
        (signal.SIGKILL, -9, False, False, "", -1, True),
        (signal.SIGKILL, 0, False, False, "", 3, False),
        (signal.SIGTERM, 143, True, False, SAVED, 1007, True),
        (signal.SIGTERM, 143, True, False, SAVED, 1006, False),
        (signal.SIGTERM, 143, True, False, "", 1007, False),
        (signal.SIGTERM, 1, True, False, SAVED, 1007, False),
        (signal.SIGTERM, 1, True, True, "", 24, False),
        (signal.SIGTERM, 0, True, False, "", 12, False),
        (signal.SIGTERM, 0, True, True, "", 24, True),
        (signal.SIGTERM, -15, False, False, "", -1, True),
        (signal.SIGTERM, -15, True, False, "", -1, False),
        (signal.SIGINT, 130, True, False, SAVED, 1007, True),
        (signal.SIGINT, 143, True, False, SAVED, 1007, False),
        (signal.SIGINT, 1, False, False, "", -1, False),
        (signal.SIGINT, None, False, False, "", -1, False),
    ],
)
def test_how_a_process_may_end(
    number: int, code: int | None, caught: bool, done: bool, words: str, newest: int, fine: bool
) -> None:
    assert (kills.verdict(number, code, caught, done, words, newest) is None) == fine


def test_how_a_process_may_end_while_it_imports() -> None:
    for code, fine in ((1, True), (-6, True), (130, True), (0, False), (None, False)):
        assert (kills.verdict(signal.SIGINT, code, False, False, "", -1, True) is None) == fine
    assert kills.verdict(signal.SIGINT, 1, True, False, "", -1, True)
    assert kills.verdict(signal.SIGTERM, 1, False, False, "", -1, True)
    assert kills.verdict(signal.SIGINT, 1, False, False, SAVED, 1007, True)


@pytest.mark.parametrize(
    ("event", "arguments", "kind"),
    [
        ("open", ("/r/checkpoints/.tmp-1/.ema.safetensors.tmp-2", "wb", 0), "checkpoint"),
        ("os.rename", ("/r/checkpoints/.tmp-1", "/r/checkpoints/step-00000002", -1, -1), "checkpoint"),
        ("os.rename", ("/r/checkpoints/step-00000002", "/r/checkpoints/.tmp-1", -1, -1), "removal"),
        ("os.remove", ("ema.safetensors", 5), "removal"),
        ("os.rename", ("/r/.model.tmp-1", "/r/model.safetensors", -1, -1), "publish"),
        ("open", ("/r/samples/.step-00000002.png.tmp-1", "wb", 0), "samples"),
        ("os.rename", ("/r/.results.json.tmp-1", "/r/results.json", -1, -1), "results"),
        ("open", ("/r/config.json", "r", 0), "start"),
        ("open", ("/elsewhere", "r", 0), None),
        ("open", (7, "r", 0), None),
    ],
)
def test_kinds_of_operations(event: str, arguments: tuple[object, ...], kind: str | None) -> None:
    assert kind_of(event, arguments, "/r") == kind


def test_a_half_removed_checkpoint_is_no_damaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by killing a training at each operation on a file in turn."""
    settings = {"state": {"step": 1}, "metadata": {}, "keep": 1}
    checkpoints.save(tmp_path, 1, {"model": {"w": torch.zeros(2)}}, **settings)

    def killed(path: Path, **more: object) -> None:
        next(Path(path).iterdir()).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(tmp_path, 2, {"model": {"w": torch.ones(2)}}, **settings)
    assert checkpoints.damaged(tmp_path) == []
    assert [c.step for c in checkpoints.intact(tmp_path)] == [2]
    checkpoints.clean(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000002"]


def test_no_reducer_outlives_its_group() -> None:
    """Found by the kills: a reducer with the last reference to a group made a training hang after its last step."""
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    try:
        wrapper = parallel.wrap(torch.nn.Linear(2, 2), parallel.World(0, 2, 2, torch.device("cpu")))
        assert {"reducer", "logger"} <= vars(wrapper).keys()
        parallel._let_go()
        assert not {"reducer", "logger"} & vars(wrapper).keys()
        parallel._let_go()
    finally:
        dist.destroy_process_group()
