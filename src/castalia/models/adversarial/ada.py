"""Adaptive discriminator augmentation: every picture that the critic sees is changed, each way with probability p.

Paper
    Karras et al. 2020b, "Training Generative Adversarial Networks with Limited Data" (arXiv:2006.06676): section 3 (the
    controller, r_t), appendix B and table 3 (the changes, their order and their strengths).

What differs, and why
    Flips, quarter turns and whole translations move pixels and are exact; the other geometric changes are one matrix.
    Pictures that none of them changes come back bit for bit. In pictures that are not square, quarter turns are halves.
    Beyond the edges, pictures are mirrored by the sampling itself instead of by padding them first.
    Alpha is moved, filtered, made noisy and cut like the colours, but has no colour.

Pictures are ``float32`` (B, C, H, W), -1 to 1. All numbers of a picture are its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.rng import Rng
from castalia.nn.resampling import enlarge, sampled, shrink

Kind = Literal["blit", "geometry", "colour", "filter", "noise", "cutout"]

KINDS: tuple[Kind, ...] = ("blit", "geometry", "colour", "filter", "noise", "cutout")

SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
"""Daubechies' least asymmetric wavelet with six vanishing moments: the filter around geometric changes."""

DELAY = (sum(k * h for k, h in enumerate(SYM6)) / sum(SYM6) - (len(SYM6) - 1) / 2) / 2
"""Pixels by which that filter moves a picture, beside half its length: it is not quite symmetric."""

SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
"""The same with two: the filter of the four bands."""

POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)
"""Share of a photograph's power in each band, the lowest first: amplifying bands should not change the whole."""


class Ada(nn.Module):
    """The changes and their probability, which follows how sure the critic is of real pictures.

    Args:
        kinds: which changes.
        start: the first probability.
        target: of the mean sign of the critic's output on real pictures; None: the probability stays.
        examples: in so many the probability goes from 0 to 1.

    Attributes:
        p: probability of each change, a buffer.
        signs: the mean sign that was last looked at, a buffer.
    """

    p: Tensor
    signs: Tensor

    def __init__(self, kinds: Sequence[Kind], start: float, target: float | None, examples: float) -> None:
        super().__init__()
        self.kinds, self.target, self.examples = tuple(kinds), target, examples
        self.register_buffer("p", torch.tensor(start))
        self.register_buffer("signs", torch.zeros(()))

    def forward(self, x: Tensor, rng: Rng) -> Tensor:
        return changed(x, self.kinds, self.p, rng) if self.kinds else x

    def heed(self, examples: int) -> None:
        """Move the probability, ``examples`` after the last time: up where the signs exceed the target, else down."""
        assert self.target is not None
        self.p += torch.sign(self.signs - self.target) * (examples / self.examples)
        self.p.clamp_(0, 1)


def changed(x: Tensor, kinds: Sequence[Kind], p: Tensor, rng: Rng) -> Tensor:
    """Change pictures, in the order of :data:`KINDS`, each change with probability ``p``."""
    for kind, change in (
        ("blit", blit),
        ("geometry", geometry),
        ("colour", colour),
        ("filter", bands),
        ("noise", noise),
        ("cutout", cutout),
    ):
        if kind in kinds:
            x = change(x, p, rng.at(kind))
    return x


def chosen(rng: Rng, name: str, p: Tensor, value: Tensor, otherwise: float) -> Tensor:
    """``value`` (B,) for those that are changed, else what changes nothing."""
    return torch.where(rng.uniform(f"whether {name}") < p, value, otherwise)


# geometry


def mirrored(index: Tensor, size: int) -> Tensor:
    """Places outside of 0 to size - 1 mirrored at the first and at the last."""
    if size == 1:
        return torch.zeros_like(index)
    return (size - 1) - ((size - 1) - index % (2 * size - 2)).abs()


