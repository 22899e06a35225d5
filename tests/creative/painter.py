"""A generator with known units: each draws a square of one colour, or nothing at all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from castalia.core.capabilities import Latents
from castalia.core.data import Batch
from castalia.core.rng import SampleRng
from castalia.core.sampling import Given
from castalia.core.specs.image import ImageSpec
from castalia.creative.concepts import Own

SIZE = 12
COLOURS = torch.tensor([[255.0, 0, 0], [0, 255.0, 0], [0, 0, 255.0]])
NAMES = ("red", "green", "blue")


class Squares(nn.Module):
    """Latents (B, 9) to maps (B, 6, 12, 12): three squares in bands of their own, and three maps of no use.

    Square k is there where latent 3 k is above 0, and lies where the next two say, 3 x 3 pixels within rows 4 k to 4 k + 3.
    """

    def forward(self, z: Tensor) -> Tensor:
        maps = torch.zeros(len(z), 6, SIZE, SIZE)
        for b, row in enumerate(z):
            for k in range(3):
                if row[3 * k] > 0:
                    left = int((row[3 * k + 1].tanh() + 1) / 2 * (SIZE - 3))
                    down = 4 * k + int(row[3 * k + 2] > 0)
                    maps[b, k, down : down + 3, left : left + 3] = 1 + 0.1 * row[3 * k]
        noise = torch.sin(torch.arange(3 * SIZE * SIZE).view(3, SIZE, SIZE) * (2.0 + z[:, :1, None, None]))
        maps[:, 3:] = noise
        return maps


class Colours(nn.Module):
    """Maps (B, 6, h, w) to pictures (B, 3, h, w) of 0 to 1: the first three have colours, the others none."""

    def forward(self, maps: Tensor) -> Tensor:
        return torch.einsum("bkhw,kc->bchw", maps[:, :3].clamp(0, 1), COLOURS / 255)


class Painter(nn.Module, Latents):
    """The whole, with what the systems have by which units are optimised."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_dims = 9
        self.spec = ImageSpec(3, SIZE, SIZE)
        self.squares, self.colours, self.unused = Squares(), Colours(), nn.Parameter(torch.zeros(1))
        self.labels = _None()

    def accepts(self) -> dict[str, Any]:
        return {}

    def generate(self, z: Tensor, label: Tensor | None, rng: object) -> Tensor:
        return self.colours(self.squares(z)) * 2 - 1

    @torch.no_grad()
    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        return Batch.of((self.colours(self.squares(z)) * 255).round().to(torch.uint8))


class _None:
    def usual(self, n: int) -> None:
        return None


def by_colour() -> Own:
    """A segmenter of the three colours, through which gradients flow."""
    return Own(NAMES, lambda x: torch.stack([x[:, k] - x.sum(1) + x[:, k] for k in range(3)], 1).clamp(0, 255) / 255)
