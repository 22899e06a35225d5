"""Residual blocks without normalisation: the last layer starts at zero, so a block starts as the identity.

He et al. 2016 (arXiv:1603.05027, pre-activation); zero start: Zhang et al. 2019 (arXiv:1901.09321). No batch
statistics: an example never depends on its neighbours.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Activation = Literal["relu", "silu", "elu", "tanh"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "elu": nn.ELU, "tanh": nn.Tanh}


class ResidualConv(nn.Module):
    """Two 3x3 convolutions around a skip; shape (B, channels, H, W) in and out."""

    def __init__(self, channels: int, activation: Activation) -> None:
        super().__init__()
        act = ACTIVATIONS[activation]
        self.body = nn.Sequential(
            act(),
            nn.Conv2d(channels, channels, 3, padding=1),
            act(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        last = self.body[3]
        assert isinstance(last, nn.Conv2d)
        nn.init.zeros_(last.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)
