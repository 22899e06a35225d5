"""A network that looks at pictures in their natural units."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from torch import Tensor, nn


@final
class Seeing(nn.Module):
    """A network behind the change of units that it needs; its layers keep their names behind ``layers``.

    Args:
        layers: the network, called with what ``inside`` returns.
        inside: from pictures ``float32`` (B, C, H, W), 0 to 255, to what the network sees. Gradients flow through it.
        beside: what else the network is called with, from the number of pictures: labels. None: nothing.
    """

    def __init__(
        self,
        layers: nn.Module,
        inside: Callable[[Tensor], Tensor],
        beside: Callable[[int], Tensor | None] | None = None,
    ) -> None:
        super().__init__()
        self.layers, self.inside, self.beside = layers, inside, beside

    def forward(self, x: Tensor) -> Tensor:
        seen = self.inside(x)
        return self.layers(seen) if self.beside is None else self.layers(seen, self.beside(len(x)))
