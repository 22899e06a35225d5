"""The bytes of one picture file, made into ``uint8`` pixels.

Two steps: :func:`inspect_image` reads only the header (so that nothing large is decoded before its size is
known to be sane), :func:`decode_image` decodes. Whatever Pillow raises on a hostile or broken file comes out
as :class:`DataError` that names the file. Colour profiles (ICC) are ignored; 16-bit *colour* PNGs keep their
upper 8 bits (Pillow's reader), 16-bit grey is scaled exactly.
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from castalia.core.config import Config
from castalia.core.errors import DataError, UsageError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
MAX_FILE_BYTES = 256 << 20
MAX_SIDE = 1 << 15
MAX_CAPTION = 1 << 16
# Pillow itself refuses more than this; a larger limit in the options would promise what cannot be kept.
PILLOW_MAX_PIXELS = 178_000_000

DARK = 16
"""What 12 bits on a scale of 16 come to, at most."""

_FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}
Folders = Literal["auto", "splits", "classes", "none"]

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class ImageOptions(Config):
    """How pictures are read. Plain values, so that it survives a JSON round trip.

    Attributes:
        size: side of a square, or (height, width); None keeps the files' size, which must then be one for
            all.
        channels: 1 grey, 3 RGB, 4 RGBA; None decides from the files: grey if all are grey, RGBA if any pixel
            is transparent, else RGB.
        resize: ``crop`` scales the short side and cuts the centre, ``stretch`` ignores proportions, ``pad``
            scales the long side and fills up with the background (transparent for RGBA).
        filter: resampling; ``lanczos``, ``bicubic`` and ``box`` average when shrinking (antialiasing).
        flip: mirror left and right at random, per example, when the data set is given a random source.
        background: 0 to 255, or three of them; what lies under transparent pixels when alpha is dropped.
        max_pixels: refuse files whose header declares more (at most 178,000,000).
        on_bad_file: ``error`` stops at the first file that cannot be read, ``skip`` leaves it out and says
            so.
        stream: whether pictures stay on the disk and are decoded when they are used. ``auto``: tar shards always,
            Parquet where its pixels would take more than 2 GiB, and nothing else. ``always`` is for tar and Parquet
            only; ``never`` decodes everything once.
        folders: what the names of folders mean. ``auto`` takes ``train``, ``test`` and their like for splits and others
            for classes, and asks where it could be either; ``splits`` leaves out what lies beside the splits;
            ``classes`` knows no splits; ``none`` knows neither.
        captions: bytes of UTF-8 that are kept of each caption, as the column ``caption``; 0 leaves captions out.
        views: of files that show things from several sides, how their names tell it: ``{thing}_{degrees}``. Each
            picture then has its viewpoint and another view of its thing beside it (columns ``view``, ``other``,
            ``other_view``), and things are whole in one split.
    """

    size: int | tuple[int, int] | None = None
    channels: Literal[1, 3, 4] | None = None
    resize: Literal["crop", "stretch", "pad"] = "crop"
    filter: Literal["lanczos", "bicubic", "box", "nearest"] = "lanczos"
    flip: bool = False
    background: int | tuple[int, int, int] = 255
    max_pixels: int = 100_000_000
    on_bad_file: Literal["error", "skip"] = "error"
    stream: Literal["auto", "always", "never"] = "auto"
    folders: Folders = "auto"
    captions: int = 0
    views: str = ""

    def __post_init__(self) -> None:
        for field in ("size", "background"):
            value = getattr(self, field)
            if isinstance(value, list):  # JSON has no tuples
                object.__setattr__(self, field, tuple(value))
        sides = self.size if isinstance(self.size, tuple) else (self.size, self.size)
        if self.size is not None and not (len(sides) == 2 and all(_is_int(s, 1, MAX_SIDE) for s in sides)):
            raise UsageError(f"size is a side or (height, width), each 1 to {MAX_SIDE}, not {self.size!r}.")
        back = self.background if isinstance(self.background, tuple) else (self.background,) * 3
        if not (len(back) == 3 and all(_is_int(b, 0, 255) for b in back)):
            raise UsageError(f"background is 0 to 255 or three of them, not {self.background!r}.")
        if self.channels not in (None, 1, 3, 4):
            raise UsageError(f"channels is 1 (grey), 3 (RGB), 4 (RGBA) or nothing, not {self.channels!r}.")
        for field, known in (
            ("resize", ("crop", "stretch", "pad")),
            ("filter", tuple(_FILTERS)),
            ("on_bad_file", ("error", "skip")),
            ("stream", ("auto", "always", "never")),
            ("folders", ("auto", "splits", "classes", "none")),
        ):
            if getattr(self, field) not in known:
                raise UsageError(f"{field} is one of {', '.join(known)}, not {getattr(self, field)!r}.")
        if not _is_int(self.captions, 0, MAX_CAPTION):
            raise UsageError(f"captions is 0 to {MAX_CAPTION} bytes, not {self.captions!r}.")
        if self.views and (self.views.count("{thing}") != 1 or self.views.count("{degrees}") != 1):
            raise UsageError(f"views is a pattern with {{thing}} and {{degrees}} in it, once each, not {self.views!r}.")
        if not _is_int(self.max_pixels, 1, PILLOW_MAX_PIXELS):
            raise UsageError(f"max_pixels is 1 to {PILLOW_MAX_PIXELS}, not {self.max_pixels!r}.")

    @property
    def height_width(self) -> tuple[int, int] | None:
        """(height, width) that pictures are brought to, or None."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size


