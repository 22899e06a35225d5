"""Sampling and redrawing with classes, options and films, as a user types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from castalia import api
from castalia.cli.main import main
from castalia.media.image.write import read_recipe
from castalia.training.loop import train
from tests.tools import small_recipe


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("runs")
    made = {}
    for name in ("vae", "gan", "ddpm"):
        recipe = small_recipe(name, steps={"ddpm": 80, "vae": 60}.get(name, 8))  # its last layers start at zero
        made[name] = str(train(recipe, api.training_data(recipe), folder / name, quiet=True).path)
    return made


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A digit, and a mask that is white in its left half."""
    folder = tmp_path_factory.mktemp("pictures")
    x = api.open_data("digits", split="test").batch(np.array([0])).x[0, 0].numpy()
    Image.fromarray(x).save(folder / "a.png")
    mask = np.zeros((8, 8), np.uint8)
    mask[:, :4] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return str(folder / "a.png"), str(folder / "mask.png")


def test_label_and_options_are_used_and_recorded(runs: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["sample", runs["ddpm"], "-n", "2", "--label", "3", "--set", "steps=4", "--set", "guidance=2"]
    assert main([*command, "--out", str(out)]) == 0
    recipe = read_recipe(out / "0001.png")
    assert recipe["given"] == {"label": "3"}
    assert recipe["options"]["steps"] == 4
    assert recipe["options"]["guidance"] == 2
    same = api.sample(runs["ddpm"], 2, label=3, options=["steps=4", "guidance=2"]).x
    assert np.array_equal(np.asarray(Image.open(out / "0000.png")), same[0, 0].numpy())
    assert not torch.equal(same, api.sample(runs["ddpm"], 2, label="4", options=["steps=4", "guidance=2"]).x)


@pytest.mark.parametrize("name", ["vae", "gan", "ddpm"])
def test_precision_is_that_of_training_where_nothing_is_asked(
    runs: dict[str, str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 16 if name == "vae" else 2  # few values of a vae differ after so few steps
    exact = api.sample(runs[name], n, seed=3).x
    assert torch.equal(exact, api.sample(runs[name], n, seed=3, precision="float32").x)  # these trained in float32
    narrow = api.sample(runs[name], n, seed=3, precision="bfloat16").x
    assert torch.equal(narrow, exact) == (name == "ddpm")  # which rounds to the 17 greys that there are
    assert (narrow.float() - exact.float()).abs().mean() < 10  # of 255: the same pictures, rounded on the way
    one = tmp_path / "run"
    shutil.copytree(runs[name], one)
    plan = json.loads((one / "plan.json").read_text())
    plan = {k: v for k, v in plan.items() if k != "sha256"} | {"precision": "bfloat16"}
    (one / "plan.json").write_text(json.dumps(plan))
    monkeypatch.setattr("castalia.runs.bf16_is_native", lambda device: True)
    assert torch.equal(api.sample(one, n, seed=3).x, narrow)
    assert main(["sample", str(one), "-n", "2", "--seed", "3", "--out", str(tmp_path / "out")]) == 0
    assert read_recipe(tmp_path / "out" / "0000.png")["precision"] == "bfloat16"
    monkeypatch.setattr("castalia.runs.bf16_is_native", lambda device: False)
    assert torch.equal(api.sample(one, n, seed=3).x, exact)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("vae", ["--label", "3"], "not conditional"),
        ("gan", ["--label", "eleven"], "no class"),
        ("gan", ["--label", "10"], "no class"),
        ("gan", ["--set", "truncate=1"], "truncation"),
        ("gan", ["--set", "truncation=-1"], "must not be negative"),
        ("ddpm", ["--set", "steps=none"], "steps"),
        ("ddpm", ["--set", "sampler=dpm"], "ddim"),
        ("vae", ["--previews", "film.gif"], "no steps"),
    ],
)
def test_what_a_model_cannot_do_is_said(
    name: str,
    arguments: list[str],
    words: str,
    runs: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["sample", runs[name], "-n", "1", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err


def test_previews_are_a_film(runs: dict[str, str], tmp_path: Path) -> None:
    film = tmp_path / "film.gif"
    command = ["sample", runs["ddpm"], "-n", "3", "--set", "steps=5", "--previews", str(film)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    with Image.open(film) as found:
        assert found.n_frames == 5  # type: ignore[attr-defined]


def test_redraw(runs: dict[str, str], pictures: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "filled.png"
    command = ["edit", "redraw", runs["ddpm"], "--of", pictures[0], "-n", "2", "--set", "steps=3"]
    assert main([*command, "--mask", pictures[1], "--out", str(out)]) == 0
    told = json.loads(out.with_suffix(".json").read_text())
    assert told["edit"]["mask"] == pictures[1]
    assert told["precision"] == "float32"
    assert main([*command, "--strength", "0.5", "--out", str(tmp_path / "like.png")]) == 0


def test_redraw_refuses(
    runs: dict[str, str], pictures: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["edit", "redraw", runs["ddpm"], "--of", pictures[0], "--out", str(tmp_path / "x.png")]
    assert main([*command, "--strength", "1.5"]) == 2
    assert "between 0" in capsys.readouterr().err
    black = tmp_path / "black.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(black)
    assert main([*command, "--mask", str(black)]) == 2
    assert "nothing is white" in capsys.readouterr().err
    assert main(["edit", "redraw", runs["gan"], "--of", pictures[0], "--out", str(tmp_path / "x.png")]) == 2
    assert "Refinement" in capsys.readouterr().err


def test_what_is_measured_is_what_is_sampled(
    runs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The precision of sampling is that of measuring samples, is recorded, and tells two tables apart."""
    one = tmp_path / "run"
    shutil.copytree(runs["vae"], one)
    plan = json.loads((one / "plan.json").read_text())
    plan = {k: v for k, v in plan.items() if k != "sha256"} | {"precision": "bfloat16"}
    (one / "plan.json").write_text(json.dumps(plan))
    monkeypatch.setattr("castalia.runs.bf16_is_native", lambda device: True)
    command = ["evaluate", str(one), "--drawn", "40", "--limit", "4", "--samples", "2", "--json"]
    found = []
    for more in ([], ["--precision", "bfloat16"], ["--precision", "float32"]):
        assert main([*command, *more]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert [f["context"]["sampling"]["precision"] for f in found] == ["bfloat16", "bfloat16", "float32"]
    values = [f["metrics"]["frechet"]["value"] for f in found]
    assert values[0] == values[1] != values[2]
    assert "bfloat16" in found[0]["metrics"]["sampling_speed"]["detail"]
    assert found[0]["metrics"]["nll"]["value"] == found[2]["metrics"]["nll"]["value"]  # always in float32
    assert "earlier" in found[2]
    assert "earlier" not in found[1]


def test_evaluate_draws(runs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "evaluate",
        runs["ddpm"],
        "--drawn",
        "40",
        "--limit",
        "4",
        "--samples",
        "2",
        "--set",
        "steps=3",
        "--json",
    ]
    assert main(command) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    for name in ("nll", "frechet", "frechet_floor", "frechet_ceiling", "condition_accuracy", "memorisation"):
        assert name in metrics
    assert "steps = 3" in metrics["frechet"]["detail"]
    assert metrics["frechet"]["n"] == 40
    assert main(["evaluate", runs["gan"], "--drawn", "0", "--quiet"]) == 0
    assert "frechet" not in capsys.readouterr().out
