"""Neural spline flow.

Paper
    Durkan, Bekasov, Murray & Papamakarios 2019, "Neural Spline Flows" (arXiv:1906.04032). Every value is moved by a
    monotone rational-quadratic spline (splines.py) whose knots and slopes a network computes: of half of the values
    (RQ-NSF (C), a coupling) or of all before it (RQ-NSF (AR), masked). A step is

        an invertible linear map, P L U        a spline for each value, (C) or (AR)               (section 4.1)

    and the flow ends with one more linear map. In couplings the values that stay are moved too, by splines that are the
    same for all examples. Pictures: steps of activation norm, 1x1 convolution and coupling at several scales, as in
    Glow (section 4.3 and appendix B.3).

What differs, and why
    The linear maps start as a random rotation and not as a permutation. Dropout is off in the defaults.
    Pictures: residual networks of 3x3 convolutions throughout; half of the channels leaves with learned Gaussians.
    Where the flow begins as the identity (the last layer of every network starts at zero) and data are standardised,
    nearly all of them lie inside of the bound.

Expected: see ``recipes/nsf.py`` and the system's page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from castalia.core.errors import UsageError
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.flows.autoregressive import Autoregressive
from castalia.models.flows.base import Flow, FlowConfig, check_coordinates
from castalia.models.flows.conditioners import ResidualMaps, ResidualPerceptron
from castalia.models.flows.couplings import Halves
from castalia.models.flows.layers import ActNorm, Layer, Mixing, Squeeze
from castalia.models.flows.multiscale import MultiScale, check_halvings
from castalia.models.flows.priors import Factor, LearnedNormal, StandardNormal
from castalia.models.flows.splines import Spline
from castalia.models.flows.units import Scale
from castalia.nn.labels import classes_of
from castalia.nn.made import MADE


@dataclass(frozen=True)
class NSFConfig(FlowConfig):
    """Configuration of a neural spline flow.

    Attributes:
        kind: ``coupling`` or ``autoregressive`` (points only).
        steps: of points in all, of pictures at each scale.
        bins: K, segments of a spline; the paper has 8, and 4 for pictures.
        bound: B; beyond it values are moved by the linear maps alone.
        width: of the networks.
        blocks: residual blocks of each.
        dropout: share of units dropped in them, in training.
        levels: pictures: scales; each halves the sides.
        conditional: learn the labels of the data as well (``autoregressive``, and pictures).
        label_drop: conditional: share of examples that are learned without their label.
    """

    scale: Scale = "linear"
    kind: Literal["coupling", "autoregressive"] = "coupling"
    steps: int = 10
    bins: int = 8
    bound: float = 3.0
    width: int = 256
    blocks: int = 2
    dropout: float = 0.0
    levels: int = 3
    conditional: bool = False
    label_drop: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.steps, self.width, self.levels) < 1 or self.blocks < 0:
            raise ValueError("steps, width and levels must be positive, blocks must not be negative")
        if not 0 <= self.dropout < 1 or not 0 < self.label_drop < 1:
            raise ValueError("dropout lies in [0, 1), label_drop between 0 and 1")
        Spline(self.bins, self.bound)


class NSF(Flow[NSFConfig]):
    """Steps of a linear map and splines."""

    Config = NSFConfig

    def __init__(self, config: NSFConfig, spec: ImageSpec | PointsSpec) -> None:
        classes = classes_of(spec, config.conditional)
        if config.kind == "coupling":
            check_coordinates(spec)
        if isinstance(spec, ImageSpec):
            if config.kind == "autoregressive":
                raise UsageError("Autoregressive splines are for points; for pictures set config.kind=coupling.")
            layers = _pictures(config, spec, classes)
        elif config.kind == "coupling":
            layers = _points(config, spec.dims, classes)
        else:
            layers = _one_by_one(config, spec.dims, classes)
        super().__init__(config, spec, layers, classes, config.label_drop)


def _points(c: NSFConfig, dims: int, classes: int) -> MultiScale:
    layers: list[Layer] = []
    for _ in range(c.steps):
        spline, stays = Spline(c.bins, c.bound), (dims + 1) // 2
        net = ResidualPerceptron(stays, c.width, spline.outputs * (dims // 2), c.blocks, c.dropout)
        layers += [Mixing(dims, lu=True), Halves(net, spline, bent=stays)]
    prior = LearnedNormal(dims, classes) if classes else StandardNormal()
    return MultiScale((dims,), [[*layers, Mixing(dims, lu=True)]], [], prior)


def _one_by_one(c: NSFConfig, dims: int, classes: int) -> MultiScale:
    layers: list[Layer] = []
    for _ in range(c.steps):
        spline = Spline(c.bins, c.bound)
        widths = (c.width,) * (2 * c.blocks + 1)
        net = MADE(dims, widths, spline.outputs, context=classes, residual=True, dropout=c.dropout)
        layers += [Mixing(dims, lu=True), Autoregressive(net, spline, classes)]
    return MultiScale((dims,), [[*layers, Mixing(dims, lu=True)]], [], StandardNormal())


def _pictures(c: NSFConfig, spec: ImageSpec, classes: int) -> MultiScale:
    check_halvings(spec.height, spec.width, c.levels, "config.levels")
    channels, levels, factors = spec.channels, [], []
    for level in range(c.levels):
        channels *= 4
        steps: list[Layer] = [Squeeze(channels // 4)]
        for _ in range(c.steps):
            spline, half = Spline(c.bins, c.bound), channels // 2
            net = ResidualMaps(half, c.width, spline.outputs * half, c.blocks, c.dropout)
            steps += [ActNorm(channels), Mixing(channels, lu=True), Halves(net, spline)]
        levels.append(steps)
        if level < c.levels - 1:
            factors.append(Factor(channels, learned=True))
            channels //= 2
    return MultiScale(spec.shape, levels, factors, LearnedNormal(channels, classes))
