"""Glow: generative flow with invertible 1x1 convolutions.

Paper
    Kingma & Dhariwal 2018, "Glow: Generative Flow with Invertible 1x1 Convolutions" (arXiv:1807.03039). A step is

        actnorm            y = (x + b) exp(s) for each channel; the first batch comes out with mean 0, deviation 1
        1x1 convolution    y = W x at each pixel; free, or W = P L (U + diag(s)) (eq. 10)
        affine coupling    y_a = x_a,  y_b = (x_b + t(x_a)) sigmoid(s(x_a) + 2)

    (table 1). Each level squeezes, takes ``steps`` steps, and half of the channels leaves, with a Gaussian whose mean
    and deviation a convolution computes from the other half (the authors' code). Additive couplings have no s.
    Conditional: mean and deviation of the last level's Gaussian depend on the class.

What differs, and why
    The activation norms of the networks inside couplings are folded into their convolutions (conditioners.py): the same
    function and parameters, one pass over memory less.
    ``hidden`` and ``hidden_kernel`` allow deeper networks, ``halvings`` larger blocks of pixels at the first level, and
    ``scale`` other units; they pay at small sizes.
    Where examples are made the sigmoid divides, and nothing bounds it; ``least_scale`` does. The logarithms of the
    deviations of what leaves are kept within 5. Hidden convolutions start with kernels of unit length and not of 0.05
    for each weight; what the first batch makes of both is the same, but they learn at another pace.
    Classes: a share of the labels is dropped, so that one network is the unconditional model too; there is no
    classifier, whose loss the authors' code adds. Vectors: 1x1 convolutions are matrices, the networks perceptrons.

Expected: see ``recipes/glow.py`` and the system's page.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.flows.base import Flow, FlowConfig, check_coordinates
from castalia.models.flows.conditioners import GlowNet, Perceptron
from castalia.models.flows.couplings import Halves, Kind, move
from castalia.models.flows.layers import ActNorm, Layer, Mixing, Squeeze
from castalia.models.flows.multiscale import MultiScale, check_halvings
from castalia.models.flows.priors import Factor, LearnedNormal
from castalia.models.flows.units import Scale
from castalia.nn.labels import classes_of


@dataclass(frozen=True)
class GlowConfig(FlowConfig):
    """Configuration of Glow.

    Attributes:
        levels: pictures: L; each halves the sides.
        halvings: pictures: how often the first level halves them, before its steps; the paper has 1.
        steps: K, of each level (of points: in all).
        width: pictures: channels of the networks' hidden layers.
        hidden: pictures: convolutions between the first and the last of a network.
        hidden_kernel: pictures: of these.
        coupling: ``sigmoid`` (affine, the paper's), ``additive``, or ``tanh`` (affine, RealNVP's).
        least_scale: ``sigmoid``: added to the scale, so that samples are never stretched by more than its inverse; the
            paper has 0.
        lu: whether 1x1 convolutions are kept as a product of triangular matrices.
        widths: points: hidden layers of each network.
        conditional: learn the labels of the data as well.
        label_drop: conditional: share of examples that are learned without their label.
    """

    scale: Scale = "linear"
    levels: int = 3
    halvings: int = 1
    steps: int = 32
    width: int = 512
    hidden: int = 1
    hidden_kernel: int = 1
    coupling: Kind = "sigmoid"
    least_scale: float = 1e-3
    lu: bool = True
    widths: tuple[int, ...] = (128, 128)
    conditional: bool = False
    label_drop: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.levels, self.halvings, self.steps, self.width) < 1 or min(self.widths, default=0) < 1:
            raise ValueError("levels, halvings, steps, width and widths must be positive")
        if self.hidden < 0 or self.hidden_kernel not in (1, 3):
            raise ValueError("hidden must not be negative, and hidden_kernel is 1 or 3")
        if not 0 <= self.least_scale < 1:
            raise ValueError("least_scale lies between 0 and 1")
        if not 0 < self.label_drop < 1:
            raise ValueError("label_drop lies between 0 and 1")


class Glow(Flow[GlowConfig]):
    """Steps of actnorm, 1x1 convolution and coupling at several levels."""

    Config = GlowConfig

    def __init__(self, config: GlowConfig, spec: ImageSpec | PointsSpec) -> None:
        check_coordinates(spec)
        classes = classes_of(spec, config.conditional)
        build = _pictures if isinstance(spec, ImageSpec) else _points
        super().__init__(config, spec, build(config, spec, classes), classes, config.label_drop)


def _step(channels: int, net: nn.Module, c: GlowConfig) -> list[Layer]:
    return [ActNorm(channels), Mixing(channels, lu=c.lu), Halves(net, move(c.coupling, channels // 2, c.least_scale))]


def _outputs(c: GlowConfig) -> int:
    """Of a network, for each value that is moved."""
    return 1 if c.coupling == "additive" else 2


def _pictures(c: GlowConfig, spec: ImageSpec | PointsSpec, classes: int) -> MultiScale:
    assert isinstance(spec, ImageSpec)
    halvings = c.levels + c.halvings - 1
    check_halvings(spec.height, spec.width, halvings, "config.levels" if c.halvings == 1 else "config.halvings")
    channels, levels, factors = spec.channels, [], []
    for level in range(c.levels):
        steps: list[Layer] = []
        for _ in range(1 if level else c.halvings):
            steps.append(Squeeze(channels))
            channels *= 4
        for _ in range(c.steps):
            net = GlowNet(channels // 2, c.width, _outputs(c) * channels // 2, hidden=c.hidden, kernel=c.hidden_kernel)
            steps += _step(channels, net, c)
        levels.append(steps)
        if level < c.levels - 1:
            factors.append(Factor(channels, learned=True))
            channels //= 2
    return MultiScale(spec.shape, levels, factors, LearnedNormal(channels, classes))


def _points(c: GlowConfig, spec: ImageSpec | PointsSpec, classes: int) -> MultiScale:
    assert isinstance(spec, PointsSpec)
    dims, layers = spec.dims, []
    for _ in range(c.steps):
        layers += _step(dims, Perceptron((dims + 1) // 2, c.widths, _outputs(c) * (dims // 2)), c)
    return MultiScale((dims,), [layers], [], LearnedNormal(dims, classes))
