"""The networks that diffusion models denoise with: the U-Net for pictures, a residual perceptron for points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.diffusion.transformer import Transformer
from castalia.nn.embeddings import sinusoids
from castalia.nn.unet import UNet, UNetConfig


@dataclass(frozen=True)
class PerceptronConfig:
    """Configuration of the network for points.

    Attributes:
        width: of every hidden layer; even.
        blocks: residual blocks of two layers.
        waves: sines and cosines of 1, 2, 4, ... times each coordinate that the network sees besides it, for detail
            much finer than the whole (Tancik et al. 2020, arXiv:2006.10739).
    """

    width: int = 128
    blocks: int = 3
    waves: int = 5

    def __post_init__(self) -> None:
        if self.width < 4 or self.width % 2 or self.blocks < 1 or self.waves < 0:
            raise ValueError("width must be even and at least 4, blocks at least 1, waves not negative")


@final
class Perceptron(nn.Module):
    """Points (B, dims) and times to (B, outputs); called as :class:`castalia.nn.unet.UNet` is.

    Label number ``classes`` is the null class.
    """

    def __init__(self, config: PerceptronConfig, dims: int, outputs: int, classes: int = 0) -> None:
        super().__init__()
        self.config, self.classes, width = config, classes, config.width
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.projection = nn.Linear(width, config.blocks * width)
        self.first = nn.Linear((1 + 2 * config.waves) * dims, width)
        self.enter = nn.ModuleList(nn.Linear(width, width) for _ in range(config.blocks))
        self.leave = nn.ModuleList(nn.Linear(width, width) for _ in range(config.blocks))
        self.last = nn.Linear(width, outputs)
        for layer in (*self.leave, self.last):
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def embed(self, t: Tensor, label: Tensor | None = None) -> Tensor:
        """What all blocks need to know of times (B,) and labels (B,); None is the null class."""
        h = self.time(sinusoids(t, self.config.width).to(self.projection.weight.dtype))
        if self.label is not None:
            h = h + self.label(torch.full(t.shape, self.classes, device=t.device) if label is None else label)
        return self.projection(F.silu(h))

    def forward_embedded(self, x: Tensor, embedding: Tensor) -> Tensor:
        """The network without its embeddings, (B, dims) to (B, outputs) in the type of ``x``."""
        waves = (x[:, None] * 2.0 ** torch.arange(self.config.waves, device=x.device)[:, None]).flatten(1)
        features = torch.cat([x, waves.sin(), waves.cos()], 1)
        h = self.first(features.to(self.first.weight.dtype))
        for enter, leave, e in zip(self.enter, self.leave, embedding.chunk(self.config.blocks, 1), strict=True):
            h = h + leave(F.silu(enter(F.silu(h)) + e))
        return self.last(F.silu(h)).to(x.dtype)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Points (B, dims), times (B,) and labels (B,) to (B, outputs)."""
        return self.forward_embedded(x, self.embed(t, label))


Network = UNet | Perceptron | Transformer


def network_of(
    spec: ImageSpec | PointsSpec, unet: UNetConfig, perceptron: PerceptronConfig, maps: int, classes: int
) -> Network:
    """The network for a medium, with ``maps`` outputs for each channel or coordinate."""
    if isinstance(spec, ImageSpec):
        return UNet(unet, spec.channels, maps * spec.channels, classes)
    return Perceptron(perceptron, spec.dims, maps * spec.dims, classes)
