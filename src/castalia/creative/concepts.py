"""Concepts that a generator's units are compared with: where in a picture is something red, bright, at the top?

A segmenter is anything with ``names`` that maps pictures to maps. :class:`Simple` needs no network and no download; it
is soft, so that gradients flow. A segmenter of one's own, a network for example, is a function away: :class:`Own`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, final

import torch
import torch.nn.functional as F
from torch import Tensor

from castalia.core.errors import DataError

COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "white": (255, 255, 255),
    "red": (214, 40, 40),
    "orange": (240, 140, 40),
    "yellow": (245, 210, 60),
    "green": (50, 150, 70),
    "cyan": (60, 190, 200),
    "blue": (50, 90, 200),
    "purple": (130, 60, 160),
    "pink": (240, 130, 180),
    "brown": (130, 90, 60),
}
"""Names of colours, and a typical value of each."""

SOFT = 20.0
"""Levels, of 255, over which one colour passes into another, and dark into bright."""

DARK, BRIGHT, EDGE = 64.0, 192.0, 60.0
"""Levels: below is dark, above is bright; a slope above this many levels per pixel is an edge."""


class Segmenter(Protocol):
    """Maps of concepts.

    Attributes:
        names: of the concepts, K.
    """

    names: tuple[str, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """How sure it is, ``float32`` (B, K, H, W), 0 to 1, of pictures ``float32`` (B, C, H, W), 0 to 255."""
        ...


@final
class Simple:
    """Colours (every pixel is of the nearest), dark, bright, edges, and thirds of the picture.

    Args:
        channels: of the pictures: 1, 3, or 4 (over white). Grey pictures have no colours.
    """

    def __init__(self, channels: int) -> None:
        self.channels = channels
        colours = tuple(COLOURS) if channels >= 3 else ()
        self.names = (*colours, "dark", "bright", "edge", "top", "middle", "bottom", "left", "centre", "right")

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[1] == 4:
            alpha = x[:, 3:].clamp(0, 255) / 255
            x = x[:, :3] * alpha + 255 * (1 - alpha)
        parts = []
        if self.channels >= 3:
            typical = torch.tensor(list(COLOURS.values()), dtype=x.dtype, device=x.device)
            distance = (x[:, None] - typical[None, :, :, None, None]).square().sum(2)
            parts.append((-distance / (2 * SOFT**2)).softmax(1))
            weights = torch.tensor([0.299, 0.587, 0.114], dtype=x.dtype, device=x.device)
            grey = (x * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)
        else:
            grey = x[:, :1]
        parts += [((DARK - grey) / SOFT * 4).sigmoid(), ((grey - BRIGHT) / SOFT * 4).sigmoid()]
        padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
        across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
        down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
        slope = (across.square() + down.square() + 1e-6).sqrt()
        parts.append(((slope - EDGE) / SOFT * 4).sigmoid())
        height, width = x.shape[2:]
        for length, shape in ((height, (-1, 1)), (width, (1, -1))):
            third = torch.arange(length, device=x.device) * 3 // length
            for i in range(3):
                one = (third == i).to(x.dtype).view(shape)
                parts.append(one.expand(len(x), 1, height, width))
        return torch.cat(parts, 1)


@final
class Own:
    """A segmenter of one's own.

    Args:
        names: of the concepts, K.
        call: from pictures ``float32`` (B, C, H, W), 0 to 255, to (B, K, h, w), 0 to 1; scaled to the pictures' size if
            it is another. (B, K) is about the whole picture: a classifier.
    """

    def __init__(self, names: Sequence[str], call: Callable[[Tensor], Tensor]) -> None:
        self.names, self.call = tuple(names), call

    def __call__(self, x: Tensor) -> Tensor:
        out = self.call(x).float()
        if out.ndim == 2:
            out = out[:, :, None, None].expand(-1, -1, *x.shape[2:])
        if out.ndim != 4 or out.shape[:2] != (len(x), len(self.names)):
            raise DataError(
                f"A segmenter of {len(self.names)} concepts must give ({len(x)}, {len(self.names)}, height, width) for "
                f"{len(x)} pictures; it gave {tuple(out.shape)}."
            )
        if out.shape[2:] != x.shape[2:]:
            out = F.interpolate(out, x.shape[2:], mode="bilinear", align_corners=False)
        return out


@final
class Several:
    """The concepts of several segmenters, one behind the other."""

    def __init__(self, parts: Sequence[Segmenter]) -> None:
        self.parts = tuple(parts)
        self.names = tuple(name for part in parts for name in part.names)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], 1)
