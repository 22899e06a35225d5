import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from castalia.core.errors import CastaliaError, DataError
from castalia.media.named import describe, open_data
from castalia.media.points import files
from castalia.media.points.array import PointsArray
from castalia.media.points.files import is_points, open_points, read_table


@pytest.fixture
def table(tmp_path):
    """``table(text, name)`` writes a file and returns its path."""

    def run(text, name="a.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return run


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("1,2\n3,4.5\n", "a.csv"),
        ("x,y\n1,2\n3,4.5\n", "a.csv"),
        ("﻿x,y\r\n1,2\r\n3,4.5", "a.csv"),
        ("# made by hand\n\nx,y\n 1 , 2e0\n\n  \n3,+4.50\n# end\n", "a.CSV"),
        ('"x","y"\n"1","2"\n"3","4.5"\n', "a.csv"),
        ("x;y\n1;2\n3;4.5\n", "a.csv"),
        ("x\ty\n1\t2\n3\t4.5\n", "a.csv"),
        ("1\t2\n3\t4.5\n", "a.tsv"),
        ("number,x,y\n7,1,2\n8,3,4.5\n", "a.csv"),
        (",x\n1,2\n3,4.5\n", "a.csv"),
    ],
)
def test_tables_are_read(table, text, name):
    path = table(text, name)
    assert is_points(path)
    data = open_data(str(path))
    assert isinstance(data, PointsArray)
    assert data.x.tolist() == [[1, 2], [3, 4.5]]
    assert data.labels is None
    assert data.spec.classes == ()


def test_labels(table):
    data = open_points(table("x,label,y\n1,dog,2\n3,cat,4\n5,dog,6\n"))
    assert data.x.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert data.spec.classes == ("cat", "dog")
    assert data.labels.tolist() == [1, 0, 1]
    assert data.notes == ("Coordinates: x, y.",)
    assert describe(data)["class_counts"] == {"cat": 1, "dog": 2}
    numbers = open_points(table("x,label\n0,10\n0,2\n0,10\n"))
    assert numbers.spec.classes == ("2", "10"), "whole numbers in their order"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.csv: holds no rows"),
        ("\n# nothing\n", "a.csv: holds no rows"),
        ("x,y\n", "a.csv: holds no rows"),
        ("1,2\n3\n", "line 2: has 1 values where the rows before have 2"),
        ("1,2\n3,4,5\n", "line 2: has 3 values"),
        ("x,y\n1,2,3\n", "line 2: has 3 values"),
        ("1,2\n\n# c\n3,abc\n", "line 4: 'abc' is not a number"),
        ("1,2\n3,\n", "line 2: an empty value is not a number"),
        ("1,2\n3,1_000\n", "line 2: '1_000' is not a number"),
        ("1,2\n3,nan\n", "line 2: nan in column 2 is not a finite"),
        ("number,x\n1,2\n3,-Infinity\n", "line 3: -inf in column 2 is not a finite"),
        ("1,2\n3,1e39\n", "line 2: 1e[+]39 in column 2 is not a finite 32-bit number"),
        ("x,2\n3,4\n", "line 1: 'x' is not a number.* one for every column"),
        ("number\n3\n", "line 1: names no column"),
        ("label,number\n3,4\n", None),
        ("number,label\n3,4\n", "line 1: names no column"),
        ("x,label\n3, \n", "line 2: the label is empty"),
        ('1,2\n"3"4,5\n', "line 2: not valid CSV"),
        ('1,2\n"3,5\n6,7', "not valid CSV"),
        ("1,2\n" + "9" * 200_000 + ",5", "line 2: not valid CSV"),
        ("1,2\n" + "1," * 600_000, "line 2: longer than"),
        ("1,2\n3,é".encode("latin-1"), "not UTF-8"),
        ("1,5;2,5\n3,5;4,5\n", "line 1: '1,5' is not a number"),
        ("1 2\n", "line 1: '1 2' is not a number"),
        ("1,5;2,5\n3;4\n", "line 1: '1,5' is not a number.*decimal point"),
        ("x\n1 2\n", "line 2: '1 2' is not a number"),
    ],
)
def test_table_errors_name_file_and_line(table, text, message):
    path = table(text)
    if message is None:
        assert len(open_points(path)) == 1
        return
    with pytest.raises(DataError, match=message) as caught:
        open_data(str(path))
    assert str(caught.value).startswith(str(path))


