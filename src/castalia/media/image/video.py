"""Walks through a model's latent space as something that moves: GIF, WebP, MP4, or a strip of frames."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from castalia.core.errors import MissingExtra, UsageError
from castalia.media.image.write import grid_image, over, png_bytes, replace_file, to_image, to_numpy

_MIN_SIDE = 256
_MIN_SIDE_OF_PICTURES = 128  # GIF and WebP: few people can see a film of 8 by 8 pixels
# The palette is computed from this many frames spread over the walk, so that colours do not flicker.
_PALETTE_FRAMES = 16


def save_walk(
    frames: Tensor,
    path: Path,
    fps: float = 12,
    *,
    loop: bool = True,
    boomerang: bool = False,
    recipe: Mapping[str, Any] | None = None,
) -> None:
    """Write frames as a film; the suffix of ``path`` chooses the kind.

    ``.gif`` and ``.webp`` play for ever with ``loop`` and are enlarged to at least 128 pixels; ``.mp4``
    (``castalia[video]``) is H.264 that every browser plays, enlarged to at least 256 pixels and laid over white;
    ``.png`` is one strip, left to right.

    Args:
        frames: ``uint8`` (T, C, H, W), T >= 1, C 1, 3 or 4.
        path: where to write; the folder must exist.
        fps: frames per second, more than 0 and at most 120; GIF keeps hundredths of a second, 50 at most.
        loop: repeat for ever (GIF and WebP).
        boomerang: append the way back, so that the end meets the beginning.
        recipe: JSON values kept beside the film as ``.json`` (and inside a ``.png``).

    Raises:
        UsageError: the suffix is unknown, there are no frames, or ``fps`` is out of range.
        MissingExtra: MP4 without PyAV.
        RunError: the disk is full or the folder cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in (".png", *_ENCODERS):
        raise UsageError(f"{path.name}: a walk is written as one of {', '.join(sorted(_ENCODERS))}, .png (a strip).")
    if len(frames) == 0:
        raise UsageError("A walk needs at least one frame.")
    if not 0 < fps <= 120:
        raise UsageError(f"fps must be above 0 and at most 120, not {fps}.")
    if suffix == ".png":
        data = png_bytes(grid_image(frames, columns=len(frames), pad=0), recipe)
    else:
        pictures = to_numpy(frames)
        if boomerang and len(pictures) > 2:
            pictures = np.concatenate([pictures, pictures[-2:0:-1]])
        if suffix != ".mp4":
            times = math.ceil(_MIN_SIDE_OF_PICTURES / min(pictures.shape[1:3]))
            pictures = pictures.repeat(times, axis=1).repeat(times, axis=2)
        data = _ENCODERS[suffix](pictures, fps, loop)
    replace_file(path, data)
    if recipe is not None:
        replace_file(path.with_suffix(".json"), (json.dumps(dict(recipe), indent=2) + "\n").encode())


def _gif(pictures: np.ndarray, fps: float, loop: bool) -> bytes:
    """One palette for all frames; alpha becomes on or off, because GIF knows no more."""
    channels = pictures.shape[3]
    if channels == 1:
        images = [to_image(p) for p in pictures]
    else:
        colours = over(pictures, 255) if channels == 4 else pictures
        some = colours[np.unique(np.linspace(0, len(colours) - 1, _PALETTE_FRAMES).round().astype(int))]
        palette = to_image(some.reshape(-1, *some.shape[2:])).quantize(255, Image.Quantize.MEDIANCUT)
        images = [to_image(c).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for c in colours]
    # Browsers slow down anything faster than 20 ms.
    options: dict[str, Any] = {"duration": max(20, round(100 / fps) * 10)}
    if loop:
        options["loop"] = 0
    if channels == 4:
        for image, picture in zip(images, pictures, strict=True):
            hole = Image.fromarray(np.where(picture[:, :, 3] < 128, 255, 0).astype(np.uint8))
            image.paste(255, mask=hole)  # colour 255 is free: the palette has 255 others
        options |= {"transparency": 255, "disposal": 2}
    return _save_all(images, "GIF", optimize=False, **options)


def _webp(pictures: np.ndarray, fps: float, loop: bool) -> bytes:
    images = [to_image(p).convert("RGBA" if p.shape[2] == 4 else "RGB") for p in pictures]
    return _save_all(images, "WEBP", duration=round(1000 / fps), loop=0 if loop else 1, quality=90)


def _save_all(images: list[Image.Image], kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    images[0].save(out, kind, save_all=True, append_images=images[1:], **options)
    return out.getvalue()


def _mp4(pictures: np.ndarray, fps: float, loop: bool) -> bytes:
    """H.264 in 4:2:0, which needs even sides; ``loop`` is for the player to decide."""
    try:
        import av
    except ImportError as error:
        raise MissingExtra("Writing MP4", "video") from error
    if pictures.shape[3] == 4:
        pictures = over(pictures, 255)
    if pictures.shape[3] == 1:
        pictures = pictures.repeat(3, axis=3)
    times = math.ceil(_MIN_SIDE / min(pictures.shape[1:3]))
    height, width = (side * times for side in pictures.shape[1:3])
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        stream.options = {"crf": "16"}
        for picture in pictures:
            large = picture.repeat(times, axis=0).repeat(times, axis=1)
            large = np.pad(large, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(large, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


_ENCODERS: Mapping[str, Callable[[np.ndarray, float, bool], bytes]] = {
    ".gif": _gif,
    ".mp4": _mp4,
    ".webp": _webp,
}
