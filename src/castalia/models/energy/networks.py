"""Networks that give an example its energies: one for each class, or one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from castalia.nn.trusted import Conv2d


class Strided(nn.Module):
    """Strided convolutions and a dense layer: the small network of textbooks, a fraction of a residual one's work."""

    def __init__(self, shape: tuple[int, int, int], widths: Sequence[int], hidden: int, out: int) -> None:
        super().__init__()
        channels, height, width = shape
        layers: list[nn.Module] = []
        for level, wide in enumerate(widths):
            size = 3 if level or min(height, width) < 16 else 5
            layers += [Conv2d(channels, wide, size, stride=2, padding=size // 2), nn.SiLU()]
            channels, height, width = wide, (height + 1) // 2, (width + 1) // 2
        layers += [nn.Flatten(), nn.Linear(channels * height * width, hidden), nn.SiLU()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        return in_full(self.head, self.body(x))


class Block(nn.Module):
    """Two 3x3 convolutions around a skip, halved by averaging where ``down``."""

    def __init__(self, channels: int, out: int, down: bool) -> None:
        super().__init__()
        self.first, self.second = Conv2d(channels, out, 3, padding=1), Conv2d(out, out, 3, padding=1)
        self.skip = Conv2d(channels, out, 1) if channels != out else nn.Identity()
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.skip(x) + self.second(F.silu(self.first(x))))
        return F.avg_pool2d(y, 2, ceil_mode=True) if self.down else y


class Residual(nn.Module):
    """The network of Du & Mordatch: a convolution, per width a block that halves and one that does not, a sum."""

    def __init__(self, shape: tuple[int, int, int], widths: Sequence[int], out: int) -> None:
        super().__init__()
        channels = widths[0]
        layers: list[nn.Module] = [Conv2d(shape[0], channels, 3, padding=1), nn.SiLU()]
        for wide in widths:
            layers += [Block(channels, wide, True), Block(wide, wide, False)]
            channels = wide
        self.body, self.head = nn.Sequential(*layers), nn.Linear(channels, out)

    def forward(self, x: Tensor) -> Tensor:
        return in_full(self.head, self.body(x).sum((2, 3)))


class Wide(nn.Module):
    """A wide residual network without normalisation (Zagoruyko & Komodakis 2016; Grathwohl et al. 2020).

    Args:
        shape: of a picture.
        depth: convolutions along the longest path: 6 n + 4, with n blocks in each of the three groups.
        widen: factor of the groups' 16, 32 and 64 channels.
        out: length of the result.
    """

    def __init__(self, shape: tuple[int, int, int], depth: int, widen: int, out: int) -> None:
        super().__init__()
        channels = 16
        layers: list[nn.Module] = [Conv2d(shape[0], channels, 3, padding=1)]
        for group, wide in enumerate((16 * widen, 32 * widen, 64 * widen)):
            for block in range((depth - 4) // 6):
                layers.append(WideBlock(channels, wide, 2 if group and not block else 1))
                channels = wide
        self.body, self.head = nn.Sequential(*layers, nn.LeakyReLU(0.2)), nn.Linear(channels, out)

    def forward(self, x: Tensor) -> Tensor:
        return in_full(self.head, self.body(x).mean((2, 3)))


class WideBlock(nn.Module):
    """Two 3x3 convolutions, each after a leaky ReLU, around a skip."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = Conv2d(channels, out, 3, padding=1)
        self.second = Conv2d(out, out, 3, stride=stride, padding=1)
        same = channels == out and stride == 1
        self.skip = nn.Identity() if same else Conv2d(channels, out, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.leaky_relu(self.first(F.leaky_relu(x, 0.2)), 0.2))
        return y + self.skip(x)


class Dense(nn.Module):
    """A perceptron, for points."""

    def __init__(self, dims: int, widths: Sequence[int], out: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide in widths:
            layers += [nn.Linear(dims, wide), nn.SiLU()]
            dims = wide
        self.body, self.head = nn.Sequential(*layers), nn.Linear(dims, out)

    def forward(self, x: Tensor) -> Tensor:
        return in_full(self.head, self.body(x))


def in_full(head: nn.Module, features: Tensor) -> Tensor:
    """The last layer in float32: energies are compared, and bfloat16 has two digits."""
    with torch.autocast(features.device.type, enabled=False):
        return head(features.float())


def bounded(network: nn.Module) -> nn.Module:
    """Bind all layers by spectral normalisation (Miyato et al. 2018, arXiv:1802.05957)."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            parametrizations.spectral_norm(module)
    return network