def mirror_pad(x: Tensor, by: int) -> Tensor:
    """Pictures with ``by`` mirrored pixels on each side; there may be more of them than pixels."""
    rows, columns = (mirrored(torch.arange(-by, n + by, device=x.device), n) for n in x.shape[2:])
    return x[:, :, rows][:, :, :, columns]


def blit(x: Tensor, p: Tensor, rng: Rng) -> Tensor:
    """Flip left and right, turn by quarters, translate by up to an eighth of each side: exact."""
    _, _, h, w = x.shape
    flip = chosen(rng, "flip", p, rng.integers("flip", 2).float(), 0) > 0
    turns = rng.integers("turn", 4 if h == w else 2) * (1 if h == w else 2)
    turns = chosen(rng, "turn", p, turns.float(), 0).long()
    steps = [
        chosen(rng, "shift", p, ((2 * rng.uniform(name) - 1) * n * 0.125).round(), 0).long()
        for name, n in (("down", h), ("right", w))
    ]
    return moved(x, flip, turns, steps[0], steps[1])


def moved(x: Tensor, flip: Tensor, turns: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Flip pictures left and right where ``flip``, then turn, counter-clockwise, by ``turns`` quarters, then shift.

    Args:
        x: pictures (B, C, H, W).
        flip: ``bool`` (B,).
        turns: ``int64`` (B,), 0 to 3; 0 or 2 where H is not W.
        down: ``int64`` (B,): pixels; what comes in from outside is mirrored.
        right: the same.
    """
    b, c, h, w = x.shape
    column = (b, 1, 1)
    # from places of the result to places of the original, so the last change comes first
    i = mirrored(torch.arange(h, device=x.device).view(1, h, 1) - down.view(column), h).expand(b, h, w)
    j = mirrored(torch.arange(w, device=x.device).view(1, 1, w) - right.view(column), w).expand(b, h, w)
    turns = turns.view(column)
    i, j = (
        torch.where(turns == 0, i, torch.where(turns == 1, j, torch.where(turns == 2, h - 1 - i, h - 1 - j))),
        torch.where(turns == 0, j, torch.where(turns == 1, w - 1 - i, torch.where(turns == 2, w - 1 - j, i))),
    )
    j = torch.where(flip.view(column), w - 1 - j, j)
    place = (i * w + j).view(b, 1, h * w).expand(b, c, h * w)
    return x.flatten(2).gather(2, place).view_as(x)


def geometry(x: Tensor, p: Tensor, rng: Rng) -> Tensor:
    """Scale, turn, stretch, turn again and translate, all in one resampling."""
    h, w = x.shape[2:]
    scale = torch.exp2(chosen(rng, "scale", p, 0.2 * rng.normal("scale"), 0))
    rotations = 1 - (1 - p).clamp(min=0).sqrt()  # of two, so that one or both happen with probability p
    before, after = (
        chosen(rng, name, rotations, (2 * rng.uniform(name) - 1) * math.pi, 0) for name in ("before", "after")
    )
    stretch = torch.exp2(chosen(rng, "stretch", p, 0.2 * rng.normal("stretch"), 0))
    down, right = (
        chosen(rng, "fraction", p, 0.125 * n * rng.normal(name), 0) for name, n in (("down", h), ("right", w))
    )
    zero = torch.zeros_like(scale)
    back = affine(1 / scale, 1 / scale, zero, zero)
    for step in (
        turned(-before),
        affine(1 / stretch, stretch, zero, zero),
        turned(-after),
        affine(zero + 1, zero + 1, -right, -down),
    ):
        back = back @ step
    same = (back == torch.eye(3, device=x.device)).flatten(1).all(1)
    return torch.where(same.view(-1, 1, 1, 1), x, resampled(x, back))


def affine(across: Tensor, along: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Matrices (B, 3, 3) of (x, y, 1) that scale, then shift."""
    zero, one = torch.zeros_like(across), torch.ones_like(across)
    rows = [across, zero, right, zero, along, down, zero, zero, one]
    return torch.stack(rows, 1).view(-1, 3, 3)


def turned(angle: Tensor) -> Tensor:
    """Matrices (B, 3, 3) of (x, y, 1) that turn from x towards y."""
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], 1).view(-1, 3, 3)


