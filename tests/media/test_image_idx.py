import gzip
import struct

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from castalia.core.errors import DataError
from castalia.media.image.decode import ImageOptions
from castalia.media.image.idx import read_idx
from castalia.media.image.sources import open_images

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 5), dtype=np.uint8)
LABELS = np.array([0, 2, 1, 2, 0, 1], np.uint8)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_pictures_and_labels(tmp_path, write_idx, suffix):
    path = write_idx(tmp_path / f"train-images-idx3-ubyte{suffix}", PIXELS)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", LABELS)
    write_idx(tmp_path / "t10k-images-idx3-ubyte", PIXELS[:2])
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.array([0, 3], np.uint8))
    one = open_images(path, ImageOptions())
    assert torch.equal(one.x[:, 0], torch.from_numpy(PIXELS))
    assert one.labels.tolist() == LABELS.tolist()
    assert one.spec.classes == ("0", "1", "2")
    test = open_images(tmp_path, ImageOptions(), split="test")
    assert len(test) == 2
    assert test.spec.classes == ("0", "1", "2", "3")
    assert len(open_images(tmp_path, ImageOptions())) == 6
    assert open_images(path, ImageOptions(size=8, channels=3)).x.shape == (6, 3, 8, 8)


def test_without_labels(tmp_path, write_idx):
    assert open_images(write_idx(tmp_path / "my-images-idx3-ubyte", PIXELS), ImageOptions()).labels is None


def test_wrong_number_of_labels(tmp_path, write_idx):
    path = write_idx(tmp_path / "a-images-idx3-ubyte", PIXELS)
    write_idx(tmp_path / "a-labels-idx1-ubyte", LABELS[:5])
    with pytest.raises(DataError, match="5 labels for the 6 pictures"):
        open_images(path, ImageOptions())


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("cut", [0, 1, 3, 4, 10, 15, 16, 17, 100, 135])
def test_truncated(tmp_path, write_idx, cut, suffix):
    path = write_idx(tmp_path / f"images-idx3-ubyte{suffix}", PIXELS, cut=cut)
    with pytest.raises(DataError, match="images-idx3-ubyte"):
        read_idx(path, 3)


def test_truncated_gzip(tmp_path, write_idx):
    path = write_idx(tmp_path / "images-idx3-ubyte.gz", PIXELS)
    data = path.read_bytes()
    for cut in (2, 5, 12, 40, len(data) - 9, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(DataError, match="images-idx3-ubyte"):
            read_idx(path, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": b"x"}, "more bytes"),
        ({"kind": 13}, "float32"),
        ({"kind": 7}, "not an IDX"),
        ({"dims": (6, 20)}, "2 dimensions"),
        ({"dims": (6, 0, 5)}, "empty"),
        ({"dims": (2**32 - 1,) * 3}, "more than the file can hold"),
        ({"dims": (1000, 1000, 1000)}, "more than the file can hold"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_wrong_headers(tmp_path, write_idx, change, message, suffix):
    with pytest.raises(DataError, match=message):
        read_idx(write_idx(tmp_path / f"images-idx3-ubyte{suffix}", PIXELS, **change), 3)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.one_of(
        st.binary(max_size=20),
        st.tuples(*[st.integers(0, 2**32 - 1)] * 3).map(lambda d: b"\0\0\x08\x03" + struct.pack(">3I", *d)),
        st.tuples(*[st.integers(0, 4)] * 3).map(lambda d: b"\0\0\x08\x03" + struct.pack(">3I", *d)),
    ),
    body=st.binary(max_size=40),
    packed=st.booleans(),
)
def test_any_header_is_an_array_or_a_data_error(tmp_path, header, body, packed):
    path = tmp_path / "images-idx3-ubyte"
    data = header + body
    path.write_bytes(gzip.compress(data) if packed else data)
    reason = None
    try:
        array = read_idx(path, 3)
    except DataError as error:
        reason = str(error)
    if reason is not None:
        assert reason.startswith(str(path))
    else:
        assert array.size == len(data) - 16
