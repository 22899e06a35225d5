"""Mel spectrograms: power in bands that are evenly spaced for the ear."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

BANDS = 64
QUIETEST = 1e-5
"""Amplitude below which a band counts as silent."""


def mel(frequency: np.ndarray) -> np.ndarray:
    """Hertz to mel (O'Shaughnessy 1987)."""
    return 2595 * np.log10(1 + frequency / 700)


def mel_filters(rate: int, size: int, bands: int = BANDS) -> np.ndarray:
    """Triangles evenly spaced in mel, ``float64`` (bands, size // 2 + 1), each with its peak at 1."""
    bins = mel(np.fft.rfftfreq(size, 1 / rate))
    edges = np.linspace(0, mel(np.array(rate / 2)), bands + 2)
    width = edges[1] - edges[0]
    return np.clip(1 - np.abs(bins[None] - edges[1:-1, None]) / width, 0, 1)


class LogMel(nn.Module):
    """Log-mel frames of sound, scaled so that a silent band is -1 and a full-scale tone 1 to 1.12, by how
    many bins of a band it fills.

    Args:
        rate: samples a second.
        bands: how many.
        hop: samples from frame to frame; windows (Hann) have four times as many, rounded to a power of 2.
    """

    filters: Tensor
    window: Tensor

    def __init__(self, rate: int, bands: int, hop: int) -> None:
        super().__init__()
        self.hop, self.size = hop, 1 << max(6, math.ceil(math.log2(4 * hop)))
        filters = mel_filters(rate, self.size, bands)
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(self.size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Frames (B, bands, T / hop rounded up) of mono sound (B, T), the first centred on its first sample."""
        frames = -(-x.shape[1] // self.hop)
        padded = F.pad(x.float(), (self.size // 2, self.size // 2 + self.hop))
        spectrum = torch.stft(padded, self.size, self.hop, window=self.window, center=False, return_complex=True)
        level = self.filters @ (spectrum.abs()[..., :frames] * (2 / self.window.sum()))
        return 1 + 2 / -math.log(QUIETEST) * level.clamp(min=QUIETEST).log()
