"""A linear model with closed-form answers: latents are rescaled pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from castalia.core.capabilities import Inference
from castalia.core.data import Batch
from castalia.core.rng import SampleRng
from castalia.core.sampling import Given
from castalia.core.specs.image import ImageSpec

SCALE = 16.0


class Linear(Inference):
    """z = (x - 128) / 16, pixel by pixel, for grey pictures of 1 x (z / 2)."""

    def __init__(self, latent_dims: int = 4) -> None:
        self.latent_dims = latent_dims
        self.spec = ImageSpec(1, 2, latent_dims // 2)
        self.largest = 0

    def encode(self, batch: Batch, *, rng: SampleRng | None = None) -> Tensor:
        self.largest = max(self.largest, len(batch))
        return (batch.x.flatten(1).float() - 128) / SCALE

    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        self.largest = max(self.largest, len(z))
        assert z.dtype == torch.float32
        return Batch.of((z * SCALE + 128).round().clamp(0, 255).to(torch.uint8).unflatten(1, self.spec.shape))

    def posterior_kl(self, batch: Batch) -> Tensor:
        return self.encode(batch) ** 2 / 2


def pictures(n: int, dims: int = 4, seed: int = 0, low: int = 64, high: int = 192) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (n, 1, 2, dims // 2), generator=generator, dtype=torch.uint8)
