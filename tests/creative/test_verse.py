"""Syllables, rhyme, metre, and poems that hold to them."""

from __future__ import annotations

import json

import pytest

from castalia import api, verbs
from castalia.core.errors import DataError, UsageError
from castalia.creative.verse import Ear, Form, dictionary, spelled

COUNTED = {
    "the": 1, "summer": 2, "table": 2, "love": 1, "loved": 1, "wanted": 2, "little": 2, "creation": 3, "beautiful": 3,
    "day": 1, "makes": 1, "houses": 2, "orange": 2, "I": 1, "don't": 1, "being": 1, "people": 2, "idea": 3, "time": 1,
}  # fmt: skip
DICTIONARY = """;;; a comment
LOVE  L AH1 V
ABOVE  AH0 B AH1 V
DELIGHT  D IH0 L AY1 T
NIGHT  N AY1 T
KNIGHT  N AY1 T
READ  R EH1 D
READ(1)  R IY1 D
"""


def test_syllables_by_spelling_are_mostly_right():
    wrong = {word: spelled(word).syllables for word, count in COUNTED.items() if spelled(word).syllables != count}
    assert len(wrong) <= 2, wrong


def test_rhymes_by_spelling_and_by_sound(tmp_path):
    ear = Ear()
    assert ear.rhymes("the light of day", "and go away")
    assert ear.rhymes("in the night", "such a delight")
    assert not ear.rhymes("in the night", "the same night")  # a word is no rhyme to itself
    assert not ear.rhymes("a house", "a tree")
    assert not ear.rhymes("", "a tree")
    (tmp_path / "sounds.dict").write_text(DICTIONARY)
    knows = Ear(dictionary(tmp_path / "sounds.dict"))
    assert knows.rhymes("my love", "and above")
    assert not knows.rhymes("my love", "a night")
    assert knows.stress("above delight") == "0101"
    assert knows.stress("my night") == "??"  # words of one syllable may be either
    assert knows.hears("read").ending == "EH D"


def test_a_broken_dictionary_names_its_line(tmp_path):
    (tmp_path / "bad.dict").write_text("LOVE  L AH1 V\nALONE\n")
    with pytest.raises(DataError, match="line 2"):
        dictionary(tmp_path / "bad.dict")
    (tmp_path / "none.dict").write_text(";;; nothing\n")
    with pytest.raises(DataError, match="no words"):
        dictionary(tmp_path / "none.dict")


def test_forms():
    form = Form.of("5,7,5", "A-A")
    assert form.syllables == (5, 7, 5)
    assert [form.partner(i) for i in range(3)] == [None, None, 0]
    assert [Form.of("sonnet").partner(i) for i in (2, 3, 4, 13)] == [0, 1, None, 12]
    assert Form.of("2,2", "AA").faults(Ear(), ["my night"], 1, "the light") == (0, 0, 0)
    assert Form.of("2,2", "AA").faults(Ear(), ["my night"], 1, "the red house") == (1, 1, 0)
    for wrong in (("nothing",), ("5,x",), ("5,7", "ABA"), ("5,0",), ("5,7", "AB", "0a")):
        with pytest.raises(UsageError):
            Form.of(*wrong)


def test_metre_counts_misplaced_stresses(tmp_path):
    (tmp_path / "sounds.dict").write_text(DICTIONARY)
    ear = Ear(dictionary(tmp_path / "sounds.dict"))
    form = Form.of("4", "", "01")
    assert form.faults(ear, [], 0, "above delight") == (0, 0, 0)
    assert form.faults(ear, [], 0, "my above night")[2] == 2  # ? 0 1 ?


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A model that has seen some words in lines."""
    place = tmp_path_factory.mktemp("verse")
    lines = ["the sun", "a red house", "my love is here", "a tree", "in the night we go", "the day", "you see"]
    (place / "lines.txt").write_text("\n".join(lines * 60) + "\n")
    return api.train(
        "gpt2", str(place / "lines.txt"), place / "run", recipe="gpt2-tiny", steps=150, quiet=True,
        settings=["data.options.tokens=chars", "training.lr=0.003"],
    )  # fmt: skip


def test_poems_hold_to_their_form_more_often_than_what_is_written_freely(writer, tmp_path):
    page = verbs.edit(writer, "poem", form="2,3", n=6, tries=80, length=24, out=tmp_path / "poem.html")
    told = json.loads((tmp_path / "poem.json").read_text())
    assert told["lines"] == 12
    assert told["held"] > told["held_free"]
    assert told["held"] >= 0.75
    assert page is not None
    ear = Ear()
    for poem in told["poems"]:
        for line, count in zip(poem["lines"], (2, 3), strict=True):
            assert any(line["faults"]) == (ear.syllables(line["line"]) != count)
    again = verbs.edit(writer, "poem", form="2,3", n=6, tries=80, length=24, out=tmp_path / "again.html")
    assert json.loads((tmp_path / "again.json").read_text())["poems"] == told["poems"]
    assert again is not None


def test_metre_wants_a_dictionary(writer, tmp_path):
    with pytest.raises(UsageError, match="--sounds"):
        verbs.edit(writer, "poem", form="blank", out=tmp_path / "poem.html")
