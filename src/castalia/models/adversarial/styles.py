"""Styles: from latents to styles, mixing and truncating them, and noise beside them.

Papers
    Karras, Laine & Aila 2019 (arXiv:1812.04948): section 2 (mapping network, noise), 3.1 (mixing), appendix B
    (truncation in w), C (the mapping's learning rate). Karras et al. 2020b (arXiv:2006.06676), appendix D: classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.rng import Rng
from castalia.core.sampling import Sampling
from castalia.models.adversarial.layers import one_hot
from castalia.nn.equalised import EqualLinear, pixel_norm

Sizes = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class StyleOptions(Sampling):
    """How to draw styles. The temperature multiplies ``psi``.

    Attributes:
        psi: distance of a style from the mean one, relative to what the mapping says: 1 is the model; 0.7 gives less
            variety and more typical pictures; 0 the mean picture. Below 0: the opposite.
        layers: only so many styles, the coarsest, are brought closer; 0: all.
        noise: ``random``: new for each picture; ``constant``: the same for all; ``none``.
    """

    psi: float = 1.0
    layers: int = 0
    noise: Literal["random", "constant", "none"] = "random"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.psi) or self.layers < 0:
            raise ValueError("psi must be a number, and layers must not be negative")


def bend(x: Tensor) -> Tensor:
    """The nonlinearity of all layers: leaky, and keeping the mean square of a standard normal near 1."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


class Mapping(nn.Module):
    """Latents (B, z), and labels where there are classes, to vectors of styles ``float32`` (B, w).

    Latents are first normalised to mean square 1; so is the label's vector, which is put beside them.

    Args:
        latent_dims: length of the latents; 0: of labels alone.
        style_dims: length of the styles and of all layers between.
        layers: how many.
        classes: how many; 0: no labels.
        rate: learning rate relative to other networks'.

    Attributes:
        average: the mean style (w,), a buffer that :meth:`follow` moves.
    """

    average: Tensor

    def __init__(
        self, latent_dims: int, style_dims: int, layers: int = 8, classes: int = 0, rate: float = 0.01
    ) -> None:
        super().__init__()
        self.classes = classes
        self.embedding = EqualLinear(classes, style_dims) if classes else None
        inputs = [latent_dims + (style_dims if classes else 0), *[style_dims] * (layers - 1)]
        self.layers = nn.ModuleList(EqualLinear(n, style_dims, rate=rate) for n in inputs)
        self.register_buffer("average", torch.zeros(style_dims))

    def forward(self, z: Tensor | None, label: Tensor | None = None) -> Tensor:
        parts = [] if z is None else [pixel_norm(z.float())]
        if self.embedding is not None and label is not None:
            parts.append(pixel_norm(self.embedding(one_hot(label, self.classes, torch.float32)).float()))
        x = torch.cat(parts, 1)
        for layer in self.layers:
            x = bend(layer(x))
        return x.float()

    @torch.no_grad()
    def follow(self, w: Tensor, weight: float) -> None:
        """Move the average towards the mean of styles (B, w) by a share of the way."""
        self.average += weight * (w.mean(0) - self.average)


def per_layer(w: Tensor, layers: int) -> Tensor:
    """One style for all layers: (B, w) -> (B, layers, w)."""
    return w.unsqueeze(1).expand(-1, layers, -1)


def crossed(styles: Tensor, others: Tensor, rng: Rng, share: float) -> Tensor:
    """Styles (B, layers, w) of which, in a share of the examples, those from a random layer on are others'.

    The network thereby learns that neighbouring styles are independent (mixing regularisation).
    """
    layers = styles.shape[1]
    if layers < 2:
        return styles
    cut = 1 + rng.integers("cut", layers - 1)
    cut = torch.where(rng.uniform("mixing") < share, cut, layers)
    own = torch.arange(layers, device=styles.device) < cut[:, None]
    return torch.where(own[:, :, None], styles, others)


def truncated(styles: Tensor, average: Tensor, psi: float, layers: int = 0) -> Tensor:
    """Styles (B, layers, w), of which the first ``layers`` (0: all) keep ``psi`` of their distance from the average."""
    if psi == 1:
        return styles
    n = layers or styles.shape[1]
    return torch.cat([average + psi * (styles[:, :n] - average), styles[:, n:]], 1)


def draw_noise(rng: Rng, sizes: Sizes) -> list[Tensor]:
    """Noise ``float32`` (rows, 1, h, w) for each layer."""
    return [rng.at("noise", layer).normal("map", 1, h, w) for layer, (h, w) in enumerate(sizes)]


def no_noise(sizes: Sizes, device: torch.device) -> list[Tensor]:
    """Zeros in place of noise."""
    return [torch.zeros(1, 1, h, w, device=device) for h, w in sizes]


class Noise(nn.Module):
    """Adds noise to maps (B, C, h, w), as strong as was learned, beginning with none.

    Args:
        size: height and width.
        channels: a strength for each of so many; 0: one for all.

    Attributes:
        constant: the noise (1, 1, h, w) that is added where none is given, a buffer.
    """

    constant: Tensor

    def __init__(self, size: tuple[int, int], channels: int = 0) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(channels, 1, 1) if channels else torch.zeros(()))
        self.register_buffer("constant", torch.randn(1, 1, *size))

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        return x + ((self.constant if noise is None else noise) * self.strength).to(x.dtype)
