import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from castalia.core.errors import DataError, UsageError
from castalia.media.image.decode import ImageOptions, decode_image, inspect_image

PLAIN = ImageOptions()


def read(data, options=PLAIN, channels=None):
    """Decode, and hold header and pixels to each other."""
    head = inspect_image(io.BytesIO(data), "x", options)
    pixels = decode_image(data, "x", options, channels)
    assert pixels.dtype == np.uint8
    if options.size is None:
        assert pixels.shape[:2] == (head.height, head.width)
    if options.channels is None and channels is None:
        assert pixels.shape[2] == head.channels
    return pixels


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_lossless_files_come_back_exactly(noise, encode, kind, channels):
    pixels = noise(5, 7, channels)
    assert (read(encode(pixels, kind)) == pixels).all()


def test_lossless_webp_and_bmp_and_gif(noise, encode):
    pixels = noise(5, 7, 3)
    assert (read(encode(pixels, "WEBP", lossless=True)) == pixels).all()
    assert (read(encode(pixels, "BMP")) == pixels).all()
    grey = noise(5, 7, 1)
    assert (read(encode(grey, "GIF")) == grey).all()


def test_grey_with_alpha_is_rgba(noise, encode):
    la = noise(4, 4, 2)
    got = read(encode(Image.merge("LA", [Image.fromarray(la[..., i].copy()) for i in (0, 1)])))
    assert (got[..., 3] == la[..., 1]).all()
    assert (got[..., :3] == la[..., :1]).all()


def test_16_bit_grey_is_scaled_exactly(encode):
    values = np.array([[0, 1, 128, 129, 255, 256, 257, 32767, 32768, 65279, 65406, 65407, 65535]], np.uint16)
    expected = np.floor(values / 257 + 0.5).astype(np.uint8)
    for kind in ("PNG", "TIFF"):
        got = read(encode(Image.fromarray(values), kind))
        assert got.shape == (1, 13, 1)
        assert (got[..., 0] == expected).all()
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    got = read(encode(Image.fromarray(every)))[..., 0]
    assert (got == np.floor(every / 257 + 0.5)).all()


def test_integer_and_float_tiffs(encode):
    wide = Image.fromarray(np.array([[0, 65535]], np.int32))
    assert read(encode(wide, "TIFF")).ravel().tolist() == [0, 255]
    with pytest.raises(DataError, match="16 bits"):
        read(encode(Image.fromarray(np.array([[0, 70000]], np.int32)), "TIFF"))
    assert read(encode(Image.fromarray(np.array([[0, 0.5, 1]], np.float32)), "TIFF")).ravel().tolist() == [
        0,
        128,
        255,
    ]
    with pytest.raises(DataError, match="0 to 1"):
        read(encode(Image.fromarray(np.array([[0, 3.0]], np.float32)), "TIFF"))


def test_one_bit(encode):
    bits = Image.fromarray(np.array([[True, False, True]]))
    assert bits.mode == "1"
    assert read(encode(bits)).ravel().tolist() == [255, 0, 255]


def test_cmyk_jpeg(encode):
    got = read(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
    assert got.shape == (8, 8, 3)
    assert abs(got[4, 4].astype(int) - [255, 0, 0]).max() <= 6


def test_palettes(encode):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert read(encode(image)).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    one_hole = read(encode(image, transparency=0))
    assert one_hole[0, :, 3].tolist() == [0, 255]
    many = read(encode(image, transparency=bytes([7, 200])))
    assert many[0, :, 3].tolist() == [7, 200]
    grey = Image.new("P", (2, 1))
    grey.putpalette([9, 9, 9, 70, 70, 70])
    grey.putpixel((1, 0), 1)
    assert read(encode(grey)).tolist() == [[[9], [70]]]


def test_transparent_colour_of_grey_and_rgb(encode):
    grey = Image.fromarray(np.array([[5, 6]], np.uint8))
    assert read(encode(grey, transparency=5))[0, :, 3].tolist() == [0, 255]
    rgb = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert read(encode(rgb, transparency=(4, 5, 6)))[0, :, 3].tolist() == [255, 0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(encode, kind, orientation):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = 250  # a bright corner, top left
    inverse = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    stored = Image.fromarray(upright)
    if inverse is not None:
        stored = stored.transpose(Image.Transpose(inverse))
    exif = Image.Exif()
    exif[0x0112] = orientation
    got = read(encode(stored, kind, exif=exif))
    assert got.shape == (16, 32, 3)
    assert abs(got.astype(int) - upright).mean() < 6


def test_broken_exif_is_ignored(noise, encode):
    pixels = noise(3, 3, 3)
    assert (read(encode(pixels, "PNG", exif=b"Exif\0\0garbage")) == pixels).all()


def test_animation_gives_its_first_frame(encode):
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "lime", "blue")]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert inspect_image(io.BytesIO(data), "x", PLAIN).animated
        assert read(data, channels=3)[0, 0].tolist() == [255, 0, 0]


def test_dropping_alpha_lays_over_the_background(encode):
    rgba = np.array([[[200, 0, 0, 255], [200, 0, 0, 0]]], np.uint8)
    assert read(encode(rgba), ImageOptions(channels=3)).tolist() == [[[200, 0, 0], [255, 255, 255]]]
    assert read(encode(rgba), ImageOptions(channels=3, background=(1, 2, 3)))[0, 1].tolist() == [1, 2, 3]
    assert read(encode(rgba), ImageOptions(channels=1, background=7))[0, 1].tolist() == [7]


