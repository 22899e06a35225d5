"""The ground of CarRacing as a map that is looked up: what gymnasium paints anew for every frame.

The field is cut into blocks as large as its patches of grass. Most blocks are of one colour; those that the road
touches have a page of 128 by 128 cells, which say of which polygon they are. A polygon's colour is in a table, because
the road changes its colour where a car has been. Pages averaged over 8 by 8 and over 64 by 64 cells serve for frames
that are seen from far above, in the first second of an episode.

Colours are three 16-bit numbers in one of 64 bits, so that up to 256 of them can be added at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FIELD = 2000 / 6
"""Half of the side of the field."""
BLOCK = FIELD / 20
SHIFT = 7
"""Cells along a block, as a power of two."""
CELLS = 1 << SHIFT
PAD = 4
"""Blocks of nothing around the field; no camera that is near sees further."""
SIDE = 40 + 2 * PAD
WIDE = 64
"""Room for a row of blocks."""
NOTHING, PLAIN, GRASS, FIRST = 0, 1, 2, 3
"""Of what a cell is: black, the plain, a patch of grass; from here on: that polygon."""
EDGE = 0.03
"""How much wider than themselves polygons are painted: they cover every pixel of 1/16 that they touch."""


def packed(colours: np.ndarray) -> np.ndarray:
    """Colours (..., 3), 0 to 255, as ``uint64`` (...)."""
    c = colours.astype(np.uint64)
    return c[..., 0] | (c[..., 1] << np.uint64(16)) | (c[..., 2] << np.uint64(32))


def unpacked(colours: np.ndarray) -> np.ndarray:
    """Sums of colours ``uint64`` (...), as ``uint16`` (..., 3)."""
    return np.ascontiguousarray(colours).view(np.uint16).reshape(*colours.shape, 4)[..., :3]


def averaged(pages: np.ndarray, by: int) -> np.ndarray:
    """Pages of packed colours (P, S, S) averaged over squares of ``by`` cells: ``uint64`` (P, S / by, S / by)."""
    p, s = len(pages), pages.shape[1] // by
    rows = pages.reshape(p, s, by, s * by).sum(2)
    sums = rows.reshape(p, s, s, by).sum(3)
    return packed(unpacked(sums).astype(np.float64) / (by * by) + 0.5)


class Ground:
    """The ground of one track.

    Args:
        polygons: corners of convex quadrilaterals, in the order of painting, each (4, 2) in the units of the field.
        colours: of each, (N, 3), 0 to 255.
        plain: colour of the ground.
        grass: colour of its patches.
    """

    _scratch: np.ndarray | None = None

    def __init__(
        self,
        polygons: Sequence[np.ndarray],
        colours: np.ndarray,
        plain: Sequence[float] = (102, 204, 102),
        grass: Sequence[float] = (102, 230, 102),
    ) -> None:
        rows = np.concatenate([[(0, 0, 0), plain, grass], colours])
        self.colours = packed(np.trunc(rows))
        parity = np.arange(40) % 2 == 0
        blocks = np.full((SIDE, WIDE), NOTHING, np.int32)
        blocks[PAD : PAD + 40, PAD : PAD + 40] = np.where(parity[:, None] & parity[None, :], GRASS, PLAIN)
        pages = [np.full((CELLS, CELLS), kind, np.uint16) for kind in (NOTHING, PLAIN, GRASS)]
        cells = self._painted(polygons)
        whole = cells.reshape(SIDE, CELLS, SIDE, CELLS)
        for y, x in self._touched:
            page = whole[y, :, x, :].copy()
            whole[y, :, x, :] = 0
            page[page == 0] = blocks[y, x]
            blocks[y, x] = len(pages)
            pages.append(page)
        self.blocks = blocks.ravel()
        self.pages = np.stack(pages)
        self.levels: list[np.ndarray] = []

    def _painted(self, polygons: Sequence[np.ndarray]) -> np.ndarray:
        """Numbers of polygons from ``FIRST``, in a map that is used again by the next track."""
        side = SIDE * CELLS
        if Ground._scratch is None:
            Ground._scratch = np.zeros((side, side), np.uint16)
        cells, touched = Ground._scratch, set[tuple[int, int]]()
        for number, corners in enumerate(polygons, start=FIRST):
            at = (np.asarray(corners, np.float64) / BLOCK + 20 + PAD) * CELLS
            low = np.floor(at.min(0) - 1).astype(int).clip(0, side)
            high = np.ceil(at.max(0) + 1).astype(int).clip(0, side)
            if (high <= low).any():
                continue
            x, y = (np.arange(a, b, dtype=np.float32) + 0.5 for a, b in zip(low, high, strict=True))
            inside = np.ones((len(y), len(x)), bool)
            turn = np.sign(_area(at)) or 1.0
            for (ax, ay), (bx, by) in zip(at, np.roll(at, -1, 0), strict=True):
                nx, ny = turn * (ay - by), turn * (bx - ax)
                room = EDGE / BLOCK * CELLS * np.hypot(nx, ny)
                inside &= (nx * (x - ax))[None, :].astype(np.float32) >= (-room - ny * (y - ay))[:, None]
            cells[low[1] : high[1], low[0] : high[0]][inside] = number
            touched |= {
                (by, bx)
                for by in range(low[1] >> SHIFT, ((high[1] - 1) >> SHIFT) + 1)
                for bx in range(low[0] >> SHIFT, ((high[0] - 1) >> SHIFT) + 1)
            }
        self._touched = sorted(touched)
        return cells

    def paint(self, polygon: int, colour: np.ndarray) -> None:
        """Give a polygon another colour, where it is seen from near."""
        self.colours[FIRST + polygon] = packed(np.trunc(colour))

    def look(self, x: np.ndarray, y: np.ndarray, spacing: float) -> np.ndarray:
        """Packed colours at places in fixed point.

        Args:
            x: ``int32`` (...), cells from the corner of the map, times 65,536.
            y: the same.
            spacing: how far neighbouring places are apart, in cells.

        Returns:
            ``uint64`` (...).
        """
        level = 0 if spacing < 6 else 1 if spacing < 40 else 2
        shift = SHIFT - 3 * level  # 7, 4, 1
        within = 16 + 3 * level
        block = self.blocks[((y >> (16 + SHIFT)) << 6) + (x >> (16 + SHIFT))]
        mask = (1 << shift) - 1
        cell = (block << (2 * shift)) | (((y >> within) & mask) << shift) | ((x >> within) & mask)
        if level == 0:
            return self.colours.take(self.pages.reshape(-1).take(cell))
        while len(self.levels) < level:
            finer = self.levels[-1] if self.levels else self.colours[self.pages]
            self.levels.append(averaged(finer, 8))
        return self.levels[level - 1].reshape(-1).take(cell)


def _area(corners: np.ndarray) -> float:
    """Twice the area of a polygon, positive where its corners go round with the clock's opposite."""
    x, y = corners[:, 0], corners[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
