"""The generator of StyleGAN3: Fourier features, convolutions, and nonlinearities between filters.

Paper
    Karras et al. 2021 (arXiv:2106.12423): section 3.1 (Fourier features, transformed inputs, magnitudes, output), 3.2
    (filtered nonlinearities, layers without noise), appendix F. Plain operations of torch, whose second derivatives are
    right by construction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.models.adversarial.bands import Band, low_pass
from castalia.models.adversarial.styles import bend
from castalia.nn.equalised import EqualLinear
from castalia.nn.resampling import Padding, upfirdn

OVERSAMPLING = 2
"""The nonlinearity works at so many times the larger of the rates before and after it."""

OUTPUT = 0.25
"""Of what the last layer says, so that pictures begin within about -1 to 1."""

DENSE = 192
"""Longest side, at the upper rate, of maps that are filtered by matrices."""


class FourierInput(nn.Module):
    """Styles (B, w) to the first maps (B, C, h, w): waves in random directions, moved and turned by the style.

    Args:
        band: of the maps.
        style_dims: length of a style.

    Attributes:
        waves: frequencies (C, 2) along and down, uniform in the disc of the band's cutoff; a buffer.
        phases: (C,), of a period from -0.5 to 0.5; a buffer.
    """

    waves: Tensor
    phases: Tensor

    def __init__(self, band: Band, style_dims: int) -> None:
        super().__init__()
        self.band, channels = band, band.channels
        angle = 2 * math.pi * torch.rand(channels)
        radius = band.cutoff * torch.rand(channels).sqrt()
        self.register_buffer("waves", torch.stack([radius * angle.cos(), radius * angle.sin()], 1))
        self.register_buffer("phases", torch.rand(channels) - 0.5)
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = EqualLinear(style_dims, 4)
        with torch.no_grad():
            assert self.affine.bias is not None
            self.affine.weight.zero_()
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))

    def forward(self, style: Tensor, move: Tensor | None = None) -> Tensor:
        """The maps: what lies at p is what would lie at ``move`` (B or 1, 3, 3) of p. The style then turns and shifts.

        Places are in shorter sides of the picture, from its centre, right and down.
        """
        # in float32 whatever the precision: a phase has many periods
        with torch.autocast(style.device.type, enabled=False):
            cos, sin, right, down = self.affine(style.float()).unbind(1)
            length = (cos.square() + sin.square()).clamp_min(1e-16).sqrt()  # hypot is unknown to ONNX
            cos, sin = cos / length, sin / length
            turn = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)
            shift = torch.stack([right / length, down / length], 1)
            # R (p - t) = R p - R t
            shift = -(turn @ shift[:, :, None])
            if move is not None:
                shift = shift + turn @ move[:, :2, 2:].float()
                turn = turn @ move[:, :2, :2].float()
            waves = self.waves @ turn  # (B, C, 2)
            phases = self.phases + (self.waves @ shift).squeeze(2)  # (B, C)
            # waves that a transformation has made too short for the rate fade out
            beyond = (waves.norm(dim=2) - self.band.cutoff) / (self.band.rate / 2 - self.band.cutoff)
            loud = (1 - beyond).clamp(0, 1)
            down_, along = (
                (torch.arange(n, device=style.device) - (n - 1) / 2) / self.band.rate for n in self.band.size
            )
            periods = (
                waves[:, :, 0, None, None] * along
                + waves[:, :, 1, None, None] * down_[:, None]
                + phases[:, :, None, None]
            )
            x = torch.sin(2 * math.pi * periods) * loud[:, :, None, None]
            w = self.weight / math.sqrt(self.band.channels)
            return torch.einsum("oc,bchw->bohw", w, x)


class Refilter(nn.Module):
    """:func:`castalia.nn.resampling.upfirdn` for maps of one size (B, C, h, w), the fastest way for it.

    Small maps are multiplied by matrices, which processors do ten times as fast as they convolve single channels. A
    filter that is not one of both axes is a sum of few that are.

    Args:
        size: height and width of what goes in.
        taps: (n,) or (n, n).
        up: factor of the upper rate.
        down: factor of the lower rate.
        padding: at the upper rate.
        dense: by matrices; None: where no side is longer than ``DENSE`` at the upper rate.
    """

    taps: Tensor
    along: Tensor
    across: Tensor

    def __init__(
        self,
        size: tuple[int, int],
        taps: Tensor,
        up: int = 1,
        down: int = 1,
        padding: Padding = (0, 0, 0, 0),
        dense: bool | None = None,
    ) -> None:
        super().__init__()
        self.up, self.down, self.padding = up, down, padding
        left, right, above, below = padding
        longest = max(size[0] * up + above + below, size[1] * up + left + right)
        self.dense = longest <= DENSE if dense is None else dense
        self.register_buffer("taps", taps, persistent=False)
        if not self.dense:
            return
        # the last factor takes the gain: each axis its share
        pairs = [(taps, taps)] if taps.ndim == 1 else _separated(taps)
        along = torch.stack([_matrix(size[1], f * up, up, down, left, right) for _, f in pairs])
        across = torch.stack([_matrix(size[0], f * up, up, down, above, below) for f, _ in pairs])
        self.register_buffer("along", along, persistent=False)  # (pairs, w, W)
        self.register_buffer("across", across.mT.contiguous(), persistent=False)  # (pairs, H, h)

    def forward(self, x: Tensor) -> Tensor:
        if not self.dense:
            return upfirdn(x, self.taps, self.up, self.down, self.padding, gain=float(self.up**2))
        dtype, made = x.dtype, None
        for along, across in zip(self.along, self.across, strict=True):
            y = across.to(dtype) @ (x @ along.to(dtype))
            made = y if made is None else made + y
        assert made is not None
        return made.to(dtype)


def _matrix(n: int, taps: Tensor, up: int, down: int, before: int, after: int) -> Tensor:
    """What putting zeros between, padding, convolving and keeping every ``down``-th do to n samples: (n, m)."""
    x = torch.zeros(n, n, up, device=taps.device)
    x[:, :, 0] = torch.eye(n, device=taps.device)
    x = F.pad(x.flatten(1), (before, after))[:, None]
    return F.conv1d(x, taps.flip(0)[None, None], stride=down)[:, 0]


def _separated(taps: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Filters down and along whose products add up to one of both axes."""
    u, s, v = torch.linalg.svd(taps.double())
    rank = int((s > 1e-8 * s[0]).sum())
    return [((u[:, i] * s[i]).float(), v[i].float()) for i in range(rank)]