def test_too_large_a_table(table, monkeypatch):
    monkeypatch.setattr(files, "MAX_TABLE_BYTES", 3)
    with pytest.raises(DataError, match=r"\.npy"):
        open_points(table("1,2\n"))


def test_folders_and_missing_files(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    assert not is_points(tmp_path / "folder.csv")
    with pytest.raises(DataError, match="cannot be read"):
        open_points(tmp_path / "nothing.csv")


def test_a_tenth_is_held_out_by_position(tmp_path, table):
    rows = np.arange(3000, dtype=np.float32).reshape(1000, 3)
    path = table("\n".join(",".join(map(str, row)) for row in rows))
    train, test = (open_points(path, split=s) for s in ("train", "test"))
    assert len(train) + len(test) == 1000
    assert 60 < len(test) < 140
    assert not set(train.x[:, 0].tolist()) & set(test.x[:, 0].tolist())
    assert "by a hash" in test.notes[-1]
    np.save(tmp_path / "a.npy", rows)
    assert open_points(tmp_path / "a.npy", split="test").fingerprint == test.fingerprint
    longer = open_points(table("\n".join(",".join(map(str, row)) for row in [*rows, (1, 2, 3)])), split="test")
    assert longer.x[: len(test)].equal(test.x)
    with pytest.raises(DataError, match="only 'train' and 'test'"):
        open_points(path, split="validation")
    with pytest.raises(DataError, match="only 1 points, too few"):
        open_points(table("1,2"), split="test")


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays(tmp_path, dtype, order):
    values = np.array([[1, 2.5, 3], [4, 5, -6]], dtype, order=order)
    np.save(tmp_path / "a.npy", values)
    data = open_data(str(tmp_path / "a.npy"))
    assert isinstance(data, PointsArray)
    assert data.x.tolist() == values.tolist()
    assert data.batch(np.array([1])).x.tolist() == [[4, 5, -6]]


def test_array_errors(tmp_path):
    path = tmp_path / "a.npy"
    for value in (np.nan, np.inf, 1e300):
        np.save(path, np.array([[0, 0], [0, value]]))
        with pytest.raises(DataError, match=r"a\.npy: row 1, column 1 is .* not a finite"):
            open_data(str(path))
    np.save(path, np.zeros((0, 2)))
    with pytest.raises(DataError, match="not an array of floats"):
        open_data(str(path))
    for other in (np.zeros((3, 2), np.uint8), np.zeros(3)):
        np.save(path, other)
        with pytest.raises(DataError, match=r"is not \(N, H, W\)"):
            open_data(str(path))
    np.save(path, np.array([[{}]]), allow_pickle=True)
    with pytest.raises(DataError, match=r"not a \.npy array that can be read"):
        open_data(str(path))
    path.write_bytes(b"junk")
    with pytest.raises(DataError, match=r"not a \.npy array that can be read"):
        open_data(str(path))
    np.save(path, np.zeros((2, 3, 3)))
    assert open_data(str(path)).spec.shape == (1, 3, 3), "three dimensions are pictures, as ever"


# Whatever the file holds, there are points or a sentence

PIECES = st.sampled_from(
    [*'0123456789.,;\t"#\n\r -+eE_x', "nan", "inf", "1e999", "number", "label", "﻿", "\0", "\x1c", "\u2028", "٣", "\r\n"]
)
QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _reads_or_says_why(path):
    try:
        found = read_table(path)
    except CastaliaError as error:
        if not str(error).startswith(str(path)):
            raise
        return
    assert found.points.dtype == np.float32
    assert found.points.ndim == 2
    assert found.points.size > 0
    assert np.isfinite(found.points).all()
    if found.labels is not None:
        assert found.labels.max() < len(found.classes)


@settings(QUIET, max_examples=300)
@given(st.lists(PIECES, max_size=40).map("".join), st.sampled_from(["a.csv", "a.tsv"]))
def test_any_text(table, text, name):
    _reads_or_says_why(table(text, name))


@settings(QUIET, max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes(table, data):
    _reads_or_says_why(table(data))


@settings(QUIET, max_examples=100)
@given(
    st.lists(
        st.lists(
            st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False), min_size=2, max_size=2
        ),
        min_size=1,
    ),
    st.sampled_from(",;\t"),
    st.booleans(),
)
def test_any_numbers_come_back(table, rows, separator, header):
    lines = ([separator.join("ab")] if header else []) + [separator.join(map(repr, row)) for row in rows]
    assert np.array_equal(read_table(table("\n".join(lines))).points, np.array(rows, np.float32))
