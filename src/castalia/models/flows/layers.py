"""Invertible layers whose log-determinant is cheap, for vectors (B, C) and pictures (B, C, H, W).

``forward`` returns the result and the logarithm of |det dy/dx|, of shape (B,), or () where it is the same for all;
``inverse`` goes back. All of it is computed in the type of the input: only the networks inside couplings may be in
bfloat16, because what they compute need not be inverted.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOG_SCALE_FACTOR = 3.0
"""Logarithms of scales are this many times a parameter (the code of Kingma & Dhariwal): they learn so much faster."""


class Layer(nn.Module, ABC):
    """An invertible layer."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The result and log |det dy/dx|, (B,) or ()."""

    @abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """The x whose result is y."""


class Sequential(Layer):
    """A layer whose inverse finds values one after another.

    It also sees the class of each example, ``int64`` (B,), or None where nothing is known of it.
    """

    @abstractmethod
    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def inverse(self, y: Tensor, label: Tensor | None = None) -> Tensor: ...


@contextmanager
def exact(x: Tensor) -> Iterator[None]:
    """A block whose products are in the type of their factors, also within autocast."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        with torch.autocast(kind, enabled=False):
            yield
    else:
        yield


def along(p: Tensor, x: Tensor) -> Tensor:
    """A parameter (C,) in a shape that broadcasts against vectors (B, C) or pictures (B, C, H, W)."""
    return p.view(-1, *[1] * (x.ndim - 2))


def places(x: Tensor) -> int:
    """Pixels of a picture, 1 for a vector: how often a map of channels is applied."""
    return math.prod(x.shape[2:])


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel over examples and places, (C,) each."""
    variance, mean = torch.var_mean(x, [0, *range(2, x.ndim)], correction=0)
    return mean, variance


@final
class ActNorm(Layer):
    """y = (x + b) exp(s) for each channel; in the first batch y has mean 0 and deviation 1 (Glow, section 3.1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.fitting = False

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Set the parameters from examples (B, C, ...)."""
        mean, variance = moments(x)
        self.bias.copy_(-mean)
        self.log_scale.copy_(-0.5 * torch.log(variance + 1e-6) / LOG_SCALE_FACTOR)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.fitting:
            self.fit(x)
        s = LOG_SCALE_FACTOR * self.log_scale
        return (x + along(self.bias, x)) * along(s.exp(), x), s.sum() * places(x)

    def inverse(self, y: Tensor) -> Tensor:
        return y * along(torch.exp(-LOG_SCALE_FACTOR * self.log_scale), y) - along(self.bias, y)


@final
class BatchNorm(Layer):
    """Batch normalisation (Dinh et al. 2016, section 3.7): statistics of the batch in training, else running ones.

    The layer inside is torch's, so that the loop lets it see all processes' rows and averages its statistics with the
    weights. It returns y = r (x - m) without saying r, which follows from the deviations of both over any rows.
    """

    def __init__(self, channels: int, dims: int, momentum: float = 0.1) -> None:
        super().__init__()
        kind = nn.BatchNorm2d if dims == 2 else nn.BatchNorm1d
        self.norm = kind(channels, eps=1e-5, momentum=momentum, affine=False)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean, and logarithm of the scale, of evaluation."""
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert variance is not None
        return mean, -0.5 * torch.log(variance + self.norm.eps)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.norm.training:
            y = self.norm(x)
            s = 0.5 * (moments(y)[1].log() - moments(x)[1].log())
        else:
            mean, s = self._statistics()
            y = (x - along(mean, x)) * along(s.exp(), x)
        return y, s.sum() * places(x)

    def inverse(self, y: Tensor) -> Tensor:
        mean, s = self._statistics()
        return y * along(torch.exp(-s), y) + along(mean, y)


@final
class Diagonal(Layer):
    """y = x exp(s), one s for each dimension of a vector (NICE, section 3.3)."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(dims))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * self.log_scale.exp(), self.log_scale.sum()

    def inverse(self, y: Tensor) -> Tensor:
        return y * torch.exp(-self.log_scale)


