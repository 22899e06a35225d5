"""A class is told by its name, wherever numbers differ."""

import numpy as np
import pytest

from castalia.asked import class_number
from castalia.core.errors import UsageError
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.media.image.decode import ImageOptions
from castalia.media.named import open_data

RUN = ImageSpec(3, 4, 5, ("a", "b", "c"))


def test_data_with_some_of_the_classes_are_matched_by_name(tree):
    root = tree({"b/1.png": None, "c/2.png": None})
    d = open_data(str(root), like=RUN)
    assert d.spec == RUN
    assert d.labels.tolist() == [1, 2]
    assert d.batch(np.array([1, 0])).label.tolist() == [2, 1]
    assert d.subset(np.array([1])).labels.tolist() == [2]


def test_data_with_other_classes_have_no_labels_and_say_so(tree):
    d = open_data(str(tree({"b/1.png": None, "x/2.png": None})), like=RUN)
    assert d.batch(np.arange(2)).label is None
    assert "the run does not know the classes 'x'" in d.notes[-1]
    assert d.spec == RUN


def test_rows_of_points_and_shards_are_matched_as_well(tmp_path, noise, encode):
    (tmp_path / "a.csv").write_text("x,y,label\n1,2,c\n3,4,b\n")
    assert open_data(str(tmp_path / "a.csv"), like=PointsSpec(2, ("a", "b", "c"))).labels.tolist() == [2, 1]
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table({"image": pa.array([encode(noise(4, 5, 3))] * 2, pa.binary()), "label": ["c", "b"]})
    pq.write_table(table, tmp_path / "a.parquet")
    d = open_data(str(tmp_path / "a.parquet"), ImageOptions(stream="always"), like=RUN)
    assert d.batch(np.arange(2)).label.tolist() == [2, 1]


def test_a_number_is_the_name_of_a_class_where_names_are_numbers():
    assert class_number("5", ("0", "5", "7")) == 1
    assert class_number("1", ("cat", "dog")) == 1
    with pytest.raises(UsageError, match="no class '1'"):
        class_number("1", ("0", "5", "7"))


def test_idx_has_the_classes_that_occur(tmp_path, write_idx):
    pixels = np.arange(2 * 12, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(tmp_path / "train-images-idx3-ubyte", pixels)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.array([26, 1], np.uint8))
    write_idx(tmp_path / "test-images-idx3-ubyte", pixels)
    write_idx(tmp_path / "test-labels-idx1-ubyte", np.array([2, 2], np.uint8))
    d = open_data(str(tmp_path))
    assert d.spec.classes == ("1", "2", "26")
    assert d.labels.tolist() == [2, 0]