class FilteredLayer(nn.Module):
    """Modulated convolution, then a nonlinearity at a higher rate: (B, in, h, w) -> (B, out, H, W).

    Args:
        before: the band of what goes in.
        band: that of the result.
        style_dims: length of a style.
        kernel: side of the convolution's.
        taps: of the filters, for each sample at the lower rate.
        radial: filter by a jinc on the way down.
        outputs: channels out.
        picture: neither demodulation nor nonlinearity: the last layer.
    """

    def __init__(
        self,
        before: Band,
        band: Band,
        style_dims: int,
        *,
        kernel: int,
        taps: int,
        radial: bool,
        outputs: int,
        picture: bool = False,
    ) -> None:
        super().__init__()
        inputs = before.channels
        self.affine = EqualLinear(style_dims, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.picture, self.size = picture, band.size
        rate = max(before.rate, band.rate) * (1 if picture else OVERSAMPLING)
        self.up, self.down = round(rate / before.rate), round(rate / band.rate)
        ups, downs = (1, 1) if picture else (taps * self.up, taps * self.down)
        # centres stay: a sample sits in the middle of what it stands for, and filters are symmetric
        padding: list[int] = []
        for entering, leaving in zip(before.size[::-1], band.size[::-1], strict=True):
            n = entering + kernel - 1
            low = self.down * (leaving - 1) - self.up * (n - 1) + ups + downs - 2
            total = self.down * (leaving - 1) + 1 - self.up * n + ups + downs - 2
            padding += [low // 2, total - low // 2]
        left, right, above, below = padding
        entering = (before.size[0] + kernel - 1, before.size[1] + kernel - 1)
        middle = (entering[0] * self.up + above + below - ups + 1, entering[1] * self.up + left + right - ups + 1)
        rise = low_pass(ups, before.cutoff, before.half_width, rate)
        fall = low_pass(downs, band.cutoff, band.half_width, rate, radial)
        self.rise = None if picture else Refilter(entering, rise, up=self.up, padding=(left, right, above, below))
        self.fall = None if picture else Refilter(middle, fall, down=self.down)

    def forward(self, x: Tensor, style: Tensor, gain: Tensor) -> Tensor:
        """Maps, of which those that come in are brought to mean square 1 by ``gain`` (a scalar)."""
        s, w = self.affine(style).float(), self.weight.float()
        after = None
        if self.picture:
            s = s / math.sqrt(w[0].numel())
        else:
            w = w * torch.rsqrt(w.square().mean((1, 2, 3), keepdim=True))
            s = s * torch.rsqrt(s.square().mean(1, keepdim=True) + 1e-8)
            after = torch.rsqrt(s.square() @ w.square().sum((2, 3)).T + 1e-8)
        x = x * (s * gain).to(x.dtype)[:, :, None, None]
        x = F.conv2d(x, w.to(x.dtype), padding=w.shape[2] - 1)
        if after is not None:
            x = x * after.to(x.dtype)[:, :, None, None]
        x = x + self.bias.to(x.dtype)[:, None, None]
        return x if self.rise is None or self.fall is None else self.fall(bend(self.rise(x)))


class Magnitudes(nn.Module):
    """The running mean square of what each layer gets.

    Attributes:
        squares: (layers,), a buffer, which :meth:`follow` alone moves.
    """

    squares: Tensor

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.register_buffer("squares", torch.ones(layers))

    def gains(self) -> Sequence[Tensor]:
        """What brings each layer's input to mean square 1."""
        return torch.rsqrt(self.squares).unbind()

    @torch.no_grad()
    def follow(self, squares: Tensor, weight: float) -> None:
        """Move towards mean squares (layers,) by a share of the way."""
        self.squares += weight * (squares - self.squares)


class FilteredSynthesis(nn.Module):
    """Styles (B, layers, w) to pictures ``float32`` (B, C, H, W): the input takes the first style, each layer one.

    Args:
        table: bands of the layers, and of the picture.
        style_dims: length of a style.
        channels: of the pictures.
        kernel: side of the convolutions' kernels.
        taps: of the filters, for each sample at the lower rate.
        radial: filter by jincs on the way down, where layers are not sampled critically.

    Attributes:
        layers: how many styles.
        magnitudes: of the layers' inputs.
    """

    def __init__(
        self, table: Sequence[Band], style_dims: int, channels: int, kernel: int, taps: int, radial: bool
    ) -> None:
        super().__init__()
        self.begin = FourierInput(table[0], style_dims)
        last = len(table) - 1
        self.convs = nn.ModuleList(
            FilteredLayer(
                table[max(number - 1, 0)],
                band,
                style_dims,
                kernel=1 if number == last else kernel,
                taps=taps,
                radial=radial and not band.critical,
                outputs=channels if number == last else band.channels,
                picture=number == last,
            )
            for number, band in enumerate(table)
        )
        self.layers = len(table) + 1
        self.magnitudes = Magnitudes(len(table))

    def forward(
        self,
        styles: Tensor,
        noise: Sequence[Tensor] | None = None,
        move: Tensor | None = None,
        seen: list[Tensor] | None = None,
    ) -> Tensor:
        """Pictures.

        Args:
            styles: (B, layers, w).
            noise: not used; this generator has none.
            move: see :meth:`FourierInput.forward`: pictures moved by the inverse.
            seen: gets the mean square of each layer's input.
        """
        style = styles.unbind(1)
        x = self.begin(style[0], move)
        for layer, w, gain in zip(self.convs, style[1:], self.magnitudes.gains(), strict=True):
            if seen is not None:
                seen.append(x.detach().float().square().mean())
            x = layer(x, w, gain)
        return OUTPUT * x.float()