def _is_int(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


@dataclass(frozen=True)
class Head:
    """What a picture's header says.

    Attributes:
        height: rows, after the EXIF orientation is applied.
        width: columns, likewise.
        channels: 1, 3 or 4: the fewest that hold what the file can hold.
        animated: there are further frames or pages, which are not read.
        deep: grey with more than 8 bits, whose values may use but a part of them.
    """

    height: int
    width: int
    channels: Literal[1, 3, 4]
    animated: bool
    deep: bool = False


def inspect_image(file: BinaryIO, name: str, options: ImageOptions) -> Head:
    """Read the header of a picture, decoding nothing.

    Args:
        file: the picture, at its start.
        name: what to call it in errors.
        options: for ``max_pixels``.

    Raises:
        DataError: it is not a picture of a known format, or declares too many pixels.
    """
    try:
        _hush()
        with Image.open(file, formats=FORMATS) as image:
            _check_size(image, name, options)
            width, height = image.size
            if _orientation(image) >= 5:
                width, height = height, width
            animated = image.format != "MPO" and bool(getattr(image, "is_animated", False))
            deep = image.mode == "I" or (image.mode.startswith("I;16") and _white(image) == 65535)
            return Head(height, width, _natural_channels(image), animated, deep)
    except DataError:
        raise
    except Exception as error:  # Pillow's readers raise nearly every type there is on broken files
        raise DataError(f"{name}: {_explain(error)}.") from error


_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


def _hush() -> None:
    """No warnings of Pillow's own about odd files: what cannot be read is an error anyway.

    Not by ``catch_warnings``, which changes and restores the filters of the whole process, also for other threads.
    """
    if _QUIET not in warnings.filters:
        warnings.filterwarnings("ignore", module=_QUIET[3].pattern)


def decode_image(data: bytes, name: str, options: ImageOptions, channels: Literal[1, 3, 4] | None = None) -> np.ndarray:
    """Decode a picture and bring it to the wanted size and channels.

    Args:
        data: the contents of the file.
        name: what to call it in errors.
        options: how to read it.
        channels: overrides ``options.channels``; where both are None, the file's own.

    Returns:
        ``uint8`` (H, W, C).

    Raises:
        DataError: it is damaged, truncated, too large, or no picture of a known format.
    """
    try:
        _hush()
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image, name, options)
            turn = _TURNS.get(_orientation(image))
            _draft(image, turn, options)
            key = image.info.get("transparency")
            if isinstance(key, tuple) and any("16" in str(tile[3]) for tile in image.tile):
                image.info["transparency"] = tuple(v >> 8 for v in key)  # of 16-bit colour the upper 8 bits are kept
            image.load()
            plain = _to_8_bits(image)
            if turn is not None:
                plain = plain.transpose(turn)
            return fit(plain, options, channels or options.channels or _natural_channels(plain))
    except DataError:
        raise
    except Exception as error:  # as above
        raise DataError(f"{name}: {_explain(error)}.") from error


def dark_note(files: int) -> str:
    """What a person should know of pictures of 16 bits of which no value is above :data:`DARK`."""
    return (
        f"The {files} pictures of 16 bits use 4,096 of 65,536 values at most, and so are nearly black. Where they are "
        "of 12 bits or less, scale them before."
    )


