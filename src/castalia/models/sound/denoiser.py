"""DiffWave's network: a WaveNet that looks both ways, told how much noise there is, what class, and which mel frames.

Kong et al. 2021 (arXiv:2009.09761), figure 2 and section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEP_DIMS = 128


def step_features(t: Tensor) -> Tensor:
    """Sines and cosines of a step (n,) at 64 frequencies from 1 to 10,000, (n, 128); between whole steps in between.

    The frequencies are the paper's (eq. 6): between whole steps such waves say nothing, so that those are interpolated.
    """
    rate = 10.0 ** (torch.arange(STEP_DIMS // 2, device=t.device, dtype=torch.float64) * 4 / (STEP_DIMS // 2 - 1))
    below = t.double().floor()
    share = (t.double() - below)[:, None]
    low, high = ((below + k)[:, None] * rate for k in (0, 1))
    waves = [(1 - share) * f(low) + share * f(high) for f in (torch.sin, torch.cos)]
    return torch.cat(waves, 1).float()


class Block(nn.Module):
    """A residual layer (figure 2): both ways, with the step added before it and what is heard inside the gate."""

    def __init__(self, channels: int, kernel: int, dilation: int, classes: int, bands: int, width: int) -> None:
        super().__init__()
        self.step = nn.Linear(width, channels)
        self.dilated = nn.Conv1d(
            channels, 2 * channels, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2
        )
        self.label = nn.Embedding(classes + 1, 2 * channels) if classes else None
        self.mel = nn.Conv1d(bands, 2 * channels, 1) if bands else None
        self.out = nn.Conv1d(channels, 2 * channels, 1)

    def forward(self, x: Tensor, step: Tensor, label: Tensor | None, mel: Tensor | None) -> tuple[Tensor, Tensor]:
        h = self.dilated(x + self.step(step)[..., None])
        if self.label is not None and label is not None:
            h = h + self.label(label)[..., None]
        if self.mel is not None and mel is not None:
            h = h + self.mel(mel)
        gate, value = h.chunk(2, 1)
        onward, skip = self.out(torch.sigmoid(gate) * torch.tanh(value)).chunk(2, 1)
        return (x + onward) / math.sqrt(2), skip


class Upsampler(nn.Module):
    """Mel frames to one for each sample, by transposed convolutions over time and bands."""

    def __init__(self, factors: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ConvTranspose2d(1, 1, (3, 2 * f), (1, f), (1, (f + 1) // 2), output_padding=(0, f % 2)) for f in factors
        )

    def forward(self, mel: Tensor) -> Tensor:
        h = mel[:, None]
        for layer in self.layers:
            h = F.leaky_relu(layer(h), 0.4)
        return h[:, 0]


class Denoiser(nn.Module):
    """The noise in noisy sound (B, C, T).

    Args:
        sounds: channels of the sound.
        channels: of the residual path.
        dilations: of the layers, in order.
        kernel: taps, an odd number.
        classes: labels; 0 for none.
        bands: of the mel spectrogram; 0 for none.
        factors: whose product is the hop of the mel frames.
        width: of what is told of the step.
        fold: samples that stand side by side as channels of one place.
    """

    def __init__(
        self,
        sounds: int,
        channels: int,
        dilations: Sequence[int],
        kernel: int,
        classes: int,
        bands: int,
        factors: Sequence[int],
        width: int = 512,
        fold: int = 1,
    ) -> None:
        super().__init__()
        self.fold = fold
        self.step1, self.step2 = nn.Linear(STEP_DIMS, width), nn.Linear(width, width)
        self.into = nn.Conv1d(sounds * fold, channels, 1)
        self.upsample = Upsampler(factors) if bands else None
        self.blocks = nn.ModuleList(Block(channels, kernel, d, classes, bands, width) for d in dilations)
        self.skip = nn.Conv1d(channels, channels, 1)
        self.out = nn.Conv1d(channels, sounds * fold, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None, mel: Tensor | None = None) -> Tensor:
        """Noise (B, C, T) in ``x`` at steps ``t`` (B,), given labels (B,) and mel frames (B, bands, F), -1 if unknown.

        Frames reach to the end of ``x`` at least.
        """
        step = F.silu(self.step2(F.silu(self.step1(step_features(t)))))
        if self.upsample is not None and mel is not None:
            mel = self.upsample(mel)[..., : x.shape[-1]]
        length, channels = x.shape[-1], x.shape[1]
        x = F.pad(x, (0, -length % self.fold)).unflatten(-1, (-1, self.fold)).transpose(2, 3).flatten(1, 2)
        if mel is not None and self.fold > 1:
            mel = F.avg_pool1d(F.pad(mel, (0, -length % self.fold)), self.fold)
        h = F.relu(self.into(x))
        total = torch.zeros_like(h)
        for block in self.blocks:
            h, skip = block(h, step, label, mel)
            total = total + skip
        h = F.relu(self.skip(total / math.sqrt(len(self.blocks))))
        return self.out(h).unflatten(1, (channels, self.fold)).transpose(2, 3).flatten(2)[..., :length]
