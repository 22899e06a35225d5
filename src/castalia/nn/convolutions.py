"""Convolutions called in the ways that are fastest on processors, with the same results up to rounding."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.nn import winograd


def pointwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a 1x1 convolution.

    With one thread and fewer than 16 examples, torch hands a float32 one to a matrix product. Of large inputs that is
    half as fast as its convolution on some processors (measured: AMD Zen 5, torch 2.13) and equal on others; of small
    ones it is up to twice as fast. A dilated one it does not, and for a single point dilation means nothing.
    """
    large = x.device.type == "cpu" and _examples(x) * math.prod(x.shape[1:]) > 1 << 17
    return F.conv2d(x, conv.weight, conv.bias, dilation=2 if large else 1)


def convolve(conv: nn.Conv2d, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a 3x3 convolution with padding 1, with another bias than its own if wanted.

    Without gradients, float32 on a CPU takes the way of fewer multiplications (``winograd.py``) where that is faster.
    Gradients of it would be slow, an exported program would have it for every processor, and products of less
    precision than float32 would ruin it. A layer that somebody has changed or watches is called as it is.
    """
    used = conv.bias if bias is None else bias
    if (
        used is not None
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())
        and torch.backends.mkldnn.matmul.fp32_precision in ("none", "ieee")  # pyright: ignore[reportAttributeAccessIssue]
        and type(conv) is nn.Conv2d
        and not (conv._forward_hooks or conv._forward_pre_hooks)
        and winograd.pays(x.shape, len(used))
    ):
        return winograd.convolve(x, conv.weight, used)
    return conv(x) if bias is None else F.conv2d(x, conv.weight, bias, padding=1)


def _examples(x: Tensor) -> int:
    """Examples in a batch, by which a call decides; a program that is made for batches of any size must not ask."""
    return 16 if torch.compiler.is_compiling() else len(x)


_ONCE_OR_TWICE = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""Along one side: which of three kernel entries meet one pixel of the small picture, for four distances to it."""


def up_convolve(h: Tensor, conv: nn.Conv2d, size: tuple[int, int]) -> Tensor:
    """Enlarge to ``size`` by nearest neighbour, then convolve: (B, C, H, W) to (B, outputs, *size).

    Where ``size`` is twice (H, W), neighbouring pixels of the enlarged picture are equal, so a 3x3 kernel over them
    is a 2x2 kernel over the small picture, another one for each of the four positions in a 2x2 block. Together they
    are one transposed convolution with stride 2 and a 4x4 kernel, which has 4/9 of the multiplications. Making that
    kernel, and sorting it as the processor likes it, has a price for each call, whatever the number of pixels in it.
    It is paid where that was measured to pay on CPUs (torch 2.13): up to 2 times faster, forwards and backwards in
    float32, forwards only in bfloat16.

    Args:
        h: (B, C, H, W).
        conv: 3x3, padding 1.
        size: of the result.
    """
    height, width = h.shape[2:]
    pixels = _examples(h) * height * width
    if h.dtype == torch.bfloat16:
        pays = pixels >= 2048 and height * width >= 128 and not h.requires_grad
    else:
        pays = pixels >= 512
    if pays and h.device.type == "cpu" and tuple(size) == (2 * height, 2 * width):
        return F.conv_transpose2d(h, _doubled(conv.weight), conv.bias, stride=2, padding=1)
    return conv(F.interpolate(h, size))


def _doubled(weight: Tensor) -> Tensor:
    """(outputs, inputs, 3, 3) to (inputs, outputs, 4, 4)."""
    outputs, inputs = weight.shape[:2]
    side = weight.new_tensor(_ONCE_OR_TWICE)
    both = torch.kron(side, side)  # (16, 9)
    return (weight.reshape(outputs * inputs, 9) @ both.t()).view(outputs, inputs, 4, 4).transpose(0, 1)
