"""Real-valued non-volume preserving transformations.

Paper
    Dinh, Sohl-Dickstein & Bengio 2016, "Density estimation using Real NVP" (arXiv:1605.08803):

        y_stay = x_stay,  y_move = x_move exp(s(x_stay)) + t(x_stay)                                      (eq. 4 and 5)

    with s = c tanh(.) and a learned c (section 4.1). Pictures: three couplings of a checkerboard's colours, a squeeze,
    three of the channels' halves, after which half of the channels leaves (sections 3.4 to 3.6); four couplings of a
    checkerboard at the last scale. Residual networks with batch and weight normalisation and skip connections compute s
    and t; the output of every coupling is batch-normalised, and that counts in the density (section 3.7). Values go
    through a logit (section 4.1). Vectors: couplings of two halves in turn, with perceptrons.

What differs, and why
    Batch normalisation trains on statistics of the batch alone; the paper's mix in running ones (appendix E).
    logit(a + (1 - 2a) x / 256) keeps as far from 1 as from 0; the paper's a + (1 - a) x / 256 does not.
    The last layer of each network starts at zero, so that training begins with the identity. Running statistics are
    set from a first batch. There is no horizontal flipping unless ``data.options.flip`` asks for it.

Expected: see ``recipes/realnvp.py`` and the system's page.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.flows.base import Flow, FlowConfig, check_coordinates
from castalia.models.flows.conditioners import Perceptron, ResidualNet, lengths
from castalia.models.flows.couplings import Checkerboard, Halves, TanhAffine
from castalia.models.flows.layers import BatchNorm, Layer, Squeeze
from castalia.models.flows.multiscale import MultiScale, check_halvings
from castalia.models.flows.priors import Factor, StandardNormal


@dataclass(frozen=True)
class RealNVPConfig(FlowConfig):
    """Configuration of RealNVP.

    Attributes:
        scales: pictures: scales; each but the last halves the sides.
        width: pictures: channels of the networks at the first scale, twice as many at each that follows.
        blocks: pictures: residual blocks of each network.
        normalise: batch-normalise the output of every coupling.
        length_decay: strength of the L2 penalty on the lengths of weight-normalised kernels.
        couplings: points: how many.
        widths: points: hidden layers of each network.
    """

    scales: int = 2
    width: int = 64
    blocks: int = 8
    normalise: bool = True
    length_decay: float = 5e-5
    couplings: int = 8
    widths: tuple[int, ...] = (128, 128)

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.scales, self.width, self.couplings) < 1 or min(self.widths, default=0) < 1:
            raise ValueError("scales, width, couplings and widths must be positive")
        if self.blocks < 0 or self.length_decay < 0:
            raise ValueError("blocks and length_decay must not be negative")


class RealNVP(Flow[RealNVPConfig]):
    """Affine couplings at several scales, or of vectors."""

    Config = RealNVPConfig

    def __init__(self, config: RealNVPConfig, spec: ImageSpec | PointsSpec) -> None:
        check_coordinates(spec)
        layers = _pictures(config, spec) if isinstance(spec, ImageSpec) else _points(config, spec.dims)
        super().__init__(config, spec, layers)

    def penalty(self) -> Tensor | float:
        """Decay of the lengths of kernels."""
        found = lengths(self.layers) if self.config.length_decay else []
        return self.config.length_decay * torch.cat(found).square().sum() if found else 0.0


def _pictures(c: RealNVPConfig, spec: ImageSpec) -> MultiScale:
    check_halvings(spec.height, spec.width, c.scales - 1, "config.scales")
    channels, (height, width), maps = spec.channels, (spec.height, spec.width), c.width
    levels: list[list[Layer]] = []
    factors: list[Factor] = []

    def norm(n: int) -> list[Layer]:
        return [BatchNorm(n, 2)] if c.normalise else []

    def colours(n: int, swap: bool) -> list[Layer]:
        net = ResidualNet(n, maps, 2 * n, c.blocks)
        return [Checkerboard(net, TanhAffine(n), (height, width), swap=swap), *norm(n)]

    def halves(n: int, swap: bool) -> list[Layer]:
        net = ResidualNet(n // 2, 2 * maps, n, c.blocks)
        return [Halves(net, TanhAffine(n // 2), swap=swap), *norm(n)]

    for _ in range(c.scales - 1):
        level = [layer for i in range(3) for layer in colours(channels, i % 2 == 1)]
        level.append(Squeeze(channels, diagonal=True))
        level += [layer for i in range(3) for layer in halves(4 * channels, i % 2 == 1)]
        levels.append(level)
        factors.append(Factor(4 * channels, learned=False))
        channels, height, width, maps = 2 * channels, height // 2, width // 2, 2 * maps
    levels.append([layer for i in range(4) for layer in colours(channels, i % 2 == 1)])
    return MultiScale(spec.shape, levels, factors, StandardNormal())


def _points(c: RealNVPConfig, dims: int) -> MultiScale:
    layers: list[Layer] = []
    for i in range(c.couplings):
        lower, upper = (dims + 1) // 2, dims // 2
        stays, moves = (upper, lower) if i % 2 else (lower, upper)
        net = Perceptron(stays, c.widths, 2 * moves)
        layers.append(Halves(net, TanhAffine(moves), swap=bool(i % 2)))
        layers += [BatchNorm(dims, 0)] if c.normalise and i < c.couplings - 1 else []
    return MultiScale((dims,), [layers], [], StandardNormal())
