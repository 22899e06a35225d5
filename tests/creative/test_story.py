"""Stories that branch: the file, the tree, and the notebook on the command line."""

from __future__ import annotations

import io
import sys

import pytest

from castalia import api
from castalia.cli.main import main
from castalia.cli.story import Notebook, continued
from castalia.core.errors import RunError, UsageError
from castalia.creative.story import Passage, Story, read


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("story")
    (place / "text.txt").write_text("the cat sat on the mat. [then] the dog sat on the log.\n" * 80)
    settings = ["data.options.tokens=bytes", "data.options.length=32"]
    out = place / "run"
    api.train("gpt2", str(place / "text.txt"), out, recipe="gpt2-tiny", steps=40, quiet=True, settings=settings)
    return out


def book(run, path, *settings):
    return Notebook(run, path, ("length=12", *settings), "float32", io.StringIO())


def test_a_story_comes_back_from_its_file_to_the_letter(tmp_path):
    story = Story("runs/a", "abc", ("temperature=0.8",))
    first = story.add(Passage(None, "\\ a [start]\n[1] no header\n\n\\"))
    story.add(Passage(first, "", 0, ("temperature=0.8", "length=3")))
    story.add(Passage(first, "ends with a line\n", 1))
    story.add(Passage(None, "ünï\n\ncode", cut=True))
    story.go(2)
    story.save(tmp_path / "story.txt")
    assert read(tmp_path / "story.txt") == story
    story.go(None)
    story.save(tmp_path / "story.txt")
    assert read(tmp_path / "story.txt").here is None


@pytest.mark.parametrize(
    "text",
    [
        "nothing",
        "castalia story 1\nrun: a\nweights: b\nsettings: []\nhere: 7\n\n[1] typed\nx\n",
        "castalia story 1\nrun: a\nweights: b\nsettings: []\nhere: 1\n\n[1] from 2; typed\nx\n",
        "castalia story 1\nrun: a\nweights: b\nsettings: []\nhere: 1\n\n[1] typed\nx\n[1] typed\ny\n",
        "castalia story 1\nrun: a\nweights: b\nsettings: []\nhere: 1\n\n[1] sung\nx\n",
    ],
)
def test_files_that_are_no_story_are_refused(tmp_path, text):
    (tmp_path / "story.txt").write_text(text)
    with pytest.raises(RunError):
        read(tmp_path / "story.txt")


def test_writing_branching_and_coming_back(run, tmp_path):
    notebook = book(run, tmp_path / "s.txt")
    for line in ("say the cat", "", "again", "undo", "to 2"):
        assert notebook.do(line)
    story = read(tmp_path / "s.txt")
    assert [(p.before, p.seed) for p in story.passages.values()] == [(None, None), (1, 0), (1, 1)]
    assert story.here == 2
    assert story.text() == "the cat" + story.passages[2].text
    assert story.passages[2].text != story.passages[3].text
    notebook.do("cut 5")
    assert notebook.story.passages[4] == Passage(1, story.passages[2].text[:5], cut=True)
    notebook.do("")
    assert notebook.story.path(5) == [1, 4, 5]
    notebook.do("edit a bird")
    assert notebook.story.text() == "the cat" + story.passages[2].text[:5] + "a bird"
    notebook.do("to 0")
    notebook.do("")
    assert notebook.story.passages[7].before is None
    assert notebook.story.tree().count("\n") == 6
    assert notebook.do("quit") is False


def test_a_passage_follows_from_its_seed_its_settings_and_what_is_before_it(run, tmp_path):
    notebook = book(run, tmp_path / "s.txt", "temperature=0.7")
    for line in ("say the ", "", "", "again"):
        notebook.do(line)
    story = notebook.story
    for passage in story.passages.values():
        if passage.seed is not None:
            options = notebook._options(passage.settings)
            before = story.text(passage.before)
            *_, text = continued(notebook.model, before, passage.seed, options, "float32")
            assert text.rstrip("\ufffd") == passage.text
    again = book(run, tmp_path / "other.txt", "temperature=0.7")
    for line in ("say the ", "", "", "again"):
        again.do(line)
    assert again.story.passages == story.passages


def test_a_long_story_is_gone_on_with_from_its_end(run, tmp_path):
    notebook = book(run, tmp_path / "s.txt")
    notebook.do("say " + "the cat sat on the mat. " * 20)
    notebook.do("")
    assert notebook.story.passages[2].text


def test_what_makes_no_sense_is_refused_and_changes_nothing(run, tmp_path):
    notebook = book(run, tmp_path / "s.txt")
    for line in ("again", "undo", "cut 3", "to 9", "to x", "sing", "set warmth=3", "edit x"):
        with pytest.raises(UsageError):
            notebook.do(line)
    assert not notebook.story.passages
    assert not (tmp_path / "s.txt").exists()


def test_a_story_is_opened_with_the_settings_it_was_last_told(run, tmp_path):
    path = tmp_path / "story.txt"
    first = book(run, path, "temperature=0.6")
    first.do("")
    first.do("cut 2")
    first.do("set temperature=0.7")
    again = Notebook(run, path, (), "float32", io.StringIO())
    assert again.settings == ("length=12", "temperature=0.7")
    again.do("to 0")
    assert book(run, path, "temperature=0.9").settings == ("length=12", "temperature=0.9")
    assert Notebook(run, path, (), "float32", io.StringIO()).settings == ("length=12", "temperature=0.7")
    path.write_text(path.read_text().replace("temperature=0.7", "warmth=0.7"))
    out = io.StringIO()
    assert Notebook(run, path, ("length =9",), "float32", out).settings == ("length =9",)
    assert "left out" in out.getvalue()
    assert "warmth" in out.getvalue()


def test_the_editor_changes_a_passage(run, tmp_path, monkeypatch):
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{sys.executable} -c \"import sys; open(sys.argv[1], 'a').write(' purred')\"")
    notebook = book(run, tmp_path / "s.txt")
    notebook.do("say the\\ncat")
    notebook.do("edit")
    assert notebook.story.text() == "the\ncat purred"


def test_the_verb_reads_what_is_typed(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("say the dog\n\nagain\nmap\n"))
    assert main(["story", str(run), str(tmp_path / "s.txt"), "--set", "length=8"]) == 0
    assert "* " in capsys.readouterr().out
    assert len(read(tmp_path / "s.txt").passages) == 3
    monkeypatch.setattr(sys, "stdin", io.StringIO("sing\n"))
    assert main(["story", str(run), str(tmp_path / "s.txt")]) == 2
    assert "help" in capsys.readouterr().err
