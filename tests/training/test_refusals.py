"""A refusal leaves nothing behind, and a run inside its data is not read as data."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import castalia
from castalia.core.errors import CastaliaError, UsageError
from castalia.media.named import open_data


def pictures(folder: Path, count: int = 12, side: int = 8) -> Path:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(np.full((side, side), 20 * i, np.uint8)).save(folder / f"{i}.png")
    return folder


SMALL = {"steps": 2, "quiet": True, "settings": ["training.threads=1", "training.precision=float32"]}


def test_what_is_refused_after_the_folder_was_made_leaves_nothing(tmp_path: Path) -> None:
    data, out = str(pictures(tmp_path / "pics")), tmp_path / "run"
    wrong = {**SMALL, "settings": [*SMALL["settings"], "config.condition=projection"]}
    with pytest.raises(CastaliaError):
        castalia.train("gan", data, out, **wrong)
    assert not out.exists()
    out.mkdir()
    with pytest.raises(CastaliaError):
        castalia.train("gan", data, out, **wrong)
    assert list(out.iterdir()) == []
    castalia.train("vae", data, out, **SMALL)
    assert (out / "model.safetensors").exists()


def test_batches_of_one_with_batch_normalisation_are_a_clear_error(tmp_path: Path) -> None:
    changes = {**SMALL, "settings": [*SMALL["settings"], "training.batch_size=1", "config.norm=batch", "config.pack=1"]}
    with pytest.raises(UsageError, match=r"Batch normalisation needs at least two examples.*training\.batch_size = 1"):
        castalia.train("gan", "two-moons", tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_an_error_of_any_kind_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from castalia.training import plan

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(plan, "decide", fail)
    with pytest.raises(ZeroDivisionError):
        castalia.train("vae", "digits", tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["run", "deep/er/run"])
def test_a_run_inside_its_data_is_not_read_as_data(tmp_path: Path, name: str) -> None:
    data = pictures(tmp_path / "pics")
    castalia.train("vae", str(data), data / name, **SMALL)
    assert list((data / name / "samples").glob("*.png"))
    found = open_data(str(data))
    assert len(found) == 12
    assert f"Runs are not read as data: {name!a}." in found.notes


def test_data_that_are_gone_are_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.csv").write_text("".join(f"{i},{i % 7}\n" for i in range(200)))
    monkeypatch.chdir(tmp_path / "there")
    run = castalia.train("gan", "a.csv", tmp_path / "run", steps=1, quiet=True)
    monkeypatch.chdir(tmp_path)
    castalia.evaluate(run, drawn=0)  # remembered by its absolute path
    (tmp_path / "there" / "a.csv").rename(tmp_path / "b.csv")
    with pytest.raises(UsageError, match=r"a\.csv' is neither .* was trained on data .*--data"):
        castalia.evaluate(run)
