"""Sizes of pictures on the way from the smallest maps of a network to the whole picture, each twice the one before."""

from __future__ import annotations

from castalia.core.errors import UsageError

SMALLEST = 4
"""No side is halved below this."""

LARGEST_START = 256
"""Places of the smallest maps: a layer that gives each of them weights of its own is affordable up to here."""


def pyramid(height: int, width: int, doublings: int | None = None) -> tuple[tuple[int, int], ...]:
    """Sizes (height, width) from the smallest to the picture's.

    Args:
        height: rows of the picture.
        width: its columns.
        doublings: how many there are; None: as many as there can be while both sides are even and stay at least 4.

    Raises:
        UsageError: the sides cannot be halved so often, or what is left cannot be halved and is large.
    """
    sizes = [(height, width)]
    while doublings is None or len(sizes) <= doublings:
        h, w = sizes[-1]
        if h % 2 or w % 2 or (doublings is None and min(h, w) < 2 * SMALLEST):
            break
        sizes.append((h // 2, w // 2))
    if doublings is not None and len(sizes) <= doublings:
        raise UsageError(
            f"Pictures of {height}x{width} cannot be halved {doublings} times; give the configuration fewer levels, or "
            f"read them at a multiple of {2**doublings} (data.options.size)."
        )
    h, w = sizes[-1]
    if h * w > LARGEST_START:
        raise UsageError(
            f"Pictures of {height}x{width} can be halved to {h}x{w} and no further, too large for the smallest maps; "
            f"read them at a size that can be halved more often: data.options.size={_near(max(height, width))}."
        )
    return tuple(reversed(sizes))


def _near(side: int) -> int:
    """The nearest smaller size that can be halved often: 4 to 7 times a power of two."""
    power = max(0, (side // SMALLEST).bit_length() - 1)
    return side >> power << power
