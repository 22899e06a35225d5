"""The table of the torture says what did not hold."""

from __future__ import annotations

from pathlib import Path

from torture.report import Row, table, write, write_page


def test_a_row_holds_only_where_something_was_tried_and_nothing_failed() -> None:
    assert Row("p", "w", 3).held
    assert not Row("p", "w", 0).held
    assert not Row("p", "w", 3, ("one",)).held
    assert "**no**: 1 of 3" in table([Row("p", "w", 3, ("one",))])


def test_a_page_of_several_runs(tmp_path: Path) -> None:
    write([Row("kills", "killed", 100, note="fast")], "python -m torture kills", 61, tmp_path / "a.json")
    write([Row("disks", "full", 7, ("lost a file",))], "python -m torture disks", 5, tmp_path / "b.json")
    write_page([tmp_path / "a.json", tmp_path / "b.json"], tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert text.index("## kills") < text.index("## disks")
    assert "`python -m torture kills`" in text
    assert "| kills | killed | 100 | yes | fast |" in text
    assert "- disks: lost a file" in text
