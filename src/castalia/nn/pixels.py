"""Pictures of 256 values as numbers in [-1, 1], for systems that know no other values."""

from __future__ import annotations

import torch
from torch import Tensor


def inward(x: Tensor) -> Tensor:
    """Pictures ``uint8`` to ``float32`` in [-1, 1]."""
    return x.float() / 127.5 - 1


def outward(x: Tensor) -> Tensor:
    """The inverse, rounded and clipped."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
