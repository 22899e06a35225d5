"""Masked autoregressive flow.

Papers
    Papamakarios, Pavlakou & Murray 2017, "Masked Autoregressive Flow for Density Estimation" (arXiv:1705.07057):

        y_i = (x_i - mu_i) exp(-alpha_i),   (mu_i, alpha_i) = MADE(x_1 ... x_i-1, class)          (eq. 3 to 5)

    Layers in turn see the values in their own and in the opposite order, with batch normalisation between them (section
    3.4, appendix B). MAF MoG: what the last layer gives is not standard normal, but a mixture of Gaussians whose
    parameters another MADE computes (section 4.1). MADE itself, with Gaussians or with mixtures, is the first layer
    alone, or the mixture alone: Germain et al. 2015 (arXiv:1502.03509).

What differs, and why
    exp(-alpha) is exp(-c tanh(a)) with a learned c, as in RealNVP: what was never seen cannot become infinite.
    Latents stay standard normal with mixtures too: a latent is the quantile at which its mixture has the value.
    Training normalises with the batch's statistics and evaluation with running ones; the paper's code sets those to
    statistics of the whole training set.
    A sample takes the work of one pass (``castalia/nn/made.py``): public code takes one for each value.

Expected: see ``recipes/maf.py`` and the system's page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.flows.autoregressive import Autoregressive
from castalia.models.flows.base import Flow, FlowConfig
from castalia.models.flows.couplings import TanhAffine
from castalia.models.flows.layers import BatchNorm, Layer
from castalia.models.flows.mixtures import Mixture
from castalia.models.flows.multiscale import MultiScale
from castalia.models.flows.priors import StandardNormal
from castalia.models.flows.units import Scale
from castalia.nn.labels import classes_of
from castalia.nn.made import MADE


@dataclass(frozen=True)
class MAFConfig(FlowConfig):
    """Configuration of a masked autoregressive flow.

    Attributes:
        layers: Gaussian MADEs, one behind the other; the paper has 5 or 10.
        widths: hidden layers of each; the paper has one of 1,024 for pictures of digits.
        activation: of these.
        components: of the mixture that ends the flow (MAF MoG); 0 for a standard normal.
        normalise: batch-normalise between the layers.
        conditional: learn the labels of the data as well.
        label_drop: conditional: share of examples that are learned without their label.
    """

    scale: Scale = "logit"
    layers: int = 5
    widths: tuple[int, ...] = (512, 512)
    activation: Literal["relu", "tanh", "elu"] = "relu"
    components: int = 0
    normalise: bool = True
    conditional: bool = False
    label_drop: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.layers, self.components) < 0 or not self.layers + self.components:
            raise ValueError("layers and components must not be negative, and one of them positive")
        if not self.widths or min(self.widths) < 1:
            raise ValueError("widths must be positive")
        if not 0 < self.label_drop < 1:
            raise ValueError("label_drop lies between 0 and 1")


class MAF(Flow[MAFConfig]):
    """Every value moved as those before it say, in several orders."""

    Config = MAFConfig

    def __init__(self, config: MAFConfig, spec: ImageSpec | PointsSpec) -> None:
        c, dims, classes = config, math.prod(spec.shape), classes_of(spec, config.conditional)
        layers: list[Layer] = []

        def net(outputs: int) -> MADE:
            order = range(1, dims + 1)
            if len(layers) // (2 if c.normalise else 1) % 2:
                order = order[::-1]
            return MADE(dims, c.widths, outputs, order=order, context=classes, activation=c.activation)

        for _ in range(c.layers):
            layers.append(Autoregressive(net(2), TanhAffine(1), classes))
            layers += [BatchNorm(dims, 0)] if c.normalise else []
        if c.components:
            layers.append(Autoregressive(net(3 * c.components), Mixture(c.components), classes))
        elif c.normalise:
            layers.pop()  # nothing follows that would want it
        prior = StandardNormal()
        super().__init__(config, spec, MultiScale((dims,), [layers], [], prior), classes, c.label_drop)
