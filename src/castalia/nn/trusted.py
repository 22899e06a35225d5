"""Convolutions that can be trusted where some tap of a kernel sees little but padding.

On processors, PyTorch 2.13 leaves part of the gradient of a bfloat16 kernel unwritten where a tap meets no place of the
input, and in three dimensions wherever the input is smaller than the kernel. Whatever was in that memory is taken for
the gradient, which may be huge, no number, or merely wrong. Such layers, which are small, are computed in float32 here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

Plain = nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose2d | nn.ConvTranspose3d


class _Trusted(nn.Module):
    """As PyTorch's layer that stands behind it, in float32 where that is needed."""

    def forward(self, input: Tensor) -> Tensor:
        if not wanting(self, input):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())


class Conv2d(_Trusted, nn.Conv2d):
    """PyTorch's, to be trusted."""


class Conv3d(_Trusted, nn.Conv3d):
    """PyTorch's, to be trusted."""


class ConvTranspose2d(_Trusted, nn.ConvTranspose2d):  # pyright: ignore[reportIncompatibleMethodOverride]
    """PyTorch's, to be trusted; the size of what comes out is the usual one."""


class ConvTranspose3d(_Trusted, nn.ConvTranspose3d):  # pyright: ignore[reportIncompatibleMethodOverride]
    """PyTorch's, to be trusted; the size of what comes out is the usual one."""


def wanting(layer: nn.Module, x: Tensor) -> bool:
    """Whether a processor would compute a layer in bfloat16 whose gradient it does not find for ``x`` (B, C, ...)."""
    assert isinstance(layer, Plain | Transposed)
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return False
    padding = layer.padding
    assert not isinstance(padding, str), "say how much padding"
    axes = zip(x.shape[2:], layer.kernel_size, layer.stride, padding, layer.dilation, strict=True)
    return any(_uncovered(layer, *axis) for axis in axes)


def _uncovered(layer: nn.Module, size: int, taps: int, stride: int, padding: int, dilation: int) -> bool:
    """Whether along one axis some tap meets nothing, or the smaller side has fewer places than the kernel spans."""
    span = (taps - 1) * dilation + 1
    if isinstance(layer, Transposed):
        wide, narrow = max((size - 1) * stride - 2 * padding + span, 1), size  # the same, read from the other side
    else:
        wide, narrow = size, (size + 2 * padding - span) // stride + 1
    if wide < span:
        return True
    for tap in range(0, span, dilation):
        low = -(-max(0, padding - tap) // stride)
        if low > min(narrow - 1, (wide - 1 + padding - tap) // stride):
            return True
    return False
