"""What is well and what is wrong, in sentences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import castalia
from castalia import health, overview
from castalia.cli.main import main
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.evaluation.drawn import _variety
from castalia.runs import Run
from castalia.training import keeping


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "a"
    return castalia.train("gan", "digits", folder, recipe="gan-tiny", steps=20, quiet=True)


def number(value: float) -> dict[str, float]:
    return {"value": value}


def test_the_verdict_follows_the_numbers():
    near = {"frechet": number(1.2), "frechet_floor": number(1.0), "frechet_ceiling": number(100.0)}
    assert "very near to real examples" in health.verdict(near)
    far = near | {"frechet": number(90.0)}
    assert "nearer to a trivial model" in health.verdict(far)
    likely = {"bits_per_dim": number(2.0), "baseline_mixture_bits_per_dim": number(2.5)}
    assert health.verdict(likely) == "20 % fewer bits than the best simple model."
    assert health.verdict({}) == ""


def test_warnings_name_what_is_wrong(run: Run):
    assert health.warnings_of(run, {}) == []
    assert "collapsed" in " ".join(health.warnings_of(run, {"variety": number(0.1)}))
    assert health.warnings_of(run, {"variety": number(0.9)}) == []
    assert "does not heed classes" in " ".join(health.warnings_of(run, {"condition_accuracy": number(0.11)}))
    assert health.warnings_of(run, {"condition_accuracy": number(0.8)}) == []
    two = replace(run, spec=replace(run.spec, classes=("a", "b")))  # type: ignore[call-arg]
    assert health.warnings_of(two, {"condition_accuracy": number(1.0)}) == []
    assert "does not heed classes" in " ".join(health.warnings_of(two, {"condition_accuracy": number(0.52)}))
    blind = {"frechet_floor": number(1.0), "frechet_ceiling": number(2.0)}
    assert "hardly tells" in " ".join(health.warnings_of(run, blind))
    assert "copying" in " ".join(health.warnings_of(run, {"memorisation_features": number(0.3)}))
    assert health.few_examples(20)
    assert not health.few_examples(5_000)


def test_a_run_that_was_cut_short_says_so(run: Run, tmp_path: Path):
    import shutil

    shutil.copytree(run.path, tmp_path / "cut")
    cut = castalia.load(tmp_path / "cut")
    kept = [line for line in (cut.path / "metrics.jsonl").read_text().splitlines() if '"step": 20' not in line]
    (cut.path / "metrics.jsonl").write_text('{"step": 9, "seconds": 1.0}\n' + "\n".join(kept))
    assert "stopped after 9 of 20 planned steps" in health.warnings_of(cut)[0]


def test_variety_is_near_1_for_real_examples_and_0_for_a_collapse():
    random = torch.Generator().manual_seed(0)
    real = torch.randn(400, 8, generator=random)
    other = torch.randn(400, 8, generator=random)
    assert _variety("", other, real, "", 0)["variety"].value == pytest.approx(1, abs=0.05)
    assert _variety("", real[:1].expand(400, 8), real, "", 0)["variety"].value < 1e-6


def test_samples_that_are_alike_are_said_while_training():
    data = castalia.open_data("digits")
    real = data.batch(np.arange(64))
    assert keeping.alike(real, data) == ""
    assert "nearly all alike" in keeping.alike(Batch.of(real.x[:1].expand(64, -1, -1, -1)), data)


def test_the_best_of_a_row_is_marked():
    from castalia.page import Page

    def metric(value: float) -> dict[str, object]:
        return {"value": value, "unit": "u", "interval": None}

    html = Page("t").metrics({"a": {"frechet": metric(1.0)}, "b": {"frechet": metric(2.0)}}).html()
    assert "<td>1 ★</td><td>2</td>" in html
    assert "real data" in html
    html = Page("t").metrics({"a": {"recall": metric(0.5)}, "b": {"recall": metric(0.7)}}).html()
    assert "0.7 ★" in html
    assert "0.5 ★" not in html
    assert "★ <" not in Page("t").metrics({"a": {"frechet": metric(1.0)}}).html()


def test_runs_are_listed_and_told(run: Run, capsys):
    assert main(["runs", str(run.path.parent)]) == 0
    listed = capsys.readouterr().out
    assert str(run.path) in listed
    assert "gan on digits" in listed
    assert "20 steps" in listed
    assert main(["info", str(run.path)]) == 0
    told = capsys.readouterr().out
    for word in ("Generative adversarial network", "20 steps", "measured: nothing yet", "castalia sample", "step-"):
        assert word in told
    found = overview.describe(run.path)
    assert found["steps"] == found["planned"] == 20
    assert Path(found["picture"]).is_file()
    for command in found["next"]:
        assert command.startswith("castalia ")
    with pytest.raises(UsageError, match="is no folder"):
        overview.rows(run.path / "nowhere")


def test_a_damaged_run_is_listed_with_its_problem(tmp_path: Path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    (row,) = overview.rows(tmp_path)
    assert row["path"].endswith("broken")
    assert row["problem"]


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (["inpaint", "runs/a"], "castalia edit redraw"),
        (["generate"], "castalia sample"),
        (["interpolate"], "castalia edit interpolate"),
        (["train", "--model", "vae", "--data", "digits"], "stands without an option"),
        (["train", "vae", "--data", "digits", "--epochs", "3"], "--steps N or --minutes M"),
        (["train", "vae", "--data", "digits", "--lr", "3"], "--set training.lr"),
    ],
)
def test_words_that_people_try_lead_to_the_right_ones(words: list[str], right: str, capsys):
    assert main(words) == 2
    assert right in capsys.readouterr().err


def test_the_page_of_a_training_stands_alone(run: Run):
    html = (run.path / "index.html").read_text()
    assert "step 20 of 20" in html
    assert "data:image/png" in html
    assert "castalia info" in html
    assert 'http-equiv="refresh"' not in html  # it is over
    assert "<script" not in html


def test_the_card_shows_samples_and_commands_that_run(run: Run):
    card = (run.path / "README.md").read_text()
    assert "![Samples](samples/step-00000020.png)" in card
    assert "20 steps of" in card
    assert "castalia sample . -n 16" in card
