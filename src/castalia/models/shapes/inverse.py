"""The networks of inverse graphics: from a picture to a deformed sphere, its texture, and where it was taken from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.errors import UsageError
from castalia.nn.rasteriser import Camera

SMALLEST = 4
"""Pixels along the shorter side at which convolutions end, at least."""

MOST = 512
"""Channels."""

LOG_STD = (-7.0, 2.0)

TURN = 30.0
"""Degrees that a camera's parameter of 1 turns it."""

STRETCH = 0.3
"""Of the logarithm of its distance."""

FOREIGN = 24
"""Levels of 255 by which a pixel differs from the border where it belongs to the thing, of pictures without alpha."""


def norm(channels: int) -> nn.Module:
    """Group normalisation with as many groups as go, at most 8."""
    return nn.GroupNorm(next(g for g in (8, 4, 2, 1) if channels % g == 0), channels)


class Codes(NamedTuple):
    """What an encoder says of pictures.

    Attributes:
        mean: of the codes of shape and texture, (B, d).
        log_std: of them.
        azimuth: cosine and sine of where the camera is, (B, 2), of length 1.
        camera: its elevation and distance as parameters of a :class:`Seats`, (B, 2).
    """

    mean: Tensor
    log_std: Tensor
    azimuth: Tensor
    camera: Tensor


