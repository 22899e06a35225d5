"""Which frequencies each layer of StyleGAN3 carries, at which rate and size, and the filters that keep it to them.

Paper
    Karras et al. 2021 (arXiv:2106.12423): section 3.2 and figure 4 (flexible layers), appendix C.1 and C.2 (Kaiser and
    jinc filters). Frequencies are in periods along the shorter side of the picture, rates in samples along it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Band:
    """What one layer's maps carry.

    Attributes:
        cutoff: frequencies up to here are passed (f_c).
        half_width: from there to twice this the filters fall (f_h is half of the transition).
        rate: samples along the shorter side of the picture (s).
        size: height and width of the maps, margins and all.
        channels: how many.
        critical: whether the cutoff lies at half the rate, so that nothing is left for the filter to fall in.
    """

    cutoff: float
    half_width: float
    rate: float
    size: tuple[int, int]
    channels: int
    critical: bool


def bands(
    height: int,
    width: int,
    layers: int,
    critical: int,
    first_cutoff: float,
    first_stop: float,
    last_stop: float,
    margin: int,
    channels: int,
    most: int,
) -> tuple[Band, ...]:
    """One band for each layer, and a last one for the picture.

    Cutoffs and stopbands grow geometrically until ``critical`` layers before the end, where the cutoff reaches half the
    rate of the picture. The rate is that of the picture or a half, a quarter... of it: the smallest that holds the
    stopband.

    Args:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        layers: how many.
        critical: of them the last ones, which are sampled critically.
        first_cutoff: cutoff of the first.
        first_stop: end of the first's stopband.
        last_stop: end of the last's stopband, relative to its cutoff.
        margin: samples around the picture's part of the maps, on each side; the last layer has none.
        channels: of a layer: so many divided by twice its cutoff.
        most: at most so many.
    """
    side = min(height, width)
    last_cutoff = side / 2
    found = []
    for layer in range(layers + 1):
        along = min(layer / (layers - critical), 1.0)
        cutoff = first_cutoff * (last_cutoff / first_cutoff) ** along
        stop = first_stop * (last_cutoff * last_stop / first_stop) ** along
        # the small share keeps powers of two what they are
        halvings = max(0, math.floor(math.log2(side / (2 * stop)) + 1e-9))
        rate = side / 2**halvings
        around = 0 if layer >= layers - 1 else 2 * margin
        size = tuple(math.ceil(n / 2**halvings) + around for n in (height, width))
        found.append(
            Band(
                cutoff,
                max(stop, rate / 2) - cutoff,
                rate,
                (size[0], size[1]),
                max(1, min(round(channels / 2 / cutoff), most)),
                layer >= layers - critical,
            )
        )
    return tuple(found)


def kaiser_window(taps: int, width: float, rate: float) -> Tensor:
    """The window ``float64`` (taps,) with which a filter falls over ``width``, by Kaiser's formulas."""
    attenuation = 2.285 * (taps - 1) * math.pi * width / (rate / 2) + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    return torch.kaiser_window(taps, periodic=False, beta=beta, dtype=torch.float64, device="cpu")


def low_pass(taps: int, cutoff: float, half_width: float, rate: float, radial: bool = False) -> Tensor:
    """A low-pass filter ``float32`` of sum 1: (taps,) for both axes one by one, or where ``radial`` (taps, taps).

    A windowed sinc, or a jinc, which passes the same frequencies in all directions.

    Args:
        taps: how many; 1 filters nothing.
        cutoff: half the amplitude is passed here.
        half_width: half of the band over which the filter falls.
        rate: at which it is applied.
        radial: a jinc.
    """
    if taps == 1:
        return torch.ones(1, device="cpu")
    window = kaiser_window(taps, 2 * half_width, rate)
    place = (torch.arange(taps, dtype=torch.float64, device="cpu") - (taps - 1) / 2) / rate
    if radial:
        distance = torch.hypot(place[:, None], place[None, :])
        # at the centre the jinc is pi f^2: its limit, which only an odd number of taps meets
        filled = distance.clamp_min(1e-12)
        f = torch.special.bessel_j1(2 * math.pi * cutoff * filled) / (math.pi * filled)
        f = f * cutoff * window[:, None] * window[None, :]
    else:
        f = 2 * cutoff * torch.sinc(2 * cutoff * place) * window
    return (f / f.sum()).float()
