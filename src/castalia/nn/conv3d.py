"""Convolutions in three dimensions that can be trusted where the input is smaller than the kernel.

On processors, PyTorch 2.13 leaves part of the gradient of a bfloat16 kernel unwritten where the input has fewer places
along some axis than the kernel. Whatever was in that memory is taken for the gradient, which may be huge, no number, or
merely wrong. Such layers, which are small, are computed in float32 here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Conv3d(nn.Conv3d):
    """As PyTorch's, in float32 where that is needed."""

    def forward(self, input: Tensor) -> Tensor:
        if not covered(input, self.kernel_size):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())


class ConvTranspose3d(nn.ConvTranspose3d):
    """As PyTorch's, in float32 where that is needed."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not covered(input, self.kernel_size):
            return super().forward(input, output_size)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float(), output_size)


def covered(x: Tensor, kernel: Sequence[int]) -> bool:
    """Whether a processor would use bfloat16 where the kernel is larger than ``x`` (B, C, D, H, W)."""
    small = any(size < taps for size, taps in zip(x.shape[2:], kernel, strict=True))
    return small and x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
