"""Resampling of pictures by filters: insert zeros, convolve, keep every n-th.

Source: the multirate identity that ``scipy.signal.upfirdn`` computes along one axis; Karras et al. 2020
(arXiv:1912.04958), section 3, and 2021 (arXiv:2106.12423), section 2, use it for everything that changes resolution.

In plain operations of torch, whose first and second derivatives are right by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Padding = tuple[int, int, int, int]
"""Zeros (or, where negative, pixels cut off) left, right, above, below."""


def filter_taps(taps: Sequence[float]) -> Tensor:
    """A filter ``float32`` (n,) of sum 1, for both axes; [1, 3, 3, 1] is StyleGAN2's."""
    f = torch.tensor(taps, dtype=torch.float32)
    return f / f.sum()


def upfirdn(
    x: Tensor, taps: Tensor, up: int = 1, down: int = 1, padding: Padding = (0, 0, 0, 0), gain: float = 1.0
) -> Tensor:
    """Put ``up - 1`` zeros behind each pixel, pad, convolve, and keep every ``down``-th, along both axes.

    Args:
        x: pictures (B, C, H, W).
        taps: a filter (n,) that is applied along each axis, or one of both axes (n, m).
        up: factor of the upper rate; to keep the brightness, ``gain`` must be its square.
        down: factor of the lower rate.
        padding: at the upper rate.
        gain: of the result.

    Returns:
        (B, C, H', W') with H' = (up H + padding - n) // down + 1.
    """
    b, c, h, w = x.shape
    if up > 1:
        x = F.pad(x.view(b, c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1)).reshape(b, c, h * up, w * up)
    x = F.pad(x, padding).flatten(0, 1).unsqueeze(1)
    f = taps.to(x.dtype).flip(list(range(taps.ndim)))
    if taps.ndim == 2:
        x = F.conv2d(x, (f * gain)[None, None], stride=down)
    else:
        x = F.conv2d(x, (f * gain)[None, None, :, None], stride=(down, 1))
        x = F.conv2d(x, f[None, None, None, :], stride=(1, down))
    return x.view(b, c, *x.shape[2:])


def enlarge(x: Tensor, taps: Tensor, factor: int = 2) -> Tensor:
    """Pictures ``factor`` times as large, through a filter; brightness stays."""
    n = taps.shape[-1]
    first, last = (n + factor - 1) // 2, (n - factor) // 2
    return upfirdn(x, taps, up=factor, padding=(first, last, first, last), gain=float(factor**2))


def shrink(x: Tensor, taps: Tensor, factor: int = 2) -> Tensor:
    """Pictures a ``factor``-th as large, through a filter; brightness stays."""
    n = taps.shape[-1]
    first, last = (n - factor + 1) // 2, (n - factor) // 2
    return upfirdn(x, taps, down=factor, padding=(first, last, first, last))


def blur(x: Tensor, taps: Tensor, gain: float = 1.0, padding: Padding | None = None) -> Tensor:
    """Filter pictures; without a padding their size stays."""
    n = taps.shape[-1]
    around = (n // 2, (n - 1) // 2, n // 2, (n - 1) // 2)
    return upfirdn(x, taps, padding=around if padding is None else padding, gain=gain)


def sampled(x: Tensor, places: Tensor) -> Tensor:
    """Pictures (B, C, H, W) at ``places`` (B, H', W', 2), -1 to 1 across and along, bilinear, mirrored outside.

    torch's ``grid_sample`` with derivatives of any order with respect to ``x``, in which it is linear; ``places`` are
    constants.
    """
    return _Sampled.apply(x, places)  # type: ignore[no-any-return]


class _Sampled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(places)
        ctx.shape = x.shape
        return F.grid_sample(x, places, "bilinear", "reflection", align_corners=False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (places,) = ctx.saved_tensors
        return _Spread.apply(gradient, places, ctx.shape), None


class _Spread(torch.autograd.Function):
    """The transposed map: its own derivative is the map again."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, places: Tensor, shape: torch.Size) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(places)
        like = gradient.new_zeros(shape)
        bilinear, reflection = 0, 2
        spread = torch.ops.aten.grid_sampler_2d_backward(
            gradient.contiguous(), like, places, bilinear, reflection, False, [True, False]
        )
        return spread[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (places,) = ctx.saved_tensors
        return _Sampled.apply(gradient, places), None, None
