"""Feature networks, comparisons and folders of diffusers, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from castalia import api
from castalia.cli.main import main
from castalia.training.loop import train
from tests.evaluation.test_user_features import graph
from tests.tools import small_recipe


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("runs")
    made = {}
    for name in ("gan", "ddpm"):
        recipe = small_recipe(name, steps=40)
        made[name] = str(train(recipe, api.training_data(recipe), folder / name, quiet=True).path)
    recipe = api.make_recipe(
        "wgan", "ring-8", steps=3, settings=["training.threads=1", "config.widths=[16]", "training.samples=10"]
    )
    made["points"] = str(train(recipe, api.training_data(recipe), folder / "points", quiet=True).path)
    return made


def test_features_are_trained_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "digits"]) == 0
    said = capsys.readouterr().out
    assert "of classes right on examples left out" in said
    assert "digits class network" in said


def test_a_network_of_ones_own(runs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = graph(tmp_path / "net.onnx", channels=1)
    command = ["evaluate", runs["gan"], "--drawn", "40", "--json"]
    for flag, name in (("--features", "frechet"), ("--inception", "fid")):
        assert main([*command, flag, str(network)]) == 0
        results = json.loads(capsys.readouterr().out)
        assert name in results["metrics"]
        assert "net.onnx" in results["metrics"][name]["detail"]
    assert "frechet" not in results["metrics"], "numbers of another network do not stand beside it"
    assert main([*command, "--features", str(tmp_path / "missing.onnx")]) == 1
    assert "missing.onnx" in capsys.readouterr().err


def test_points_are_compared(runs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main(["compare", runs["points"], "--drawn", "60", "--out", str(page), "--json", "--quiet"]) == 0
    metrics = json.loads(capsys.readouterr().out)["runs"]["points"]["metrics"]
    assert {"energy", "modes", "mode_quality", "frechet_floor"} <= set(metrics)
    assert metrics["mode_quality_floor"]["value"] > 0.9
    assert page.read_text().count("data:image/png;base64,") == 2  # held-out points and samples


def test_previews_of_points_are_refused(
    runs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", runs["points"], "--previews", "film.gif", "--out", str(tmp_path / "out")]) == 2
    assert "films pictures" in capsys.readouterr().err


def test_a_folder_of_diffusers_goes_out_and_comes_back(
    runs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, back = tmp_path / "pipeline", tmp_path / "back"
    assert main(["export", runs["ddpm"], "--format", "diffusers", "--label", "3", "--out", str(folder)]) == 0
    assert (folder / "model_index.json").is_file()
    assert main(["import", str(folder), "--out", str(back)]) == 0
    assert "Imported ddpm" in capsys.readouterr().out
    options = ["sampler=ddim", "grid=leading", "steps=5", "clip=false"]
    ours, theirs = api.sample(runs["ddpm"], 3, label=3, options=options).x, api.sample(back, 3, options=options).x
    # the run knows the 17 greys of its data and rounds to them, which the folder cannot say
    assert (ours.int() - theirs.int()).abs().max() <= 9
    assert (ours.int() - api.sample(back, 3, seed=1, options=options).x.int()).abs().max() > 50
    assert main(["export", runs["gan"], "--format", "diffusers", "--out", str(tmp_path / "x")]) != 0
    assert "gan" in capsys.readouterr().err