def fit(image: Image.Image, options: ImageOptions, channels: Literal[1, 3, 4]) -> np.ndarray:
    """Convert a loaded picture of mode L, RGB or RGBA to ``channels`` and to the size in ``options``.

    Returns:
        ``uint8`` (H, W, channels).
    """
    background = options.background if isinstance(options.background, tuple) else (options.background,) * 3
    if image.mode == "RGBA" and channels != 4:
        opaque = Image.new("RGBA", image.size, (*background, 255))
        image = Image.alpha_composite(opaque, image).convert("RGB")
    if image.mode != _MODES[channels]:
        image = image.convert(_MODES[channels])
    if options.height_width is not None:
        fill = (0, 0, 0, 0) if channels == 4 else background
        image = _resize(image, options.height_width, options, fill)
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _resize(
    image: Image.Image, target: tuple[int, int], options: ImageOptions, background: tuple[int, ...]
) -> Image.Image:
    """Resize to (height, width). Pillow premultiplies RGBA when it averages: hidden colours do not bleed."""
    (height, width), resample = target, _FILTERS[options.filter]
    if image.size == (width, height):
        return image
    if options.resize == "stretch":
        return image.resize((width, height), resample)
    if options.resize == "crop":
        scale = min(image.width / width, image.height / height)
        w, h = width * scale, height * scale
        left, top = (image.width - w) / 2, (image.height - h) / 2
        box = (left, top, min(left + w, image.width), min(top + h, image.height))
        return image.resize((width, height), resample, box=box)
    scale = min(width / image.width, height / image.height)
    w, h = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    colour = Image.new("RGB", (1, 1), background[:3]).convert("L").getpixel((0, 0)) if image.mode == "L" else background
    canvas = Image.new(image.mode, (width, height), colour)  # pyright: ignore[reportArgumentType]
    canvas.paste(image.resize((w, h), resample), ((width - w) // 2, (height - h) // 2))
    return canvas


def _check_size(image: Image.Image, name: str, options: ImageOptions) -> None:
    if image.width * image.height > options.max_pixels:
        raise DataError(
            f"{name}: it declares {image.width} x {image.height} pixels, more than max_pixels = {options.max_pixels}."
        )


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8."""
    # Pillow turns TIFFs by itself, and looks for a late EXIF chunk in a PNG by decoding it, which a header
    # must not.
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # a broken EXIF block does not make the pixels bad
        return 1
    return value if value in _TURNS else 1


def _natural_channels(image: Image.Image) -> Literal[1, 3, 4]:
    grey = image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        return 4
    if "transparency" in image.info and (image.mode in ("1", "L", "P", "RGB") or image.mode.startswith("I;16")):
        return 4
    if image.mode == "P":
        palette = np.asarray(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        grey = bool((palette == palette[:, :1]).all())
    return 1 if grey else 3


def _draft(image: Image.Image, turn: Image.Transpose | None, options: ImageOptions) -> None:
    """Let the JPEG decoder do the coarse part of a strong reduction: it leaves at least twice the target."""
    if options.height_width is None or options.filter == "nearest" or image.format != "JPEG":
        return
    height, width = options.height_width
    if turn is not None and _swaps(turn):
        height, width = width, height
    if options.resize == "pad":  # the long side decides; the short one may become anything
        scale = min(width / image.width, height / image.height)
        width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    image.draft(None, (2 * width, 2 * height))


def _swaps(turn: Image.Transpose) -> bool:
    return turn in (_TURNS[5], _TURNS[6], _TURNS[7], _TURNS[8])


class _Unread(ValueError):
    """Pixels of a kind that is not read, in a file that is not damaged."""


def _white(image: Image.Image) -> int:
    """The largest value of grey with more than 8 bits."""
    bits = getattr(image, "tag_v2", {}).get(258, (16,))
    return 4095 if bits in (12, (12,)) else 65535


def _to_8_bits(image: Image.Image) -> Image.Image:
    """A loaded picture in mode L, RGB or RGBA."""
    if not (image.mode.startswith("I;16") or image.mode in ("I", "F")):
        return image.convert(_MODES[_natural_channels(image)])
    values = np.asarray(image)
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    inverted = getattr(image, "tag_v2", {}).get(262) == 0  # white is zero, which Pillow heeds in 8 bits only
    if image.mode == "F":
        if not (np.isfinite(values).all() and low >= 0 and high <= 1):
            raise _Unread(
                f"it holds floats from {low:g} to {high:g}; floats are read where they lie in 0 to 1. Divide them, or "
                "save it with 8 or 16 bits"
            )
        return Image.fromarray(np.rint((1 - values if inverted else values) * 255).astype(np.uint8))
    if low < 0 or high > 65535:
        raise _Unread(
            f"it holds whole numbers from {low} to {high}; those of up to 16 bits are read, 0 to 65535. Scale them"
        )
    white, whole = _white(image), values.astype(np.int32)
    # 65535 = 257 * 255, so for 16 bits this is v * 255 / 65535 rounded to nearest.
    grey = (((white - whole if inverted else whole) * 255 + white // 2) // white).clip(0, 255).astype(np.uint8)
    key = image.info.get("transparency")
    if not isinstance(key, int):
        return Image.fromarray(grey)
    alpha = np.where(whole == key, 0, 255).astype(np.uint8)
    return Image.fromarray(np.stack([grey, grey, grey, alpha], axis=2))


def _explain(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, UnidentifiedImageError):
        return f"it is not a picture, or not one of {', '.join(FORMATS)}"
    if isinstance(error, _Unread):
        return text
    if isinstance(error, Image.DecompressionBombError):
        return "it declares more pixels than can be read safely"
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return f"it is truncated ({text or 'unexpected end'})"
    return f"it is damaged ({text or type(error).__name__})"
