"""StyleGAN: styles instead of latents, and noise, at every layer.

Paper
    Karras, Laine & Aila 2019, "A Style-Based Generator Architecture for Generative Adversarial Networks"
    (arXiv:1812.04948): section 2 (mapping network, constant input, AdaIN, eq. 1, noise), 3.1 (mixing), appendix B
    (truncation), C (filters, learning rates, R1 with gamma 10 in every step).
    Its critic: Karras et al. 2018 (arXiv:1710.10196), appendix A, with filters.
    From outside: ADA (Karras et al. 2020, arXiv:2006.06676); lazy R1 (arXiv:1912.04958).

What differs, and why
    It does not grow: all resolutions are trained from the beginning, as in StyleGAN2's configuration E. Its successor
    found that growing makes details stick to places, and needs schedules. (``progan`` grows.)
    Filters surround every change of resolution, also where the paper's skip them for small ones.
    The constant begins with random values, as in StyleGAN2, not with ones: the first normalisation of maps that are all
    alike would divide rounding errors by rounding errors.
    The learning rate does not grow with the resolution; the recipes set it.
    Each update draws its own batch and its own latents.
    Sides need not be alike, nor powers of two. Averages are the loop's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.specs.image import ImageSpec
from castalia.models.adversarial.modulated import StyleGenerator
from castalia.models.adversarial.pyramid import pyramid
from castalia.models.adversarial.style_critic import StyleCritic, widths_of
from castalia.models.adversarial.styled import StyleConfig, StyleContest
from castalia.models.adversarial.styles import Mapping, Noise, Sizes
from castalia.nn.equalised import EqualConv2d, EqualLinear
from castalia.nn.labels import classes_of
from castalia.nn.resampling import blur, filter_taps

TAPS = (1.0, 2.0, 1.0)
"""The filter after enlarging and before making smaller."""


@dataclass(frozen=True)
class StyleGANConfig(StyleConfig):
    """Configuration of a StyleGAN: see :class:`~castalia.models.adversarial.styled.StyleConfig`."""

    channels: int = 16384
    r1_every: int = 1
    lr: float = 1e-3


class AdaIN(nn.Module):
    """Each map (B, C, H, W) normalised, then scaled and shifted by its style (eq. 1)."""

    def __init__(self, channels: int, style_dims: int) -> None:
        super().__init__()
        self.affine = EqualLinear(style_dims, 2 * channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        dtype, x = x.dtype, x.float()
        scale, shift = self.affine(style).float()[:, :, None, None].chunk(2, 1)
        variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        return ((x - mean) * torch.rsqrt(variance + 1e-8) * (scale + 1) + shift).to(dtype)


class Layer(nn.Module):
    """Convolution (or the constant), noise, bias, nonlinearity, style: (B, in, h, w) -> (B, out, H, W)."""

    taps: Tensor

    def __init__(self, inputs: int, outputs: int, style_dims: int, size: tuple[int, int], up: bool) -> None:
        super().__init__()
        self.constant = None if inputs else nn.Parameter(torch.randn(outputs, *size))
        self.conv = EqualConv2d(inputs, outputs, 3, bias=False, gain=math.sqrt(2)) if inputs else None
        self.noise = Noise(size, outputs)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.adain, self.up = AdaIN(outputs, style_dims), up
        self.register_buffer("taps", filter_taps(TAPS), persistent=False)

    def forward(self, x: Tensor | None, style: Tensor, noise: Tensor | None = None) -> Tensor:
        if self.constant is not None:
            y = self.constant.expand(style.shape[0], -1, -1, -1)
        else:
            assert x is not None
            assert self.conv is not None
            y: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest") if self.up else x)
            y = blur(y, self.taps) if self.up else y
        y = self.noise(y, noise) + self.bias.to(y.dtype)[:, None, None]
        return self.adain(F.leaky_relu(y, 0.2), style)


class LayeredSynthesis(nn.Module):
    """Styles (B, layers, w) to pictures ``float32`` (B, C, H, W).

    Args:
        sizes: height and width of each level, the smallest first.
        widths: channels of each level.
        style_dims: length of a style.
        channels: of the pictures.

    Attributes:
        layers: how many styles.
        noise_sizes: height and width of each layer's noise.
    """

    def __init__(self, sizes: Sizes, widths: Sequence[int], style_dims: int, channels: int) -> None:
        super().__init__()
        self.noise_sizes = [size for size in sizes for _ in range(2)]
        self.layers = len(self.noise_sizes)
        made, before = [], 0
        for level, (width, size) in enumerate(zip(widths, sizes, strict=True)):
            made += [
                Layer(before, width, style_dims, size, up=level > 0),
                Layer(width, width, style_dims, size, up=False),
            ]
            before = width
        self.convs = nn.ModuleList(made)
        self.picture = EqualConv2d(before, channels, 1)

    def forward(self, styles: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        x = None
        for number, layer in enumerate(self.convs):
            x = layer(x, styles[:, number], None if noise is None else noise[number])
        return self.picture(x).float()


class StyleGAN(StyleContest[StyleGANConfig]):
    """A generator whose layers are normalised and told their styles, and a plain critic."""

    Config = StyleGANConfig

    def __init__(self, config: StyleGANConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.prepare(config, spec, config.latent_dims, classes_of(spec, config.conditional))
        sizes = pyramid(spec.height, spec.width)
        widths = widths_of(sizes, config.channels, config.most)
        mapping = Mapping(
            config.latent_dims, config.style_dims, config.mapping_layers, self.classes, config.mapping_rate
        )
        synthesis = LayeredSynthesis(sizes, widths, config.style_dims, spec.channels)
        critic = StyleCritic(
            spec.channels, sizes, widths, residual=False, classes=self.classes, group=config.group, taps=TAPS
        )
        self.dress(config, spec, StyleGenerator(mapping, synthesis, synthesis.layers, synthesis.noise_sizes), critic)
