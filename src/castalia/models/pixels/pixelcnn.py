"""PixelCNN: pictures pixel by pixel, by convolutions that look back.

Papers
    van den Oord, Kalchbrenner & Kavukcuoglu 2016, "Pixel Recurrent Neural Networks" (arXiv:1601.06759): eq. 1 and 2
    (the chain rule over pixels and channels), section 3.4 (masks), figure 5 and table 1 (``network="plain"``).
    van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders" (arXiv:1606.05328): eq. 2 and figure
    2 (gates, two stacks without a blind spot), eq. 4 (labels): ``network="gated"``.

Equations
    p(x) = prod_i p(x_i | x_<i),    p(x_i | x_<i) = p(x_i,R | x_<i) p(x_i,G | x_<i, x_i,R) p(x_i,B | x_<i, x_i,R, x_i,G)
    y = tanh(W_f * x + V_f h) . sigmoid(W_g * x + V_g h)    in each layer of both stacks, h the label.

What differs, and why
    The last bias starts at the frequencies of values, so that training starts from the model of independent values.
    Taps that a mask would zero are left out where a whole row of the kernel is; the numbers are the same (``taps.py``).
    Labels may be dropped in training, as Ho & Salimans 2022 (arXiv:2207.12598) do it, so that ``guidance`` has a model
    without them.
    A channel's outputs are for the values that the data hold, where these are few.
    ``places``: the first layer is told where it is, by a learned map: the location-dependent V * s of section 2.3 of
    the second paper without an h.

Expected: see ``recipes/pixelcnn.py`` and the system's page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from castalia.core.specs.image import ImageSpec
from castalia.models.pixels.base import PixelConfig, PixelModel
from castalia.models.pixels.stacks import Block, Gated, GatedLayer, Plain


@dataclass(frozen=True)
class PixelCNNConfig(PixelConfig):
    """Configuration of a PixelCNN.

    Attributes:
        network: ``gated`` (two stacks, no blind spot) or ``plain`` (masked convolutions).
        maps: of a layer, a multiple of the picture's channels: p of both stacks; plain: h, its residual path has 2h.
        layers: gated layers, the first among them; plain: residual blocks after the first convolution.
        first: kernel of the first convolution; odd.
        kernel: of the others; odd.
        head: maps of the layer before the outputs, a multiple of the picture's channels.
        places: learn what each place of the picture adds before the first gates (plain: to the first maps). A network
            that sees ten rows does not know otherwise whether it is at the top or at the bottom of a picture.
    """

    network: Literal["gated", "plain"] = "gated"
    maps: int = 48
    layers: int = 8
    first: int = 7
    kernel: int = 3
    head: int = 96
    places: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.maps, self.layers, self.head) < 1:
            raise ValueError("maps, layers and head must be positive")
        if self.first < 3 or self.kernel < 3 or self.first % 2 == 0 or self.kernel % 2 == 0:
            raise ValueError("first and kernel are odd numbers from 3 up")
        if self.likelihood == "logistic":
            raise ValueError("a mixture of logistics is what pixelcnn-pp has; likelihood is softmax or bernoulli")


class PixelCNN(PixelModel[PixelCNNConfig]):
    """p(x_i | all pixels before) by masked convolutions."""

    Config = PixelCNNConfig
    shard_units = (Block, GatedLayer)

    def __init__(self, config: PixelCNNConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        c = config
        kind = Gated if c.network == "gated" else Plain
        maps, head = (-(-size // spec.channels) * spec.channels for size in (c.maps, c.head))
        size = (spec.height, spec.width) if c.places else None
        self.network = kind(
            spec.channels, maps, c.layers, c.first, c.kernel, head, self.values.maps, self.classes, size
        )
