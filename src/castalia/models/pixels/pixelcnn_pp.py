"""PixelCNN++: pictures pixel by pixel, a mixture of logistics for each.

Papers
    Salimans, Karpathy, Chen & Kingma 2017, "PixelCNN++" (arXiv:1701.05517): eq. 1 and 2 (discretised logistics), eq. 3
    (channels within a pixel), section 2.3 to 2.5 and figure 2 (the network), section 2.6 (dropout).
    Salimans & Kingma 2016, "Weight Normalization" (arXiv:1602.07868): gains and their start on data.
    Ramachandran et al. 2017, "Fast Generation for Convolutional Autoregressive Models" (arXiv:1704.06001):
    ``streams.py``.

Equations
    p(x_i | C_i) = sum_k pi_k [sigma((x_i + 1/255 - mu_k) / s_k) - sigma((x_i - 1/255 - mu_k) / s_k)],
    with -inf and +inf at the ends, and for the channels of a pixel
    mu_G = mu_G(C) + alpha(C) r,    mu_B = mu_B(C) + beta(C) r + gamma(C) g.

What differs, and why
    Where the authors' code falls back to a density for narrow bins, the mass of every bin is computed
    (``nn/likelihoods.py``); drawn channels are rounded to values before the next depends on them.
    The logarithm of a scale is at least -7, as in the authors' code.
    Data that hold few evenly spaced values have bins for these alone. ``likelihood="bernoulli"`` is for binary
    pictures: channels of a pixel are independent then, given all pixels before.
    What is moved down a row, or to the right, begins with the bias and not with zeros.
    The last layer starts small, around components at the quantiles of the data's values.

Expected: see ``recipes/pixelcnn_pp.py`` and the system's page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from castalia.core.errors import UsageError
from castalia.core.specs.image import ImageSpec
from castalia.models.pixels.base import PixelConfig, PixelModel
from castalia.models.pixels.streams import Resnet, Streams


@dataclass(frozen=True)
class PixelCNNPPConfig(PixelConfig):
    """Configuration of a PixelCNN++.

    Attributes:
        likelihood: ``logistic``, a mixture for all channels of a pixel, or ``bernoulli`` for binary pictures.
        maps: of both streams.
        resnets: residual layers of a level on the way down; on the way up as many, and one more below the top.
        levels: sizes of the picture, each half the one before.
        dropout: share that is dropped in every residual layer.
    """

    likelihood: Literal["softmax", "bernoulli", "logistic"] = "logistic"
    maps: int = 32
    resnets: int = 2
    levels: int = 3
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.maps, self.resnets, self.levels) < 1 or not 0 <= self.dropout < 1:
            raise ValueError("maps, resnets and levels must be positive, dropout a share below 1")
        if self.likelihood == "softmax":
            raise ValueError("a softmax is what pixelcnn has; likelihood is logistic or bernoulli")


class PixelCNNPP(PixelModel[PixelCNNPPConfig]):
    """p(x_i | all pixels before) by two streams of gated residual layers, at several sizes."""

    Config = PixelCNNPPConfig
    shard_units = (Resnet,)

    def __init__(self, config: PixelCNNPPConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec, looks=1)
        c = config
        if min(spec.height, spec.width) < 2 ** (c.levels - 1):
            raise UsageError(
                f"pictures of {spec.height}x{spec.width} are too small for {c.levels} levels; give fewer config.levels"
            )
        self.network = Streams(spec.channels, c.maps, c.resnets, c.levels, c.dropout, self.values.maps, self.classes)
