"""NumPy files whose headers are not headers."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from castalia.core.errors import DataError
from castalia.media.image.arrays import read_npy, read_npz
from castalia.media.named import open_data
from castalia.media.points.files import is_points, read_array

HEADERS = ("{" * 500, "[" * 5000, "1" * 9000, "{'descr': '|u1'}", "__import__('os')", "{'a': (", "9**9**9")


def npy(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + bytes(64)


@pytest.mark.parametrize("header", HEADERS)
def test_headers_that_are_none(header: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy(header))
    assert not is_points(path)
    for read in (lambda: read_npy(path, 1 << 20), lambda: read_array(path), lambda: open_data(str(path))):
        with pytest.raises(DataError, match=r"a\.npy") as caught:
            read()
        assert len(str(caught.value)) < 500


def test_an_entry_of_an_npz_that_is_no_array(tmp_path: Path) -> None:
    out = io.BytesIO()
    np.savez(out, x=np.zeros((2, 4, 4), np.uint8))
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("readme.txt", "not an array")
        archive.writestr("y.npy", b"not an array either")
    (tmp_path / "a.npz").write_bytes(out.getvalue())
    assert read_npz(tmp_path / "a.npz", None, 1 << 20).pixels.shape == (2, 4, 4, 1)
