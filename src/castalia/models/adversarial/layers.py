"""Layers that generators and critics are put together from.

A network is a :class:`Chain`: layers one after another, some of which also see the class label.

Papers
    Class-conditional batch normalisation: Dumoulin et al. 2017 (arXiv:1610.07629), de Vries et al. 2017. Labels as maps
    beside the picture: Mirza & Osindero 2014 (arXiv:1411.1784). Projection: Miyato & Koyama 2018 (arXiv:1802.05637),
    eq. 3. Spectral normalisation: Miyato et al. 2018 (arXiv:1802.05957). Maxout: Goodfellow et al. 2013
    (arXiv:1302.4389). Packing: Lin et al. 2018 (arXiv:1712.04086).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import ParametrizationList

Weights = Literal["normal", "he", "torch"]

WEIGHTED = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class Labelled(nn.Module, ABC):
    """A layer that sees the class labels, ``int64`` (B,), beside its input (B, ...)."""

    @abstractmethod
    def forward(self, x: Tensor, label: Tensor) -> Tensor: ...


class Chain(nn.ModuleList):
    """Layers one after another; labelled ones also get the labels."""

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        for layer in self:
            x = layer(x, label) if isinstance(layer, Labelled) else layer(x)
        return x


class ConditionalNorm(Labelled):
    """Batch normalisation of (B, channels, ...) whose gain and bias belong to the class."""

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d, classes: int) -> None:
        super().__init__()
        self.norm = norm  # without a gain and bias of its own
        self.gain = nn.Embedding(classes, norm.num_features)
        self.bias = nn.Embedding(classes, norm.num_features)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        shape = (-1, x.shape[1], *[1] * (x.ndim - 2))
        return self.norm(x) * self.gain(label).view(shape) + self.bias(label).view(shape)


class LabelBeside(Labelled):
    """Puts the label beside the latents (B, z): as ones and zeros, or as an embedding of ``dims`` values."""

    def __init__(self, classes: int, dims: int) -> None:
        super().__init__()
        self.classes = classes
        self.embedding = nn.Embedding(classes, dims) if dims else None

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        code = one_hot(label, self.classes, x.dtype) if self.embedding is None else self.embedding(label)
        return torch.cat([x, code], 1)


class LabelMaps(Labelled):
    """Adds a channel per class, all ones for the example's own: (B, C, ...) -> (B, C + classes, ...)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        maps = one_hot(label, self.classes, x.dtype).view(len(x), -1, *[1] * (x.ndim - 2))
        return torch.cat([x, maps.expand(-1, -1, *x.shape[2:])], 1)


class Projection(Labelled):
    """Logits (B, 1) of features (B, F): a linear map plus the product of the features with the class's vector."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1)
        self.embedding = nn.Embedding(classes, features)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.linear(x) + (self.embedding(label) * x).sum(1, keepdim=True)


class Maxout(nn.Module):
    """Largest of ``pieces`` neighbouring values: (B, width * pieces) -> (B, width)."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.pieces)).amax(2)


class Crop(nn.Module):
    """The upper left part of given size of (B, C, H, W)."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, : self.height, : self.width]


class PadToEven(nn.Module):
    """A row and a column of zeros below and to the right of (B, C, H, W) where a side is odd."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.padding = (0, width % 2, 0, height % 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.padding)


class MeanPool(nn.Module):
    """Mean over all places: (B, C, H, W) -> (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def one_hot(label: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """Labels (B,) as ones and zeros (B, classes)."""
    return (label.unsqueeze(1) == torch.arange(classes, device=label.device)).to(dtype)


def halvings(height: int, width: int, times: int) -> list[tuple[int, int]]:
    """Height and width after 0, 1, ..., ``times`` halvings, rounding up."""
    sizes = [(height, width)]
    for _ in range(times):
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append((height, width))
    return sizes


def pack(x: Tensor, m: int) -> Tensor:
    """Every ``m`` neighbouring examples as one, channels (or features) side by side: (B, C, ...) -> (B/m, mC, ...)."""
    return x if m == 1 else x.reshape(len(x) // m, m * x.shape[1], *x.shape[2:])


@torch.no_grad()
def set_weights(network: nn.Module, how: Weights) -> None:
    """Draw initial weights; biases become zero unless torch draws them.

    Args:
        network: its last layer with weights is the output layer.
        how: ``normal``: deviation 0.02 (Radford et al. 2016); ``he``: He et al. 2015, with gain 1 for the output layer
            and for layers called ``shortcut``; ``torch``: as torch made them.
    """
    if how == "torch":
        return
    layers = [(name, m) for name, m in network.named_modules() if isinstance(m, WEIGHTED)]
    for name, layer in layers:
        if how == "normal":
            nn.init.normal_(layer.weight, std=0.02)
        else:
            plain = layer is layers[-1][1] or name.endswith("shortcut")
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear" if plain else "relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def normalise_spectrally(network: nn.Module) -> None:
    """Divide every matrix of weights by its largest singular value, followed by one power iteration per pass."""
    for layer in list(network.modules()):
        if isinstance(layer, (*WEIGHTED, nn.Embedding)):
            spectral_norm(layer)


@contextmanager
def still(network: nn.Module) -> Iterator[None]:
    """Run a block in which passes through ``network`` leave its buffers alone.

    Batch normalisation goes on using the batch, but gathers no statistics; power iterations rest.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [m for m in norms if m.track_running_stats]
    spectra = [m for p in network.modules() if isinstance(p, ParametrizationList) for m in p]
    training = [m.training for m in spectra]
    if network.training:
        for norm in norms:
            norm.track_running_stats = False
    for part in spectra:
        part.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        for part, was in zip(spectra, training, strict=True):
            part.training = was
