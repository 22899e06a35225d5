"""The benchmarks run, and their arithmetic is right. Speeds themselves are not tested: machines differ."""

from __future__ import annotations

import functools
import importlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from benchmarks import __main__ as report
from benchmarks import (
    ceilings,
    convolutions,
    drawing,
    films,
    harness,
    loops,
    metrics,
    pixels,
    samplers,
    unet,
    vae,
    words,
)
from benchmarks.harness import Options, Row, Timing, alternate, gflop, profile
from benchmarks.sides import HeldTraining, Side
from castalia import api, recipes
from castalia.core.data import Batch

QUICK = Options(rounds=1, threads=1, quick=True)
SIDES = Timing(((1.0, 2.0), (2.0, 2.0), (1.0, 1.0)), ((2.0, 2.0), (2.0, 6.0), (4.0, 4.0)))


def test_a_value_is_the_median_of_ratios_within_rounds() -> None:
    row = SIDES.row("g", "w", "p", target=1.5, per=2, gflop=1.0, ceiling=("matrix product", 4.0))
    assert (row.value, row.low, row.high, row.cpu) == (2.0, 1.0, 4.0, 3.0)
    assert (row.ours, row.theirs) == (500.0, 1000.0)  # ms a piece, medians
    assert row.gflops == pytest.approx(2.0)
    assert row.share == pytest.approx(0.5)
    assert row.met


def test_a_cost_is_judged_the_other_way_round() -> None:
    row = SIDES.row("g", "w", "p", target=0.4, direction="at most", inverse=True)
    assert row.value == 0.5
    assert row.met is False
    assert replace(row, target=None).met is None


def test_sides_alternate_who_begins() -> None:
    order: list[str] = []
    timing = alternate(lambda: order.append("a"), lambda: (order.append("b"), time.sleep(0.05)), 2, warm=0)
    assert order == ["a", "b", "b", "a"]
    assert min(timing.ratios(0)) > 1


def test_a_slow_row_has_three_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "BUDGET", 0.0)
    assert len(alternate(lambda: None, lambda: None, 9).ours) == 3


def test_operations_are_counted_and_profiled() -> None:
    import torch

    a = torch.randn(64, 32)
    assert gflop(lambda: a @ a.T) == pytest.approx(2 * 64 * 64 * 32 / 1e9)
    found = profile(lambda: a @ a.T)
    assert found
    assert 0 < found[0][1] <= 1


class _Enough(Exception):
    pass


def test_a_held_training_runs_in_pieces() -> None:
    data = loops.pictures(8, 64)
    drawn: list[int] = []
    plain = data.batch

    def batch(ids: np.ndarray, rng: object = None) -> Batch:
        drawn.append(len(ids))
        return plain(ids)

    data.batch = batch  # type: ignore[method-assign]
    held = HeldTraining(loops.quiet(recipes.recipe("vae-digits"), 1, batch_size=8), data, 3)
    seen: list[int] = []

    def turn() -> None:
        seen.append(len(drawn))
        if len(seen) == 3:
            raise _Enough

    with pytest.raises(_Enough):
        held.drive(turn)
    assert np.diff(seen).tolist() == [3, 3]


def test_a_side_is_timed_in_its_own_process() -> None:
    with Side(functools.partial, time.sleep, 0.05) as side:
        wall, cpu = side.seconds()
    assert 0.05 <= wall < 5
    assert cpu < 0.05


def test_a_side_that_is_a_training_answers_and_ends() -> None:
    recipe = loops.quiet(recipes.recipe("vae-digits"), 1, batch_size=8)
    with Side(HeldTraining, recipe, loops.pictures(8, 64), 3, keeps=True) as side:
        assert side.seconds()[0] > 0
        assert side.ask("precision") == "float32"