class PictureEncoder(nn.Module):
    """Pictures (B, C, H, W), 0 to 1 and 0 outside the mask, and masks (B, 1, H, W) to :class:`Codes`.

    The mean colour of what is seen stands beside what convolutions make of it, because normalisation takes that away.

    Args:
        channels: of the pictures.
        size: height and width.
        width: channels of the first convolution; they double as the picture halves.
        dims: length of the code.
    """

    def __init__(self, channels: int, size: tuple[int, int], width: int, dims: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        now, (height, across) = channels + 1, size
        while min(height, across) > SMALLEST:
            after = min(width, MOST)
            layers += [nn.Conv2d(now, after, 3, 2, 1), norm(after), nn.SiLU()]
            now, width, height, across = after, 2 * width, -(-height // 2), -(-across // 2)
        if not layers:
            raise UsageError(f"Pictures of {size[1]} x {size[0]} are too small; make data.options.size larger.")
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.all = nn.Linear(now * height * across + channels, 2 * dims)
        self.codes = nn.Linear(2 * dims, 2 * dims)
        self.seat = nn.Linear(2 * dims, 4)

    def forward(self, x: Tensor, mask: Tensor) -> Codes:
        colour = x.sum((2, 3)) / mask.sum((2, 3)).clamp(min=1)
        h = F.silu(self.all(torch.cat([self.body(2 * torch.cat([x, mask], 1) - 1), 4 * colour - 2], 1)))
        mean, log_std = self.codes(h).float().chunk(2, 1)
        around, rest = self.seat(h).float().split([2, 2], 1)
        return Codes(mean, (log_std - 3).clamp(*LOG_STD), F.normalize(around, dim=1, eps=1e-6), rest)


class ShapeDecoder(nn.Module):
    """Codes (B, d) to how far each vertex moves, (B, V, 3); hardly, at first.

    Args:
        dims: length of the code.
        hidden: width of the two layers between.
        vertices: how many.
    """

    def __init__(self, dims: int, hidden: int, vertices: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(dims, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 3 * vertices)
        )
        last = self.body[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.zero_()

    def forward(self, code: Tensor) -> Tensor:
        with torch.autocast(code.device.type, enabled=False):  # eight bits are too few for places
            return self.body(code.float()).unflatten(1, (-1, 3))


class TextureDecoder(nn.Module):
    """Codes (B, d) to textures (B, C, T, T), 0 to 1, which go round: what convolutions make, on one colour.

    Args:
        dims: length of the code.
        side: T, a power of two, at least 8.
        width: channels of the largest maps; they double as the map halves.
        channels: C.
    """

    def __init__(self, dims: int, side: int, width: int, channels: int) -> None:
        super().__init__()
        times = (side // 4).bit_length() - 1
        widths = [min(width << (times - i), MOST) for i in range(times + 1)]
        self.first = widths[0]
        self.dense = nn.Linear(dims, 16 * widths[0])
        self.colour = nn.Linear(dims, channels)
        self.levels = nn.ModuleList(
            nn.Sequential(norm(a), nn.SiLU(), nn.Upsample(scale_factor=2), Around(a, b)) for a, b in pairwise(widths)
        )
        self.last = nn.Sequential(norm(widths[-1]), nn.SiLU(), Around(widths[-1], channels))

    def forward(self, code: Tensor) -> Tensor:
        x = self.dense(code).unflatten(1, (self.first, 4, 4))
        for level in self.levels:
            x = level(x)
        return (self.last(x) + self.colour(code)[:, :, None, None]).float().sigmoid()


class Around(nn.Module):
    """A convolution over 3 x 3 places of maps that go round: what leaves on the right comes in on the left."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1, 1, 0, 0), mode="circular")
        return self.conv(F.pad(x, (0, 0, 1, 1), mode="replicate"))


class Seats(nn.Module):
    """A camera for each viewpoint, which begins where a person says, and is found more exactly in training.

    Args:
        azimuth: degrees that were said of each.
        elevation: degrees from which all look down, at first.
        distance: of all, at first.
        view: degrees that a picture spans.

    Attributes:
        moved: (K, 3), in :data:`TURN` around and up, and :data:`STRETCH` away.
    """

    said: Tensor

    def __init__(self, azimuth: Sequence[float], elevation: float, distance: float, view: float) -> None:
        super().__init__()
        self.moved = nn.Parameter(torch.zeros(len(azimuth), 3))
        self.register_buffer("said", torch.tensor(azimuth, dtype=torch.float32))
        self.elevation, self.distance, self.view = elevation, distance, view

    def forward(self, number: Tensor) -> Camera:
        """The cameras of viewpoints ``int64`` (B,)."""
        moved = self.moved.index_select(0, number).float()
        return self.camera(self.said.index_select(0, number) + TURN * moved[:, 0], moved[:, 1:])

    def camera(self, azimuth: Tensor, rest: Tensor) -> Camera:
        """The cameras of azimuths (B,) in degrees, and elevations and distances as parameters (B, 2)."""
        up = (self.elevation + TURN * rest[:, 0]).clamp(-80, 80)
        return Camera(azimuth, up, self.distance * (STRETCH * rest[:, 1]).clamp(-1.5, 1.5).exp(), self.view)

    def usual(self, azimuth: Tensor) -> Camera:
        """Cameras at azimuths (B,), as high and as far as all are on average."""
        return self.camera(azimuth, self.moved[:, 1:].mean(0).expand(len(azimuth), -1))

    def azimuths(self) -> Tensor:
        """Degrees (K,) of all viewpoints, as they are believed to be."""
        return (self.said + TURN * self.moved[:, 0]) % 360


class RandomFeatures(nn.Module):
    """Maps of a network that was never trained, to compare pictures by, as networks that were are used.

    Distances between the maps of random networks agree with people's judgement nearly as well as those of trained ones
    do (Amir & Weiss 2021, "Understanding and Simplifying Perceptual Distances", CVPR), and need no download.

    Args:
        channels: of the pictures.
        width: of the first layer.
    """

    def __init__(self, channels: int, width: int = 16) -> None:
        super().__init__()
        for i, (a, b) in enumerate(((channels, width), (width, 2 * width), (2 * width, 4 * width))):
            weight = torch.randn(b, a, 3, 3)
            weight -= weight.mean((1, 2, 3), keepdim=True) if i else 0
            self.register_buffer(f"weight{i}", weight / (9 * a) ** 0.5)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Of pictures (B, C, H, W), 0 to 1: three maps, of which each place has length 1."""
        maps, x = [], 2 * x - 1
        for i in range(3):
            x = F.leaky_relu(F.conv2d(x, getattr(self, f"weight{i}").to(x.dtype), stride=2, padding=1), 0.2)
            maps.append(x / (x.square().sum(1, keepdim=True) + 1e-6).sqrt())
        return maps


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (B,) of masks (B, H, W), 0 to 1."""
    both = (a * b).sum((1, 2))
    return both / ((a + b).sum((1, 2)) - both).clamp(min=1e-6)


def degrees(around: Tensor) -> Tensor:
    """Azimuths (B,) in degrees, 0 to 360, of cosines and sines (B, 2)."""
    return torch.rad2deg(torch.atan2(around[:, 1], around[:, 0])) % 360


def border(x: Tensor) -> Tensor:
    """Mean colour (B, C) of the outermost pixels of pictures (B, C, H, W)."""
    edge = torch.cat([x[:, :, 0], x[:, :, -1], x[:, :, :, 0], x[:, :, :, -1]], 2)
    return edge.mean(2)


def foreground(x: Tensor) -> Tensor:
    """Masks (B, 1, H, W), 0 and 1, of pictures (B, C, H, W), 0 to 1: what differs from the border."""
    far = (x - border(x)[:, :, None, None]).abs().amax(1, keepdim=True)
    return (far > FOREIGN / 255).to(x.dtype)
