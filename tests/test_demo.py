"""The demo makes a page in which every system is shown, with what it can do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from castalia.catalogue import CATALOGUE
from castalia.core.errors import UsageError
from castalia.demo import demo, tour
from castalia.demo.pictures import film
from castalia.media.image.write import png_bytes


def test_the_tour_shows_something_of_many_media_and_has_half_a_minute_for_each():
    media = {e.media[0] for e in tour()}
    assert media == {"image", "text", "audio", "shape", "motion", "table"}
    assert 5 * 60 / len(tour()) >= 30
    assert all(e.good for e in CATALOGUE.values())


def test_a_page_of_two_media(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = demo(tmp_path / "demo", 0.05, ["vae", "gpt2"])
    html = out.read_text()
    said = capsys.readouterr().out
    for name in ("vae", "gpt2"):
        assert f"Measuring {name}" in said  # which can take longer than the training
        assert CATALOGUE[name].good.split(":")[0] in html
        assert (tmp_path / "demo" / "runs" / name / "config.json").is_file()
        assert any((tmp_path / "demo" / "samples" / name).iterdir())
    assert "data:image/gif;base64," in html  # a walk that moves
    assert "edit map" in html
    assert html.count("<details>") == html.count("</details>") == 2
    assert len(re.findall(r'<a href="#s\d+">', html)) == 4
    assert "Verdict:" in html
    demo(tmp_path / "demo", 0.02, ["vae"])  # again: the run of before is replaced
    with pytest.raises(UsageError, match="no model"):
        demo(tmp_path / "demo", 0.02, ["nothing"])


def test_a_film_moves(tmp_path: Path):
    from PIL import Image

    frames = [Image.new("L", (8, 8), 40 * i) for i in range(5)]
    (tmp_path / "a.gif").write_bytes(film(frames))
    with Image.open(tmp_path / "a.gif") as found:
        assert getattr(found, "n_frames", 1) == 5
    assert png_bytes(frames[0])[:4] == b"\x89PNG"