def resampled(x: Tensor, back: Tensor) -> Tensor:
    """Pictures at other places: twice as large through a filter, interpolated there, and back through the filter.

    Args:
        x: (B, C, H, W).
        back: matrices (B, 3, 3) that say for each place (x, y, 1) of the result, in pixels from the middle, where it is
            in the original.
    """
    h, w = x.shape[2:]
    taps = torch.tensor(SYM6, device=x.device) / sum(SYM6)
    around = len(SYM6) // 2
    large = enlarge(mirror_pad(x, 2 * around), taps)[:, :, 2 * around : -2 * around, 2 * around : -2 * around]
    # with what the filter needs on the way back
    rows, columns = (
        (torch.arange(-2 * around, 2 * (n + around), device=x.device) + 0.5) / 2 - n / 2 - DELAY for n in (h, w)
    )
    places = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)  # (2(h + 2 around), 2(w + 2 around), 2)
    found = torch.einsum("bij,hwj->bhwi", back[:, :2, :2], places) + back[:, None, None, :2, 2] + DELAY
    found = found / torch.tensor([w / 2 + around, h / 2 + around], device=x.device)
    large = sampled(large, found.to(x.dtype))
    return shrink(large, taps.flip(0))[:, :, around:-around, around:-around]


# colour


def colour(x: Tensor, p: Tensor, rng: Rng) -> Tensor:
    """Brightness, contrast, luma flip, hue and saturation, all in one matrix."""
    matrix = colour_matrix(p, rng, x.shape[1] >= 3, x.device)
    if x.shape[1] < 3:
        grey = matrix[:, :3].mean(1)
        gain, offset = grey[:, :3].sum(1), grey[:, 3]
        return x * gain.view(-1, 1, 1, 1) + offset.view(-1, 1, 1, 1)
    colours = torch.einsum("bij,bjhw->bihw", matrix[:, :3, :3], x[:, :3]) + matrix[:, :3, 3, None, None]
    # nothing is chosen: not even the rounding of a product with the unit matrix
    same = (matrix == torch.eye(4, device=x.device)).flatten(1).all(1).view(-1, 1, 1, 1)
    return torch.cat([torch.where(same, x[:, :3], colours), x[:, 3:]], 1)


def colour_matrix(p: Tensor, rng: Rng, colours: bool, device: torch.device) -> Tensor:
    """Matrices (B, 4, 4) of (red, green, blue, 1)."""
    unit = torch.eye(4, device=device)
    axis = torch.tensor([1.0, 1.0, 1.0, 0.0], device=device) / math.sqrt(3)
    luma = torch.outer(axis, axis)

    def each(value: Tensor) -> Tensor:
        return value.view(-1, 1, 1)

    def no(matrix: Tensor, changed: Tensor) -> Tensor:
        return torch.where(each(changed), matrix, unit)

    bright = chosen(rng, "brightness", p, 0.2 * rng.normal("brightness"), 0)
    m = unit.repeat(len(bright), 1, 1)
    m[:, :3, 3] = bright[:, None]
    contrast = torch.exp2(chosen(rng, "contrast", p, 0.5 * rng.normal("contrast"), 0))
    m = torch.diag_embed(torch.stack([contrast, contrast, contrast, torch.ones_like(contrast)], 1)) @ m
    flip = chosen(rng, "luma", p, rng.integers("luma", 2).float(), 0)
    m = (unit - 2 * luma * each(flip)) @ m
    if colours:
        angle = chosen(rng, "hue", p, (2 * rng.uniform("hue") - 1) * math.pi, 0)
        m = no(about_luma(angle), angle != 0) @ m
        more = torch.exp2(chosen(rng, "saturation", p, rng.normal("saturation"), 0))
        m = no(luma + (unit - luma) * each(more), more != 1) @ m
        m[:, 3] = unit[3]  # saturation is no business of the last row
    return m


