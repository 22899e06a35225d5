"""Non-linear independent components estimation.

Paper
    Dinh, Krueger & Bengio 2014, "NICE: Non-linear Independent Components Estimation" (arXiv:1410.8516): additive
    couplings (section 3.2), a diagonal scaling at the end (section 3.3), independent logistic or Gaussian components
    (section 3.4). Even and odd dimensions take turns:

        y_stay = x_stay,  y_move = x_move + m(x_stay);    log p(x) = sum_d [log p_H(s_d h_d(x)) + log s_d]

What differs, and why
    Latents are those of the components' standard normal quantiles, so that walks and temperatures mean what they mean
    in every other system; densities and samples do not change with it.
    The last layer of each m starts at zero, so training begins with the independent model. Pictures of few values are
    dequantised over these; the paper adds noise of 1/256, and measures densities on [0, 1]^D.

Expected: see ``recipes/nice.py`` and the system's page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.flows.base import Flow, FlowConfig, check_coordinates
from castalia.models.flows.conditioners import Perceptron
from castalia.models.flows.couplings import Additive, Halves
from castalia.models.flows.layers import Diagonal, Layer
from castalia.models.flows.multiscale import MultiScale
from castalia.models.flows.priors import Logistic, StandardNormal
from castalia.models.flows.units import Scale


@dataclass(frozen=True)
class NICEConfig(FlowConfig):
    """Configuration of NICE.

    Attributes:
        couplings: additive couplings; the paper has 4.
        widths: hidden layers of each; the paper has five of 1,000 for MNIST.
        prior: of the components.
    """

    scale: Scale = "linear"
    couplings: int = 4
    widths: tuple[int, ...] = (1000,) * 5
    prior: Literal["logistic", "gaussian"] = "logistic"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.couplings < 1 or not self.widths or min(self.widths) < 1:
            raise ValueError("couplings and widths must be positive")


class NICE(Flow[NICEConfig]):
    """Additive couplings of all values as one vector, a scaling, independent components."""

    Config = NICEConfig

    def __init__(self, config: NICEConfig, spec: ImageSpec | PointsSpec) -> None:
        check_coordinates(spec)
        dims = math.prod(spec.shape)
        even, odd = (dims + 1) // 2, dims // 2
        layers: list[Layer] = []
        for i in range(config.couplings):
            stays, moves = (odd, even) if i % 2 else (even, odd)
            net = Perceptron(stays, config.widths, moves)
            layers.append(Halves(net, Additive(), swap=bool(i % 2), interleaved=True))
        prior = Logistic() if config.prior == "logistic" else StandardNormal()
        super().__init__(config, spec, MultiScale((dims,), [[*layers, Diagonal(dims)]], [], prior))
