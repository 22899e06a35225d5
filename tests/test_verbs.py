"""The verbs in Python, and what shows itself in a notebook."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import castalia
from castalia.core.errors import UsageError
from castalia.runs import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return castalia.train("vae", "digits", tmp_path_factory.mktemp("v") / "a", recipe="vae-tiny", steps=10, quiet=True)


def test_samples_and_runs_show_themselves(run: Run):
    found = castalia.sample(run, 5, seed=1)
    assert found._repr_html_().startswith('<img src="data:image/png;base64,')
    assert isinstance(found.picture(), Image.Image)
    assert len(found.pictures()) == 5
    assert "vae on digits, 10 steps" in run._repr_html_()
    assert "data:image/png" in run._repr_html_()


def test_edits_return_what_they_made_and_write_it(run: Run, tmp_path: Path):
    made = castalia.edit(run, "walk", points=3, frames=4, out=tmp_path / "walk.gif")
    assert len(made) > 3
    assert (tmp_path / "walk.gif").stat().st_size
    with pytest.raises(UsageError, match="walk"):
        castalia.edit(run, "wlak")


def test_every_verb_of_the_command_line_is_a_function(run: Run, tmp_path: Path):
    assert castalia.export(run, tmp_path / "out") == []
    assert (tmp_path / "out" / "config.json").is_file()
    assert any(row["path"] == str(run.path) for row in castalia.list_runs(run.path.parent))
    assert castalia.info(run)["steps"] == 10
    assert {one["name"] for one in castalia.systems()} >= {"vae", "gan"}
    assert castalia.systems("vae")[0]["name"] == "vae"
    report = castalia.compare([run], drawn=40, limit=5, plots=False, out=tmp_path / "page.html")
    assert list(report["runs"]) == ["a"]
    assert "Samples" in (tmp_path / "page.html").read_text()


def test_a_cell_that_runs_twice(run: Run):
    with pytest.raises(UsageError, match="resume=True"):
        castalia.train("vae", "digits", run.path, recipe="vae-tiny", steps=10)
    again = castalia.train("vae", "digits", run.path, recipe="vae-tiny", steps=10, resume=True, quiet=True)
    assert again.steps_done() == 10
