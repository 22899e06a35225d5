"""The networks inside couplings: they are evaluated, never inverted."""

from __future__ import annotations

from itertools import pairwise
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.models.flows.layers import LOG_SCALE_FACTOR, moments


@final
class Perceptron(nn.Module):
    """Vectors (B, inputs) to (B, outputs) through hidden layers; the last layer starts at zero if ``still``."""

    def __init__(self, inputs: int, hidden: tuple[int, ...], outputs: int, *, still: bool = True) -> None:
        super().__init__()
        sizes = (inputs, *hidden)
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), nn.ReLU()]
        last = nn.Linear(sizes[-1], outputs)
        if still:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.body = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@final
class ResidualPerceptron(nn.Module):
    """Vectors (B, inputs) to (B, outputs) through residual blocks (Durkan et al. 2019, section 4.1).

    Args:
        inputs: length of a vector in.
        width: of the hidden layers.
        outputs: length of a vector out.
        blocks: residual blocks of two layers each.
        dropout: share of units dropped in the middle of each block, in training.
    """

    def __init__(self, inputs: int, width: int, outputs: int, blocks: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.inner = nn.ModuleList(nn.Linear(width, width) for _ in range(2 * blocks))
        self.last = nn.Linear(width, outputs)
        self.dropout = dropout
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        for one, two in zip(self.inner[0::2], self.inner[1::2], strict=True):
            h = h + two(F.dropout(F.relu(one(F.relu(h))), self.dropout, self.training))
        return self.last(h)


@final
class ResidualMaps(nn.Module):
    """Pictures (B, inputs, H, W) to (B, outputs, H, W) through residual blocks of 3x3 convolutions.

    Args:
        inputs: channels in.
        width: channels of the hidden layers.
        outputs: channels out.
        blocks: residual blocks of two convolutions each.
        dropout: as in :class:`ResidualPerceptron`.
    """

    def __init__(self, inputs: int, width: int, outputs: int, blocks: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        self.inner = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2 * blocks))
        self.last = nn.Conv2d(width, outputs, 3, padding=1)
        self.dropout = dropout
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        for one, two in zip(self.inner[0::2], self.inner[1::2], strict=True):
            h = h + two(F.dropout(F.relu(one(F.relu(h))), self.dropout, self.training))
        return self.last(h)


@final
class NormedConv(nn.Module):
    """A convolution with (y + b) exp(s) after it for each channel, computed as one convolution.

    Args:
        inputs: channels.
        outputs: channels.
        kernel: 1 or 3.
        zero: start with weights of zero and never fit: the last layer of a coupling (Glow, section 3.3). Else b and s
            are fitted to the first batch, as in :class:`castalia.models.flows.layers.ActNorm`.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, zero: bool = False) -> None:
        super().__init__()
        self.zero, self.kernel, self.fitting = zero, kernel, False
        width = 0.0 if zero else (inputs * kernel**2) ** -0.5
        self.weight = nn.Parameter(width * torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.log_scale = nn.Parameter(torch.zeros(outputs))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Set bias and scale so that the results for examples (B, C, H, W) have mean 0 and deviation 1."""
        mean, variance = moments(F.conv2d(x, self.weight, padding=self.kernel // 2))
        self.bias.copy_(-mean)
        self.log_scale.copy_(-0.5 * torch.log(variance + 1e-6) / LOG_SCALE_FACTOR)

    def forward(self, x: Tensor) -> Tensor:
        if self.fitting and not self.zero:
            self.fit(x)
        scale = torch.exp(LOG_SCALE_FACTOR * self.log_scale)
        weight = self.weight * scale[:, None, None, None]
        return F.conv2d(x, weight, self.bias * scale, padding=self.kernel // 2)


@final
class GlowNet(nn.Module):
    """3x3, 1x1, and a 3x3 convolution that starts at zero, with ReLU between them (Glow, section 3.3 and appendix B).

    Args:
        inputs: channels.
        width: channels of the hidden layers.
        outputs: channels.
        hidden: convolutions between the first and the last; the paper has one.
        kernel: of these; the paper has 1.
    """

    def __init__(self, inputs: int, width: int, outputs: int, *, hidden: int = 1, kernel: int = 1) -> None:
        super().__init__()
        self.first = NormedConv(inputs, width, 3)
        self.hidden = nn.ModuleList(NormedConv(width, width, kernel) for _ in range(hidden))
        self.last = NormedConv(width, outputs, 3, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.first(x), inplace=True)
        for layer in self.hidden:
            h = F.relu(layer(h), inplace=True)
        return self.last(h)


@final
class WeightNormConv(nn.Module):
    """A convolution whose kernels are directions times lengths (Salimans & Kingma 2016, arXiv:1602.07868)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, zero: bool = False) -> None:
        super().__init__()
        plain = nn.Conv2d(inputs, outputs, kernel)
        self.kernel = kernel
        self.direction = nn.Parameter(plain.weight.detach().clone())
        lengths = self.direction.detach().flatten(1).norm(dim=1)
        self.length = nn.Parameter(torch.zeros_like(lengths) if zero else lengths)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        lengths = self.direction.flatten(1).norm(dim=1)
        weight = self.direction * (self.length / lengths)[:, None, None, None]
        return F.conv2d(x, weight, self.bias, padding=self.kernel // 2)


@final
class ResidualNet(nn.Module):
    """A residual network with batch and weight normalisation and skip connections from every block to the output.

    Dinh et al. 2016, section 4.1; He et al. 2016 (arXiv:1603.05027, pre-activation).

    Args:
        inputs: channels.
        width: channels of the hidden layers.
        outputs: channels.
        blocks: residual blocks.
    """

    def __init__(self, inputs: int, width: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.first = WeightNormConv(inputs, width, 3)
        self.first_skip = WeightNormConv(width, width, 1)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.skips = nn.ModuleList(WeightNormConv(width, width, 1) for _ in range(blocks))
        self.norm = nn.BatchNorm2d(width)
        self.last = WeightNormConv(width, outputs, 1, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        total = self.first_skip(h)
        for block, skip in zip(self.blocks, self.skips, strict=True):
            h = block(h)
            total = total + skip(h)
        return self.last(F.relu(self.norm(total)))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.conv1, self.conv2 = WeightNormConv(width, width, 3), WeightNormConv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(h)))


def lengths(module: nn.Module) -> list[Tensor]:
    """The lengths of all weight-normalised kernels, which Dinh et al. decay."""
    return [part.length for part in module.modules() if isinstance(part, WeightNormConv)]
