"""Grey pictures of more than 8 bits: white that is zero, transparency, 12 bits, signed numbers and floats."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from castalia.core.errors import DataError
from castalia.core.specs.image import ImageSpec
from castalia.media.image import medium
from castalia.media.image.decode import ImageOptions, decode_image
from castalia.media.image.sources import open_images

PLAIN = ImageOptions()


def tiff(values, bits=16, kind=1, white_is_zero=False):
    """A TIFF of one strip; ``kind`` 1 unsigned, 2 signed, 3 float."""
    data = pack12(values) if bits == 12 else np.ascontiguousarray(values).tobytes()
    height, width = values.shape
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 0 if white_is_zero else 1)]
    tags += [(273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, len(data)), (339, 3, kind)]
    entries = b"".join(struct.pack("<HHII", tag, what, 1, value) for tag, what, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def pack12(values):
    text = "".join(f"{v:012b}" for v in values.ravel().tolist())
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


def png16(values, key):
    """A PNG of 16 bits, grey (H, W) or colour (H, W, 3), with a transparent colour."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 2 if values.ndim == 3 else 0, 0, 0, 0)
    parts = (b"IHDR", head), (b"tRNS", np.array(key, ">u2").tobytes()), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def read(data, **options):
    return decode_image(data, "a", ImageOptions(**options))


def test_white_is_zero_in_16_bits():
    values = np.array([[0, 65535, 257]], np.uint16)
    assert read(tiff(values, white_is_zero=True))[0, :, 0].tolist() == [255, 0, 254]
    assert read(tiff(values))[0, :, 0].tolist() == [0, 255, 1]
    floats = np.array([[0, 1]], np.float32)
    assert read(tiff(floats, 32, 3, white_is_zero=True))[0, :, 0].tolist() == [255, 0]


def test_transparency_in_16_bits():
    grey = read(png16(np.array([[65535, 0x1234]]), 0x1234))
    assert grey.tolist() == [[[255, 255, 255, 255], [18, 18, 18, 0]]]
    colour = read(png16(np.array([[[65535, 0, 0], [0x1234, 0x5678, 0x9ABC]]]), (0x1234, 0x5678, 0x9ABC)))
    assert colour[0, :, 3].tolist() == [255, 0]


def test_12_bits(tree):
    assert read(tiff(np.array([[0, 2048, 4095, 16]]), 12))[0, :, 0].tolist() == [0, 128, 255, 1]
    dark = tiff(np.array([[0, 4095]], np.uint16))
    for name, other in (("dark", dark), ("colour", None)):
        notes = open_images(tree({"a.tif": dark, "b.tif": other}, name), ImageOptions(size=2)).notes
        assert any("nearly black" in note for note in notes)
    light = tiff(np.array([[0, 65535]], np.uint16))
    assert open_images(tree({"a.tif": dark, "b.tif": light}, "light"), PLAIN).notes == ()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (tiff(np.array([[-5, 7]], np.int16), 16, 2), "whole numbers from -5 to 7"),
        (tiff(np.array([[0, 70000]], np.uint32), 32), "whole numbers from 0 to 70000"),
        (
            tiff(np.array([[0, 255]], np.float32), 32, 3),
            "floats from 0 to 255; floats are read where they lie in 0 to 1",
        ),
    ],
)
def test_kinds_that_are_not_read_are_not_called_damaged(data, text):
    with pytest.raises(DataError, match=text) as caught:
        read(data)
    assert "damaged" not in str(caught.value)


def test_a_transparent_part_of_a_mask_is_not_white(tmp_path):
    image = Image.fromarray(np.array([[[255, 255, 255, 255], [255, 255, 255, 0], [0, 0, 0, 255]]], np.uint8))
    out = io.BytesIO()
    image.save(out, "PNG")
    (tmp_path / "mask.png").write_bytes(out.getvalue())
    assert medium.mask(tmp_path / "mask.png", PLAIN, ImageSpec(3, 1, 3)).tolist() == [[[True, False, False]]]
