"""PixelRNN: pictures pixel by pixel, by LSTMs over rows or diagonals.

Paper
    van den Oord, Kalchbrenner & Kavukcuoglu 2016, "Pixel Recurrent Neural Networks" (arXiv:1601.06759): eq. 1 and 2
    (the chain rule over pixels and channels), section 3.1 (Row LSTM), 3.2 (Diagonal BiLSTM), eq. 3 (the cell), 3.3
    (residual connections), 3.4 (masks), table 1 (the layers).

Equations
    p(x) = prod_i p(x_i | x_<i),    p(x_i | x_<i) = p(x_i,R | x_<i) p(x_i,G | x_<i, x_i,R) p(x_i,B | x_<i, x_i,R, x_i,G)
    [o, f, i, g] = sigma(K_ss * h_before + K_is * x),   c = f c_before + i g,   h = o tanh(c)

What differs, and why
    Before the first pixel of a row the diagonal LSTM has no state, where a skewed picture would have that of its
    padding: drawing needs no padding then.
    The bias of the forget gates starts at 1 (Jozefowicz et al. 2015), the last bias at the frequencies of values.
    Labels, which the paper does not have, are added to the gates, as PixelCNN has them.
    There is no multi-scale PixelRNN (section 3.6).

Expected: see ``recipes/pixelrnn.py`` and the system's page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from castalia.core.specs.image import ImageSpec
from castalia.models.pixels.base import PixelConfig, PixelModel
from castalia.models.pixels.lstms import DiagonalLSTM, Recurrent, RowLSTM


@dataclass(frozen=True)
class PixelRNNConfig(PixelConfig):
    """Configuration of a PixelRNN.

    Attributes:
        network: ``row`` (Row LSTM) or ``diagonal`` (Diagonal BiLSTM).
        maps: h, of an LSTM, a multiple of the picture's channels; the residual path has 2h.
        layers: of LSTMs.
        first: kernel of the first convolution; odd.
        kernel: row: of the LSTM's convolutions along a row; odd.
        head: maps of the layer before the outputs, a multiple of the picture's channels.
    """

    network: Literal["row", "diagonal"] = "row"
    maps: int = 16
    layers: int = 4
    first: int = 7
    kernel: int = 3
    head: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.maps, self.layers, self.head) < 1:
            raise ValueError("maps, layers and head must be positive")
        if self.first < 3 or self.kernel < 3 or self.first % 2 == 0 or self.kernel % 2 == 0:
            raise ValueError("first and kernel are odd numbers from 3 up")
        if self.likelihood == "logistic":
            raise ValueError("a mixture of logistics is what pixelcnn-pp has; likelihood is softmax or bernoulli")


class PixelRNN(PixelModel[PixelRNNConfig]):
    """p(x_i | all pixels before) by recurrent layers."""

    Config = PixelRNNConfig
    shard_units = (RowLSTM, DiagonalLSTM)

    def __init__(self, config: PixelRNNConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        c = config
        maps, head = (-(-size // spec.channels) * spec.channels for size in (c.maps, c.head))
        self.network = Recurrent(
            c.network, spec.channels, maps, c.layers, c.first, c.kernel, head, self.values.maps, self.classes
        )
