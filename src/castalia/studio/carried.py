"""Recipes inside files: what is saved from the studio says how it was made, and a dropped file brings that back.

PNG has text for it (:mod:`castalia.media.image.write`). WAV, MIDI and GLB files are rows of chunks, and whoever reads
them must pass over chunks that they do not know (RIFF; "Standard MIDI Files 1.0": alien chunks; glTF 2.0, 4.4.3): the
recipe is one of those, behind all others.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from typing import Any

from PIL import Image

from castalia.core.errors import DataError
from castalia.media.image.write import CHUNK

NAME = b"cstl"
LONGEST = 1 << 20
"""Bytes of a recipe."""


def with_recipe(data: bytes, suffix: str, recipe: Mapping[str, Any]) -> bytes:
    """A file with a recipe in it; one that cannot hold any, or has one already, as it is."""
    text = json.dumps(recipe).encode()
    if suffix == ".wav" and data[:4] == b"RIFF":
        chunk = NAME + struct.pack("<I", len(text)) + text + b" " * (len(text) % 2)
        return data[:4] + struct.pack("<I", len(data) + len(chunk) - 8) + data[8:] + chunk
    if suffix == ".mid" and data[:4] == b"MThd":
        return data + NAME + struct.pack(">I", len(text)) + text
    if suffix == ".glb" and data[:4] == b"glTF":
        text += b" " * (-len(text) % 4)
        whole = data[:8] + struct.pack("<I", len(data) + 8 + len(text)) + data[12:]
        return whole + struct.pack("<I", len(text)) + NAME + text
    return data


def recipe_in(data: bytes) -> dict[str, Any]:
    """The recipe in a file, which anybody may have written: plain data, to be checked before use.

    Raises:
        DataError: it holds none, or is damaged.
    """
    try:
        text = _found(data)
    except (struct.error, IndexError, ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"This file is damaged ({error}).") from error
    if text is None:
        raise DataError("This file carries no recipe: Castalia did not write it, or another program rewrote it.")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"Its recipe is no JSON ({error}).") from error
    if not isinstance(found, dict):
        raise DataError("Its recipe is no JSON object.")
    return found


def _found(data: bytes) -> str | bytes | None:
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            return image.info.get(CHUNK)
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return _chunk(data, 12, "<", padded=True)
    if data[:4] == b"MThd":
        return _chunk(data, 0, ">")
    if data[:4] == b"glTF":
        return _chunk(data, 12, "<", length_first=True)
    if data[:1] == b"{" and len(data) <= LONGEST:
        return data
    return None


def _chunk(data: bytes, at: int, order: str, *, padded: bool = False, length_first: bool = False) -> bytes | None:
    """The contents of our chunk, in a row of chunks that begins at ``at``."""
    while at + 8 <= len(data):
        name, size = (
            (data[at + 4 : at + 8], data[at : at + 4]) if length_first else (data[at : at + 4], data[at + 4 : at + 8])
        )
        (length,) = struct.unpack(f"{order}I", size)
        if name == NAME:
            return data[at + 8 : at + 8 + min(length, LONGEST)]
        at += 8 + length + (length % 2 if padded else 0)
    return None
