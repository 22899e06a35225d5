"""Runs side by side: one table, one page, plain values."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from castalia import api, comparison
from castalia.cli.main import main
from castalia.core.errors import UsageError
from castalia.media.image.decode import ImageOptions
from castalia.page import Page
from castalia.runs import Run
from castalia.training.loop import train
from tests.tools import small_recipe


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("runs")
    made = []
    for name in ("vae", "gan"):
        recipe = small_recipe(name, steps=6, keep=3, checkpoint_every=2)
        made.append(train(recipe, api.training_data(recipe), folder / name, quiet=True))
    return made


@pytest.fixture(scope="module")
def sides(runs: list[Run]) -> list[comparison.Side]:
    return comparison.compare([run.path for run in runs], drawn=60, samples=2, limit=20)


def test_every_run_is_measured_alike(sides: list[comparison.Side]) -> None:
    assert [side.name for side in sides] == ["vae", "gan"]
    one, two = (side.results["metrics"] for side in sides)
    for name in ("frechet", "kernel", "precision", "recall", "memorisation"):
        assert one[name]["n"] == two[name]["n"]
        assert one[name]["seed"] == two[name]["seed"]
    for name in ("frechet_floor", "frechet_ceiling", "coverage_floor"):  # what is no run's affair is equal
        assert one[name]["value"] == two[name]["value"], name
    assert "nll" in one
    assert "nll" not in two  # a GAN has no likelihood
    assert one["frechet_floor"]["value"] < one["frechet"]["value"]


def test_quality_against_time(sides: list[comparison.Side]) -> None:
    for side in sides:
        assert [p.note for p in side.by_training] == [2, 4, 6]
        assert [p.x for p in side.by_training] == sorted(p.x for p in side.by_training)
        assert len(side.by_steps) == 1  # neither samples in steps
        assert side.by_steps[0].x > 0
        assert side.by_steps[0].frechet == pytest.approx(side.by_training[-1].frechet, rel=1e-6)  # the same weights


def test_page_is_self_contained(sides: list[comparison.Side]) -> None:
    html = comparison.page(sides, comparison.held_out(sides, None, "test")).html()
    assert html.count("data:image/png;base64,") == 5  # held-out examples; samples and neighbours of both
    assert not re.search(r'src="(?!data:)|href="(?!#s\d+")', html)  # pictures inside, links to its own sections
    assert html.index("Verdict:") < html.index("<img") < html.index("<table") < html.index("<details>")
    assert "<script" not in html
    for word in (
        "frechet",
        "nll",
        "real data",
        "trivial model",
        "Copies?",
        "ms each",
        "milliseconds per sample",
        "minutes of training",
    ):
        assert word in html


def test_report_is_plain(sides: list[comparison.Side]) -> None:
    report = json.loads(json.dumps(comparison.report(sides)))
    assert set(report["runs"]) == {"vae", "gan"}
    assert set(report["runs"]["gan"]) == {"model", "weights", "metrics", "by_steps", "by_training"}
    assert report["context"]["split"] == "test"


def test_one_name_for_each_run(runs: list[Run], tmp_path: Path) -> None:
    other = replace(runs[0], path=tmp_path / "vae")
    assert comparison._names([runs[0], other, other]) == ["vae", "vae (2)", "vae (3)"]


def test_runs_of_different_shapes_are_refused(runs: list[Run], tmp_path: Path) -> None:
    recipe = small_recipe("vae", steps=1)
    recipe = replace(recipe, data=replace(recipe.data, options=ImageOptions(size=12)))
    large = train(recipe, api.training_data(recipe), tmp_path / "large", quiet=True)
    with pytest.raises(UsageError, match="8x8"):
        comparison.compare([runs[0].path, large.path], drawn=20)
    with pytest.raises(UsageError, match="at least one run"):
        comparison.compare([])


def test_command_line(runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    names = [str(run.path) for run in runs]
    assert main(["compare", *names, "--drawn", "40", "--limit", "5", "--no-plots", "--out", str(page), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["runs"]["vae"]["by_steps"] == []
    assert page.read_text().startswith("<!doctype html>")
    assert main(["compare", *names]) == 2
    assert "--out" in capsys.readouterr().err


def test_logarithmic_axes_leave_out_what_has_no_logarithm() -> None:
    html = Page("x").curve({"a": [(1, 10), (10, 1000), (0, 5), (5, -1)]}, "x", "y", log=True).html()
    assert html.count("<circle") == 2


def test_runs_of_other_media_are_compared_by_their_own_measures(tmp_path: Path) -> None:
    recipe = small_recipe("lstm", steps=4)
    run = train(recipe, api.training_data(recipe), tmp_path / "text", quiet=True)
    (side,) = comparison.compare([run.path])
    metrics = side.results["metrics"]
    assert {"bits_per_byte", "repetition", "repetition_floor", "pairs", "pairs_floor"} <= set(metrics)
    assert "frechet" not in metrics
    assert metrics["sampling_speed"]["n"] == api.DRAWN_ALONE
    assert "features" not in side.results["context"]["sampling"]
    assert (side.by_steps, side.by_training, side.nearest) == ([], [], None)
    assert "repetition" in comparison.page([side]).html()
