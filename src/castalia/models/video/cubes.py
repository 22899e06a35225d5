"""Networks of clips: convolutions over time and space, with attention along each axis.

Yan et al. 2021 (arXiv:2104.10157), section 3.1 and appendix A. Clips go in and come out as (B, T, C, H, W).
"""

from __future__ import annotations

from typing import cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.nn.attention import attend
from castalia.nn.groupnorm import GroupNorm
from castalia.nn.trusted import Conv3d, ConvTranspose3d


class AxialAttention(nn.Module):
    """The sum of attention along time, height and width: (B, C, T, H, W) in and out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width, bias=False) for _ in range(3))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = x.permute(0, 2, 3, 4, 1)  # (B, T, H, W, C)
        total = torch.zeros_like(h)
        for axis, (qkv, out) in enumerate(zip(self.qkv, self.out, strict=True), start=1):
            along = h.movedim(axis, 3)
            q, k, v = qkv(along).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0).transpose(-2, -3).unbind(0)
            shape = q.shape
            q, k, v = (z.flatten(0, -4) for z in (q, k, v))
            mixed = attend(q, k, v).view(shape).transpose(-2, -3).flatten(-2)
            total = total + out(mixed).movedim(3, axis)
        return total.permute(0, 4, 1, 2, 3)


class Residual(nn.Module):
    """x + attention(conv1(conv3(x))), each behind a normalisation and a rectifier."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = Norm(width), Norm(width // 2), Norm(width)
        self.conv = Conv3d(width, width // 2, 3, padding=1, bias=False)
        self.back = Conv3d(width // 2, width, 1, bias=False)
        self.attention = AxialAttention(width, heads)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(F.relu(self.norm1(x)))
        h = self.back(F.relu(self.norm2(h)))
        return x + self.attention(F.relu(self.norm3(h)))


class Norm(nn.Module):
    """Group normalisation of (B, C, T, H, W): one clip's values do not depend on another's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        groups = next(g for g in (8, 4, 2, 1) if width % g == 0)
        self.norm = GroupNorm(groups, width, 1e-5, silu=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.flatten(2, 3)).view_as(x)


def steps(halve_time: int, halve_space: int) -> list[tuple[int, int, int]]:
    """Strides of each halving: time first along with space, as long as there is some of it."""
    return [
        (2 if i < halve_time else 1, 2 if i < halve_space else 1, 2 if i < halve_space else 1)
        for i in range(max(halve_time, halve_space))
    ]


@final
class Encoder(nn.Module):
    """Clips (B, T, C, H, W) in [-1, 1] to vectors (B, dims, t, h, w)."""

    def __init__(
        self, channels: int, width: int, dims: int, blocks: int, heads: int, halve_time: int, halve_space: int
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for stride in steps(halve_time, halve_space):
            kernel = cast("tuple[int, int, int]", tuple(4 if s == 2 else 3 for s in stride))
            layers += [Conv3d(channels, width, kernel, stride=stride, padding=1), nn.ReLU()]
            channels = width
        self.down = nn.Sequential(*layers, Conv3d(width, width, 3, padding=1))
        self.blocks = nn.Sequential(*(Residual(width, heads) for _ in range(blocks)))
        self.norm, self.last = Norm(width), Conv3d(width, dims, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.norm(self.blocks(self.down(x.transpose(1, 2))))))


@final
class Decoder(nn.Module):
    """Vectors (B, dims, t, h, w) to clips (B, T, C, H, W) in [-1, 1]."""

    def __init__(
        self, channels: int, width: int, dims: int, blocks: int, heads: int, halve_time: int, halve_space: int
    ) -> None:
        super().__init__()
        self.first = Conv3d(dims, width, 1)
        self.blocks = nn.Sequential(*(Residual(width, heads) for _ in range(blocks)))
        self.norm = Norm(width)
        layers: list[nn.Module] = []
        ways = list(reversed(steps(halve_time, halve_space)))
        for i, stride in enumerate(ways):
            last = i == len(ways) - 1
            kernel = cast("tuple[int, int, int]", tuple(4 if s == 2 else 3 for s in stride))
            layers.append(ConvTranspose3d(width, channels if last else width, kernel, stride=stride, padding=1))
            if not last:
                layers.append(nn.ReLU())
        self.up = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        h = F.relu(self.norm(self.blocks(self.first(z))))
        return self.up(h).transpose(1, 2)
