"""3x3 convolutions with a quarter of the multiplications.

Paper
    Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks" (arXiv:1509.09308): the algorithm called
    F(4x4, 3x3), whose three matrices (B^T, G, A^T) are :data:`INPUT`, :data:`WEIGHT` and :data:`OUTPUT`.

The picture is cut into tiles of 4x4, each with a frame of one pixel. Transformed tiles and transformed kernels of
6x6 are multiplied entry by entry, summed over channels: 36 matrix products instead of 9 for each of 16 pixels.

What differs, and why
    Tiles and kernels are transformed by one product with the 36x36 (36x9, 16x36) matrix of both directions, not
    by one direction after the other: on processors, multiplications are cheaper than another pass over memory.
    The work is done in pieces that stay in the cache.

Rounding errors are some four times those of the plain sum, and the largest some eight times (128 channels, results of
deviation 1: 2.4e-6 instead of 6e-7, at most 5e-5 instead of 6e-6).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WEIGHT = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
INPUT = (
    (4.0, 0.0, -5.0, 0.0, 1.0, 0.0),
    (0.0, -4.0, -4.0, 1.0, 1.0, 0.0),
    (0.0, 4.0, -4.0, -1.0, 1.0, 0.0),
    (0.0, -2.0, -1.0, 2.0, 1.0, 0.0),
    (0.0, 2.0, -1.0, -2.0, 1.0, 0.0),
    (0.0, 4.0, 0.0, -5.0, 0.0, 1.0),
)
OUTPUT = (
    (1.0, 1.0, 1.0, 1.0, 1.0, 0.0),
    (0.0, 1.0, -1.0, 2.0, -2.0, 0.0),
    (0.0, 1.0, 1.0, 4.0, 4.0, 0.0),
    (0.0, 1.0, -1.0, 8.0, -8.0, 1.0),
)

CACHED = 1 << 14
"""Numbers at each of the 36 entries of the tiles that are worked on at once, for each thread."""

TILE_COST, KERNEL_COST = 10_000, 6_000
"""A channel of a tile, and a kernel, take as long to transform as so many operations in products.

Fitted to times of layers and networks on one and two threads (Xeon with AVX-512, torch 2.13).
"""


def pays(shape: torch.Size, outputs: int) -> bool:
    """Whether it is worth while for pictures of a shape: from some 100 channels on, and the more the better."""
    examples, inputs, height, width = shape
    kernels, tiles = inputs * outputs, examples * _tiles(height) * _tiles(width)
    plain = 18 * kernels * examples * height * width
    this = tiles * (72 * kernels + TILE_COST * (inputs + outputs)) + KERNEL_COST * kernels
    return plain > this


def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve with zeros around the picture, as ``F.conv2d(x, weight, bias, padding=1)``.

    The derivatives are right, but take memory and time: for use without them.

    Args:
        x: (B, inputs, H, W), float32 or float64, fastest in channels-last order.
        weight: (outputs, inputs, 3, 3).
        bias: (outputs,).

    Returns:
        (B, outputs, H, W), channels last.
    """
    b, inputs, height, width = x.shape
    outputs = len(weight)
    down, across = _tiles(height), _tiles(width)
    to_weight, to_input, to_output = (_both_ways(m, x) for m in (WEIGHT, INPUT, OUTPUT))
    kernels = (to_weight @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(36, inputs, outputs)
    most = max(1, CACHED * torch.get_num_threads() // max(inputs, outputs))  # tiles at once
    rows = max(1, min(down, most // across))  # of tiles
    count = max(1, most // (rows * across))  # of examples
    frame = (1, 4 * across + 1 - width, 1, 4 * down + 1 - height)
    made: list[Tensor] = []
    for examples in x.split(count):
        framed = F.pad(examples, frame).permute(0, 2, 3, 1)
        n, (example, row, column, channel) = len(examples), framed.stride()
        parts: list[Tensor] = []
        for top in range(0, down, rows):
            r = min(rows, down - top)
            tiles = framed[:, 4 * top :].as_strided(
                (6, 6, n, r, across, inputs), (row, column, example, 4 * row, 4 * column, channel)
            )
            products = torch.bmm((to_input @ tiles.reshape(36, -1)).view(36, -1, inputs), kernels)
            pixels = (to_output @ products.view(36, -1)).view(4, 4, n, r, across, outputs)
            parts.append(pixels.permute(2, 3, 0, 4, 1, 5).contiguous().add_(bias))
        made.append(torch.cat(parts, 1))
    y = torch.cat(made).view(b, 4 * down, 4 * across, outputs)[:, :height, :width]
    return y.contiguous().permute(0, 3, 1, 2)


def _tiles(side: int) -> int:
    return -(-side // 4)


def _both_ways(matrix: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    one = like.new_tensor(matrix)
    return torch.kron(one, one)
