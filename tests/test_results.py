"""Results are data: every row is of a recipe that exists, and every table of a page is what the rows say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from castalia import gallery, recipes, results
from castalia.catalogue import CATALOGUE
from castalia.core.errors import RunError, UsageError
from castalia.results import Row
from tests.tools import MODELS

DOCS = Path(__file__).resolve().parents[1] / "docs"

ROW = Row("vae", "vae-mnist", "mnist", "nll", 84.75, interval=(83.45, 86.1), unit="nats", n=1000, published="86.35 | x")


def test_pages_are_in_step() -> None:
    stale = [page.name for page in results.out_of_step(DOCS)]
    assert not stale, f"{', '.join(stale)}: run python -m castalia.results"


@pytest.mark.parametrize("system", MODELS)
def test_rows_are_of_recipes_that_exist(system: str) -> None:
    known = recipes.of(system).recipes
    for row in results.read(DOCS, system):
        assert row.recipe in known, row
        assert row.interval is None or row.interval[0] <= row.value <= row.interval[1], row


def test_no_file_is_of_nobody() -> None:
    assert {path.stem for path in results.folder(DOCS).glob("*")} <= set(MODELS)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    results.write(tmp_path, "vae", [ROW])
    (tmp_path / "systems").mkdir()
    (tmp_path / "systems" / "vae.md").write_text("# VAE\n\n<!-- results: vae -->\nold\n<!-- end -->\n\nend\n")
    return tmp_path


def test_what_is_written_is_read(docs: Path) -> None:
    assert results.read(docs, "vae") == [ROW]
    assert results.read(docs, "gan") == []


def test_tables_are_written(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert results.main(["--docs", str(docs), "--check"]) == 1
    assert "vae.md is out of step" in capsys.readouterr().out
    assert results.main(["--docs", str(docs)]) == 0
    page = (docs / "systems" / "vae.md").read_text()
    assert "84.75 nats (83.45 to 86.10) | 1,000 | 86.35 \\| x |" in page
    assert page.startswith("# VAE\n\n<!-- results: vae -->\n\n| recipe | what |")
    assert page.endswith("\n\n<!-- end -->\n\nend\n")
    assert "[vae](systems/vae.md)" in (docs / "results.md").read_text()
    assert results.main(["--docs", str(docs), "--check"]) == 0


@pytest.mark.parametrize(
    ("value", "more", "text"),
    [
        (1.45, {"interval": (1.416, 1.482), "unit": "bits/dim"}, "1.450 bits/dim (1.416 to 1.482)"),
        (25, {"error": 0.0, "unit": "of 25"}, "25 +- 0 of 25"),
        (7.7, {"error": 0.3}, "7.7 +- 0.3"),
        (1000, {}, "1,000"),
    ],
)
def test_numbers_have_the_digits_they_were_given(value: float, more: dict[str, object], text: str) -> None:
    assert Row("vae", "vae-mnist", "mnist", "x", float(value), **more).obtained() == text  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("vea", "'vae'"),
        ("vae; data: mnits", "'mnist'"),
        ("vae; metric: nlll", "'nll'"),
        ("vae; size: 3", "size"),
    ],
)
def test_wrong_markers_are_said(wanted: str, says: str, docs: Path) -> None:
    with pytest.raises(UsageError, match=r"page\.md") as error:
        results.selected(docs, wanted, "page.md")
    assert says in str(error.value)


def test_damaged_rows_are_said(docs: Path) -> None:
    path = results.folder(docs) / "vae.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([{**rows[0], "system": "gan"}]))
    with pytest.raises(RunError, match="row 1"):
        results.read(docs, "vae")
    path.write_text(json.dumps([{**rows[0], "value": "much"}]))
    with pytest.raises(UsageError, match=r"row 1\.value"):
        results.read(docs, "vae")
    path.write_text("{}")
    with pytest.raises(RunError, match="list of rows"):
        results.read(docs, "vae")


def test_measurements_of_a_run_become_rows(docs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import castalia

    run = castalia.train("vae", recipe="vae-tiny", out=tmp_path / "run", steps=5, quiet=True)
    add = ["--docs", str(docs), "add", str(run.path), "--recipe"]
    assert results.main([*add, "vae-tiny"]) == 1
    assert "castalia evaluate" in capsys.readouterr().err
    castalia.evaluate(run, samples=2, limit=20)
    assert results.main([*add, "dcgan-digits"]) == 2
    for _ in range(2):  # the second time they are replaced
        assert results.main([*add, "vae-tiny"]) == 0
    found = {row.metric: row for row in results.read(docs, "vae") if row.recipe == "vae-tiny"}
    assert len(results.read(docs, "vae")) == len(found) + 1
    assert found["nll"].n == 20
    assert (found["nll"].data, found["nll"].split, found["nll"].seeds) == ("digits", "test", (0,))
    assert results.main(["--docs", str(tmp_path / "nowhere")]) == 2


def test_the_gallery_has_every_system_with_what_it_makes() -> None:
    text = gallery.page(DOCS)
    for name in CATALOGUE:
        cell = re.search(rf"([^|]*)\(systems/{re.escape(name)}\.md\)", text)
        assert cell is not None, name
        assert "![" in cell[1] or "<q>" in cell[1], name
    for place in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text):
        assert (DOCS / place).is_file(), place
