"""The generator of StyleGAN2: convolutions whose weights the style scales, and pictures added up level by level.

Paper
    Karras et al. 2020a (arXiv:1912.04958): section 2.2, eq. 1 to 3 (modulation and demodulation), section 3 and
    figure 7 (skip and residual generators), appendix B (noise, filters).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.models.adversarial.styles import Mapping, Noise, Sizes, bend, per_layer
from castalia.nn.equalised import EqualLinear
from castalia.nn.resampling import blur, enlarge, filter_taps

TAPS = (1.0, 3.0, 3.0, 1.0)
"""The filter of everything that changes resolution."""

Form = Literal["split", "fused"]


def modulated_conv(
    x: Tensor, weight: Tensor, style: Tensor, *, demodulate: bool = True, up: bool = False, form: Form = "split"
) -> Tensor:
    """Convolve each picture with weights of its own, s_i w_ijk divided by their norm over i, k (eq. 1 to 3).

    Args:
        x: maps (B, in, H, W).
        weight: (out, in, k, k), k odd.
        style: scales (B, in).
        demodulate: divide by the norm.
        up: put the pixels two apart first; the result is (B, out, 2H + k - 2, 2W + k - 2), still to be filtered.
        form: ``split``: scale the maps before and after one convolution that all pictures share; ``fused``: one
            convolution in groups. They are equal, and on processors the first is much faster.
    """
    b, inputs = style.shape
    out, _, k, _ = weight.shape
    s = style.float()
    factor = None
    if demodulate:
        factor = torch.rsqrt(s.square() @ weight.float().square().sum((2, 3)).T + 1e-8)  # (B, out)
    if form == "split":
        w = weight.to(x.dtype)
        x = x * s.to(x.dtype)[:, :, None, None]
        x = F.conv_transpose2d(x, w.transpose(0, 1), stride=2) if up else F.conv2d(x, w, padding=k // 2)
        return x if factor is None else x * factor.to(x.dtype)[:, :, None, None]
    own = weight.float() * s[:, None, :, None, None]  # (B, out, in, k, k)
    if factor is not None:
        own = own * factor[:, :, None, None, None]
    own, x = own.to(x.dtype), x.reshape(1, b * inputs, *x.shape[2:])
    if up:
        w = own.transpose(1, 2).reshape(b * inputs, out, k, k)
        x = F.conv_transpose2d(x, w, stride=2, groups=b)
    else:
        x = F.conv2d(x, own.reshape(b * out, inputs, k, k), padding=k // 2, groups=b)
    return x.view(b, out, *x.shape[2:])


class StyledConv(nn.Module):
    """Modulated convolution, noise, bias, nonlinearity: (B, in, h, w) -> (B, out, H, W).

    Args:
        inputs: channels in.
        outputs: channels out.
        style_dims: length of a style.
        size: height and width of the result.
        up: whether it is twice as large as what goes in.
        form: of the convolution.
    """

    taps: Tensor

    def __init__(
        self, inputs: int, outputs: int, style_dims: int, size: tuple[int, int], up: bool = False, form: Form = "split"
    ) -> None:
        super().__init__()
        self.affine = EqualLinear(style_dims, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise = Noise(size)
        self.scale, self.up = 1 / math.sqrt(inputs * 9), up
        self.form: Form = form
        self.register_buffer("taps", filter_taps(TAPS), persistent=False)

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None = None) -> Tensor:
        x = modulated_conv(x, self.weight * self.scale, self.affine(style), up=self.up, form=self.form)
        if self.up:
            x = blur(x, self.taps, gain=4.0, padding=(1, 1, 1, 1))
        return bend(self.noise(x, noise) + self.bias.to(x.dtype)[:, None, None])


class ToPicture(nn.Module):
    """Maps to a picture, (B, in, H, W) -> (B, C, H, W), modulated but not demodulated."""

    def __init__(self, inputs: int, channels: int, style_dims: int) -> None:
        super().__init__()
        self.affine = EqualLinear(style_dims, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.scale = 1 / math.sqrt(inputs)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        style = self.affine(style) * self.scale
        x = modulated_conv(x, self.weight, style, demodulate=False)
        return x + self.bias.to(x.dtype)[:, None, None]


class Level(nn.Module):
    """One resolution: maps of half the size to maps, and where ``picture`` to a picture.

    Args:
        inputs: channels in; 0: the lowest level, which begins with a constant.
        outputs: channels out.
        style_dims: length of a style.
        size: height and width.
        channels: of the picture.
        picture: whether it makes one.
        residual: add what goes in to what comes out.
        form: of the convolutions.
    """

    taps: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        style_dims: int,
        size: tuple[int, int],
        channels: int,
        picture: bool,
        residual: bool,
        form: Form,
    ) -> None:
        super().__init__()
        self.first = StyledConv(inputs, outputs, style_dims, size, up=True, form=form) if inputs else None
        self.constant = None if inputs else nn.Parameter(torch.randn(outputs, *size))
        self.second = StyledConv(outputs, outputs, style_dims, size, form=form)
        self.picture = ToPicture(outputs, channels, style_dims) if picture else None
        self.shortcut = nn.Parameter(torch.randn(outputs, inputs, 1, 1)) if residual and inputs else None
        self.register_buffer("taps", filter_taps(TAPS), persistent=False)

    def forward(self, x: Tensor | None, styles: Sequence[Tensor], noise: Sequence[Tensor | None]) -> Tensor:
        """The maps; of the lowest level from nothing, with a style and noise fewer than the others."""
        if self.first is None:
            assert self.constant is not None
            return self.second(self.constant.expand(styles[0].shape[0], -1, -1, -1), styles[0], noise[0])
        assert x is not None
        y = self.second(self.first(x, styles[0], noise[0]), styles[1], noise[1])
        if self.shortcut is not None:
            w = self.shortcut / math.sqrt(self.shortcut.shape[1])
            y = (y + enlarge(F.conv2d(x, w.to(x.dtype)), self.taps)) * math.sqrt(0.5)
        return y


class Synthesis(nn.Module):
    """Styles (B, layers, w) to pictures ``float32`` (B, C, H, W).

    Args:
        sizes: height and width of each level, the smallest first.
        widths: channels of each level.
        style_dims: length of a style.
        channels: of the pictures.
        network: ``skip``: every level makes a picture, and they are added up; ``residual``: the last makes it.
        form: of the convolutions.

    Attributes:
        layers: how many styles.
        noise_sizes: height and width of each layer's noise.
    """

    taps: Tensor

    def __init__(
        self,
        sizes: Sizes,
        widths: Sequence[int],
        style_dims: int,
        channels: int,
        network: Literal["skip", "residual"] = "skip",
        form: Form = "split",
    ) -> None:
        super().__init__()
        skip = network == "skip"
        self.levels = nn.ModuleList(
            Level(before, width, style_dims, size, channels, skip or size == sizes[-1], not skip, form)
            for before, width, size in zip([0, *widths[:-1]], widths, sizes, strict=True)
        )
        self.layers = 2 * len(sizes)
        self.noise_sizes = [size for size in sizes for _ in range(2)][1:]
        self.register_buffer("taps", filter_taps(TAPS), persistent=False)

    def forward(self, styles: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        maps: Sequence[Tensor | None] = noise if noise is not None else [None] * (self.layers - 1)
        style = styles.unbind(1)
        x = picture = None
        at = 0  # the style that a level's picture takes is that of the next level's first layer
        for level in self.levels:
            assert isinstance(level, Level)
            n = 1 if at == 0 else 2
            x = level(x, style[at : at + n], maps[at : at + n])
            at += n
            if level.picture is not None:
                new = level.picture(x, style[at]).float()
                picture = new if picture is None else enlarge(picture, self.taps) + new
        assert picture is not None
        return picture


class StyleGenerator(nn.Module):
    """Latents (B, z), and labels where there are classes, to pictures ``float32`` (B, C, H, W) of about -1 to 1.

    Args:
        mapping: latents to styles.
        synthesis: called with styles (B, layers, w) and noise, or None for the constant one.
        layers: how many styles.
        noise_sizes: height and width of each layer's noise; empty where there is none.
    """

    def __init__(self, mapping: Mapping, synthesis: nn.Module, layers: int, noise_sizes: Sizes) -> None:
        super().__init__()
        self.mapping, self.synthesis = mapping, synthesis
        self.layers, self.noise_sizes = layers, noise_sizes

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return self.synthesis(self.styles(z, label))

    def styles(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Styles (B, layers, w)."""
        return per_layer(self.mapping(z, label), self.layers)