@final
class Mixing(Layer):
    """Channels multiplied by an invertible matrix: a 1x1 convolution, or a linear map of vectors (Glow, section 3.2).

    Args:
        channels: of the input.
        lu: whether the matrix is P L (U + diag(sign exp(s))) with fixed P and sign (eq. 10), whose determinant costs
            nothing; else it is free, and its determinant is computed in float64.
    """

    permutation: Tensor
    sign: Tensor

    kept: Tensor | None

    def __init__(self, channels: int, *, lu: bool) -> None:
        super().__init__()
        start = torch.linalg.qr(torch.randn(channels, channels))[0]
        self.register_buffer("kept", None, persistent=False)
        self.lu = lu
        if not lu:
            self.weight = nn.Parameter(start)
            return
        permutation, lower, upper = torch.linalg.lu(start)
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", diagonal.sign())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_diagonal = nn.Parameter(diagonal.abs().log())

    def _triangles(self) -> tuple[Tensor, Tensor]:
        eye = torch.eye(len(self.sign), dtype=self.lower.dtype, device=self.lower.device)
        return self.lower.tril(-1) + eye, self.upper.triu(1) + torch.diag(self.sign * self.log_diagonal.exp())

    def matrix(self) -> Tensor:
        """(C, C)."""
        if not self.lu:
            return self.weight
        lower, upper = self._triangles()
        return self.permutation @ lower @ upper

    def keep_inverse(self) -> None:
        """Compute the inverse matrix now, for a program that cannot; the weights may not change any more."""
        self.register_buffer("kept", self._inverse_matrix().detach(), persistent=False)

    def _inverse_matrix(self) -> Tensor:
        if self.kept is not None:
            return self.kept
        if not self.lu:
            return torch.linalg.inv(self.weight.double()).to(self.weight.dtype)
        lower, upper = (t.double() for t in self._triangles())
        half = torch.linalg.solve_triangular(lower, self.permutation.T.double(), upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, half, upper=True).to(self.lower.dtype)

    def _log_det(self) -> Tensor:
        if self.lu:
            return self.log_diagonal.sum()
        return torch.linalg.slogdet(self.weight.double())[1].to(self.weight.dtype)

    @staticmethod
    def _apply_to(matrix: Tensor, x: Tensor) -> Tensor:
        return F.linear(x, matrix) if x.ndim == 2 else F.conv2d(x, matrix[:, :, None, None])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with exact(x):
            return self._apply_to(self.matrix(), x), self._log_det() * places(x)

    def inverse(self, y: Tensor) -> Tensor:
        with exact(y):
            return self._apply_to(self._inverse_matrix(), y)


@final
class Squeeze(Layer):
    """Each 2x2 block of pixels becomes 4 channels (Dinh et al. 2016, section 3.6): (C, H, W) to (4 C, H / 2, W / 2).

    Args:
        diagonal: order the four positions so that the first half of the channels holds upper left and lower right of
            every block: the two halves are then the two colours of a checkerboard. Else they are in reading order.
        channels: C.
    """

    order: Tensor
    back: Tensor

    def __init__(self, channels: int, *, diagonal: bool = False) -> None:
        super().__init__()
        order = torch.arange(4 * channels)
        if diagonal:  # channels are in the order (C, position); positions 0 and 3 lie on the diagonal
            first = [4 * c + p for c in range(channels) for p in (0, 3)]
            order = torch.tensor(first + [4 * c + p for c in range(channels) for p in (1, 2)])
        self.diagonal = diagonal
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("back", order.argsort(), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = F.pixel_unshuffle(x, 2)
        y = y[:, self.order] if self.diagonal else y
        return y.contiguous(memory_format=torch.channels_last), x.new_zeros(())

    def inverse(self, y: Tensor) -> Tensor:
        y = y[:, self.back] if self.diagonal else y
        return F.pixel_shuffle(y, 2).contiguous(memory_format=torch.channels_last)
