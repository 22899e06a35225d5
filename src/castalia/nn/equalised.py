"""Layers of the progressive and the style-based generators: equalised learning rates, pixel norm, minibatch deviation.

Papers
    Karras et al. 2018 (arXiv:1710.10196): sections 3 (minibatch deviation), 4.1 (equalised learning rate), 4.2 (pixel
    norm). Karras et al. 2019 (arXiv:1812.04948), section C: learning rates of a layer relative to the others'.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EqualLinear(nn.Module):
    """A linear layer whose weights are stored with deviation 1 and scaled when they are used.

    Adam moves every stored weight about equally far, so layers of all widths learn equally fast.

    Args:
        inputs: length of the vectors in.
        outputs: length of the vectors out.
        bias: its first value; None for no bias.
        gain: of the weights, beside He's 1 / sqrt(inputs).
        rate: learning rate relative to other layers'.
    """

    def __init__(
        self, inputs: int, outputs: int, bias: float | None = 0.0, gain: float = 1.0, rate: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = None if bias is None else nn.Parameter(torch.full((outputs,), bias / rate))
        self.scale, self.rate = gain * rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else (self.bias * self.rate).to(x.dtype)
        return F.linear(x, (self.weight * self.scale).to(x.dtype), bias)


class EqualConv2d(nn.Module):
    """A convolution whose weights are stored with deviation 1 and scaled when they are used.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: side of the kernel.
        bias: whether there is one, beginning at 0.
        gain: of the weights, beside He's 1 / sqrt(inputs * kernel ** 2).
        padding: zeros on every side; None for those that keep the size of a picture with an odd kernel.
        stride: step from place to place.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        bias: bool = True,
        gain: float = 1.0,
        padding: int | None = None,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = gain / math.sqrt(inputs * kernel**2)
        self.padding, self.stride = kernel // 2 if padding is None else padding, stride

    def scaled(self, dtype: torch.dtype) -> Tensor:
        """The weights as they are used."""
        return (self.weight * self.scale).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.conv2d(x, self.scaled(x.dtype), bias, stride=self.stride, padding=self.padding)


def pixel_norm(x: Tensor, eps: float = 1e-8) -> Tensor:
    """Scale the channels (dimension 1) of every place to mean square 1."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + eps)


class MinibatchDeviation(nn.Module):
    """Puts beside the channels of (B, C, H, W) how much the pictures of a group differ: the mean of their deviations.

    A generator that makes one picture again and again is told apart by it. The batch is cut into groups of every
    n-th picture; a batch that does not divide forms larger groups. Processes and micro-batches form groups of the rows
    that they have: others than one process would form of all.

    Args:
        group: pictures in a group, at most.
        channels: how many channels it adds, each for its share of the features.
    """

    def __init__(self, group: int = 4, channels: int = 1) -> None:
        super().__init__()
        self.group, self.channels = group, channels

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        group = next(g for g in range(min(self.group, b), b + 1) if b % g == 0)
        y = x.float().view(group, -1, self.channels, c // self.channels, h, w)
        deviation = (y - y.mean(0)).square().mean(0).add(1e-8).sqrt().mean((2, 3, 4))  # (B / group, channels)
        maps = deviation.to(x.dtype).repeat(group, 1)[:, :, None, None].expand(-1, -1, h, w)
        return torch.cat([x, maps], 1)
