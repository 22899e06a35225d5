"""The loop with every kind of system: what runs when, what is saved, and what happens on bad days."""

from __future__ import annotations

import errno
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from castalia import catalogue, checkpoints, runs
from castalia.configuration import Data, Schedule, Training
from castalia.core.errors import Interrupted, NonFiniteError, RunError, UsageError
from castalia.core.model import Model, build
from castalia.core.threads import cores
from castalia.core.weights import load_tensors
from castalia.training import loop, plan, planning, stage
from castalia.training.loop import train
from castalia.training.stage import stage_ends
from tests.conformance.test_conformance import equal_runs
from tests.tools import Table
from tests.training import toys
from tests.training.toys import recipe


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "CATALOGUE", {**catalogue.CATALOGUE, **toys.entries()})


@pytest.fixture
def data() -> Table:
    return toys.table()


def spy(monkeypatch: pytest.MonkeyPatch) -> list[Model]:
    """Catch the model that the loop builds."""
    made: list[Model] = []

    def building(*args: object) -> Model:
        made.append(build(*args))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(loop, "build", building)
    return made


def test_objectives_alternate_in_order(data: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = spy(monkeypatch)
    monkeypatch.setattr(planning, "decide", lambda *a: plan.Plan(5, "float32", 1, "test"))
    train(recipe("toy-alternating", steps=5), data, tmp_path / "run", quiet=True)
    model, *_ = made
    step = ["critic"] * 3
    expected = []
    for number in range(5):
        expected += step + ["penalty"] * (number % 4 == 0) + ["generator"] + ["adapt"] * (number % 2 == 0)
    assert model.calls == expected  # type: ignore[attr-defined]
    assert model.strength.item() == pytest.approx(0.03)  # type: ignore[attr-defined]


def test_lazy_penalty_shares_the_critics_optimizer(data: Table, tmp_path: Path) -> None:
    run = train(recipe("toy-alternating"), data, tmp_path / "run", quiet=True)
    newest = checkpoints.newest(run.checkpoints)
    assert newest is not None
    heads = {key.split("/")[0] for key in newest.tensors("optimizer")}
    assert heads == {"critic", "generator"}
    steps = newest.tensors("optimizer")["critic/0/step"].item()
    assert steps == 12 * 3 + 3  # three critic updates a step, the penalty in steps 0, 4 and 8


def test_stages_follow_one_another(data: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = spy(monkeypatch)
    run = train(recipe("toy-stages", log_every=1), data, tmp_path / "run", quiet=True)
    model, *_ = made
    assert model.entered == ["prior"]  # type: ignore[attr-defined]
    assert ("codes", 6) in model.sizes  # type: ignore[attr-defined]
    assert ("prior", 4) in model.sizes  # type: ignore[attr-defined]
    names = [m["stage"] for m in run.metrics()]
    assert names == ["codes"] * 8 + ["prior"] * 4
    newest = checkpoints.newest(run.checkpoints)
    assert newest is not None
    assert {key.split("/")[0] for key in newest.tensors("optimizer")} == {"prior"}


@pytest.mark.parametrize("name", ["toy-alternating", "toy-stages", "toy-chain", "toy-gradient-free"])
@pytest.mark.parametrize("crash_after", [6, 8, 11])
def test_every_kind_resumes_bit_for_bit(name: str, crash_after: int, data: Table, tmp_path: Path) -> None:
    straight = train(recipe(name, checkpoint_every=2), data, tmp_path / "a", quiet=True)

    def crash(step: int, logs: object) -> None:
        if step == crash_after:
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError):
        train(recipe(name, checkpoint_every=2), data, tmp_path / "b", quiet=True, callback=crash)
    equal_runs(straight, train(recipe(name, checkpoint_every=2), data, tmp_path / "b", quiet=True, resume=True))


def test_gradient_free_stage_finds_the_optimum(data: Table, tmp_path: Path) -> None:
    run = train(recipe("toy-gradient-free", steps=300), data, tmp_path / "run", quiet=True)
    newest = checkpoints.newest(run.checkpoints)
    assert newest is not None
    torch.testing.assert_close(newest.tensors("model")["mean"], torch.tensor([1.0, -2.0]), atol=0.05, rtol=0)


@pytest.mark.parametrize("kind", ["bad_loss", "bad_gradient", "bad_update"])
def test_non_finite_steps_never_reach_the_weights(
    kind: str,
    data: Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(toys.Poisoned, kind, (3, 7))
    run = train(recipe("toy-poisoned", steps=10, log_every=1), data, tmp_path / "run")
    newest = checkpoints.newest(run.checkpoints)
    assert newest is not None
    assert all(t.isfinite().all() for group in ("model", "ema") for t in newest.tensors(group).values())
    assert run.metrics()[1]["loss/loss"] >= 0
    assert "drift/silent" not in run.metrics()[1], "a value that is not finite is left out, not written"
    assert newest.state()["skipped"] == 2
    assert run.metrics()[-1]["skipped"] == 2
    told = capsys.readouterr().err
    assert "Step 4 was skipped" in told
    assert "Its examples: " in told


def test_training_stops_after_too_many_bad_steps(data: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toys.Poisoned, "bad_loss", tuple(range(6, 99)))
    with pytest.raises(NonFiniteError, match=r"3 such steps in a row.*step-0000000") as caught:
        train(recipe("toy-poisoned", max_bad_steps=3, checkpoint_every=2), data, tmp_path / "run", quiet=True)
    assert "Its examples: " in str(caught.value)
    run = runs.open_run(tmp_path / "run")
    newest = checkpoints.newest(run.checkpoints)
    assert newest is not None
    assert newest.step == 8 or newest.step == 6
    assert all(t.isfinite().all() for t in newest.tensors("model").values())


def test_a_signal_saves_and_stops(data: Table, tmp_path: Path) -> None:
    import os
    import signal

    def shoot(step: int, logs: object) -> None:
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    straight = train(recipe("toy-stages"), data, tmp_path / "a", quiet=True)
    with pytest.raises(Interrupted) as caught:
        train(recipe("toy-stages"), data, tmp_path / "b", quiet=True, callback=shoot)
    assert caught.value.exit_code == 143
    equal_runs(straight, train(recipe("toy-stages"), data, tmp_path / "b", quiet=True, resume=True))


def test_a_full_disk_loses_nothing(data: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from castalia.core import files

    real, count = files.os.replace, [0]

    def full(source: object, target: object) -> None:
        count[0] += "checkpoints" in str(target) and "step-" in str(Path(str(target)).name)
        if count[0] == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(RunError, match="disk is full"):
        train(recipe("toy-stages", checkpoint_every=2), data, tmp_path / "run", quiet=True)
    monkeypatch.setattr(files.os, "replace", real)
    folder = tmp_path / "run" / "checkpoints"
    assert [p.name for p in sorted(folder.iterdir())] == ["step-00000002", "step-00000004"]
    straight = train(recipe("toy-stages", checkpoint_every=2), data, tmp_path / "a", quiet=True)
    equal_runs(
        straight,
        train(recipe("toy-stages", checkpoint_every=2), data, tmp_path / "run", quiet=True, resume=True),
    )


@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "manifest"])
@pytest.mark.parametrize("file", ["model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_passed_over(damage: str, file: str, data: Table, tmp_path: Path) -> None:
    settings = recipe("toy-stages", checkpoint_every=4, keep=3)
    straight = train(settings, data, tmp_path / "a", quiet=True)
    run = train(settings, data, tmp_path / "run", quiet=True)
    newest = checkpoints.newest(run.checkpoints)
    assert newest is not None
    path = newest.path / ("manifest.json" if damage == "manifest" else file)
    raw = path.read_bytes()
    path.unlink()  # a hard link may share its contents with model.safetensors
    if damage == "cut":
        path.write_bytes(raw[: len(raw) // 2])
    elif damage == "flip":
        path.write_bytes(raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:])
    elif damage == "manifest":
        path.write_text("{")
    older = checkpoints.newest(run.checkpoints)
    assert older is not None
    assert older.step == 8
    assert checkpoints.damaged(run.checkpoints) == [newest.path]
    equal_runs(straight, train(settings, data, tmp_path / "run", quiet=True, resume=True))


def test_damaged_weights_fall_back_to_the_checkpoint(data: Table, tmp_path: Path) -> None:
    run = train(recipe("toy-stages"), data, tmp_path / "run", quiet=True)
    good = run.model()[0].state_dict()
    raw = run.weights.read_bytes()
    run.weights.unlink()
    run.weights.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.warns(UserWarning, match="damaged"):
        model, origin = run.model()
    assert origin.startswith("step 12, sha256 ")
    assert all(torch.equal(v, good[k]) for k, v in model.state_dict().items())


def test_refuses_to_mix_runs(data: Table, tmp_path: Path) -> None:
    train(recipe("toy-stages"), data, tmp_path / "run", quiet=True)
    with pytest.raises(UsageError, match="--resume"):
        train(recipe("toy-stages"), data, tmp_path / "run", quiet=True)
    with pytest.raises(UsageError, match=r"training\.lr"):
        train(recipe("toy-stages", lr=0.5), data, tmp_path / "run", quiet=True, resume=True)
    other = Table(data.x, data.spec)
    other.fingerprint = "other"
    moved = replace(recipe("toy-stages"), data=Data("elsewhere"))
    train(replace(moved, training=replace(moved.training, keep=5)), data, tmp_path / "run", quiet=True, resume=True)
    with pytest.raises(UsageError, match="other data"):
        train(recipe("toy-stages"), other, tmp_path / "run", quiet=True, resume=True)


def test_accumulation_equals_one_large_batch(data: Table, tmp_path: Path) -> None:
    whole = train(recipe("toy-stages"), data, tmp_path / "a", quiet=True)
    parts = train(recipe("toy-stages", accumulate=2), data, tmp_path / "b", quiet=True)
    equal_runs(whole, parts, tolerance=1e-5)


def test_minutes_bound_the_training(data: Table, tmp_path: Path) -> None:
    run = train(recipe("toy-stages", minutes=0.03), data, tmp_path / "run", quiet=True)
    planned = plan.load(run.path / "plan.json", {})
    assert planned is not None
    assert planned.steps > 12
    assert 0 < run.metrics()[-1]["seconds"] < 8 if run.metrics() else True
    newest = checkpoints.newest(run.checkpoints)
    assert newest is not None
    assert newest.step <= planned.steps


@pytest.mark.skipif(cores() < 2, reason="takes two cores")
def test_a_run_keeps_the_threads_that_were_free(
    data: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "asked", lambda: None)
    monkeypatch.setattr(plan, "free_threads", lambda most: most - 1)
    wished = recipe("toy-stages", threads=0, steps=6)
    run = train(wished, data, tmp_path / "run")
    decided = plan.load(run.path / "plan.json", {})
    assert decided is not None
    assert (decided.threads, decided.threads_at(0)) == (cores(), cores() - 1), "as many as ever but for a noted reason"
    assert f"{cores() - 1} of {cores()} threads from step 0" in capsys.readouterr().err
    monkeypatch.setattr(plan, "free_threads", lambda most: most)  # the other programs have ended
    train(wished, data, tmp_path / "run", resume=True)
    assert plan.load(run.path / "plan.json", {}) == decided
    assert "keep cores busy" not in capsys.readouterr().err
    monkeypatch.setattr(plan, "asked", cores)
    train(wished, data, tmp_path / "asked", quiet=True)
    decided = plan.load(tmp_path / "asked" / "plan.json", {})
    assert decided is not None
    assert decided.threads_at(0) == cores()


@pytest.mark.skipif(cores() < 2, reason="takes two cores")
def test_load_that_comes_later_is_noticed_noted_and_repeated(
    data: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From step 12 on steps take ten times as long, as two threads with one core do; a resume from step 9 repeats it."""
    looks: list[int] = []
    had: list[int] = []

    class Clock:
        """Each step takes a tenth of a second, from the twelfth on a whole one."""

        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    done = [0]

    def free(most: int) -> int:
        looks.append(done[0])
        return 1 if done[0] >= 12 else most

    def callback(step: int, logs: object) -> None:
        had.append(torch.get_num_threads())

    monkeypatch.setattr(plan, "asked", lambda: None)
    monkeypatch.setattr(plan, "free_threads", free)
    monkeypatch.setattr(plan, "WINDOW", 0.35)
    monkeypatch.setattr(loop, "time", clock)
    inner = stage.ActiveStage.run

    def slow(self: stage.ActiveStage, *rest: Any) -> Any:
        clock.now += 0.1 if done[0] < 12 else 1.0
        done[0] += 1
        return inner(self, *rest)

    monkeypatch.setattr(stage.ActiveStage, "run", slow)
    wished = recipe("toy-stages", threads=0, steps=24, checkpoint_every=9, keep=9)
    straight = train(wished, data, tmp_path / "run", callback=callback)
    decided = plan.load(straight.path / "plan.json", {})
    assert decided is not None
    ((step, threads),) = decided.fewer
    assert threads == 1
    assert 12 < step <= 16, "in the window that shows it"
    assert decided.threads == cores()
    assert had[: step - 1] == [cores()] * (step - 1)
    assert had[step:] == [1] * (24 - step)
    assert f"1 of {cores()} threads from step {step}" in capsys.readouterr().err
    assert len(looks) < 6, "a look costs time, and steps of one speed are no reason for another"

    # as if killed after the fallback, before the next checkpoint
    for name in ("step-00000018", "step-00000024"):
        shutil.rmtree(straight.checkpoints / name, ignore_errors=True)
    monkeypatch.setattr(plan, "free_threads", lambda most: most)
    before, weights = list(had), load_tensors(straight.weights)[0]
    had.clear()
    done[0] = 0
    again = train(wished, data, tmp_path / "run", resume=True, quiet=True, callback=callback)
    assert had[-1] == 1
    assert [*before[: 24 - len(had)], *had] == before
    assert plan.load(again.path / "plan.json", {}) == decided
    for name, tensor in load_tensors(again.weights)[0].items():
        assert torch.equal(tensor, weights[name]), name


def test_the_number_of_threads_does_not_depend_on_the_neighbours(
    data: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for what the plan notes; and the precision is that of an undisturbed run."""
    monkeypatch.setattr(plan, "asked", lambda: None)
    plans = []
    for name, free in (("idle", lambda most: most), ("busy", lambda most: 1)):
        monkeypatch.setattr(plan, "free_threads", free)
        train(recipe("toy-stages", threads=0, steps=2), data, tmp_path / name, quiet=True)
        found = plan.load(tmp_path / name / "plan.json", {})
        assert found is not None
        plans.append(replace(found, fewer=()))
    assert plans[0] == plans[1]


def test_a_run_has_one_writer(data: Table, tmp_path: Path) -> None:
    """A second ``--resume`` beside a running training is refused, and the first loses no line."""
    wished = recipe("toy-stages", steps=12, checkpoint_every=4, log_every=1)

    def second(step: int, logs: object) -> None:
        if step == 9:
            with pytest.raises(UsageError, match="Another process is writing"):
                train(wished, data, tmp_path / "run", resume=True, quiet=True)

    run = train(wished, data, tmp_path / "run", quiet=True, callback=second)
    assert [line["step"] for line in run.metrics()] == list(range(1, 13))
    train(wished, data, tmp_path / "run", resume=True, quiet=True)


def test_a_folder_that_was_moved_ends_the_training(data: Table, tmp_path: Path) -> None:
    """Not with exit 0 and a folder of the old name that is no run; what was saved is continued where it is."""
    wished = recipe("toy-stages", steps=12, checkpoint_every=4)

    def move(step: int, logs: object) -> None:
        if step == 6:
            (tmp_path / "run").rename(tmp_path / "elsewhere")

    with pytest.raises(RunError, match="moved, removed or replaced"):
        train(wished, data, tmp_path / "run", quiet=True, callback=move)
    assert not (tmp_path / "run").exists()
    moved = train(wished, data, tmp_path / "elsewhere", resume=True, quiet=True)
    equal_runs(train(wished, data, tmp_path / "straight", quiet=True), moved)


def test_stage_shares() -> None:
    stages = build(toys.Stages, toys.ToyConfig(), toys.SPEC).stages()
    assert stage_ends(stages, 12) == [8, 12]
    assert stage_ends(stages, 2) == [1, 2]
    small = (replace(stages[0], share=0.999), replace(stages[1], share=0.001))
    assert stage_ends(small, 10) == [9, 10]
    assert stage_ends(small, 1) == [1, 1]


def test_metrics_are_complete_and_json(data: Table, tmp_path: Path) -> None:
    run = train(recipe("toy-stages"), data, tmp_path / "run", quiet=True)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 12]
    assert all(math.isfinite(v) for line in lines for v in line.values() if isinstance(v, float))
    assert (run.path / "README.md").read_text().startswith("# ")
    assert sorted(p.name for p in (run.path / "samples").iterdir())[-1] == "step-00000012.png"


def test_constant_schedule_and_no_averaging(data: Table, tmp_path: Path) -> None:
    run = train(
        recipe("toy-stages", ema_half_life=0, schedule=Schedule("constant", warmup=0)),
        data,
        tmp_path / "r",
        quiet=True,
    )
    newest = checkpoints.newest(run.checkpoints)
    assert newest is not None
    assert all(torch.equal(v, newest.tensors("ema")[k]) for k, v in newest.tensors("model").items())


def test_order_uses_every_example_once_per_epoch() -> None:
    from castalia.core.data import Order

    order = Order(10, 4, seed=3)
    drawn = np.concatenate([order.ids(d) for d in range(5)])
    assert sorted(drawn[:10]) == list(range(10))
    assert sorted(drawn[10:]) == list(range(10))
    assert (Order(10, 4, seed=3).ids(4) == order.ids(4)).all()
    assert (Order(10, 4, seed=4).ids(0) != order.ids(0)).any()
    assert sorted(Order(3, 8, seed=0).ids(0).tolist())[:3] == [0, 0, 0] or len(Order(3, 8, seed=0).ids(0)) == 8


def test_replaced_training_is_checked() -> None:
    with pytest.raises(ValueError, match="micro-batches"):
        replace(Training(), batch_size=7, accumulate=2)


def test_a_run_without_intact_checkpoints_is_not_begun_anew(data: Table, tmp_path: Path) -> None:
    run = train(recipe("toy-stages"), data, tmp_path / "run", quiet=True)
    weights = run.weights.read_bytes()
    for path in run.checkpoints.iterdir():
        (path / "state.json").write_text("x")
    with pytest.raises(RunError, match="damaged"):
        train(recipe("toy-stages"), data, tmp_path / "run", quiet=True, resume=True)
    shutil.rmtree(run.checkpoints)
    with pytest.raises(RunError, match="no checkpoints"):
        train(recipe("toy-stages"), data, tmp_path / "run", quiet=True, resume=True)
    assert run.weights.read_bytes() == weights


@pytest.mark.parametrize("damage", ["gone", "cut", "old"])
def test_resume_repairs_the_published_weights(damage: str, data: Table, tmp_path: Path) -> None:
    """A process killed between the last checkpoint and its publishing leaves old weights, or none."""
    run = train(recipe("toy-stages", checkpoint_every=4, keep=3), data, tmp_path / "run", quiet=True)
    good = run.weights.read_bytes()
    if damage == "gone":
        run.weights.unlink()
    elif damage == "cut":
        run.weights.write_bytes(good[:100])
    else:
        shutil.copyfile(run.checkpoints / "step-00000008" / "ema.safetensors", run.weights)
    train(recipe("toy-stages", checkpoint_every=4, keep=3), data, tmp_path / "run", quiet=True, resume=True)
    assert run.weights.read_bytes() == good


@pytest.mark.parametrize(
    "line", ["3", "[]", '{"step": "a"}', '{"step": null}', "{", "[" * 100_000, "\udcff"], ids=range(7)
)
def test_odd_lines_of_the_log_do_no_harm(line: str, data: Table, tmp_path: Path) -> None:
    run = train(recipe("toy-stages"), data, tmp_path / "run", quiet=True)
    before = run.metrics()
    with open(run.path / "metrics.jsonl", "ab") as file:
        file.write(line.encode("utf-8", "surrogateescape") + b"\n")
    train(recipe("toy-stages"), data, tmp_path / "run", quiet=True, resume=True)
    assert run.metrics() == before


@pytest.mark.parametrize("change", [{"steps": -1}, {"threads": 0}, {"precision": "x"}, {"steps": "many"}])
def test_a_damaged_plan_is_an_error(change: dict[str, object], data: Table, tmp_path: Path) -> None:
    """Before the first checkpoint the plan is read from its file, later from the checkpoint."""

    def crash(step: int, logs: object) -> None:
        raise RuntimeError("crash")

    settings = recipe("toy-stages", checkpoint_every=100)
    with pytest.raises(RuntimeError, match="crash"):
        train(settings, data, tmp_path / "run", quiet=True, callback=crash)
    path = tmp_path / "run" / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RunError, match=r"plan\.json"):
        train(settings, data, tmp_path / "run", quiet=True, resume=True)


def test_no_checkpoint_is_called_good_that_was_not(
    data: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toys.Poisoned, "bad_loss", tuple(range(6, 99)))
    settings = recipe("toy-poisoned", checkpoint_every=1, max_bad_steps=4)
    with pytest.raises(NonFiniteError, match="step-00000006"):
        train(settings, data, tmp_path / "run", quiet=True)
    with pytest.raises(NonFiniteError, match="last steps"):
        train(replace(settings, training=replace(settings.training, steps=8)), data, tmp_path / "b", quiet=True)


def test_a_reader_who_left_does_not_end_the_training(data: Table, tmp_path: Path) -> None:
    class Closed:
        def isatty(self) -> bool:
            return False

        def write(self, text: str) -> None:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    from castalia.training.progress import Reporter

    reporter = Reporter(tmp_path, 10, "none", stream=Closed())
    reporter.say("hello")
    assert reporter.quiet
    reporter.close()


def test_a_run_can_start_from_another(data: Table, tmp_path: Path) -> None:
    """With a learning rate of next to nothing the weights stay those of the parent; another network is refused."""
    first = train(recipe("toy-stages"), data, tmp_path / "a", quiet=True)
    settings = replace(recipe("toy-stages", steps=1, lr=1e-12, seed=5), parents=(("start", str(first.path)),))
    second = train(settings, data, tmp_path / "b", quiet=True)
    for one, two in zip(first.model()[0].generator.parameters(), second.model()[0].generator.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=0)
    with pytest.raises(RunError, match="does not fit"):
        train(replace(settings, model="toy-chain"), data, tmp_path / "c", quiet=True)


@pytest.mark.parametrize(("seconds", "count"), [(0.0, 12), (1e9, 1)])
def test_less_than_some_seconds_of_work_is_no_reason_for_a_checkpoint(
    seconds: float, count: int, data: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SPARED_SECONDS", seconds)
    run = train(recipe("toy-stages", keep=99), data, tmp_path / "run", quiet=True)
    assert len(checkpoints.intact(run.checkpoints)) == count
    asked = train(recipe("toy-stages", keep=99, checkpoint_every=4), data, tmp_path / "asked", quiet=True)
    assert len(checkpoints.intact(asked.checkpoints)) == 3  # who asks is given
