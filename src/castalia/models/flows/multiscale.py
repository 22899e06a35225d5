"""Layers one behind the other, at several scales, down to standard normal latents (Dinh et al. 2016, section 3.6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast, final

import torch
from torch import Tensor, nn

from castalia.core.errors import UsageError
from castalia.models.flows.conditioners import NormedConv
from castalia.models.flows.layers import ActNorm, Layer, Sequential, Squeeze
from castalia.models.flows.priors import Factor, Prior


@final
class MultiScale(nn.Module):
    """An invertible map from examples to standard normal latents, with the density that follows from it.

    Args:
        shape: of one example, as the first layer sees it.
        levels: the layers of each level, in order.
        factors: what leaves after each level but the last.
        prior: of what is left after the last.
    """

    def __init__(
        self, shape: tuple[int, ...], levels: Sequence[Sequence[Layer]], factors: Sequence[Factor], prior: Prior
    ) -> None:
        super().__init__()
        if len(factors) != len(levels) - 1:
            raise ValueError("something leaves after every level but the last")
        self.shape, self.dims = shape, math.prod(shape)
        self.levels = nn.ModuleList(nn.ModuleList(layers) for layers in levels)
        self.factors = nn.ModuleList(factors)
        self.prior = prior
        self.shapes = _shapes(shape, levels)

    def forward(self, y: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latents (B, dims), what left last first, and log p(y), (B,)."""
        h = y.reshape(y.shape[0], *self.shape)
        if h.ndim == 4:
            h = h.contiguous(memory_format=torch.channels_last)
        total, latents = h.new_zeros(y.shape[0]), []
        for number, layers in enumerate(self.levels):
            for layer in cast("nn.ModuleList", layers):
                h, log_det = layer(h, label) if isinstance(layer, Sequential) else layer(h)
                total = total + log_det
            if number < len(self.factors):
                h, eps, log_p = self.factors[number](h)
                latents.append(eps.flatten(1))
                total = total + log_p
        eps, log_p = self.prior(h, label)
        latents.append(eps.flatten(1))
        return torch.cat(latents[::-1], 1), total + log_p

    def inverse(self, eps: Tensor, label: Tensor | None = None) -> Tensor:
        """Examples (B, *shape) of latents (B, dims)."""
        sizes = [math.prod(shape) for shape in self.shapes[::-1]]
        parts = [part.unflatten(1, shape) for part, shape in zip(eps.split(sizes, 1), self.shapes[::-1], strict=True)]
        h = self.prior.inverse(parts[0], label)
        for number in reversed(range(len(self.levels))):
            if number < len(self.factors):
                h = cast("Factor", self.factors[number]).inverse(h, parts[len(self.levels) - 1 - number])
            if h.ndim == 4:
                h = h.contiguous(memory_format=torch.channels_last)
            for layer in reversed(cast("nn.ModuleList", self.levels[number])):
                h = layer.inverse(h, label) if isinstance(layer, Sequential) else cast("Layer", layer).inverse(h)
        return h

    @torch.no_grad()
    def fit(self, y: Tensor, label: Tensor | None = None) -> None:
        """Set what depends on data before the first step: activation norms, running statistics of batch norms."""
        parts = list(self.modules())
        norms = [p for p in parts if isinstance(p, nn.modules.batchnorm._BatchNorm)]
        kept = [(p, p.training, p.momentum) for p in norms]
        for p in parts:
            if isinstance(p, ActNorm | NormedConv):
                p.fitting = True
        for p in norms:
            p.train()
            p.momentum = 1.0
        try:
            self(y, label)
        finally:
            for p in parts:
                if isinstance(p, ActNorm | NormedConv):
                    p.fitting = False
            for p, training, momentum in kept:
                p.train(training)
                p.momentum = momentum


def _shapes(shape: tuple[int, ...], levels: Sequence[Sequence[Layer]]) -> list[tuple[int, ...]]:
    """Shapes of the latents that leave after each level."""
    found, current = [], shape
    for number, layers in enumerate(levels):
        for layer in layers:
            if isinstance(layer, Squeeze):
                c, h, w = current
                current = 4 * c, h // 2, w // 2
        if number < len(levels) - 1:
            current = current[0] // 2, *current[1:]
        found.append(current)
    return found


def check_halvings(height: int, width: int, halvings: int, option: str) -> None:
    """Refuse pictures whose sides cannot be halved so often.

    Raises:
        UsageError: with the most that there can be.
    """
    most, h, w = 0, height, width
    while h % 2 == 0 and w % 2 == 0 and min(h, w) > 1:
        most, h, w = most + 1, h // 2, w // 2
    if halvings > most:
        times = {0: "not at all", 1: "once", 2: "twice"}.get(most, f"{most} times")
        raise UsageError(
            f"Pictures of {height}x{width} can be halved {times}, and {option} asks for {halvings}. Give fewer, or "
            "another size: data.options.size=32, for example."
        )
