"""One level of Jukebox's autoencoder: sound to codes at one rate, and back.

Dhariwal et al. 2020 (arXiv:2005.00341), section 3 and appendix B.1: strided convolutions with dilated residual blocks,
a codebook that follows by averages, codes that begin anew, and a loss on spectra beside the one on samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.models.autoencoders.quantiser import Quantiser, straight_through

Resolution = tuple[int, int, int]
"""Points of a transform, distance of its windows, their length."""


class Dilated(nn.Module):
    """x + conv1(relu(conv3 with a dilation(relu(x))))."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.second = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(F.relu(x))))


class Level(nn.Module):
    """Encoder, codebook and decoder of one rate.

    Args:
        channels: of the sound.
        downs: halvings of the rate.
        width: channels of all convolutions.
        depth: residual blocks after each halving, with dilations 1, growth, growth^2, ...
        growth: of the dilations.
        codes: size of the codebook.
        dims: of a code.
        decay: of the codebook's averages, per step.
        restart: a code whose share is below this part of the mean one begins anew; 0: never.
    """

    def __init__(
        self,
        channels: int,
        downs: int,
        width: int,
        depth: int,
        growth: int,
        codes: int,
        dims: int,
        decay: float,
        restart: float,
    ) -> None:
        super().__init__()
        self.hop, self.dims = 1 << downs, dims
        dilations = [growth**i for i in range(depth)]
        into: list[nn.Module] = []
        for i in range(downs):
            into.append(nn.Conv1d(width if i else channels, width, 4, 2, 1))
            into += [Dilated(width, d) for d in dilations]
        self.encoder = nn.Sequential(*into, nn.Conv1d(width, dims, 3, padding=1))
        out: list[nn.Module] = [nn.Conv1d(dims, width, 3, padding=1)]
        for _ in range(downs):
            out += [Dilated(width, d) for d in reversed(dilations)]
            out.append(nn.ConvTranspose1d(width, width, 4, 2, 1))
        self.decoder = nn.Sequential(*out, nn.Conv1d(width, channels, 3, padding=1))
        self.quantiser = Quantiser(codes, dims, "ema", decay, restart)

    def rows(self, x: Tensor) -> Tensor:
        """What the encoder finds, a row for each code, ``float32`` (B T / hop, dims), of sound (B, C, T)."""
        return self.encoder(x).float().transpose(1, 2).flatten(0, 1)

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """Codes ``int64`` (B, T / hop) of sound (B, C, T), T a multiple of the hop."""
        return self.quantiser.nearest(self.rows(x)).view(len(x), -1)

    def sound(self, codes: Tensor) -> Tensor:
        """Sound ``float32`` (B, C, T hop) of codes (B, T)."""
        return self.decoder(self.quantiser.vectors(codes).transpose(1, 2)).float()

    def through(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sound made again, what the encoder found, which codes that is, and their distance (mean square of a row)."""
        z = self.rows(x)
        index = self.quantiser.nearest(z)
        quantised = self.quantiser.vectors(index)
        passed = straight_through(z, quantised).view(len(x), -1, self.dims).transpose(1, 2)
        commitment = (z - quantised.detach()).square().mean()
        return self.decoder(passed).float(), z, index, commitment


def magnitudes(x: Tensor, resolution: Resolution) -> Tensor:
    """Magnitudes (B, bins, frames) of mono sound (B, T)."""
    points, hop, window = resolution
    hann = torch.hann_window(window, device=x.device)
    spectrum = torch.stft(x.float(), points, hop, window, hann, center=True, pad_mode="constant", return_complex=True)
    return (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt()


def spectral_loss(x: Tensor, y: Tensor, resolutions: Sequence[Resolution]) -> Tensor:
    """Mean over resolutions and examples of |S(x) - S(y)| / |S(x)|, of sound (B, C, T): its channels mixed.

    The paper divides by the mean strength of the data; dividing by the example's own weighs quiet ones alike. Silence
    is measured against a hundredth of full scale.
    """
    one, two = x.mean(1), y.mean(1)
    total = x.new_zeros(())
    for resolution in resolutions:
        a, b = magnitudes(one, resolution), magnitudes(two, resolution)
        least = 0.01 * resolution[2] ** 0.5 * a.shape[2] ** 0.5
        apart = ((a - b).square().sum((1, 2)) + 1e-12).sqrt()  # whose gradient is finite where they are equal
        total = total + (apart / a.square().sum((1, 2)).sqrt().clamp(min=least)).mean()
    return total / max(len(resolutions), 1)


def spectral_convergence(x: Tensor, y: Tensor, resolution: Resolution) -> Tensor:
    """|S(x) - S(y)| / |S(x)| of each example, in decibels (20 log10), (B,)."""
    a, b = magnitudes(x.mean(1), resolution), magnitudes(y.mean(1), resolution)
    ratio = (a - b).square().sum((1, 2)).sqrt() / a.square().sum((1, 2)).sqrt().clamp(min=1e-6)
    return 20 * ratio.clamp(min=1e-6).log10()


def largest(error: Tensor, count: int) -> Tensor:
    """Mean of the ``count`` largest squared errors of each example, (B, C, T) to (): the paper's mix with a maximum."""
    flat = error.square().flatten(1)
    return flat.topk(min(count, flat.shape[1]), 1).values.mean()
