"""Encoder and decoder networks for pictures of any size.

Both take and give plain tensors: an encoder (B, C, H, W) -> (B, 2 z), a decoder (B, z) -> (B, maps, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from castalia.nn.residual import ACTIVATIONS, Activation, ResidualConv


class DenseEncoder(nn.Module):
    """The multilayer perceptron of Kingma & Welling, appendix C, with any number of hidden layers."""

    def __init__(self, shape: tuple[int, int, int], widths: Sequence[int], out: int, activation: Activation) -> None:
        super().__init__()
        size = shape[0] * shape[1] * shape[2]
        layers: list[nn.Module] = [nn.Flatten()]
        for width in widths:
            layers += [nn.Linear(size, width), ACTIVATIONS[activation]()]
            size = width
        self.body = nn.Sequential(*layers, nn.Linear(size, out))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class DenseDecoder(nn.Module):
    """The mirror image of :class:`DenseEncoder`. The last layer has no bias: the model adds a base map."""

    def __init__(self, latent: int, widths: Sequence[int], shape: tuple[int, int, int], activation: Activation) -> None:
        super().__init__()
        size = latent
        layers: list[nn.Module] = []
        for width in reversed(widths):
            layers += [nn.Linear(size, width), ACTIVATIONS[activation]()]
            size = width
        layers += [nn.Linear(size, shape[0] * shape[1] * shape[2], bias=False), nn.Unflatten(1, shape)]
        self.body = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z)


def _sizes(height: int, width: int, levels: int) -> list[tuple[int, int]]:
    """Height and width after 0, 1, ..., ``levels`` halvings, rounding up."""
    sizes = [(height, width)]
    for _ in range(levels):
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append((height, width))
    return sizes


class ConvEncoder(nn.Module):
    """A level per width: a convolution of stride 2, then residual blocks; at the end two dense layers."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        widths: Sequence[int],
        blocks: int,
        hidden: int,
        out: int,
        activation: Activation,
    ) -> None:
        super().__init__()
        channels, height, width = shape
        act = ACTIVATIONS[activation]
        layers: list[nn.Module] = []
        for wide in widths:
            layers.append(nn.Conv2d(channels, wide, 3, stride=2, padding=1))
            layers += [ResidualConv(wide, activation) for _ in range(blocks)]
            layers.append(act())
            channels = wide
        h, w = _sizes(height, width, len(widths))[-1]
        layers += [nn.Flatten(), nn.Linear(channels * h * w, hidden), act(), nn.Linear(hidden, out)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class ConvDecoder(nn.Module):
    """The mirror image of :class:`ConvEncoder`: residual blocks, then a transposed convolution, per level.

    With ``top`` > 0 the last transposed convolution gives ``top`` channels at full resolution, and a 3x3
    convolution makes the outputs of them: finer edges for more work.
    """

    def __init__(
        self,
        latent: int,
        widths: Sequence[int],
        blocks: int,
        hidden: int,
        shape: tuple[int, int, int],
        activation: Activation,
        top: int = 0,
    ) -> None:
        super().__init__()
        maps, height, width = shape
        act = ACTIVATIONS[activation]
        self.sizes = _sizes(height, width, len(widths))
        h, w = self.sizes[-1]
        self.dense = nn.Sequential(
            nn.Linear(latent, hidden),
            act(),
            nn.Linear(hidden, widths[-1] * h * w),
            nn.Unflatten(1, (widths[-1], h, w)),
        )
        levels: list[nn.Module] = []
        outs = [top or maps, *widths[:-1]]
        for wide, out in zip(reversed(widths), reversed(outs), strict=True):
            residual = [ResidualConv(wide, activation) for _ in range(blocks)]
            levels.append(nn.Sequential(*residual, act(), nn.ConvTranspose2d(wide, out, 4, stride=2, padding=1)))
        self.levels = nn.ModuleList(levels)
        self.head = nn.Sequential(act(), nn.Conv2d(top, maps, 3, padding=1)) if top else nn.Identity()

    def forward(self, z: Tensor) -> Tensor:
        x = self.dense(z)
        for level, (h, w) in zip(self.levels, reversed(self.sizes[:-1]), strict=True):
            x = level(x)[:, :, :h, :w]
        return self.head(x)