def about_luma(angle: Tensor) -> Tensor:
    """Rotations (B, 4, 4) of colours about the axis of greys (Rodrigues' formula)."""
    a = 1 / math.sqrt(3)
    cross = torch.tensor([[0.0, -a, a], [a, 0.0, -a], [-a, a, 0.0]], device=angle.device)
    unit, grey = torch.eye(3, device=angle.device), torch.full((3, 3), 1 / 3, device=angle.device)
    cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    return F.pad(cos * unit + sin * cross + (1 - cos) * grey, (0, 1, 0, 1)) + F.pad(
        torch.ones(1, 1, device=angle.device), (3, 0, 3, 0)
    )


# corruption


def bank() -> Tensor:
    """Four filters (4, 43), symmetric, the lowest band first, whose sum leaves everything as it is."""
    low = torch.tensor(SYM2, dtype=torch.float64)
    low = F.conv1d(low.view(1, 1, -1), low.view(1, 1, -1), padding=3).flatten() / 2  # its autocorrelation, (7,)
    high = -low.clone()
    high[3] += 1
    found, passed = [], torch.ones(1, dtype=torch.float64)
    for octave in range(3):
        found.append(_chained(passed, _spread(high, 2**octave)))
        passed = _chained(passed, _spread(low, 2**octave))
    found.append(passed)
    longest = len(passed)
    return torch.stack([F.pad(f, ((longest - len(f)) // 2,) * 2) for f in reversed(found)]).float()


def _spread(taps: Tensor, by: int) -> Tensor:
    out = taps.new_zeros((len(taps) - 1) * by + 1)
    out[::by] = taps
    return out


def _chained(a: Tensor, b: Tensor) -> Tensor:
    return F.conv1d(a.view(1, 1, -1), b.flip(0).view(1, 1, -1), padding=len(b) - 1).flatten()


def bands(x: Tensor, p: Tensor, rng: Rng) -> Tensor:
    """Amplify or weaken each of four bands of frequencies."""
    b, c, h, w = x.shape
    power = torch.tensor(POWER, device=x.device)
    gains = torch.ones(b, 4, device=x.device)
    for band in range(4):
        one = torch.ones(b, 4, device=x.device)
        one[:, band] = torch.exp2(chosen(rng, f"band {band}", p, rng.normal(f"band {band}"), 0))
        gains = gains * one / (power * one.square()).sum(1, keepdim=True).sqrt()
    taps = gains @ bank().to(x.device)
    n = taps.shape[1]
    around = mirror_pad(x, n // 2).reshape(1, b * c, h + n - 1, w + n - 1)
    own = taps.repeat_interleave(c, 0).to(x.dtype)  # symmetric
    y = F.conv2d(F.conv2d(around, own[:, None, :, None], groups=b * c), own[:, None, None, :], groups=b * c)
    return torch.where((gains == 1).all(1).view(-1, 1, 1, 1), x, y.view_as(x))


def noise(x: Tensor, p: Tensor, rng: Rng) -> Tensor:
    """Add noise of a random strength."""
    strength = chosen(rng, "noise", p, 0.1 * rng.normal("strength").abs(), 0)
    return x + rng.normal("noise", *x.shape[1:]).to(x.dtype) * strength.view(-1, 1, 1, 1)


def cutout(x: Tensor, p: Tensor, rng: Rng) -> Tensor:
    """Set a rectangle, half as wide and half as high as the picture and cut off at its edges, to zero."""
    half = chosen(rng, "cutout", p, torch.full((x.shape[0],), 0.25, device=x.device), 0)
    hole = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=x.device)
    for axis, name in ((2, "down"), (3, "right")):
        n = x.shape[axis]
        shape = [-1 if a == axis else 1 for a in range(4)]
        places = ((torch.arange(n, device=x.device) + 0.5) / n).view(shape)
        hole = hole & ((places - rng.uniform(name).view(-1, 1, 1, 1)).abs() < half.view(-1, 1, 1, 1))
    return x.masked_fill(hole, 0.0)
