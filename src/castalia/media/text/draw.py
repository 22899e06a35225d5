"""Texts as a picture: sheets of monospaced characters, so that verse and code line up."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from castalia.core.errors import UsageError

WIDTH = 64
"""Characters of a line."""
LINES = 20
"""Lines of a panel; of longer texts the rest is left out, and marked."""

HIDDEN = "\u00b7"
"""Stands for what cannot be shown."""

_PAD, _GAP = 12, 10
_FONTS = ("DejaVuSansMono.ttf", "NotoSansMono-Regular.ttf", "LiberationMono-Regular.ttf", "Menlo.ttc", "consola.ttf")
_INK, _PALE, _PAPER, _DESK = (34, 34, 40), (150, 150, 158), (255, 255, 255), (236, 236, 239)


def texts_image(texts: Sequence[str], columns: int | None = None) -> Image.Image:
    """Draw texts side by side, each on a sheet with its number.

    Args:
        texts: at least one.
        columns: sheets per row; None for about a square.

    Returns:
        A picture of mode RGB.

    Raises:
        UsageError: there are no texts, or ``columns`` is not positive.
    """
    if not texts:
        raise UsageError("A picture of texts needs at least one.")
    if columns is not None and columns < 1:
        raise UsageError(f"columns must be at least 1, not {columns}.")
    pages = [layout(text) for text in texts]
    across = min(columns or max(1, round(math.sqrt(len(texts) * 0.7))), len(texts))
    font, step, height = _font()
    lines = max(map(len, pages))
    wide, tall = step * WIDTH + 2 * _PAD, height * (lines + 1) + 2 * _PAD
    down = -(-len(texts) // across)
    whole = Image.new("RGB", (across * (wide + _GAP) + _GAP, down * (tall + _GAP) + _GAP), _DESK)
    draw = ImageDraw.Draw(whole)
    for i, page in enumerate(pages):
        left, top = _GAP + i % across * (wide + _GAP), _GAP + i // across * (tall + _GAP)
        draw.rectangle((left, top, left + wide - 1, top + tall - 1), fill=_PAPER)
        number = str(i)
        draw.text((left + wide - _PAD // 2 - step * len(number), top + _PAD // 3), number, fill=_PALE, font=font)
        for row, line in enumerate(page):
            for column, c in enumerate(line):
                if c != " ":
                    c = c if ord(c) <= 0xFF or not isinstance(font, ImageFont.ImageFont) else HIDDEN
                    at = (left + _PAD + column * step, top + _PAD + height * row + height // 2)
                    draw.text(at, c, fill=_PALE if c == HIDDEN else _INK, font=font)
    return whole


def layout(text: str) -> list[str]:
    """Lines of at most ``WIDTH`` characters, at most ``LINES`` of them; what cannot be seen becomes a dot."""
    lines: list[str] = []
    for line in text.expandtabs(4).split("\n"):
        shown = "".join(c if c == " " or unicodedata.category(c)[0] not in "CZM" else HIDDEN for c in line)
        while len(shown) > WIDTH:
            at = shown.rfind(" ", WIDTH // 2, WIDTH + 1)
            at = at if at > 0 else WIDTH
            lines.append(shown[:at])
            shown = shown[at:].removeprefix(" ")
        lines.append(shown)
        if len(lines) > LINES:
            return [*lines[: LINES - 1], "..."]
    return lines


@lru_cache(maxsize=1)
def _font() -> tuple[Any, int, int]:
    """A font, and the width and height of the cell in which each of its characters stands.

    A monospaced one of the system, where there is one of those that are named here; else Pillow's small one, which has
    the characters of Western Europe.
    """
    for name in _FONTS:
        with suppress(OSError):
            return ImageFont.truetype(name, 12), 8, 16
    return ImageFont.load_default_imagefont(), 6, 13