def test_a_side_tells_its_error() -> None:
    recipe = loops.quiet(recipes.recipe("vae-digits"), 1, batch_size=8)
    broken = replace(recipe, config=replace(recipe.config, widths=(4, 4, 4, 4, 4, 4)))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="too small"):
        Side(HeldTraining, broken, loops.pictures(8, 64), 3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the peers
@pytest.mark.parametrize("group", [convolutions, samplers, metrics])
def test_groups_without_extra_peers_run(group: object) -> None:
    rows = list(group.rows(QUICK))  # type: ignore[attr-defined]
    assert rows
    assert all(row.ours > 0 and row.theirs is not None and row.theirs > 0 and row.value > 0 for row in rows)
    assert all(report.line(row) for row in rows)


class Noted:
    """A side that only says what it was to have."""

    sides: ClassVar[list[tuple[str, bool, int]]] = []

    def __init__(self, make: Callable[..., object], *arguments: object, threads: int = 1, keeps: bool = False) -> None:
        Noted.sides.append((make.__name__, keeps, threads))

    def __enter__(self) -> Noted:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def ask(self, what: str) -> str:
        return "float32"


@pytest.mark.parametrize("group", [unet, vae, loops, pixels, convolutions, drawing])
def test_both_sides_of_a_row_have_the_same_conditions(group: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same allocator and threads, but in rows at defaults, which say so; ours alone was tuned once."""
    monkeypatch.setattr(group, "Side", Noted)
    monkeypatch.setattr(group, "alternate", lambda *_: SIDES)
    for name, made in (("gflop", 1.0), ("profile", ()), ("pair", (None, None)), ("ours", lambda: None)):
        if hasattr(group, name) and group is not drawing:
            monkeypatch.setattr(group, name, lambda *_, made=made: made)
    for name in ("our_training", "our_sampling"):
        if hasattr(group, name):
            monkeypatch.setattr(group, name, named(name))
    monkeypatch.setattr(ceilings, "matmul", lambda *_: 1.0)
    monkeypatch.setattr(ceilings, "convolution", lambda *_: 1.0)
    if group is vae:
        monkeypatch.setattr(vae, "ours", named("ours"))
    Noted.sides.clear()
    rows = list(group.rows(replace(QUICK, threads=2)))
    pairs = list(zip(Noted.sides[::2], Noted.sides[1::2], strict=True))
    assert len(pairs) == len(rows)
    for row, (mine, other) in zip(rows, pairs, strict=True):
        assert mine[2] == other[2] == 2, row.work
        if "defaults" in row.work:
            assert "memory" in row.note
        else:
            assert mine[1] == other[1], f"{row.work}: {mine} against {other}"


def named(name: str) -> Callable[..., Callable[[], None]]:
    def make(*arguments: object) -> Callable[[], None]:
        return lambda: None

    make.__name__ = name
    return make


def test_every_group_is_there() -> None:
    for group in report.GROUPS:
        assert callable(importlib.import_module(f"benchmarks.{group}").rows)


@pytest.mark.parametrize("case", [unet.CASES[0], unet.CASES[-1]], ids=["small", "wide"])
def test_both_sides_of_the_unet_compute_the_same(case: unet.Case) -> None:
    import torch

    model, net = (side.eval() for side in unet.pair(case))
    x, t = torch.randn(4, case.channels, case.side, case.side), torch.tensor([3, 700, 12, 0])
    with torch.no_grad():
        ours, theirs = model.get_submodule("network")(x, t.float()), net(x, t).sample
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def results(*rows: Row, date: str = "2026-01-01") -> dict[str, Any]:
    return {
        "command": "python -m benchmarks",
        "date": date,
        "minutes": 1,
        "processor": "x",
        "cores": 2,
        "threads": 1,
        "rounds": 3,
        "load": [2.0, 4.0],
        "versions": {"torch": "2"},
        "ceilings": {"copy, GB/s": 10.0},
        "rows": [asdict(row) | {"met": row.met} for row in rows],
    }


def test_the_page_shows_what_was_missed() -> None:
    rows = [SIDES.row("g", "good work", "p", target=1.5), SIDES.row("g", "bad work", "p", target=9.0)]
    rows.append(Row("g", "alone", "", 1.0, None, "s", 1.0, 1.0, 1.0, target=2.0, direction="at most"))
    text = report.page(results(*rows))
    assert "**no**" in next(line for line in text.splitlines() if "bad work" in line)
    assert "yes" in next(line for line in text.splitlines() if "good work" in line)
    assert "| copy, GB/s | 10 |" in text
    assert "unequal" not in text


def test_rows_measured_again_take_the_place_of_earlier_ones() -> None:
    old = SIDES.row("g", "work †", "p"), SIDES.row("g", "other †", "p")
    whole = report.merged(results(*old), results(SIDES.row("g", "work", "p", target=9.0), date="2026-02-02"))
    assert [row["work"] for row in whole["rows"]] == ["other †"]
    whole = report.merged(whole, results(SIDES.row("g", "work", "p", target=1.5), date="2026-03-03"))
    assert [one["date"] for one in whole["again"]] == ["2026-03-03"]
    text = report.page(whole)
    assert "## Measured again on 2026-03-03" in text
    assert "load of the machine was 2 to 4" in text
    assert "yes" in next(line for line in text.splitlines() if line.startswith("| work | p"))
    assert "not judged" in text
    busy = report.merged(whole, results(replace(SIDES.row("g", "work", "p", target=1.5), cpu=1.4)))
    assert "**no**" in next(line for line in report.page(busy).splitlines() if line.startswith("| work | p"))


def test_only_some_rows_are_measured() -> None:
    (row,) = loops.rows(replace(QUICK, only=("VAE 64-64-8",)))
    assert row.work.startswith("step of VAE 64-64-8")


def test_words_and_films_are_measured(tmp_path: Path) -> None:
    """Of runs that have learned nothing: what is told, not how good it is."""
    for name in ("unclip", "dalle", "video-gpt"):
        api.train(name, recipe=f"{name}-tiny", out=tmp_path / name, steps=4)
    for name in ("unclip", "dalle"):
        common = ["-n", "6", "--json", str(tmp_path / "out.json")]
        more = (
            ["--say", "a red star", "--grid", str(tmp_path / "grid.png")] if name == "unclip" else ["--candidates", "2"]
        )
        assert words.main([str(tmp_path / name), *common, *more]) == 0
        found = json.loads((tmp_path / "out.json").read_text())
        assert found["n"] == 6
        assert found["attributes of real pictures"]["all"]["value"] <= 1
        if name == "unclip":
            assert set(found["cosine to the true embedding"]) == {"prior", "caption", "unrelated"}
            assert found["shown"][0] == "a red star"
            assert "variations" in found
        else:
            assert "attributes, best of 2" in found
    assert films.main([str(tmp_path / "video-gpt"), "-n", "3", "--json", str(tmp_path / "films.json")]) == 0
    found = json.loads((tmp_path / "films.json").read_text())
    assert found["truth"]["psnr"]["value"] == pytest.approx(60)
    assert found["last frame copied"]["psnr"]["value"] < 60
    assert found["truth"]["pixels away"]["value"] == 0


def test_likeness_is_of_pairs_that_belong_together() -> None:
    """A judge whose vectors are the brightness of a picture and the first letter of a text."""
    import torch

    class Judge:
        def of_pictures(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(x.flatten(1)[:, 0].long(), 5).float()

        def of_texts(self, texts: list[str]) -> torch.Tensor:
            return torch.nn.functional.one_hot(torch.tensor([ord(text[0]) - 97 for text in texts]), 5).float()

    x = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1)
    found = words.likeness(Judge(), x, ["a", "b", "c", "d", "e"], 0)  # type: ignore[arg-type]
    assert (found["own"]["value"], found["shuffled"]["value"], found["difference"]["low"]) == (1, 0, 1)
