"""A vector-quantised autoencoder outside Castalia: its calls, and a picture made of them.

Drawing recomputes the whole grid for every code: a program has no cache.
"""

from __future__ import annotations

from torch import Tensor, nn

from castalia.models.autoencoders.codes import CodePrior
from castalia.models.autoencoders.quantiser import Quantiser
from castalia.nn.likelihoods import PixelLikelihood

PICTURE = """
codes = np.zeros((1, {cells}), np.int64)
for i in range({cells}):
    told = run("prior", codes{label})[0, i].astype(float)
    chance = np.exp(told - told.max())
    codes[0, i] = np.random.choice(len(chance), p=chance / chance.sum())
y = run("pictures", codes.reshape(1, {rows}, {columns}))[0]
"""
"""Codes one after another, then the picture, with NumPy alone."""


class Decode(nn.Module):
    """Code numbers (B, h, w) to outputs (B, maps, H, W), as one call for export."""

    def __init__(self, quantiser: Quantiser, decoder: nn.Module) -> None:
        super().__init__()
        self.quantiser, self.decoder = quantiser, decoder

    def forward(self, codes: Tensor) -> Tensor:
        return self.decoder(self.quantiser.vectors(codes).permute(0, 3, 1, 2))


class Pictures(nn.Module):
    """Code numbers (B, h, w) to expected pictures (B, C, H, W), 0 to 255, as one call for export."""

    def __init__(self, decode: Decode, pixels: PixelLikelihood) -> None:
        super().__init__()
        self.decode, self.pixels = decode, pixels

    def forward(self, codes: Tensor) -> Tensor:
        return self.pixels.expected(self.decode(codes))


class Prior(nn.Module):
    """Code numbers (B, cells) and labels (B,) to logits (B, cells, codes) of each given those before, as one call."""

    def __init__(self, prior: CodePrior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, codes: Tensor, label: Tensor | None = None) -> Tensor:
        return self.prior(codes, label)
