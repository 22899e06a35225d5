"""Files that were read otherwise than people mean them."""

import io
import tarfile

import numpy as np

from castalia.media.named import open_data


def table(path, text):
    (path / "a.csv").write_text(text)
    return open_data(str(path / "a.csv"))


def test_the_index_of_pandas_is_no_coordinate(tmp_path):
    for text in (",x,y\n0,1.5,2\n1,3,4\n", "Unnamed: 0,x,y\n0,1.5,2\n1,3,4\n", ",0,1\n0,1.5,2\n1,3,4\n"):
        d = table(tmp_path, text)
        assert d.x.tolist() == [[1.5, 2], [3, 4]]
        assert any("index" in note for note in d.notes)


def test_names_that_count_are_no_point(tmp_path):
    assert table(tmp_path, "0,1\n0.5,2\n3,4\n").x.tolist() == [[0.5, 2], [3, 4]]
    assert table(tmp_path, "0,1\n5,2\n").x.tolist() == [[0, 1], [5, 2]]  # whole numbers: nobody can tell
    assert table(tmp_path, "0\n0.5\n").x.tolist() == [[0], [0.5]]
    assert table(tmp_path, "0,1\n").x.tolist() == [[0, 1]]


def test_whole_numbers_that_lose_digits_are_said(tmp_path):
    d = table(tmp_path, "x,y\n16777217,1\n16777216,2\n")
    assert any(note.startswith("1 whole numbers above 16,777,216 lose digits") for note in d.notes)


def test_folders_in_a_tar_are_said_to_be_no_classes(tmp_path, noise, encode):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("cat/1.png", "dog/2.png"):
            data = encode(noise(4, 5, 3))
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    d = open_data(str(tmp_path / "a.tar"))
    assert d.batch(np.arange(2)).label is None
    assert any("Folders inside ('cat', 'dog') are no classes" in note for note in d.notes)
