"""A plan in minutes follows the speed that a training has, and a resume repeats what came of it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from castalia import api, recipes
from castalia.training import loop, plan
from castalia.training.loop import train


def test_steps_follow_the_time_that_is_left():
    assert plan.paced(100, 50, 50.0, 1.0) == 100  # within what is tolerated
    assert plan.paced(100, 50, 25.0, 1.0) == 50 + int(plan.SPARE * 25)
    assert plan.paced(100, 50, 200.0, 1.0) == 50 + int(plan.SPARE * 200)
    assert plan.paced(100, 99, 0.0, 1.0) == 100


def test_a_plan_knows_what_was_planned_when():
    first = plan.Plan(30, "float32", 1, "", (10, 20), 1)
    later = first.with_pace(0, 4, 6).with_pace(1, 10, 5)
    assert later.stages == (6, 5)
    assert later.steps == 11
    assert [later.steps_at(0, step) for step in (0, 3, 4, 5)] == [10, 10, 6, 6]
    assert [later.steps_at(1, step) for step in (6, 9, 10)] == [20, 20, 5]
    assert later.continues(first)
    assert not first.continues(later)
    other = replace(first, stages=(11, 19))
    assert not later.continues(other)


class Slower:
    """A clock by which steps become slower: it is advanced by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_a_training_that_becomes_slow_does_all_steps_of_its_new_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = Slower()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    monkeypatch.setattr(plan.time, "monotonic", clock.monotonic)
    recipe = recipes.tiny("vae")
    recipe = replace(
        recipe,
        training=replace(recipe.training, minutes=1.0, threads=1, precision="float32", sample_every=10_000),
    )
    monkeypatch.setattr(loop.ActiveStage, "seconds", lambda self, budget, precision: 0.2)  # 285 steps fit into a minute

    def slow(step: int, logs: object) -> None:
        clock.now += 0.2 if step < 50 else 0.6

    run = train(recipe, api.training_data(recipe), tmp_path / "run", quiet=True, callback=slow)
    found = json.loads((run.path / "plan.json").read_text())
    assert found["paced"][0] == [0, 285]
    done = run.steps_done()
    assert done == found["steps"] < 200  # all of what is planned now, with the rate at its end
    assert 54 <= clock.now <= 62


def test_time_left_is_that_of_the_budget(tmp_path: Path):
    speed = plan.Speed(0)
    speed.marks[0] = (0, speed.marks[0][1] - 10.0)
    assert speed.per_step(20) == pytest.approx(0.5, rel=0.05)