def test_resizing_is_premultiplied(encode):
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:, :4] = (255, 0, 0, 255)
    rgba[:, 4:] = (0, 255, 0, 0)  # hidden green must not bleed
    for name in ("lanczos", "bicubic", "box"):
        got = read(encode(rgba), ImageOptions(size=5, filter=name))
        seen = got[got[..., 3] > 0]
        assert len(seen)
        assert (seen[:, 1] == 0).all()
        assert (seen[:, 0] >= 250).all()


def test_crop_stretch_and_pad(encode):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    assert (read(encode(wide), ImageOptions(size=10)) == 255).all()
    stretched = read(encode(wide), ImageOptions(size=(10, 15), resize="stretch", filter="box"))
    assert stretched.shape == (10, 15, 3)
    assert stretched[0, 7].tolist() == [255] * 3
    padded = read(encode(wide), ImageOptions(size=30, resize="pad", background=(9, 8, 7)))
    assert padded[0, 0].tolist() == [9, 8, 7]
    assert padded[15, 15].tolist() == [255] * 3
    assert read(encode(wide), ImageOptions(size=30, resize="pad", channels=4))[0, 0].tolist() == [0, 0, 0, 0]
    grey = read(encode(wide), ImageOptions(size=30, resize="pad", channels=1, background=77))
    assert grey[0, 0].tolist() == [77]


@pytest.mark.parametrize("resize", ["crop", "stretch", "pad"])
def test_large_jpegs_shrink_alike_with_and_without_draft(resize, encode):
    y, x = np.mgrid[:400, :640]
    smooth = np.stack([x * 255 // 640, y * 255 // 400, (x + y) * 255 // 1040], 2).astype(np.uint8)
    options = ImageOptions(size=24, resize=resize)
    got = read(encode(smooth, "JPEG", quality=98), options)
    expected = read(encode(smooth), options)
    assert abs(got.astype(int) - expected).max() <= 8


def test_bad_bytes(noise, encode):
    good = encode(noise(40, 40, 3))
    jpeg = encode(noise(40, 40, 3), "JPEG")
    for data, reason in [
        (b"", "not a picture"),
        (b"hello, I am text" * 10, "not a picture"),
        (good[:60], "truncated|damaged"),
        (good[: len(good) // 2], "truncated|damaged"),
        (jpeg[: len(jpeg) // 2], "truncated"),
        (jpeg[:3], "not a picture|damaged|truncated"),
    ]:
        with pytest.raises(DataError, match=reason) as caught:
            decode_image(data, "album/photo.png", PLAIN)
        assert str(caught.value).startswith("album/photo.png: ")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_cut_and_every_flip_is_a_picture_or_a_data_error(noise, encode, kind):
    data = encode(noise(12, 12, 3), kind)
    rng = np.random.default_rng(1)
    for cut in rng.integers(0, len(data), 25):
        broken = [data[:cut], data[:cut] + bytes([data[cut] ^ 255]) + data[cut + 1 :]]
        for candidate in broken:
            reason = "x: "
            try:
                inspect_image(io.BytesIO(candidate), "x", PLAIN)
                decode_image(candidate, "x", ImageOptions(max_pixels=10**6))
            except DataError as error:
                reason = str(error)
            assert reason.startswith("x: ")


def huge_png(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (12_000, 12_000), (2**31 - 1, 2**31 - 1)])
def test_declared_bombs_are_refused_from_the_header(width, height):
    for run in (
        lambda data: decode_image(data, "bomb.png", PLAIN),
        lambda data: inspect_image(io.BytesIO(data), "bomb.png", PLAIN),
    ):
        with pytest.raises(DataError, match=r"bomb\.png: it declares"):
            run(huge_png(width, height))


def test_compressed_text_bomb(encode):
    info = PngInfo()
    info.add_text("x", "a" * 80_000_000, zip=True)
    data = encode(np.zeros((2, 2, 3), np.uint8), pnginfo=info)
    with contextlib.suppress(DataError):  # refused or left out, both are well
        assert decode_image(data, "x", PLAIN).shape == (2, 2, 3)


def test_max_pixels(noise, encode):
    data = encode(noise(10, 10, 3))
    assert decode_image(data, "x", ImageOptions(max_pixels=100)).shape == (10, 10, 3)
    with pytest.raises(DataError, match="max_pixels = 99"):
        decode_image(data, "x", ImageOptions(max_pixels=99))


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": (4, 0)},
        {"size": True},
        {"channels": 2},
        {"resize": "zoom"},
        {"filter": "sinc"},
        {"background": 256},
        {"background": (1, 2)},
        {"max_pixels": 10**9},
        {"on_bad_file": "ignore"},
    ],
)
def test_wrong_options(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ImageOptions(**wrong)


def test_options_survive_json():
    import dataclasses
    import json

    options = ImageOptions(size=(4, 5), background=(1, 2, 3))
    assert ImageOptions(**json.loads(json.dumps(dataclasses.asdict(options)))) == options
